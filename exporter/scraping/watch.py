"""Which instances there are, and what is remembered of each from scrape to scrape."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import is_

from exporter.backups.sync import InstanceSync
from exporter.cloud.answers import FoundInstance
from exporter.cloud.discovery import Discovery
from exporter.config.schema import Config
from exporter.errors import ApiError, Reason
from exporter.models import Instance, InstanceKey, InstanceResult, Reading
from exporter.scraping.in_flight import InFlightQuery
from exporter.scraping.listings import WindowListing, WindowListings
from exporter.scraping.project import Project, origin_of
from exporter.scraping.shard import shard_of
from exporter.transport.clock import CloudClock
from exporter.transport.query import Meter, Query

# Reasons that pass by themselves: a window that could not be listed for one of them is tried again.
PASSING = frozenset({Reason.THROTTLED, Reason.SERVER, Reason.TIMEOUT, Reason.NETWORK})
# One answer may show that the clock is wrong, the next that it was that answer.
_CLOCK_TRIES = 4


@dataclass(slots=True, eq=False)
class Watch:
    """One instance as this exporter follows it from scrape to scrape."""

    instance: Instance
    sync: InstanceSync
    clock: CloudClock
    meter: Meter = field(default_factory=Meter)
    in_flight: InFlightQuery | None = None
    listing: WindowListing = field(default_factory=WindowListing)
    last_turn: int = -1  # which one it was when it was last asked; they only grow
    is_unanswered: bool = False  # it was asked then, and did not answer
    last_success: float | None = None
    last_reading: Reading | None = None
    last_end: float | None = None
    failing_since: float | None = None
    failing_reason: Reason | None = None
    result: InstanceResult | None = None
    result_begun: float = float("-inf")

    async def refresh(
        self, query: Query, publish: Callable[[Reading], None], listings: WindowListings
    ) -> Reading:
        """What is new. Where the whole window is due as well, that goes to `publish`, and the
        numbers follow when it is listed.

        A first listing that cannot be read fails the instance; one anew may fail for a while.
        """
        reading = await self._ask(query)
        if not self.sync.wants_listing():
            return reading
        publish(reading)
        is_listed = await listings.listed(
            self.listing,
            self.sync,
            instance=self.instance,
            meter=self.meter,
            latest_end=reading.latest_end,
        )
        if is_listed:
            with contextlib.suppress(ApiError):
                return await self._ask(query, waited=True)
        error = self.listing.error
        if error is not None and error.reason not in PASSING and not self.sync.is_listed():
            raise error.kept()
        return reading

    async def _ask(self, query: Query, *, waited: bool = False) -> Reading:
        """What is new by the cloud's clock: asked again where an answer has shown meanwhile that
        it says another time."""
        for _ in range(_CLOCK_TRIES):
            moves = self.clock.moves
            reading = await self.sync.refresh(query, waited=waited)
            if self.clock.moves == moves:
                break
        return reading

    def had_its_turn(self, query: Query, reason: Reason | None, *, begun: float) -> None:
        """Remember whether it was asked in the scrape that began then, and whether it answered.

        Whom a rate limit kept from it was not asked, nor who was asked too late to answer.
        """
        if query.requests == 0 or reason is Reason.THROTTLED:
            return
        if reason is Reason.DEADLINE:
            now = asyncio.get_running_loop().time()
            if not query.asking or query.asking_since - begun > (now - begun) / 2:
                return
        self.last_turn = query.priority
        self.is_unanswered = reason in (Reason.TIMEOUT, Reason.DEADLINE)

    def take_over(self, before: "Watch") -> None:
        """Go on with what an earlier configuration's watch knows."""
        self.meter = before.meter
        self.last_success = before.last_success
        self.last_turn, self.is_unanswered = before.last_turn, before.is_unanswered
        self.failing_since = before.failing_since
        self.failing_reason = before.failing_reason
        if not self.sync.adopt(before.sync):
            return  # numbers of another cloud, of what others may see, or of other backups
        self.last_reading, self.last_end = before.last_reading, before.last_end
        if before.result is not None:
            self.result = replace(before.result, instance=self.instance)


