"""The search for the last backup that ended before a moment."""

import enum
import itertools
from collections.abc import Iterable, Sequence

from exporter.backups.listing import (
    PAGE_ROWS,
    PAGE_STEP,
    EndlessListingError,
    Lister,
    Listing,
)
from exporter.backups.window import LISTING_MARGIN_SECONDS, SECOND
from exporter.errors import BadResponseError
from exporter.models import Backup, Page

# The longest retention that the cloud offers, and a day.
_RETENTION_SECONDS = 733 * 86_400.0
_NARROWING_STEPS = 6
_MOST_ROWS_READ = 1_000


async def find_last(lister: Lister, before: float) -> tuple[Backup | None, bool]:
    """The last backup that ended before a moment, and whether that is certain.

    It is not where it took a listing whose rows do not match the API's total_count.
    """
    search = _Search(lister, before)
    narrowed = await search.run()
    best = search.best
    if not narrowed or best is None or best.end is None:
        return best, True
    # The API may filter by begin_time. Then a longer backup that began before the range which was
    # left may have ended later.
    begin = best.end - LISTING_MARGIN_SECONDS
    listed, complete = await lister.list_all(Listing(begin, _listed_to(before), started=before))
    return last_of([best, *listed.rows.values()], before), complete


def _listed_to(before: float) -> float:
    """Times are cut to the second, and the bound itself may not count."""
    return before + 2 * SECOND


class Order(enum.Enum):
    """What a page says about the order of all rows."""

    NONE = enum.auto()
    ASCENDING = enum.auto()
    DESCENDING = enum.auto()


def is_sorted(keys: Iterable[float]) -> bool:
    keys = list(keys)
    return all(a <= b for a, b in itertools.pairwise(keys))


def order_of(rows: Sequence[Backup]) -> Order:
    """The order of a first page by end_time. 50 rows are not in order by chance; fewer may be."""
    ends = _ends_of(rows)
    if len(ends) < PAGE_ROWS:
        return Order.NONE
    if is_sorted(ends):
        return Order.ASCENDING  # all that ended together too: the last page tells more
    return Order.DESCENDING if is_sorted(reversed(ends)) else Order.NONE


def last_of(rows: Iterable[Backup], before: float) -> Backup | None:
    """The backup with the latest end before a moment."""
    finished = [row for row in rows if row.end is not None and row.end < before]
    return max(finished, key=lambda row: (row.end or 0.0, row.size_kilobytes), default=None)


def _ends_of(rows: Iterable[Backup]) -> list[float]:
    return [row.end for row in rows if row.end is not None]


class _Search:
    """Looks at a first page, and then at what is later than the last backup seen so far.

    The order of rows is not documented. Where the first page is in order of time, the first or
    the last page has what is looked for: that takes one or two requests. Otherwise the range is
    narrowed until what is left fits a page. Where that does not help, since many backups run,
    all rows are read if they are not too many.
    """

    def __init__(self, lister: Lister, before: float) -> None:
        self._lister = lister
        self._before = before
        self._oldest = self._begin = before - _RETENTION_SECONDS
        self._end = _listed_to(before)
        self._confirming = False  # that nothing has ended later than a first page in order
        self.best: Backup | None = None

    async def run(self) -> bool:
        """Find `best`. True if the range was narrowed for it."""
        for _ in range(_NARROWING_STEPS):
            narrowed = self._begin > self._oldest and not self._confirming
            first = await self._fetch(0)
            before = self.best
            self._look_at(first.rows)
            if self._is_all(first, before):
                return narrowed
            order = order_of(first.rows)
            if order is Order.DESCENDING and self._confirming:
                return False
            if order is Order.ASCENDING and await self._ends_in_order(first):
                return narrowed
            if self.best == before and await self._read_all(first.total_count):
                return narrowed
            if self.best is None or self.best.end is None:
                break
            self._begin, self._confirming = self.best.end - SECOND, order is Order.DESCENDING
        raise BadResponseError(
            "the last backup before the lookback could not be found: too many rows in no order"
        )

    async def _fetch(self, offset: int) -> Page:
        return await self._lister.fetch_page(self._begin, self._end, offset)

    def _look_at(self, rows: Sequence[Backup]) -> None:
        self.best = last_of([*rows, *([self.best] if self.best else [])], self._before)

    def _is_all(self, first: Page, before: Backup | None) -> bool:
        """Whether no other page can have a later backup than the first one.

        A page of just 50 rows proves nothing, whatever total the API tells.
        """
        total, count = first.total_count, len(first.rows)
        if not count or (count != PAGE_ROWS and total == count):
            return True
        if count >= PAGE_ROWS:
            return False
        # Short, and either no more is announced, or nothing later has come for all that is.
        return (total or 0) <= count or (before is not None and self.best == before)

    async def _ends_in_order(self, first: Page) -> bool:
        """Look at the last page, too. True if no page between can have a later backup."""
        total, count = first.total_count, len(first.rows)
        if total is None or total < count:
            return False
        # One row less than a page: a full one has more rows behind it than it says.
        offset = max(total - PAGE_STEP, PAGE_STEP)
        last = await self._fetch(offset)
        self._look_at(last.rows)
        ends = _ends_of([*first.rows, *last.rows])
        ascending = is_sorted(ends) and len(ends) == count + len(last.rows)
        return len(last.rows) == total - offset and (ascending or total <= PAGE_ROWS + PAGE_STEP)

    async def _read_all(self, total: int | None) -> bool:
        """Look at all rows, if they are not too many. True if they are as many as the API says.

        Where it does not say, they end with a page that is not full, as in any listing.
        """
        if total is not None and total > _MOST_ROWS_READ:
            return False
        listing = Listing(self._begin, self._end, started=self._before, limit=_MOST_ROWS_READ)
        try:
            listed, complete = await self._lister.list_all(listing)
        except EndlessListingError:
            return False
        if not complete and (listing.total_count is not None or not listing.agrees or listed.moved):
            return False
        self._look_at(list(listed.rows.values()))
        return True
