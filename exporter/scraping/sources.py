"""What is asked beside the incremental backups: restore windows, and the projects' full backups."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import structlog

from exporter.config.schema import ApiConfig
from exporter.errors import ApiError, DeadlineError, Reason
from exporter.models import (
    Failure,
    FullBackups,
    Instance,
    InstanceKey,
    RestoreWindow,
    SourceResult,
)
from exporter.restores.listing import FullBackupsSource
from exporter.restores.window import RestoreWindowSource
from exporter.scraping.failures import failure_of, mistake
from exporter.scraping.project import Project, origin_of
from exporter.scraping.refresh_queue import AT_ONCE, RefreshQueue
from exporter.transport.query import Meter, Query

log = structlog.get_logger(__name__)

# As for queries: tasks are begun in turns of the loop.
_STARTED_AT_ONCE = 20
# The priority of a query: whole windows, which have time too, go before.
_AFTER_ALL_OTHERS = 2**40
# What a refresh may wait for: its turn in the limits, the end of a silence.
_PATIENCE_SECONDS = 300.0


_NOT_ASKED = Failure(
    Reason.DEADLINE,
    f"not asked for {_PATIENCE_SECONDS:.0f} s: queries of incremental backups go first",
    "raise api.rate_limit, or use shards",
)


class SourceResults(NamedTuple):
    """Of one instance, with what its refreshes have cost. None where the setting is off."""

    restore_window: SourceResult[RestoreWindow] | None = None
    full_backups: SourceResult[FullBackups] | None = None
    requests: int = 0
    errors: Mapping[Reason, int] = {}


NO_SOURCES = SourceResults()


@dataclass(slots=True, eq=False)
class _Entry:
    """One instance: its restore window, where that is asked for, and what was asked of it."""

    window: RestoreWindowSource | None
    meter: Meter = field(default_factory=Meter)


class Sources:
    """Refreshes them when they are due, behind the queries of a scrape, and keeps what they tell.

    One that fails keeps nothing else from being read. Nothing waits for a refresh, unless there
    would be nothing to publish.
    """

    def __init__(
        self,
        config: ApiConfig,
        projects: Mapping[str, Project],
        *,
        clock: Callable[[], float],
        redact: Callable[[str], str],
        room: Callable[[str, float], int] = lambda project, waited: AT_ONCE,
    ) -> None:
        """`room`: how many refreshes of a project may be under way beside what is more urgent,
        where the first one has waited for so many seconds."""
        self._config = config
        self._projects = projects
        self._clock = clock
        self._redact = redact
        self._entries: dict[InstanceKey, _Entry] = {}
        self._listings: dict[str, FullBackupsSource] = {}
        self._inherited: dict[InstanceKey, _Entry] = {}
        self._meters: dict[InstanceKey, Meter] = {}  # what was counted before goes on
        self._queues = {
            project_id: RefreshQueue(partial(room, project_id)) for project_id in projects
        }
        self._tasks: set[asyncio.Task[None]] = set()
        self._sequence = itertools.count()

    def adopt(self, previous: "Sources") -> None:
        """Go on with what `previous` knows of the projects that are read where and as before."""
        self._meters = {key: entry.meter for key, entry in previous._entries.items()}
        for project_id, project in self._projects.items():
            before = previous._projects.get(project_id)
            if before is None or origin_of(before.config) != origin_of(project.config):
                continue
            self._inherited |= {
                key: entry
                for key, entry in previous._entries.items()
                if key.project_id == project_id
            }
            if (listing := previous._listings.get(project_id)) is not None:
                self._listing(project_id).adopt(listing)

    async def refresh(self, asked: Iterable[Instance], known: Collection[Instance]) -> None:
        """Begin what is due of those that a scrape asks; `known` are all that there are."""
        self._forget({instance.key for instance in known})
        started = 0
        for instance in asked:
            entry = self._entry(instance)
            window = entry.window
            if window is not None and window.schedule.is_due(self._now(instance.project_id)):
                window.schedule.task = self._begin(
                    self._refresh_window(instance, window, entry.meter)
                )
                started += 1
                if started % _STARTED_AT_ONCE == 0:
                    await asyncio.sleep(0)
        for project_id in {each.project_id for each in asked if each.full_backups}:
            wanted = [each for each in known if each.full_backups and each.project_id == project_id]
            listing = self._listing(project_id)
            if listing.is_due([each.id for each in wanted], self._now(project_id)):
                listing.schedule.task = self._begin(
                    self._refresh_listing(project_id, listing, wanted)
                )

    async def wait(self, asked: Iterable[Instance], *, until: float) -> None:
        """For what has never been told, or not for long: at most until the loop's time `until`."""
        loop = asyncio.get_running_loop()
        pending = set(self._worth_waiting_for(asked))
        if pending and loop.time() < until:
            for queue in self._queues.values():
                queue.start()
            await asyncio.wait(pending, timeout=until - loop.time())

    def _worth_waiting_for(self, asked: Iterable[Instance]) -> Iterable["asyncio.Task[None]"]:
        for instance in asked:
            now = self._now(instance.project_id)
            if instance.restore_window and (window := self._entry(instance).window) is not None:
                task, interval = window.schedule.task, window.schedule.interval
                if task is not None and window.known.is_wanting(now, interval):
                    yield task
            if instance.full_backups:
                listing = self._listing(instance.project_id)
                task, interval = listing.schedule.task, listing.schedule.interval
                if task is not None and listing.known(instance.id).is_wanting(now, interval):
                    yield task

    def results(self, instance: Instance) -> SourceResults:
        """As of now."""
        entry = self._entry(instance)
        if not (instance.restore_window or instance.full_backups):
            if not entry.meter.requests:
                return NO_SOURCES
            # A reload has switched them off: counters go on.
            return SourceResults(requests=entry.meter.requests, errors=entry.meter.errors)
        now = self._now(instance.project_id)
        window = full = None
        if entry.window is not None:
            window = entry.window.known.result(now, entry.window.schedule.interval)
        if instance.full_backups:
            listing = self._listing(instance.project_id)
            full = listing.known(instance.id).result(now, listing.schedule.interval)
        return SourceResults(window, full, entry.meter.requests, entry.meter.errors)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for queue in self._queues.values():
            queue.close()

    # What is known of whom ---------------------------------------------------------------------

    def _now(self, project_id: str) -> float:
        """The time that all numbers of the project are told in."""
        clock = self._projects[project_id].clock
        return clock() if clock is not None else self._clock()

    def _forget(self, known: set[InstanceKey]) -> None:
        for key in self._entries.keys() - known:
            window = self._entries.pop(key).window
            if window is not None and window.schedule.task is not None:
                window.schedule.task.cancel()

    def _entry(self, instance: Instance) -> _Entry:
        entry = self._entries.get(instance.key)
        if entry is None:
            entry = self._entries[instance.key] = self._make_entry(instance)
        return entry

    def _make_entry(self, instance: Instance) -> _Entry:
        before = self._inherited.get(instance.key)
        window = None
        if instance.restore_window:
            window = RestoreWindowSource(
                instance,
                self._projects[instance.project_id].client,
                clock=partial(self._now, instance.project_id),
                interval=self._config.restore_window_interval,
            )
            if before is not None and before.window is not None:
                window.adopt(before.window)
        return _Entry(window, self._meters.get(instance.key) or Meter())

    def _listing(self, project_id: str) -> FullBackupsSource:
        listing = self._listings.get(project_id)
        if listing is None:
            listing = self._listings[project_id] = FullBackupsSource(
                project_id,
                self._projects[project_id].client,
                clock=partial(self._now, project_id),
                interval=self._config.full_backups_interval,
            )
        return listing

    # Refreshing --------------------------------------------------------------------------------

    def _begin(self, refresh: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(refresh)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @contextlib.asynccontextmanager
    async def _turn(
        self, project_id: str, excuse: Callable[[Failure], None]
    ) -> AsyncIterator[None]:
        """Wait for a turn, however long: who never gets one would lose the place at each try.
        After a while `excuse` is told why there is no answer."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(_PATIENCE_SECONDS, excuse, _NOT_ASKED)
        try:
            async with self._queues[project_id].turn():
                timer.cancel()
                yield
        finally:
            timer.cancel()

    def _query(self, meter: Meter) -> Query:
        return Query(
            deadline=asyncio.get_running_loop().time() + _PATIENCE_SECONDS,
            priority=_AFTER_ALL_OTHERS + next(self._sequence),
            meter=meter,
            background=True,
        )

    async def _refresh_window(
        self, instance: Instance, window: RestoreWindowSource, meter: Meter
    ) -> None:
        try:
            async with self._turn(instance.project_id, window.known.excuse):
                query = self._query(meter)
                with query.until_deadline():
                    await window.refresh(query)
        except (ApiError, DeadlineError) as exc:
            window.known.fail(self._explain(exc, meter))
        except Exception as exc:
            log.exception("refresh broke", project=instance.project_id, instance=instance.id)
            window.known.fail(Failure.of(mistake(exc)))
        finally:
            window.schedule.task = None
        now = self._now(instance.project_id)
        window.schedule.done(now, succeeded=window.known.failure is None)

    async def _refresh_listing(
        self, project_id: str, listing: FullBackupsSource, wanted: Collection[Instance]
    ) -> None:
        meters = {each.id: self._entry(each).meter for each in wanted}
        succeeded = False
        try:
            async with self._turn(project_id, partial(listing.excuse, meters)):
                succeeded = await listing.refresh(
                    list(meters),
                    lambda instance_id: self._query(meters.get(instance_id) or Meter()),
                    lambda exc: self._explain(exc, Meter()),
                )
        except Exception as exc:
            log.exception("refresh broke", project=project_id)
            listing.fail(meters, Failure.of(mistake(exc)))
        finally:
            listing.schedule.task = None
        listing.schedule.done(self._now(project_id), succeeded=succeeded)

    def _explain(self, exc: ApiError | DeadlineError, meter: Meter) -> Failure:
        if isinstance(exc, DeadlineError):
            return _NOT_ASKED
        if not exc.counted:
            meter.count_error(exc.reason)
        return failure_of(exc, self._redact)
