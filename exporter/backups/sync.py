"""Keeping what is known of one instance's backups up to date: what to ask next."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from exporter.backups.listing import PAGE_ROWS, Client, Lister, Listing
from exporter.backups.search import find_latest
from exporter.backups.window import (
    Sums,
    Window,
    build_window,
    increment_begin,
    listing_begin,
    merge,
    read,
    read_latest,
    with_earlier,
)
from exporter.models import Backup, Instance, InstanceKey, Progress, Reading
from exporter.transport.query import Query

# After a start this much is asked for first: two dozen backups, one every five minutes.
FIRST_LOOK_SECONDS = 7_200.0
# Of a listing that is older than this, it is asked what is new since it began.
_FRESH_SECONDS = 5.0
# The pages of an unfinished listing are kept for so long; then it begins anew.
_PROGRESS_KEPT_SECONDS = 900.0
# Likewise the rows of the first look, which need not be listed again.
_FIRST_LOOK_KEPT_SECONDS = 3_600.0
_INCOMPLETE_RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _FirstLook:
    """All rows since `begin`, as they were at `started`: the whole listing does without them."""

    begin: float
    started: float
    rows: Mapping[str, Backup]
    complete: bool


@dataclass(frozen=True, slots=True)
class _Listed:
    """The whole window as it was at `as_of`; the next refresh goes on from it."""

    window: Window
    as_of: float
    complete: bool


def next_resync(key: InstanceKey, now: float, interval: float) -> float:
    """When the instance's whole window is due next. A hash spreads the instances over time."""
    digest = hashlib.blake2b("/".join(key).encode(), digest_size=8).digest()
    phase = int.from_bytes(digest) / 2**64
    when = (math.floor(now / interval - phase) + 1 + phase) * interval
    return when if when > now else when + interval


