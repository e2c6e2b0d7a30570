"""One query on its way to the cloud: its deadline, its place among others, what it costs."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

from exporter.errors import ApiError, DeadlineError, Reason

T = TypeVar("T")
Rank = tuple[bool, int]  # of a query among those of its share: lower goes first


class Share(IntEnum):
    """Whose turn comes before whose, and who may hold how many of the connections."""

    NEW = 0  # what is new of each instance: any number
    UNANSWERED = 1  # was asked last time and did not answer: a few
    BEHIND = 2  # whole windows, and whatever else has time: most, and not all


@dataclass(slots=True)
class Meter:
    """What the queries of one instance cost since the exporter knows it."""

    requests: int = 0
    errors: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))

    def count_error(self, reason: Reason) -> None:
        self.errors[reason] += 1

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


@dataclass(slots=True, eq=False)
class Query:
    """One query of an instance, or of a source, on its way through the limits.

    `deadline` is in the event loop's time. Waiting ends there; a request that was sent goes on.
    Of what is new the first request of each query goes before the further ones. Then lower
    `priority` goes first: all pages of one instance before those of the next. What is in the
    `background` is asked of an API that no other query needs, and has time.
    """

    deadline: float = float("inf")
    priority: int = 0
    share: Share = Share.NEW
    background: bool = False
    requests: int = 0  # that were sent
    failed: int = 0  # of them
    meter: Meter = field(default_factory=Meter)
    trouble: ApiError | None = None  # of the request of it that failed last
    # Of the requests that are under way: how many, since when, and whom they ask.
    asking: int = 0
    is_sleeping: bool = False  # before another try
    asking_since: float = 0.0
    host: str = ""
    whom: Callable[[], str] = str  # more about that host, for people
    _waits: "dict[asyncio.Future[Any], Callable[[], str]]" = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.background:
            self.share = Share.BEHIND

    @property
    def rank(self) -> Rank:
        return self.requests > 0 and self.share is Share.NEW, self.priority

    @property
    def waits_for(self) -> str:
        """What keeps its next request from being sent; empty if nothing of this place does."""
        return next((tell() for tell in self._waits.values()), "")

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its turn, or for what comes before that."""
        return not self.asking and not self.is_sleeping

    @contextlib.contextmanager
    def sending(self, host: str, whom: Callable[[], str] | None = None) -> Iterator[None]:
        """While a request of it is under way; `whom` tells who is to answer just then."""
        self.requests += 1
        self.meter.requests += 1
        if self.asking == 0:
            self.asking_since, self.host = asyncio.get_running_loop().time(), host
            self.whom = whom or (lambda: host)
        self.asking += 1
        try:
            yield
        finally:
            self.asking -= 1
            if self.asking == 0:
                self.whom = str  # it may lead to the request, and from there to here

    def count_error(self, reason: Reason) -> None:
        self.failed += 1
        self.meter.count_error(reason)

    async def wait(
        self, future: "asyncio.Future[T]", tell: Callable[[], str] = lambda: "another try"
    ) -> T:
        """Wait for `future`, which `tell` names; DeadlineError when `expire` is called first."""
        self._waits[future] = tell
        try:
            return await future
        finally:
            self._waits.pop(future)
            del future  # it holds the error that it ends with, whose frames would hold it

    async def sleep(self, seconds: float) -> None:
        """Sleep, which must fit before the deadline."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        timer = loop.call_later(seconds, _wake, future)
        self.is_sleeping = True
        try:
            await self.wait(future)
        finally:
            self.is_sleeping = False
            timer.cancel()
            del future  # likewise

    def has_time_for(self, seconds: float) -> bool:
        return asyncio.get_running_loop().time() + seconds < self.deadline

    @contextlib.contextmanager
    def until_deadline(self) -> Iterator[None]:
        """A block whose waiting ends when the deadline comes, without anybody's `expire`."""
        timer = asyncio.get_running_loop().call_at(self.deadline, self.expire)
        try:
            yield
        finally:
            timer.cancel()

    def expire(self) -> None:
        """End all waiting: the deadline has come."""
        for future, tell in self._waits.items():
            if not future.done():
                future.set_exception(DeadlineError(tell()))


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