class Watches:
    """The instances that are configured and discovered now, as far as they are this shard's."""

    def __init__(
        self,
        config: Config,
        projects: Sequence[Project],
        *,
        clock: Callable[[], float],
        shard: int,
        total_shards: int,
    ) -> None:
        self._config = config
        self.projects: Mapping[str, Project] = {project.config.id: project for project in projects}
        self._clock = clock
        self._shard = shard
        self._total_shards = total_shards
        self._by_key: dict[InstanceKey, Watch] = {}
        self._found: list[object] | None = None
        self.update()

    def __iter__(self) -> Iterator[Watch]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

    def keys(self) -> Iterable[InstanceKey]:
        return self._by_key.keys()

    def get(self, key: InstanceKey) -> Watch | None:
        return self._by_key.get(key)

    def is_current(self, watch: Watch) -> bool:
        """Whether its instance is still, or again, the one that is watched."""
        return self._by_key.get(watch.instance.key) is watch

    def find(self, project: str, instance: str) -> InstanceKey | None:
        """The instance that two ids or names mean; None if there is none, or more than one."""
        found = [
            key
            for key, watch in self._by_key.items()
            if project in (key.project_id, watch.instance.project_name)
            and instance in (key.instance_id, watch.instance.name)
        ]
        exact = [key for key in found if key.instance_id == instance]
        found = exact or found
        return found[0] if len(found) == 1 else None

    def adopt(self, previous: "Watches") -> None:
        """Go on with what `previous` knows of the instances that are in both."""
        for key, watch in self._by_key.items():
            before = previous.get(key)
            if before is not None:
                watch.take_over(before)

    def refresh_discoveries(self) -> list[tuple[Discovery, "asyncio.Task[None]"]]:
        """Ask for the instances of projects where that is due. Those that were never listed."""
        unknown = []
        for project in self.projects.values():
            if project.discovery is not None:
                task = project.discovery.refresh()
                if task is not None and not project.discovery.known:
                    unknown.append((project.discovery, task))
        return unknown

    def update(self) -> None:
        """Follow what is configured and discovered now, and nothing else."""
        found: list[object] = [
            project.discovery.found
            for project in self.projects.values()
            if project.discovery is not None
        ]
        if self._found is not None and all(map(is_, found, self._found)):
            return
        self._found = found
        wanted = {instance.key: instance for instance in self._wanted()}
        for key in self._by_key.keys() - wanted.keys():
            gone = self._by_key.pop(key)
            gone.listing.cancel()
            if gone.in_flight is not None and gone.in_flight.task is not None:
                gone.in_flight.task.cancel()
        for key, instance in wanted.items():
            watch = self._by_key.get(key)
            if watch is None:
                self._by_key[key] = self._watch(instance)
            elif watch.instance != instance:
                watch.instance = instance
        if list(self._by_key) != list(wanted):
            self._by_key = {key: self._by_key[key] for key in wanted}

    def _watch(self, instance: Instance) -> Watch:
        project = self.projects[instance.project_id]
        clock = project.clock or CloudClock(self._clock)
        sync = InstanceSync(
            instance,
            project.client,
            clock=clock,
            resync_interval=self._config.api.resync_interval,
            origin=origin_of(project.config),
        )
        return Watch(instance, sync, clock)

    def _wanted(self) -> Iterable[Instance]:
        for project in self.projects.values():
            for instance in self._instances_of(project):
                if self._is_ours(instance.key):
                    yield instance

    def _instances_of(self, project: Project) -> Iterable[Instance]:
        found = project.discovery.found if project.discovery is not None else None
        configured = set()
        for settings in project.config.instances:
            configured.add(settings.id)
            instance = self._config.instance(project.config, settings)
            listed = found.instances.get(instance.id) if found is not None else None
            yield _as_listed(instance, listed) if listed is not None else instance
        for listed in found.monitored.values() if found is not None else ():
            if listed.id not in configured:
                instance = self._config.discovered_instance(project.config, listed.id, listed.name)
                yield _as_listed(instance, listed)

    def _is_ours(self, key: InstanceKey) -> bool:
        return self._total_shards == 1 or shard_of(key, self._total_shards) == self._shard


def _as_listed(instance: Instance, listed: FoundInstance) -> Instance:
    """With what the project's listing tells of it."""
    days = listed.keep_days
    return replace(
        instance,
        name=instance.name or listed.name,
        status=listed.status,
        retention_seconds=days * 86_400.0 if days is not None else None,
    )