class InstanceSync:
    """One instance's window, kept exact with as few requests as that takes.

    `refresh` asks what is new and tells the numbers. `list_window` reads the whole window where
    that is due; it may take long, while `refresh` is called again and again. The latest backup
    is known before, from the first `refresh` on.
    """

    def __init__(
        self,
        instance: Instance,
        client: Client,
        *,
        clock: Callable[[], float],
        resync_interval: float,
    ) -> None:
        self._instance = instance
        self._client = client
        self._clock = clock
        self._resync_interval = resync_interval
        self._window: Window | None = None
        self._sums: Sums | None = None
        self._first_look: _FirstLook | None = None
        self._listing: Listing | None = None
        self._listed: _Listed | None = None
        self._refreshed_at = float("-inf")  # when the last refresh began
        self._resync_at = float("-inf")
        self._incomplete_listings = 0
        self._knows_latest = False

    def is_listing_due(self) -> bool:
        """Whether the whole window is to be listed, for the first time or anew."""
        now = self._clock()
        # Further away than an interval: the clock was wrong when it was planned.
        is_due = not now < self._resync_at <= now + self._resync_interval
        return self._listed is None and (is_due or not self.is_listed())

    def is_listed(self) -> bool:
        """Whether the whole window is known."""
        if self._listed is not None:
            return True
        return self._window is not None and self._window.covers(self._clock())

    @property
    def progress(self) -> Progress | None:
        """How far the listing of the whole window is, while there is one."""
        return self._listing.progress if self._listing is not None else None

    def adopt(self, previous: "InstanceSync") -> None:
        """Go on from what `previous` knows, if it was asked for the same."""
        before, now = previous._instance, self._instance
        if (before.lookback_seconds, before.offsite) != (now.lookback_seconds, now.offsite):
            return
        self._window = previous._window
        self._sums = previous._sums
        # A copy: the query of `previous` may still be reading its pages.
        self._listing = previous._listing.copy() if previous._listing is not None else None
        self._first_look = previous._first_look
        self._listed = previous._listed
        self._refreshed_at = previous._refreshed_at
        self._resync_at = min(
            previous._resync_at,
            next_resync(now.key, self._clock(), self._resync_interval),
        )
        self._incomplete_listings = previous._incomplete_listings
        self._knows_latest = previous._knows_latest

    async def refresh(self, query: Query) -> Reading:
        """Ask the API what is new and return the numbers as of now.

        Those that take the whole window are None where it has not been listed yet.
        """
        lister = Lister(self._client, self._instance, query)
        listed, self._listed = self._listed, None
        refreshed_before, self._refreshed_at = self._refreshed_at, self._clock()
        if listed is not None:
            self._window, self._knows_latest = listed.window, False
            age = self._refreshed_at - listed.as_of
            if 0 <= age <= _FRESH_SECONDS and refreshed_before <= listed.as_of:
                return await self._read(listed.window, listed.complete, lister)
        if self._window is None:
            return await self._look_first(lister)
        return await self._increment(self._window, lister)

    async def _look_first(self, lister: Lister) -> Reading:
        """The latest backup, with the whole window still to be listed."""
        now = self._clock()
        begin = now - FIRST_LOOK_SECONDS
        listed, complete = await lister.list_all(Listing.since(begin, now))
        if all(row.end is None for row in listed.rows.values()):
            return await self._look_further(lister, listed.rows)
        self._first_look = _FirstLook(begin, now, listed.rows, complete)
        self._window = self._build_partly(listed.rows, now)
        return self._read_latest(self._window)

    async def _look_further(self, lister: Lister, rows: Mapping[str, Backup]) -> Reading:
        """The latest backup where none has ended of late: one page may have the whole window."""
        now = self._clock()
        listing = self._begin_listing(now)
        first = await lister.fetch_first(listing)
        if len(first.rows) < PAGE_ROWS and (first.total_count or 0) <= len(first.rows):
            await self.list_window(lister.query)
            return await self.refresh(lister.query)
        window = self._build_partly(rows, now)
        earlier, _ = await find_latest(lister, now)
        if earlier is not None:
            window = with_earlier(window, earlier, now=now)
        self._window = window
        return self._read_latest(window)

    def _build_partly(self, rows: Mapping[str, Backup], now: float) -> Window:
        """A window of which the latest part is known and nothing else."""
        lookback = self._instance.lookback_seconds
        window = build_window(rows.values(), now=now, lookback_seconds=lookback, complete=False)
        return replace(window, covered_from=float("inf"))

    async def _increment(self, window: Window, lister: Lister) -> Reading:
        """The numbers after one look at what is new."""
        now = self._clock()
        listed, complete = await lister.list_all(Listing.since(increment_begin(window, now), now))
        window = merge(window, listed.rows.values(), now=now, complete=complete)
        if window.covers(now):
            return await self._read(window, complete, lister)
        self._window = window
        return self._read_latest(window)

    def _read_latest(self, window: Window) -> Reading:
        return read_latest(window, now=self._clock())

    async def list_window(self, query: Query) -> None:
        """List the whole window; the next refresh has the numbers.

        Where this is cut off or fails, the next call goes on from the pages that were read.
        """
        now = self._clock()
        listing = self._listing
        if (
            listing is None
            or not listing.pages
            or not 0 <= now - listing.started < _PROGRESS_KEPT_SECONDS
        ):
            listing = self._begin_listing(now)
        first_look = self._first_look
        listed, complete = await Lister(self._client, self._instance, query).list_all(listing)
        rows: Mapping[str, Backup] = listed.rows
        as_of = listing.started
        if first_look is not None and listing.end < first_look.started:
            rows = {**first_look.rows, **rows}
            as_of = first_look.started
            complete = complete and first_look.complete
        window = build_window(
            rows.values(),
            now=listing.started,
            lookback_seconds=self._instance.lookback_seconds,
            complete=complete,
        )
        if self._listing is not listing:
            return  # another has been begun meanwhile
        self._listing = self._first_look = None
        self._listed = _Listed(window, as_of, complete)
        self._schedule_resync(self._clock(), complete)

    def _begin_listing(self, now: float) -> Listing:
        """The whole window, less what the first look has shown."""
        begin = listing_begin(now, self._instance.lookback_seconds)
        look = self._first_look
        if look is not None and not 0 <= now - look.started < _FIRST_LOOK_KEPT_SECONDS:
            look = self._first_look = None
        self._listing = Listing.since(begin, now)
        if look is not None:
            # A second more: whether the bounds count is not documented.
            self._listing.end = look.begin + 1.0
        return self._listing

    def _schedule_resync(self, now: float, complete: bool) -> None:
        self._resync_at = next_resync(self._instance.key, now, self._resync_interval)
        if complete:
            self._incomplete_listings = 0
        else:
            # Worth another try soon, but not at every scrape: total_count may be wrong for good.
            wait = _INCOMPLETE_RETRY_SECONDS * 2.0 ** min(self._incomplete_listings, 16)
            self._incomplete_listings += 1
            self._resync_at = min(self._resync_at, now + wait)

    async def _read(self, window: Window, complete: bool, lister: Lister) -> Reading:
        """The numbers of `window`, with the latest backup before it where it has none."""
        now = self._clock()
        if window.latest_end(now) >= now - window.lookback_seconds:
            self._knows_latest = True  # a later one will be in a listing of what is new
        elif not self._knows_latest:
            # The day before the lookback is listed too, but a longer backup may have ended later.
            earlier, certain = await find_latest(lister, now)
            complete = complete and certain
            self._knows_latest = True
            if earlier is not None:
                window = with_earlier(window, earlier, now=now)
            now = self._clock()
        self._window = window
        reading, self._sums = read(window, now=now, complete=complete, known=self._sums)
        return reading
