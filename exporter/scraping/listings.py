"""Listing whole windows, behind what is new: a few at a time, and each for itself."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from exporter.errors import ApiError
from exporter.models import Failure, Instance
from exporter.scraping.failures import failure_of, mistake
from exporter.transport.backoff import backoff_seconds
from exporter.transport.query import Meter, Query, Share

log = structlog.get_logger(__name__)

# Of a project: enough to make use of the rate limit where an answer takes a second; with more, each
# listing takes longer, and more rows move meanwhile.
_AT_ONCE = 10
# A listing that failed is tried again after so long, doubling up to the second.
_RETRY_BASE_SECONDS = 15.0
_RETRY_CAP_SECONDS = 900.0


class Sync(Protocol):
    """What has a window to list."""

    async def list_window(self, query: Query) -> None: ...


@dataclass(slots=True, eq=False)
class WindowListing:
    """The listing of one instance's window, due or under way; `error` is of the last try."""

    done: "asyncio.Future[None] | None" = None
    task: "asyncio.Task[None] | None" = None
    error: ApiError | None = None
    failures: int = 0
    retry_at: float = float("-inf")

    def cancel(self) -> None:
        """Nobody needs it any longer."""
        if self.task is not None:
            self.task.cancel()
        self._end()

    def _end(self) -> None:
        done, self.done, self.task = self.done, None, None
        if done is not None and not done.done():
            done.set_result(None)

    async def run(
        self, sync: Sync, query: Query, *, of: Instance, redact: Callable[[str], str]
    ) -> None:
        """List it, and keep what came of it."""
        try:
            await sync.list_window(query)
        except ApiError as exc:
            if not exc.counted:
                query.count_error(exc.reason)
                exc.counted = True
            self._fail(failure_of(exc, redact), exc, of)
        except Exception as exc:
            log.exception("listing broke", project=of.project_id, instance=of.id)
            error = mistake(exc)
            query.count_error(error.reason)
            error.counted = True
            self._fail(failure_of(error, redact), error, of)
        else:
            self.error, self.failures = None, 0
        finally:
            self._end()

    def _fail(self, failure: Failure, error: ApiError, of: Instance) -> None:
        if self.error is None or self.error.reason is not error.reason:
            log.warning(
                "listing the whole window failed",
                project=of.project_id,
                instance=of.id,
                instance_name=of.name,
                reason=failure.reason.value,
                error=failure.message,
                hint=failure.hint,
                **failure.facts,
            )
        self.error = error.kept()
        wait = backoff_seconds(
            self.failures,
            base=_RETRY_BASE_SECONDS,
            cap=_RETRY_CAP_SECONDS,
            jitter=lambda low, high: high,
        )
        self.failures += 1
        self.retry_at = asyncio.get_running_loop().time() + wait


@dataclass(order=True, slots=True)
class _Due:
    latest_end: float  # the instances with nothing new go first
    number: int
    listing: WindowListing = field(compare=False)
    sync: Sync = field(compare=False)
    instance: Instance = field(compare=False)
    meter: Meter = field(compare=False)


class WindowListings:
    """Those that are due, of all projects."""

    def __init__(self, *, is_busy: Callable[[str], bool], redact: Callable[[str], str]) -> None:
        """`is_busy`: whether a project has more urgent things to ask. Then none is begun; who
        says so calls `start` when that may have changed."""
        self._is_busy = is_busy
        self._redact = redact
        self._due: dict[str, list[_Due]] = {}  # by project
        self._running: dict[str, int] = {}
        self._numbers = itertools.count()  # in which they came
        self._turns = itertools.count()  # in which they are begun
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def listed(
        self,
        listing: WindowListing,
        sync: Sync,
        *,
        instance: Instance,
        meter: Meter,
        latest_end: float | None,
    ) -> bool:
        """Wait until the window is listed; False where that failed, or is not to be tried now.

        Who stops waiting stops nothing.
        """
        loop = asyncio.get_running_loop()
        if listing.done is None:
            if self._closed or loop.time() < listing.retry_at:
                return False
            listing.done = loop.create_future()
            due = _Due(
                latest_end if latest_end is not None else float("-inf"),
                next(self._numbers),
                listing,
                sync,
                instance,
                meter,
            )
            heapq.heappush(self._due.setdefault(instance.project_id, []), due)
            self.start(instance.project_id)
        await asyncio.shield(listing.done)
        return listing.error is None and not self._closed

    def start(self, project: str) -> None:
        """Begin as many of the project's as may be under way."""
        due = self._due.get(project, [])
        while due and self._running.get(project, 0) < _AT_ONCE and not self._closed:
            if self._is_busy(project):
                return
            first = heapq.heappop(due)
            if first.listing.done is None:
                continue  # it was cancelled
            self._running[project] = self._running.get(project, 0) + 1
            query = Query(priority=next(self._turns), share=Share.BEHIND, meter=first.meter)
            task = asyncio.create_task(
                first.listing.run(first.sync, query, of=first.instance, redact=self._redact),
            )
            first.listing.task = task
            self._tasks.add(task)
            task.add_done_callback(self._ended(project))

    def _ended(self, project: str) -> Callable[["asyncio.Task[None]"], None]:
        def ended(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            self._running[project] -= 1
            self.start(project)

        return ended

    def are_under_way(self, project: str) -> bool:
        return self._running.get(project, 0) > 0

    async def aclose(self) -> None:
        """Stop all; what was read stays with the windows."""
        self._closed = True
        for due in itertools.chain(*self._due.values()):
            due.listing.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
