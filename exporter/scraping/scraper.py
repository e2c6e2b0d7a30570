"""A scrape: all instances under one deadline, each failing for itself."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import is_

import structlog

from exporter.backups.listing import Client
from exporter.backups.sync import InstanceSync
from exporter.cloud.discovery import Discovery
from exporter.config.schema import Config, ProjectConfig
from exporter.errors import ApiError, DeadlineError, Reason
from exporter.models import (
    Failure,
    Instance,
    InstanceKey,
    InstanceResult,
    ProjectResult,
    Reading,
    Snapshot,
)
from exporter.scraping.shard import shard_of
from exporter.transport.limits import Meter, Query

log = structlog.get_logger(__name__)

# Each flight begins with work of its own: many at once would keep the loop from the first answers.
_STARTED_AT_ONCE = 20
# As for their results: what else there is to do waits for so many.
_COLLECTED_AT_ONCE = 500

_DEADLINE = Failure(
    Reason.DEADLINE,
    "the scrape's deadline came before the answer",
    "raise scrape_timeout in Prometheus, or lower the number of instances (shards); it goes first"
    " in the next scrape",
)


@dataclass(slots=True, eq=False)
class Flight:
    """One query of an instance under way; all scrapes that come meanwhile wait for the same one."""

    query: Query
    started: float  # in the loop's time, like all times of a flight
    requests_before: int
    failed_before: int
    task: "asyncio.Task[None] | None" = None
    outcome: Reading | Failure | None = None
    finished: float = 0.0
    # Of the instance's meter when it ended: a later query may count on.
    requests_after: int = 0
    failed_after: int = 0
    # What was known before the whole window was listed anew: serves if that takes too long.
    early: Reading | None = None
    early_at: float = 0.0


@dataclass(slots=True, eq=False)
class Watch:
    """One instance as this exporter follows it from scrape to scrape."""

    instance: Instance
    sync: InstanceSync
    meter: Meter = field(default_factory=Meter)
    flight: Flight | None = None
    cut_off: int = 0  # how many scrapes in a row
    last_success: float | None = None
    last_reading: Reading | None = None
    last_end: float | None = None
    failing_since: float | None = None
    failing_reason: Reason | None = None
    result: InstanceResult | None = None
    result_begun: float = float("-inf")


@dataclass(slots=True, eq=False)
class Project:
    """One project: its configuration, its client, and what discovery finds in it."""

    config: ProjectConfig
    client: Client
    token_expiry: Callable[[], float | None]
    discovery: Discovery | None = None


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
        self._projects = {project.config.id: project for project in projects}
        self._clock = clock
        self._shard = shard
        self._total_shards = total_shards
        self._watches: dict[InstanceKey, Watch] = {}
        # All queries under way, those that nobody waits for any longer among them.
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._sequence = itertools.count()
        self._last: Snapshot | None = None  # of all instances
        self._newest: Snapshot | None = None  # of a probe too
        self._last_begun = self._newest_begun = float("-inf")
        # What the last scrape took after its waiting was over.
        self.collecting_seconds = 0.0
        self._found: list[object] | None = None
        self._update_watches()

    # Instances --------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        return self._config

    @property
    def projects(self) -> Mapping[str, Project]:
        return self._projects

    @property
    def instances(self) -> list[Instance]:
        """All that this exporter answers for, as far as they are known."""
        return [watch.instance for watch in self._watches.values()]

    async def discover(self, seconds: float) -> None:
        """Ask for the instances of projects where that is due; wait only for what is unknown."""
        pending = [task for _, task in self._refresh()]
        if pending:
            await asyncio.wait(pending, timeout=max(0.0, seconds))
        self._update_watches()

    def _refresh(self) -> list[tuple[Discovery, "asyncio.Task[None]"]]:
        """Ask for the instances of projects where that is due. Those that were never listed."""
        unknown = []
        for project in self._projects.values():
            if project.discovery is not None:
                task = project.discovery.refresh()
                if task is not None and not project.discovery.known:
                    unknown.append((project.discovery, task))
        return unknown

    def adopt(self, previous: "Scraper") -> None:
        """Go on with what `previous` knows of the instances that have not changed."""
        for key, watch in self._watches.items():
            before = previous._watches.get(key)
            if before is not None:
                self._take_over(watch, before)
        self._newest = previous._newest

    def _take_over(self, watch: Watch, before: Watch) -> None:
        watch.meter = before.meter
        watch.last_success = before.last_success
        watch.last_reading, watch.last_end = before.last_reading, before.last_end
        watch.failing_since = before.failing_since
        watch.failing_reason = before.failing_reason
        watch.sync.adopt(before.sync)
        if before.result is not None:
            watch.result = replace(before.result, instance=watch.instance)

    def _update_watches(self) -> None:
        """Follow what is configured and discovered now, and nothing else."""
        found: list[object] = [
            project.discovery.found
            for project in self._projects.values()
            if project.discovery is not None
        ]
        if self._found is not None and all(map(is_, found, self._found)):
            return
        self._found = found
        wanted = {instance.key: instance for instance in self._wanted()}
        for key in self._watches.keys() - wanted.keys():
            flight = self._watches.pop(key).flight
            if flight is not None and flight.task is not None:
                flight.task.cancel()
        for key, instance in wanted.items():
            watch = self._watches.get(key)
            if watch is None:
                self._watches[key] = Watch(
                    instance,
                    InstanceSync(
                        instance,
                        self._projects[instance.project_id].client,
                        clock=self._clock,
                        resync_interval=self._config.api.resync_interval,
                    ),
                )
            elif watch.instance != instance:
                watch.instance = instance
        if list(self._watches) != list(wanted):
            self._watches = {key: self._watches[key] for key in wanted}

    def _wanted(self) -> Iterable[Instance]:
        for project in self._projects.values():
            found = project.discovery.found if project.discovery is not None else None
            configured = set()
            for settings in project.config.instances:
                configured.add(settings.id)
                instance = self._config.instance(project.config, settings)
                if found is not None and not instance.name:
                    instance = replace(instance, name=found.names.get(instance.id, ""))
                if self._is_ours(instance.key):
                    yield instance
            for discovered in found.monitored.values() if found is not None else ():
                if discovered.id not in configured:
                    instance = self._config.discovered_instance(
                        project.config, discovered.id, discovered.name
                    )
                    if self._is_ours(instance.key):
                        yield instance

    def _is_ours(self, key: InstanceKey) -> bool:
        return self._total_shards == 1 or shard_of(key, self._total_shards) == self._shard

    def find(self, project: str, instance: str) -> InstanceKey | None:
        """The instance that two ids or names mean; None if there is none, or more than one."""
        found = [
            key
            for key, watch in self._watches.items()
            if project in (key.project_id, watch.instance.project_name)
            and instance in (key.instance_id, watch.instance.name)
        ]
        exact = [key for key in found if key.instance_id == instance]
        found = exact or found
        return found[0] if len(found) == 1 else None

    # Scraping ---------------------------------------------------------------------------------

    async def scrape(self, seconds: float, only: InstanceKey | None = None) -> Snapshot:
        """Ask every instance, or one, and return after `seconds` at the latest.

        What is not answered by then is failed as `deadline`; it goes on, and the next scrape
        joins it.
        """
        loop = asyncio.get_running_loop()
        started, deadline = self._clock(), loop.time() + max(0.0, seconds)
        if only is None and self._is_fresh(started):
            assert self._last is not None
            return self._last
        begun = loop.time()
        # Those that are known do not wait for the discovery of others, which may hang.
        flights: dict[Watch, Flight] = {}
        for i, watch in enumerate(self._in_order(only)):
            if i and i % _STARTED_AT_ONCE == 0:
                await asyncio.sleep(0)
            if self._is_current(watch):
                # Some are started in any case: they would never be asked.
                late = i >= _STARTED_AT_ONCE and loop.time() > deadline
                flights[watch] = self._cut_off(watch) if late else self._join(watch, deadline)
        await self._join_discovered(flights, deadline, only)
        tasks = [flight.task for flight in flights.values() if flight.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, deadline - loop.time()))
        waited = time.perf_counter()
        results = []
        for i, (watch, flight) in enumerate(flights.items(), start=1):
            if self._is_current(watch):
                results.append(self._collect(watch, flight, begun, deadline))
            if i % _COLLECTED_AT_ONCE == 0 and loop.time() < deadline:
                await asyncio.sleep(0)
        order = {key: i for i, key in enumerate(self._watches)}
        # One may have gone during the turns of the loop.
        results = [result for result in results if result.instance.key in order]
        results.sort(key=lambda result: order[result.instance.key])
        snapshot = Snapshot(started, self._clock(), results, self._project_results())
        if begun >= self._newest_begun:  # not where a later scrape was faster
            self._newest, self._newest_begun = snapshot, begun
        if only is None and begun >= self._last_begun:
            self._last, self._last_begun = snapshot, begun
        self._log_listings(results)
        self.collecting_seconds = time.perf_counter() - waited
        return snapshot

    async def _join_discovered(
        self, flights: dict[Watch, Flight], deadline: float, only: InstanceKey | None
    ) -> None:
        """Ask the instances that discovery finds meanwhile, each project's as it is listed."""
        loop = asyncio.get_running_loop()
        # Only the first listing is worth the wait: one that failed may go on failing.
        pending = {task for discovery, task in self._refresh() if discovery.success is None}
        while True:
            self._update_watches()
            for watch in self._in_order(only):
                if watch not in flights and not self._closed:
                    flights[watch] = self._join(watch, deadline)
            seconds = deadline - loop.time()
            if only is not None or not pending or seconds <= 0:
                return
            _, pending = await asyncio.wait(
                pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )

    def _is_current(self, watch: Watch) -> bool:
        """Whether its instance is still, or again, the one that is watched."""
        return self._watches.get(watch.instance.key) is watch

    def _is_fresh(self, now: float) -> bool:
        age = now - self._last.finished if self._last is not None else float("inf")
        return 0 <= age < self._config.scrape.min_interval

    def _in_order(self, only: InstanceKey | None) -> list[Watch]:
        """Those that the last scrapes cut off first, the longest unanswered before the others."""
        if only is not None:
            watch = self._watches.get(only)
            return [watch] if watch is not None else []
        return sorted(self._watches.values(), key=lambda watch: -watch.cut_off)

    def _join(self, watch: Watch, deadline: float) -> Flight:
        flight = watch.flight
        if flight is not None:
            flight.query.deadline = max(flight.query.deadline, deadline)
            return flight
        flight = Flight(
            query=Query(deadline=deadline, priority=next(self._sequence), meter=watch.meter),
            started=asyncio.get_running_loop().time(),
            requests_before=watch.meter.requests,
            failed_before=watch.meter.failed,
        )
        watch.flight = flight
        flight.task = asyncio.create_task(self._fly(watch, flight))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        return flight

    def _cut_off(self, watch: Watch) -> Flight:
        """The query of an instance for which the deadline came before it could be begun."""
        if watch.flight is not None:
            return watch.flight
        now = asyncio.get_running_loop().time()
        requests, failed = watch.meter.requests, watch.meter.failed
        return Flight(
            query=Query(deadline=now, meter=watch.meter),
            started=now,
            requests_before=requests,
            failed_before=failed,
            outcome=_DEADLINE,
            finished=now,
            requests_after=requests,
            failed_after=failed,
        )

    async def _fly(self, watch: Watch, flight: Flight) -> None:
        loop = asyncio.get_running_loop()

        def publish(reading: Reading) -> None:
            flight.early, flight.early_at = reading, loop.time()

        try:
            while flight.outcome is None:
                try:
                    flight.outcome = await watch.sync.refresh(flight.query, publish)
                except DeadlineError:
                    # Another scrape may have joined meanwhile, with a later deadline.
                    if flight.query.deadline <= loop.time():
                        flight.outcome = _DEADLINE
            if isinstance(flight.outcome, Reading):
                watch.last_success = self._clock()
        except ApiError as exc:
            if not exc.counted:
                watch.meter.count_error(exc.reason)
            flight.outcome = self._failure_of(exc)
        except Exception as exc:
            log.exception(
                "query broke", project=watch.instance.project_id, instance=watch.instance.id
            )
            watch.meter.count_error(Reason.BAD_RESPONSE)
            flight.outcome = Failure(
                Reason.BAD_RESPONSE,
                f"a mistake in the exporter: {type(exc).__name__}",
                "please report it with the log's traceback",
            )
        finally:
            flight.finished = loop.time()
            flight.requests_after = watch.meter.requests
            flight.failed_after = watch.meter.failed
            if watch.flight is flight:
                watch.flight = None

    def _failure_of(self, error: ApiError | DeadlineError) -> Failure:
        if isinstance(error, DeadlineError):
            return Failure(Reason.DEADLINE, str(error))
        return Failure(error.reason, self._redact(error.message), error.hint)

    def _collect(
        self, watch: Watch, flight: Flight, begun: float, deadline: float
    ) -> InstanceResult:
        """The instance's part in this scrape, whatever has become of its flight."""
        now = asyncio.get_running_loop().time()
        outcome = flight.outcome
        finished = flight.finished
        requests, failed = flight.requests_after, flight.failed_after
        cut_off, watch.cut_off = watch.cut_off, 0
        if outcome is None:
            finished, requests, failed = now, watch.meter.requests, watch.meter.failed
            if flight.early is not None and flight.early_at >= begun:
                # The listing goes on in the next scrape from the pages that it has.
                outcome = flight.early
                watch.last_success = self._clock()
            else:
                outcome = _DEADLINE
            if flight.query.deadline <= deadline:  # no other scrape waits longer
                self._expire(watch, flight)
        elif flight.early is not None and isinstance(outcome, Failure):
            # Only the listing anew has failed: it is due again at the next scrape.
            outcome = flight.early if flight.early_at >= begun else outcome
            if isinstance(outcome, Reading):
                watch.last_success = self._clock()
        api_errors = failed - flight.failed_before
        if isinstance(outcome, Failure) and outcome.reason is Reason.DEADLINE:
            watch.cut_off = cut_off + 1
            watch.meter.count_error(Reason.DEADLINE)
            api_errors += 1
        if isinstance(outcome, Reading):
            watch.last_reading = outcome
            if outcome.latest_end is not None:
                watch.last_end = outcome.latest_end
        result = InstanceResult(
            instance=watch.instance,
            reading=outcome if isinstance(outcome, Reading) else None,
            failure=outcome if isinstance(outcome, Failure) else None,
            duration_seconds=finished - flight.started,
            api_requests=requests - flight.requests_before,
            api_errors=api_errors,
            api_requests_total=watch.meter.requests,
            api_errors_total=dict(watch.meter.errors),
            last_success=watch.last_success,
            progress=watch.sync.progress,
            last_reading=watch.last_reading,
            last_end=watch.last_end,
        )
        if flight.started >= watch.result_begun:  # not where a later query was faster
            watch.result, watch.result_begun = result, flight.started
            self._log_change(watch, result)
        return result

    def _expire(self, watch: Watch, flight: Flight) -> None:
        """No scrape waits any longer: nothing new is waited for, what was sent goes on."""
        flight.query.expire()
        if flight.early is not None and flight.task is not None:
            # It has given its numbers; the next scrape needs newer ones at once.
            flight.task.cancel()
            watch.flight = None

    def _project_results(self) -> list[ProjectResult]:
        results = []
        for project in self._projects.values():
            discovery = project.discovery
            configured = {instance.id for instance in project.config.instances}
            results.append(
                ProjectResult(
                    id=project.config.id,
                    name=project.config.name,
                    region=project.config.region,
                    token_expiry=project.token_expiry(),
                    discovery_success=bool(discovery.success) if discovery is not None else None,
                    discovery_failure=(
                        self._failure_of(discovery.error)
                        if discovery is not None and discovery.error is not None
                        else None
                    ),
                    discovered_instances=(
                        len(discovery.found.monitored) if discovery is not None else None
                    ),
                    unmonitored_instances=(
                        len(discovery.found.unmonitored - configured)
                        if discovery is not None
                        else None
                    ),
                )
            )
        return results

    def progress(self) -> tuple[int, int]:
        """How many instances have no query under way, and how many pages the others have read."""
        flying = [watch for watch in self._watches.values() if watch.flight is not None]
        pages = sum(
            progress.pages_done for watch in flying if (progress := watch.sync.progress) is not None
        )
        return len(self._watches) - len(flying), pages

    def view(self) -> Snapshot | None:
        """The last result of each instance, from a scrape or a probe; None before the first."""
        results = [watch.result for watch in self._watches.values() if watch.result is not None]
        if self._newest is None:
            return None
        return replace(self._newest, results=results, projects=self._project_results())

    # Telling people ---------------------------------------------------------------------------

    def _log_change(self, watch: Watch, result: InstanceResult) -> None:
        """One line when an instance starts failing, and one when it recovers."""
        failure = result.failure
        facts = {
            "project": watch.instance.project_id,
            "instance": watch.instance.id,
            "instance_name": watch.instance.name,
        }
        if failure is not None:
            if watch.failing_reason is not failure.reason:
                if watch.failing_since is None:
                    watch.failing_since = self._clock()
                watch.failing_reason = failure.reason
                log.warning(
                    "instance failing",
                    reason=failure.reason.value,
                    error=failure.message,
                    hint=failure.hint,
                    **facts,
                )
        elif watch.failing_since is not None:
            log.info(
                "instance recovered",
                failed_seconds=round(self._clock() - watch.failing_since),
                **facts,
            )
            watch.failing_since = watch.failing_reason = None

    def _log_listings(self, results: Sequence[InstanceResult]) -> None:
        listings = [
            result.progress
            for result in results
            if result.progress is not None
            and result.failure is not None
            and result.failure.reason is Reason.DEADLINE
        ]
        if listings:
            log.info(
                "first listings go on",
                instances=len(listings),
                pages_done=sum(progress.pages_done for progress in listings),
                pages_total=sum(progress.pages_total for progress in listings),
            )

    async def drain(self) -> None:
        """Wait until no query is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def aclose(self) -> None:
        """Stop all queries and wait for their end."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for project in self._projects.values():
            if project.discovery is not None:
                await project.discovery.aclose()
