"""The listing of the whole window, which may take several scrapes."""

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.backups.listing import Lister, Listing
from exporter.backups.window import SECOND, Window, build_window, listing_begin
from exporter.models import Backup, Progress

# The pages of an unfinished listing are kept for so long; then it begins anew.
_PROGRESS_KEPT_SECONDS = 900.0
# Likewise the rows of the first look, which need not be listed again.
_FIRST_LOOK_KEPT_SECONDS = 3_600.0


@dataclass(frozen=True, slots=True)
class FirstLook:
    """All rows since `begin`, as they were at `started`: the whole listing does without them."""

    begin: float
    started: float
    rows: Mapping[str, Backup]
    complete: bool


@dataclass(frozen=True, slots=True)
class Whole:
    """The whole window as it was at `as_of`."""

    window: Window
    as_of: float
    complete: bool


class WholeListing:
    """Where it is cut off or fails, it goes on from the pages that were read."""

    def __init__(self, lookback_seconds: float) -> None:
        self._lookback_seconds = lookback_seconds
        self._listing: Listing | None = None
        self._first_look: FirstLook | None = None

    @property
    def progress(self) -> Progress | None:
        """How far it is, while it is under way."""
        return self._listing.progress if self._listing is not None else None

    def copy(self) -> "WholeListing":
        copy = WholeListing(self._lookback_seconds)
        copy._listing = self._listing.copy() if self._listing is not None else None
        copy._first_look = self._first_look
        return copy

    def go_without(self, look: FirstLook) -> None:
        """List no rows again that have just been listed."""
        self._first_look = look

    def drop(self) -> None:
        """What was read is no longer true."""
        self._listing = self._first_look = None

    def begin(self, now: float) -> Listing:
        """A new listing of the whole window, less what the first look has shown."""
        look = self._first_look
        if look is not None and not 0 <= now - look.started < _FIRST_LOOK_KEPT_SECONDS:
            look = self._first_look = None
        self._listing = Listing.since(listing_begin(now, self._lookback_seconds), now)
        if look is not None and look.begin > self._listing.begin:
            self._listing.end = look.begin + SECOND
        return self._listing

    async def read(self, lister: Lister, now: float) -> tuple[Whole | None, Mapping[str, Backup]]:
        """The window and its rows. None: it was dropped, or begun anew meanwhile."""
        listing = self._listing
        if (
            listing is None
            or not listing.pages
            or not 0 <= now - listing.started < _PROGRESS_KEPT_SECONDS
        ):
            listing = self.begin(now)
        look = self._first_look
        listed, complete = await lister.list_all(listing)
        if self._listing is not listing:
            return None, {}
        self._listing = self._first_look = None
        rows: Mapping[str, Backup] = listed.rows
        as_of = listing.started
        if look is not None and listing.end < look.started:
            rows = {**look.rows, **rows}
            as_of = look.started
            complete = complete and look.complete
        window = build_window(
            rows.values(),
            now=listing.started,
            lookback_seconds=self._lookback_seconds,
            complete=complete,
            listed_to=as_of,
        )
        return Whole(window, as_of, complete), rows
