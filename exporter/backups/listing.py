"""Reading a listing that comes in pages, and whose rows may move while it is read."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from exporter.backups.window import AHEAD_SECONDS
from exporter.errors import BadResponseError
from exporter.models import Backup, Instance, Page, Progress
from exporter.transport.query import Query

log = structlog.get_logger(__name__)

PAGE_ROWS = 50  # the most that the API allows (10, 20 or 50)
# Each page begins with the last row of the one before: where they differ, rows have moved.
PAGE_STEP = PAGE_ROWS - 1
PAGES_IN_PARALLEL = 8
# More rows than these are no listing that ends, see `most_rows`.
_SECONDS_A_ROW = 60.0
_ROWS_BESIDE = 500
FetchPage = Callable[[int], Awaitable[Page]]


class EndlessListingError(BadResponseError):
    """More rows have come than there can be, or than are worth reading."""


class Client(Protocol):
    """What is needed of the API's client."""

    async def fetch_backups(
        self, instance: Instance, *, begin: float, end: float, offset: int, query: Query
    ) -> Page: ...


@dataclass(slots=True)
class Listing:
    """The pages of a fixed time range. Those that it has are kept when it is cut off."""

    begin: float
    end: float
    started: float
    limit: float = math.inf  # more rows are not worth reading
    pages: dict[int, Page] = field(default_factory=dict)
    total_count: int | None = None  # as the answer that came last says
    _totals: set[int | None] = field(default_factory=set)  # all that the pages' answers said
    _ids: set[str] = field(default_factory=set)

    @classmethod
    def since(cls, begin: float, now: float) -> "Listing":
        """From `begin` until now, and a little further."""
        return cls(begin=begin, end=now + AHEAD_SECONDS, started=now)

    def copy(self) -> "Listing":
        return replace(self, pages=dict(self.pages), _totals=set(self._totals), _ids=set(self._ids))

    @property
    def most_rows(self) -> float:
        """How many rows there can be: one a minute, or twice as many as the API announces.

        No backup takes less than a second, whatever it announces.
        """
        seconds = self.end - self.begin
        announced = 2.0 * (self.total_count or 0)
        possible = min(max(seconds / _SECONDS_A_ROW, announced), seconds) + _ROWS_BESIDE
        return min(possible, self.limit)

    def restart(self) -> None:
        self.pages.clear()
        self._totals.clear()
        self._ids.clear()

    @property
    def agrees(self) -> bool:
        """Whether all answers told the same number of rows, or none."""
        return len(self._totals) == 1

    @property
    def progress(self) -> Progress:
        total = self.total_count or 0
        return Progress(len(self.pages), max(len(self.pages), math.ceil((total - 1) / PAGE_STEP)))

    async def fetch_page(self, fetch: FetchPage, offset: int) -> tuple[Page, bool]:
        """The page, and whether it goes on: it has rows that no page before had."""
        page = self.pages.get(offset)
        if page is not None:
            return page, True
        page = self.pages[offset] = await fetch(offset)
        self.total_count = page.total_count
        self._totals.add(page.total_count)
        known = len(self._ids)
        self._ids.update(row.id for row in page.rows)
        if len(self._ids) > self.most_rows:
            rows, seconds = len(self._ids), self.end - self.begin
            announced = "none" if self.total_count is None else self.total_count
            self.restart()
            raise EndlessListingError(
                f"the listing does not end: {rows} backups of {seconds / 3600:.0f} hours have come,"
                f" total_count is {announced}"
            )
        return page, len(self._ids) > known

    async def fetch(self, fetch: FetchPage) -> "Listed":
        """All pages: those that the first one announces in parallel, then whatever is left."""
        first, _ = await self.fetch_page(fetch, 0)
        if first.total_count is not None and len(first.rows) == PAGE_ROWS:
            await self._fetch_announced(fetch, first.total_count)
        offset = max(self.pages)
        while True:
            rows = self.pages[offset].rows
            position = offset + len(rows)
            # A page that is not full is the last one, unless the API says that there is more.
            # A full one may always have more behind it.
            if not rows or (len(rows) < PAGE_ROWS and (self.total_count or 0) <= position):
                break
            offset = max(position - 1, offset + 1)
            _, goes_on = await self.fetch_page(fetch, offset)
            if not goes_on:
                break  # the API ignores the offset, or announces rows that it does not have
        return gather(self.pages)

    async def _fetch_announced(self, fetch: FetchPage, total_count: int) -> None:
        offsets = iter(range(PAGE_STEP, total_count - 1, PAGE_STEP))
        ended = False

        async def work() -> None:
            nonlocal ended
            for offset in offsets:
                if ended:
                    return
                try:
                    page, goes_on = await self.fetch_page(fetch, offset)
                except BaseException:
                    ended = True
                    raise
                ended = ended or len(page.rows) < PAGE_ROWS or not goes_on

        if total_count <= PAGE_ROWS + PAGE_STEP:  # one page: no need for tasks
            await work()
            return
        workers = min(PAGES_IN_PARALLEL, (total_count - 2) // PAGE_STEP)
        # Where one worker fails, the others finish their page: the next try needs it no more.
        done = await asyncio.gather(*(work() for _ in range(workers)), return_exceptions=True)
        failure = next(filter(None, done), None)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure, done  # they hold this frame


@dataclass(frozen=True, slots=True)
class Listed:
    """The rows of a listing by id."""

    rows: dict[str, Backup]
    moved: bool  # rows have moved between the pages while they were read
    conflict: str | None  # the id of a row that came with different values

    def matches(self, total_count: int | None) -> bool:
        return len(self.rows) == total_count


def gather(pages: dict[int, Page]) -> Listed:
    """The rows of all pages, each id once."""
    rows: dict[str, Backup] = {}
    moved, conflict = False, None
    previous: tuple[int, Sequence[Backup]] = (0, ())
    for offset in sorted(pages):
        page = pages[offset].rows
        end = previous[0] + len(previous[1])
        if (
            previous[1]
            and offset < end
            and (not page or page[0].id != previous[1][offset - end].id)
        ):
            moved = True
        # Between two answers a backup may end. Within one it cannot.
        if len({row.id for row in page}) < len(page):
            conflict = _repeated_id(page) or conflict
        for row in page:
            before = rows.get(row.id)
            if before is None or before == row or before.end is None:
                rows[row.id] = row
            elif row.end is not None:
                conflict = row.id
                rows[row.id] = row
        previous = (offset, page)
    return Listed(rows, moved, conflict)


def _repeated_id(rows: Iterable[Backup]) -> str | None:
    """The id of a row that comes with different values."""
    known: dict[str, Backup] = {}
    for row in rows:
        if known.setdefault(row.id, row) != row:
            return row.id
    return None


@dataclass(frozen=True, slots=True)
class Lister:
    """Lists one instance's backups on behalf of one query."""

    client: Client
    instance: Instance
    query: Query

    async def fetch_page(self, begin: float, end: float, offset: int) -> Page:
        return await self.client.fetch_backups(
            self.instance, begin=begin, end=end, offset=offset, query=self.query
        )

    async def fetch_first(self, listing: Listing) -> Page:
        """The first page of the listing, which keeps it."""

        async def fetch(offset: int) -> Page:
            return await self.fetch_page(listing.begin, listing.end, offset)

        page, _ = await listing.fetch_page(fetch, 0)
        return page

    async def list_all(self, listing: Listing) -> tuple[Listed, bool]:
        """All rows of the listing's range, and whether they match the API's total_count.

        Everything is read once more where they do not match, where rows moved between the pages,
        or where the pages tell different totals.
        Raises BadResponseError for a row that has different values both times.
        """

        async def fetch(offset: int) -> Page:
            return await self.fetch_page(listing.begin, listing.end, offset)

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
            project=self.instance.project_id,
            instance_id=self.instance.id,
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

    async def list_new(
        self, begin_at: Callable[[float], float], clock: Callable[[], float]
    ) -> tuple[Listing, Mapping[str, Backup], bool]:
        """What has come since the moment that `begin_at` names, likewise.

        It is asked for again where the answer is too old: what waits for the limits may wait for
        longer than a listing looks ahead, and the clock may be set meanwhile.
        """
        while True:
            now = clock()
            listing = Listing.since(begin_at(now), now)
            listed, complete = await self.list_all(listing)
            if clock() <= listing.end:
                return listing, listed.rows, complete
