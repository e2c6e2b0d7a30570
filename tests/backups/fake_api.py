"""An API of one instance under a test's control, and what drives it."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from exporter.backups.sync import InstanceSync
from exporter.models import Backup, Instance, Page, Reading
from exporter.transport.query import Query
from tests.support.virtual_time import DAY, HOUR, NOON

SIX_HOURS = 6 * HOUR
ORDERS: dict[str, Callable[[Backup], object]] = {
    "ascending": lambda row: row.end or 0.0,
    "descending": lambda row: -(row.end or 0.0),
    "shuffled": lambda row: random.Random(row.id).random(),
}


def make_rows(count: int, *, last_age: float = 60.0, every: float = 300.0) -> list[Backup]:
    """So many finished backups, one every five minutes; the last ended a minute before noon."""
    return [
        Backup(f"row-{number}", end - 30.0, end, 1.0)
        for number in range(count)
        for end in [NOON - last_age - number * every]
    ]


class FakeApi:
    """The backups of one instance, as an API lists them that keeps to its documentation.

    What deviates is told by its attributes. `before` is called ahead of each answer with the
    number of the request.
    """

    def __init__(self, rows: Sequence[Backup] = (), *, order: str = "descending") -> None:
        self.rows = list(rows)
        self.order = order
        self.page_rows = 50
        self.ignores_offset = False
        self.total: Callable[[int], int | None] = lambda total: total
        self.before: Callable[[int], object] = lambda number: None
        self.filter_by = "end"
        self.shows_all_running = False
        self.offsets: list[int] = []
        self.asked: list[tuple[float, float]] = []
        self.asked_for: list[tuple[Instance, Query]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.hold: asyncio.Event | None = None
        self.errors: dict[int, Exception] = {}  # by offset, once

    async def fetch_backups(
        self, instance: Instance, *, begin: float, end: float, offset: int, query: Query
    ) -> Page:
        self.offsets.append(offset)
        self.asked.append((begin, end))
        self.asked_for.append((instance, query))
        number = len(self.offsets)
        assert begin < end
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await (self.hold.wait() if self.hold is not None else asyncio.sleep(0))
        finally:
            self.in_flight -= 1
        if (error := self.errors.pop(offset, None)) is not None:
            raise error
        self.before(number)
        found = sorted(filter(self._shows(begin, end), self.rows), key=self._key)
        start = 0 if self.ignores_offset else offset
        return Page(found[start : start + self.page_rows], self.total(len(found)))

    def _shows(self, begin: float, end: float) -> Callable[[Backup], bool]:
        def shows(row: Backup) -> bool:
            if row.end is None and self.shows_all_running:
                return True
            moment = row.begin if row.end is None or self.filter_by == "begin" else row.end
            return moment is not None and begin <= moment <= end

        return shows

    def _key(self, row: Backup) -> tuple[object, str]:
        return ORDERS[self.order](row), row.id

    @property
    def listed(self) -> list[int]:
        """The offsets of what was asked, but for looks at all that was before the lookback."""
        return [
            offset
            for offset, (begin, end) in zip(self.offsets, self.asked, strict=True)
            if end - begin < 700 * DAY
        ]

    def requests(self) -> int:
        """How many since the last call."""
        self._seen, before = len(self.offsets), getattr(self, "_seen", 0)
        return self._seen - before


class Moment:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


INSTANCE = Instance("project", "orders", lookback_seconds=DAY)


def make_sync(
    api: FakeApi,
    *,
    clock: Callable[[], float] | None = None,
    lookback: float = DAY,
    resync_interval: float = SIX_HOURS,
    offsite: bool = False,
    origin: object = None,
) -> InstanceSync:
    instance = replace(INSTANCE, lookback_seconds=lookback, offsite=offsite)
    return InstanceSync(
        instance, api, clock=clock or Moment(), resync_interval=resync_interval, origin=origin
    )


async def refresh(sync: InstanceSync, query: Query | None = None) -> Reading:
    """The numbers after what is due: the whole window, or what is new, or both."""
    query = query or Query()
    reading = await sync.refresh(query) if sync.is_listed() else None
    if reading is None or sync.wants_listing():
        await sync.list_window(query)
        reading = await sync.refresh(query, waited=True)
    return reading


class Cut:
    """Lets so many requests through and holds the others."""

    def __init__(self, api: FakeApi, requests: int) -> None:
        self._left = requests
        self._waiting: list[asyncio.Future[None]] = []
        self._fetch = api.fetch_backups
        api.fetch_backups = self.fetch  # type: ignore[method-assign]

    def let(self, requests: int) -> None:
        """Let so many more through."""
        self._left += requests

    async def fetch(
        self, instance: Instance, *, begin: float, end: float, offset: int, query: Query
    ) -> Page:
        if self._left == 0:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await query.wait(future)
        self._left -= 1
        return await self._fetch(instance, begin=begin, end=end, offset=offset, query=query)

    def release(self) -> None:
        self._left = 10**6
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


async def let_run() -> None:
    for _ in range(200):
        await asyncio.sleep(0)
