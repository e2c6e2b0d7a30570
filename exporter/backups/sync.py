"""Keeping one instance's window: what to ask next, how to read a listing that moves."""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from exporter.backups.listing import PAGE_ROWS, PAGE_STEP, Listed, Listing
from exporter.backups.window import (
    LISTING_MARGIN_SECONDS,
    Sums,
    Window,
    build_window,
    increment_begin,
    listing_begin,
    merge,
    read,
    with_earlier,
)
from exporter.errors import BadResponseError
from exporter.models import Backup, Instance, InstanceKey, Page, Progress, Reading
from exporter.transport.limits import Query

log = structlog.get_logger(__name__)

# Rows of the minute ahead: their clock may be a little ahead of ours.
_AHEAD_SECONDS = 60.0
# The longest retention that the cloud offers, and a day.
_RETENTION_SECONDS = 733 * 86_400.0
# A listing that took longer is followed by a look at what is new since it began.
_FRESH_SECONDS = 5.0
# Pages of an unfinished listing are worth going on from for so long.
_PROGRESS_KEPT_SECONDS = 900.0
_INCOMPLETE_RETRY_SECONDS = 60.0
_NARROWING_STEPS = 6
_MOST_ROWS_SEARCHED = 1_000


class Client(Protocol):
    """What a window needs of the API's client."""

    async def fetch_backups(
        self, instance: Instance, *, begin: float, end: float, offset: int, query: Query
    ) -> Page: ...


def next_resync(key: InstanceKey, now: float, interval: float) -> float:
    """When the instance's whole window is due next: spread by a hash, so that they do not meet."""
    digest = hashlib.blake2b("/".join(key).encode(), digest_size=8).digest()
    phase = int.from_bytes(digest) / 2**64
    when = (math.floor(now / interval - phase) + 1 + phase) * interval
    return when if when > now else when + interval


def is_sorted(keys: Iterable[float]) -> bool:
    keys = list(keys)
    return all(a <= b for a, b in itertools.pairwise(keys))


def _latest(rows: Iterable[Backup], now: float) -> Backup | None:
    """The finished backup with the latest end."""
    finished = [row for row in rows if row.end is not None and row.end <= now]
    return max(finished, key=lambda row: (row.end or 0.0, row.size_kilobytes), default=None)


