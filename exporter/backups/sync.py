"""Keeping what is known of one instance's backups up to date: what to ask next."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from exporter.backups.late import LateCheck, Vanishing, compare
from exporter.backups.listing import PAGE_ROWS, Client, Lister, Listing
from exporter.backups.reading import Sums, read, read_latest
from exporter.backups.resync import Resync, Retry
from exporter.backups.search import find_last
from exporter.backups.whole import FirstLook, Whole, WholeListing
from exporter.backups.window import (
    SECOND,
    Filter,
    Window,
    build_window,
    increment_begin,
    listing_begin,
    merge,
    reaches_settled,
    with_previous,
)
from exporter.errors import ApiError, DeadlineError
from exporter.models import Backup, Instance, Progress, Reading
from exporter.transport.query import Query

log = structlog.get_logger(__name__)

# After a start this much is asked for first: three dozen backups, one every five minutes.
FIRST_LOOK_SECONDS = 10_800.0
# Of a listing that is older than this, it is asked what is new since it began.
_FRESH_SECONDS = 5.0


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
        origin: object = None,
    ) -> None:
        """`origin` tells where and as whom the instance is read: what is known is known of that."""
        self._instance = instance
        self._client = client
        self._clock = clock
        self._asks = origin, instance.lookback_seconds, instance.offsite
        self._window: Window | None = None
        self._sums: Sums | None = None
        self._whole = WholeListing(instance.lookback_seconds)
        self._listed: Whole | None = None
        self._refreshed_at = float("-inf")  # when the last refresh began
        self._known_at = float("-inf")  # when the last one that succeeded had its numbers
        self._resync = Resync(instance, resync_interval)
        self._is_listing = False
        self._vanishing = Vanishing(Retry(longest=resync_interval))
        self._look_back = Retry(longest=resync_interval)
        self._late_check = LateCheck(instance.key)

    def wants_listing(self) -> bool:
        """Whether there is something for `list_window` to do, which is waited for from now on."""
        if self._listed is not None:
            return False
        now = self._clock()
        if self._resync.is_due(now) or not self.is_listed():
            self._resync.want(now)
            return True
        return self._has_hole(now)

    def is_listed(self) -> bool:
        """Whether the whole window is known."""
        if self._listed is not None:
            return True
        return self._window is not None and self._window.covers(self._clock())

    @property
    def progress(self) -> Progress | None:
        return self._whole.progress

    def adopt(self, previous: "InstanceSync") -> bool:
        """Go on from what `previous` knows, if it asked the same, there, and as the same."""
        if previous._asks != self._asks:
            return False
        self._window, self._sums = previous._window, previous._sums
        # A copy: the query of `previous` may still be reading its pages.
        self._whole, self._listed = previous._whole.copy(), previous._listed
        self._refreshed_at, self._known_at = previous._refreshed_at, previous._known_at
        self._resync.adopt(previous._resync, self._clock())
        self._vanishing = previous._vanishing.copy()
        self._late_check = replace(previous._late_check)
        self._look_back = replace(previous._look_back)
        return True

    # What is new ------------------------------------------------------------------------------

    async def refresh(self, query: Query, *, waited: bool = False) -> Reading:
        """Ask the API what is new and return the numbers as of now.

        Those that take the whole window are None where it has not been listed yet, or where
        history has changed. Where it should have been listed long ago it is tried first.
        `waited`: the query has waited for `list_window`, whose numbers may be new enough.
        """
        if self.is_listed() and not self._resync.is_believed(self._clock()):
            if self._is_listing:
                raise self._resync.failure()
            await self.list_window(query)
        lister = Lister(self._client, self._instance, query)
        listed, self._listed = self._listed, None
        refreshed_before, self._refreshed_at = self._refreshed_at, self._clock()
        if listed is not None:
            self._window, self._known_at = listed.window, listed.as_of
            age = self._refreshed_at - listed.as_of
            if waited and 0 <= age <= _FRESH_SECONDS and refreshed_before <= listed.as_of:
                return await self._read(listed.window, listed.complete, lister)
        return await self._look(lister)

    async def _look(self, lister: Lister) -> Reading:
        window, now = self._window, self._clock()
        if (
            window is None
            # What is new may be more than a whole window.
            or self._known_at < listing_begin(now, window.lookback_seconds)
            or not (window.covers(now) or window.knows_latest(now))
        ):
            self._window = None
            return await self._look_first(lister)
        return await self._look_again(window, lister)

    async def _look_first(self, lister: Lister) -> Reading:
        """The latest backup, with the whole window still to be listed."""
        listing, rows, complete = await lister.list_new(_first_look_begin, self._clock)
        return await self._begin_with(listing, rows, complete, lister)

    async def _begin_with(
        self, listing: Listing, rows: Mapping[str, Backup], complete: bool, lister: Lister
    ) -> Reading:
        """The latest backup, of which nothing is known but the rows of a listing of late."""
        window = build_window(
            rows.values(),
            now=listing.started,
            lookback_seconds=self._instance.lookback_seconds,
            complete=False,
            begin=listing.begin,
        )
        if window.knows_latest(self._clock()):
            self._whole.go_without(FirstLook(listing.begin, listing.started, rows, complete))
        return await self._tell_or_look_further(window, lister)

    async def _tell_or_look_further(self, window: Window, lister: Lister) -> Reading:
        if window.knows_latest(self._clock()):
            return self._tell_latest(window)
        return await self._look_further(window, lister)

    async def _look_further(self, window: Window, lister: Lister) -> Reading:
        """The latest backup where none has ended of late: one page may have the whole window."""
        now = self._clock()
        first = await lister.fetch_first(self._whole.begin(now))
        if len(first.rows) < PAGE_ROWS and (first.total_count or 0) <= len(first.rows):
            await self.list_window(lister.query)
            return await self.refresh(lister.query, waited=True)
        backup, _ = await find_last(lister, now + SECOND)
        return self._tell_latest(with_previous(window, backup, now=now))

    async def _look_again(self, window: Window, lister: Lister) -> Reading:
        """The numbers after one look at what is new."""
        if window.filter_matters:
            window = self._window = replace(window, filter=await _find_filter(window, lister))

        def begin_at(now: float) -> float:
            begin = increment_begin(window, now)
            if reaches_settled(window, begin):
                self._resync.hasten()  # without their ids nobody notices if such rows vanish
            return self._late_check.begin(window, begin, now)

        listing, rows, complete = await lister.list_new(begin_at, self._clock)
        updated, vanished = (
            compare(window, rows, listing.begin, listing.end) if complete else (window, None)
        )
        if vanished is not None and self._vanishing.is_believed(listing.started):
            self._forget(vanished)
            return await self._begin_with(listing, rows, complete, lister)
        is_sure = complete and vanished is None
        updated = merge(updated, rows.values(), now=listing.started, complete=is_sure)
        return await self._read(updated, is_sure, lister)

    def _forget(self, vanished: Backup) -> None:
        """History has changed: the instance was restored, or backups were deleted."""
        log.info(
            "a known backup is not listed any more, listing the whole window anew",
            project=self._instance.project_id,
            instance=self._instance.id,
        )
        self._window = None
        self._whole.drop()
        self._vanishing.backup = vanished

    async def _read(self, window: Window, complete: bool, lister: Lister) -> Reading:
        """The numbers of `window`, with the latest backup before it where it has none."""
        now = self._clock()
        if window.covers(now) and not window.knows_latest(now):
            # The day before the lookback is listed too, but a longer backup may have ended later.
            backup, certain = await find_last(lister, now - window.lookback_seconds)
            window = with_previous(window, backup, now=now)
            complete = complete and certain
            now = self._clock()
        if not window.covers(now):
            return await self._tell_or_look_further(window, lister)
        self._window, self._known_at = window, now
        reading, self._sums = read(window, now=now, complete=complete, known=self._sums)
        overdue = self._resync.overdue(now)
        if overdue is not None:
            return replace(reading, listing_complete=False, overdue=overdue)
        return reading

    def _tell_latest(self, window: Window) -> Reading:
        self._window, self._known_at = window, self._clock()
        return read_latest(window, now=self._known_at)

    # The whole window -------------------------------------------------------------------------

    async def list_window(self, query: Query) -> None:
        """List the whole window; the next refresh has the numbers.

        Where this is cut off or fails, the next call goes on from the pages that were read.
        """
        lister = Lister(self._client, self._instance, query)
        now = self._clock()
        self._is_listing = True
        try:
            if self._resync.is_due(now) or not self.is_listed():
                self._resync.want(now)
                await self._list_all(lister)
            if self._has_hole(self._clock()):
                await self._find_begin_of_hole(lister)
        except ApiError as exc:
            self._resync.fail(exc)
            raise
        finally:
            self._is_listing = False

    async def _list_all(self, lister: Lister) -> None:
        whole, rows = await self._whole.read(lister, self._clock())
        if whole is None:
            return  # another has been begun meanwhile, or history has changed
        self._listed = whole
        self._resync.succeed(self._clock(), complete=whole.complete)
        self._vanishing.judge(rows, self._clock())

    def _has_hole(self, now: float) -> bool:
        """Whether it is worth a look with what the first interval of the window begins."""
        window = self._listed.window if self._listed is not None else self._window
        return window is not None and window.lacks_previous(now) and self._look_back.is_due(now)

    async def _find_begin_of_hole(self, lister: Lister) -> None:
        """All other numbers are known: they do not fail with this one."""
        now = self._clock()
        try:
            backup, certain = await find_last(lister, now - self._instance.lookback_seconds)
        except DeadlineError:
            return
        except ApiError:
            certain = False
        if not certain:
            self._look_back.fail(now)
            return
        self._look_back.succeed()
        if self._listed is not None:
            window = with_previous(self._listed.window, backup, now=now)
            self._listed = replace(self._listed, window=window)
        elif self._window is not None:
            self._window = with_previous(self._window, backup, now=now)


def _first_look_begin(now: float) -> float:
    return now - FIRST_LOOK_SECONDS


async def _find_filter(window: Window, lister: Lister) -> Filter:
    """Ask for the moment at which the longest backup ended: is it shown?"""
    longest = window.longest
    assert longest is not None
    assert longest.end is not None
    page = await lister.fetch_page(longest.end - 2 * SECOND, longest.end + 2 * SECOND, 0)
    shown = any(row.id == longest.id for row in page.rows)
    return Filter.NOT_BY_BEGIN if shown else Filter.BY_BEGIN
