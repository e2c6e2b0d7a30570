"""Reading a listing that comes in pages, each with the first rows of what it leaves out."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from exporter.errors import BadResponseError

PAGE_ROWS = 100  # the most that the API allows
# Fewer rows a page than that, all along, are no listing that can be read.
_FEWEST_ROWS = 10


class Row(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=Row)
R_co = TypeVar("R_co", bound=Row, covariant=True)


class Page(Protocol[R_co]):
    """One answer: its rows, and how many rows the API says there are in all."""

    @property
    def rows(self) -> Sequence[R_co]: ...
    @property
    def total_count(self) -> int | None: ...


async def read_pages(
    fetch: Callable[[int], Awaitable[Page[R]]], *, what: str, most: int
) -> dict[str, R]:
    """All rows by their id. Raises BadResponseError, for people about a listing of `what`.

    They are read once more where rows have moved between the pages, or where there are fewer than
    the API announces: one that slipped through must not be taken for one that is gone. More than
    it announces are taken: total_count may be the page's. Beyond `most` rows it has no end.
    """
    for _ in range(2):
        rows, announced = await _read_once(fetch, what, most)
        if announced is not None and len(rows) >= announced:
            return rows
    raise BadResponseError(
        f"the listing of {what} has {len(rows)} of {announced} that it announces"
        if announced is not None
        else f"the pages of the listing of {what} move while they are read"
    )


async def _read_once(
    fetch: Callable[[int], Awaitable[Page[R]]], what: str, most: int
) -> tuple[dict[str, R], int | None]:
    """All pages, and how many rows they announce; None if the pages do not join.

    The least that any of them does: what is new since the first page stands in front of it. Each
    page begins with the last row of the one before. If not with that, then with one that is
    known: else rows have moved up, and some may have been passed over. A full page proves
    nothing, whatever total_count says: there may be more behind it.
    """
    known: dict[str, R] = {}
    first: Sequence[R] | None = None
    totals: list[int] = []
    offset = 0
    joined, overlaps = True, False
    for _ in range(most // _FEWEST_ROWS):
        page = await fetch(offset)
        rows, total = page.rows, page.total_count
        totals += [] if total is None else [total]
        announced = min(totals, default=0)
        if first is None:
            first = rows
        elif rows and rows == first:
            if announced == len(known):
                return known, announced
            raise BadResponseError(f"the listing of {what} ignores the offset of pages")
        elif overlaps:
            joined = joined and bool(rows) and rows[0].id in known
        before = len(known)
        known.update((row.id, row) for row in rows)
        if len(known) > most:
            break
        # A page with nothing new comes after the last one.
        is_last = total is not None and offset + len(rows) >= total
        if len(known) == before or (is_last and len(rows) < PAGE_ROWS):
            return known, announced if joined else None
        overlaps = len(rows) > 1
        offset += max(1, len(rows) - 1)
    raise BadResponseError(f"the listing of {what} has no end: {len(known)} so far")
