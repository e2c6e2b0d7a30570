"""A scrape: all instances under one deadline, each failing for itself."""

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from exporter.config.schema import Config
from exporter.models import (
    Instance,
    InstanceKey,
    InstanceResult,
    ProjectResult,
    Reading,
    Snapshot,
    View,
)
from exporter.scraping.changes import Changes, SourceChanges, log_listings
from exporter.scraping.collecting import SHARED_SECONDS, Span, collect
from exporter.scraping.in_flight import InFlightQuery, cut_off
from exporter.scraping.last import LastSnapshots
from exporter.scraping.project import Project
from exporter.scraping.sources import Sources
from exporter.scraping.turns import in_turn
from exporter.scraping.urgency import Urgency
from exporter.scraping.watch import Watch, Watches
from exporter.transport.query import Query, Share

# Each query begins with work of its own: many at once would keep the loop from the first answers.
_STARTED_AT_ONCE = 20
# As for their results: what else there is to do waits for so many.
_COLLECTED_AT_ONCE = 500
# How long a scrape waits, after the queries, for what is asked beside them and was never told.
_SOURCES_SECONDS = 1.0


class Scraper:
    """Answers scrapes from the instances of all projects."""

    def __init__(
        self,
        config: Config,
        projects: Sequence[Project],
        *,
        clock: Callable[[], float] = time.time,
        shard: int = 0,
        total_shards: int = 1,
        redact: Callable[[str], str] = str,
    ) -> None:
        """`redact` takes the secrets out of what is said about a failure."""
        self._config = config
        self._redact = redact
        self._clock = clock
        self._watches = Watches(
            config, projects, clock=clock, shard=shard, total_shards=total_shards
        )
        # All queries under way, those that nobody waits for any longer among them.
        self._tasks: set[asyncio.Task[None]] = set()
        self._urgency = Urgency(redact)
        self._sources = Sources(
            config.api, self.projects, clock=clock, redact=redact, room=self._urgency.room_behind
        )
        self._source_changes = SourceChanges()
        self._closed = False
        self._turns = itertools.count()
        self._last = LastSnapshots(config.scrape.min_interval)
        # What the last scrape took after its waiting was over.
        self.collecting_seconds = 0.0

    @property
    def config(self) -> Config:
        return self._config

    @property
    def projects(self) -> Mapping[str, Project]:
        return self._watches.projects

    @property
    def instances(self) -> list[Instance]:
        """All that this exporter answers for, as far as they are known."""
        return [watch.instance for watch in self._watches]

    def find(self, project: str, instance: str) -> InstanceKey | None:
        """The instance that two ids or names mean; None if there is none, or more than one."""
        return self._watches.find(project, instance)

    async def discover(self, seconds: float) -> None:
        """Ask for the instances of projects where that is due; wait only for what is unknown."""
        pending = [task for _, task in self._watches.refresh_discoveries()]
        if pending:
            await asyncio.wait(pending, timeout=max(0.0, seconds))
        self._watches.update()

    def adopt(self, previous: "Scraper") -> None:
        """Go on with what `previous` knows of the instances that have not changed."""
        self._watches.adopt(previous._watches)
        self._sources.adopt(previous._sources)
        self._source_changes.adopt(previous._source_changes)
        self._turns = previous._turns
        self._last.newest = previous._last.newest

    async def scrape(
        self, seconds: float, only: InstanceKey | None = None, *, patient: bool = False
    ) -> Snapshot:
        """Ask every instance, or one, and return after `seconds` at the latest.

        What is not answered by then is failed as `deadline`; it goes on, and the next scrape
        joins it. `patient`: there will be no next one, so wait for what is asked beside.
        """
        loop = asyncio.get_running_loop()
        started, begun = self._clock(), loop.time()
        span = Span(begun, deadline := begun + max(0.0, seconds))
        if only is None and (fresh := self._last.fresh(started)) is not None:
            return fresh
        # Those that are known do not wait for the discovery of others, which may hang.
        queries = await self._ask_known(deadline, only)
        await self._refresh_sources(queries)
        await self._ask_discovered(queries, deadline, only)
        await self._refresh_sources(queries)
        tasks = [in_flight.task for in_flight in queries.values() if in_flight.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, deadline - loop.time()))
        patience = deadline if patient else min(deadline, loop.time() + _SOURCES_SECONDS)
        await self._sources.wait([watch.instance for watch in queries], until=patience)
        waited = time.perf_counter()
        snapshot = await self._collect(queries, started, span)
        self._last.remember(snapshot, span, is_whole=only is None)
        if span.is_enough:
            log_listings(snapshot.results)
        self._source_changes.log(snapshot.results)
        self.collecting_seconds = time.perf_counter() - waited
        return snapshot

    async def _ask_known(
        self, deadline: float, only: InstanceKey | None
    ) -> dict[Watch, InFlightQuery]:
        loop = asyncio.get_running_loop()
        queries: dict[Watch, InFlightQuery] = {}
        for i, watch in enumerate(self._in_order(only)):
            if i and i % _STARTED_AT_ONCE == 0:
                await asyncio.sleep(0)
            if self._watches.is_current(watch):
                # Some are started in any case: they would never be asked.
                late = i >= _STARTED_AT_ONCE and loop.time() > deadline
                queries[watch] = self._cut_off(watch) if late else self._join(watch, deadline)
        return queries

    async def _ask_discovered(
        self, queries: dict[Watch, InFlightQuery], deadline: float, only: InstanceKey | None
    ) -> None:
        """Ask the instances that discovery finds meanwhile, each project's as it is listed."""
        loop = asyncio.get_running_loop()
        # Only the first listing is worth the wait: one that failed may go on failing.
        pending = {
            task
            for discovery, task in self._watches.refresh_discoveries()
            if discovery.success is None
        }
        while True:
            self._watches.update()
            for watch in self._in_order(only):
                if watch not in queries and not self._closed:
                    queries[watch] = self._join(watch, deadline)
            seconds = deadline - loop.time()
            if only is not None or not pending or seconds <= 0:
                return
            _, pending = await asyncio.wait(
                pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )

    async def _collect(
        self,
        queries: Mapping[Watch, InFlightQuery],
        started: float,
        span: Span,
    ) -> Snapshot:
        loop = asyncio.get_running_loop()
        results, changes = [], Changes()
        for i, (watch, in_flight) in enumerate(queries.items(), start=1):
            if self._watches.is_current(watch):
                sources = self._sources.results(watch.instance)
                results.append(collect(watch, in_flight, span, sources, changes))
            if i % _COLLECTED_AT_ONCE == 0 and loop.time() < span.deadline:
                await asyncio.sleep(0)
        changes.tell()
        order = {key: i for i, key in enumerate(self._watches.keys())}
        # One may have gone during the turns of the loop.
        results = [result for result in results if result.instance.key in order]
        results.sort(key=lambda result: order[result.instance.key])
        return Snapshot(started, self._clock(), results, self._project_results())

    async def _refresh_sources(self, queries: Mapping[Watch, InFlightQuery]) -> None:
        if not self._closed:
            await self._sources.refresh([watch.instance for watch in queries], self.instances)

    def _in_order(self, only: InstanceKey | None) -> list[Watch]:
        if only is not None:
            watch = self._watches.get(only)
            return [watch] if watch is not None else []
        return in_turn(self._watches)

    def _join(self, watch: Watch, deadline: float) -> InFlightQuery:
        in_flight = watch.in_flight
        if in_flight is not None and in_flight.early_age <= SHARED_SECONDS:
            in_flight.query.deadline = max(in_flight.query.deadline, deadline)
            return in_flight
        query = Query(
            deadline=deadline,
            priority=next(self._turns),
            share=Share.UNANSWERED if watch.is_unanswered else Share.NEW,
            meter=watch.meter,
        )
        in_flight = watch.in_flight = InFlightQuery.begin(query, self._redact)
        if query.share is Share.NEW:
            self._urgency.began(watch.instance.project_id, in_flight)
        in_flight.task = asyncio.create_task(self._run(watch, in_flight))
        self._tasks.add(in_flight.task)
        in_flight.task.add_done_callback(self._tasks.discard)
        return in_flight

    def _cut_off(self, watch: Watch) -> InFlightQuery:
        if watch.in_flight is not None:
            return watch.in_flight
        return cut_off(Query(deadline=asyncio.get_running_loop().time(), meter=watch.meter))

    async def _run(self, watch: Watch, in_flight: InFlightQuery) -> None:
        try:
            refresh = partial(watch.refresh, listings=self._urgency.listings)
            await in_flight.run(refresh, of=watch.instance.key)
        finally:
            if watch.in_flight is in_flight:
                watch.in_flight = None
            self._urgency.ended(watch.instance.project_id, in_flight)
        if isinstance(in_flight.outcome, Reading):
            watch.last_success = watch.clock()

    def _project_results(self) -> list[ProjectResult]:
        return [project.result(self._redact) for project in self.projects.values()]

    def progress(self) -> tuple[int, int]:
        """How many instances have no query under way, and how many pages the others have read."""
        busy = [watch for watch in self._watches if watch.in_flight is not None]
        pages = sum(
            progress.pages_done for watch in busy if (progress := watch.sync.progress) is not None
        )
        return len(self._watches) - len(busy), pages

    def view(self) -> View:
        """The last result of each instance, from a scrape or a probe; of each, asked or not."""
        results = [
            watch.result or InstanceResult.unasked(watch.instance) for watch in self._watches
        ]
        last = self._last.newest
        return View(
            results,
            self._project_results(),
            started=last.started if last is not None else None,
            finished=last.finished if last is not None else None,
        )

    async def drain(self) -> None:
        """Wait until no query is under way. Listings end: who took over goes on with them."""
        await self._urgency.listings.aclose()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def aclose(self) -> None:
        """Stop all queries and wait for their end."""
        self._closed = True
        await self._urgency.listings.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sources.aclose()
        for project in self.projects.values():
            if project.discovery is not None:
                await project.discovery.aclose()