class InstanceSync:
    """One instance's window, kept up to date with as few requests as are exact."""

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
        self._listing: Listing | None = None
        self._resync_at = float("-inf")
        self._incomplete_listings = 0
        self._knows_latest = False

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
        self._resync_at = min(
            previous._resync_at,
            next_resync(now.key, self._clock(), self._resync_interval),
        )
        self._incomplete_listings = previous._incomplete_listings
        self._knows_latest = previous._knows_latest

    async def refresh(self, query: Query, publish: Callable[[Reading], None]) -> Reading:
        """Ask the API what is new and return the numbers as of now.

        Where the whole window is due as well, what is known before it is listed goes to
        `publish`: the scrape has it if the listing does not end in time.
        """
        started = self._clock()
        window = self._window
        if window is None or not window.covers(started):
            self._window = None
            return await self._relist(query)
        reading = await self._increment(window, query)
        if started < self._resync_at:
            return reading
        publish(reading)
        return await self._relist(query)

    async def _increment(self, window: Window, query: Query) -> Reading:
        """The numbers after one look at what is new."""
        now = self._clock()
        listed, complete = await self._list(
            Listing(begin=increment_begin(window, now), end=now + _AHEAD_SECONDS, started=now),
            query,
        )
        window = merge(window, listed.rows.values(), now=now, complete=complete)
        return await self._read(window, complete, query)

    async def _relist(self, query: Query) -> Reading:
        """The numbers after the whole window was listed."""
        now = self._clock()
        lookback = self._instance.lookback_seconds
        listing = self._listing
        if (
            listing is None
            or not listing.pages
            or not 0 <= now - listing.started < _PROGRESS_KEPT_SECONDS
        ):
            listing = Listing(
                begin=listing_begin(now, lookback), end=now + _AHEAD_SECONDS, started=now
            )
        self._listing = listing
        listed, complete = await self._list(listing, query)
        self._listing = None
        finished = self._clock()
        window = build_window(
            listed.rows.values(),
            now=listing.started,
            lookback_seconds=lookback,
            complete=complete,
        )
        self._window, self._knows_latest = window, False
        self._schedule_resync(finished, complete)
        if finished - listing.started > _FRESH_SECONDS:
            return await self._increment(window, query)
        return await self._read(window, complete, query)

    def _schedule_resync(self, now: float, complete: bool) -> None:
        self._resync_at = next_resync(self._instance.key, now, self._resync_interval)
        if complete:
            self._incomplete_listings = 0
        else:
            # Worth another try soon, but not at every scrape: total_count may be wrong for good.
            wait = _INCOMPLETE_RETRY_SECONDS * 2.0 ** min(self._incomplete_listings, 16)
            self._incomplete_listings += 1
            self._resync_at = min(self._resync_at, now + wait)

    async def _list(self, listing: Listing, query: Query) -> tuple[Listed, bool]:
        """All rows of the listing's range, and whether they match the API's total_count.

        Where they do not, where rows moved between the pages, or the pages tell different numbers,
        everything is read once more.
        Raises BadResponseError for a row that has different values both times.
        """

        async def fetch(offset: int) -> Page:
            return await self._client.fetch_backups(
                self._instance, begin=listing.begin, end=listing.end, offset=offset, query=query
            )

        listed = await listing.fetch(fetch)
        total = listing.total_count
        if (
            not (listed.moved or listed.conflict)
            and listing.agrees
            and (total is None or listed.matches(total))
        ):
            return listed, total is not None
        log.debug(
            "listing moved, reading it again",
            project=self._instance.project_id,
            instance_id=self._instance.id,
            rows=len(listed.rows),
            total_count=total,
        )
        first_rows = listed.rows
        listing.restart()
        listed = await listing.fetch(fetch)
        if listed.conflict:
            raise BadResponseError(
                f"backup {listed.conflict[:64]} is listed twice with different values"
            )
        if listing.agrees and listed.matches(listing.total_count):
            return listed, True
        return Listed(first_rows | listed.rows, listed.moved, None), False

    async def _read(self, window: Window, complete: bool, query: Query) -> Reading:
        now = self._clock()
        if window.latest_end(now) >= now - window.lookback_seconds:
            self._knows_latest = True  # and from now on each listing shows what is later
        elif not self._knows_latest:
            # The listing's margin may show one, but a longer backup may have ended later.
            earlier, certain = await self._find_earlier(now, query)
            complete = complete and certain
            self._knows_latest = True
            if earlier is not None:
                window = with_earlier(window, earlier, now=now)
            now = self._clock()
        self._window = window
        reading, self._sums = read(window, now=now, complete=complete, known=self._sums)
        return reading

    async def _find_earlier(self, now: float, query: Query) -> tuple[Backup | None, bool]:
        """The latest finished backup, where the window has none; and whether the rows that it was
        found in match the API's total_count, where they had to be listed."""
        best, narrowed = await self._search_latest(now, query)
        if not narrowed or best is None or best.end is None:
            return best, True
        # Where the API filters by begin_time, a backup that began before the range that was left
        # may have ended later.
        begin = best.end - LISTING_MARGIN_SECONDS
        listed, complete = await self._list(
            Listing(begin=begin, end=now + _AHEAD_SECONDS, started=now), query
        )
        return _latest([best, *listed.rows.values()], now), complete

    async def _search_latest(self, now: float, query: Query) -> tuple[Backup | None, bool]:
        """The latest finished backup, where the window has none: one or two requests.

        The order of rows is not documented. A page of 50 rows in order of time is not so by
        chance: then the first or the last page has it. Otherwise the range is narrowed to what
        is later than the latest seen, until it fits a page; the second value tells that it was.
        Where that does not help, since many run, all are read if they are not too many.
        """
        oldest, end = now - _RETENTION_SECONDS, now + _AHEAD_SECONDS
        begin = oldest
        best: Backup | None = None
        confirming = False  # that nothing has ended later than all of a page in order
        for _ in range(_NARROWING_STEPS):

            async def fetch(offset: int, begin: float = begin) -> Page:
                return await self._client.fetch_backups(
                    self._instance, begin=begin, end=end, offset=offset, query=query
                )

            first = await fetch(0)
            total, count = first.total_count, len(first.rows)
            before, best = best, _latest([*first.rows, *([best] if best else [])], now)
            # A full page proves nothing, whatever the API says.
            narrowed = begin > oldest and not confirming
            descending = False
            if not count or (count != PAGE_ROWS and total == count):
                return best, narrowed
            if count < PAGE_ROWS and (total or 0) <= count:
                return best, narrowed
            if count < PAGE_ROWS and before is not None and best == before:
                return best, narrowed  # nothing later, whatever the API announces
            ends = [row.end for row in first.rows if row.end is not None and row.end <= now]
            if len(ends) < PAGE_ROWS:
                pass  # pages shorter than asked for, or backups that run: no telling the order
            elif is_sorted(reversed(ends)) and not is_sorted(ends):
                if confirming:
                    return best, False
                descending = True
            elif is_sorted(ends) and total is not None and total >= count:
                # One row less than a page: a full one has more rows behind it than it says.
                offset = max(total - PAGE_STEP, PAGE_STEP)
                last = await fetch(offset)
                ends += [row.end for row in last.rows if row.end is not None and row.end <= now]
                best = _latest([*last.rows, *([best] if best else [])], now)
                ascending = is_sorted(ends) and len(ends) == count + len(last.rows)
                if len(last.rows) == total - offset and (
                    ascending or total <= PAGE_ROWS + PAGE_STEP
                ):
                    return best, narrowed
            if best == before and total is not None and total <= _MOST_ROWS_SEARCHED:
                # Nothing to narrow by, where many run: read all.
                listed, complete = await self._list(Listing(begin, end, started=now), query)
                if complete:
                    found = [*listed.rows.values(), *([best] if best else [])]
                    return _latest(found, now), narrowed
            if best is None or best.end is None:
                break
            begin, confirming = best.end - 1.0, descending
        raise BadResponseError(
            "the latest backup before the lookback could not be found: too many rows in no order"
        )
