"""One pass over the pages of a listing whose rows may move while it is read."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from exporter.models import Backup, Page, Progress

PAGE_ROWS = 50  # the most that the API allows (10, 20 or 50)
# Each page begins with the last row of the one before: where they differ, rows have moved.
PAGE_STEP = PAGE_ROWS - 1
PAGES_IN_PARALLEL = 8
FetchPage = Callable[[int], Awaitable[Page]]


@dataclass(slots=True)
class Listing:
    """One pass over the pages of a fixed time range; what it has is kept when it is cut off."""

    begin: float
    end: float
    started: float
    pages: dict[int, Page] = field(default_factory=dict)
    total_count: int | None = None  # as the answer that came last says
    _totals: set[int | None] = field(default_factory=set)  # all that the pages' answers said
    _ids: set[str] = field(default_factory=set)

    def copy(self) -> "Listing":
        return replace(self, pages=dict(self.pages), _totals=set(self._totals), _ids=set(self._ids))

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
            # The end: a page that is not full, unless the API says that there is more. A full one
            # proves nothing, whatever the API says.
            if not rows or (len(rows) < PAGE_ROWS and (self.total_count or 0) <= position):
                break
            offset = max(position - 1, offset + 1)
            _, goes_on = await self.fetch_page(fetch, offset)
            if not goes_on:
                break  # it ignores the offset, or announces rows it does not have
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
        # Where one fails the others end their page: it serves when the listing goes on.
        done = await asyncio.gather(*(work() for _ in range(workers)), return_exceptions=True)
        for failure in done:
            if failure is not None:
                raise failure


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
        # From one page to the next a backup may have ended, within one it cannot.
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
