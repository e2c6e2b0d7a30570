"""A project's instances as the cloud lists them, kept when the cloud does not answer."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from exporter.cloud.answers import FoundInstance, InstancePage
from exporter.config.schema import DiscoveryConfig
from exporter.errors import ApiError, DeadlineError, Reason
from exporter.models import Failure
from exporter.transport.failures import quote
from exporter.transport.pages import read_pages
from exporter.transport.query import Query

log = structlog.get_logger(__name__)

# What can be a part of the API's path and of a label without surprise.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_INSTANCES = 20_000  # no project holds so many
_TOLD = 5  # of many ids or names, in a line of the log
# What a listing may wait for: slots, the end of a silence, an announced Retry-After.
_PATIENCE_SECONDS = 300.0


class Client(Protocol):
    """What discovery needs of the API's client."""

    async def fetch_instances(self, *, version: str, offset: int, query: Query) -> InstancePage: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What the filters made of a project's instances."""

    monitored: Mapping[str, FoundInstance]
    unmonitored: frozenset[str]  # filtered out; excluded ones are neither
    unusable: tuple[str, ...]  # ids that the filters let through and that are none
    instances: Mapping[str, FoundInstance]  # all of the listing by id

    @property
    def takes_none(self) -> bool:
        """Whether there are instances, and not one of them is watched by discovery."""
        return bool(self.instances) and not self.monitored


NOTHING_FOUND = Found({}, frozenset(), (), {})


def choose(instances: Sequence[FoundInstance], filters: DiscoveryConfig) -> Found:
    """Apply the filters. Pure."""
    monitored: dict[str, FoundInstance] = {}
    unmonitored: set[str] = set()
    unusable: list[str] = []
    for instance in instances:
        if filters.excludes(instance_id=instance.id, name=instance.name):
            continue
        if not filters.wants(name=instance.name, tags=instance.tags):
            unmonitored.add(instance.id)
        elif _ID.fullmatch(instance.id):
            monitored[instance.id] = instance
        else:
            unusable.append(quote(instance.id))
    return Found(
        monitored,
        frozenset(unmonitored),
        tuple(unusable),
        {instance.id: instance for instance in instances},
    )


class Discovery:
    """One project's discovery: asks again when it is due, one request at a time."""

    def __init__(
        self,
        project_id: str,
        filters: DiscoveryConfig,
        client: Client,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._project_id = project_id
        self._filters = filters
        self._client = client
        self._clock = clock
        self._version = "v3.1"
        self._listed: Sequence[FoundInstance] = ()
        self.found = NOTHING_FOUND
        self.success: bool | None = None  # of the last try; None before the first ended
        self.error: ApiError | DeadlineError | None = None
        self._ever = False
        self._asked_at = float("-inf")
        self._pause = 0.0
        self._task: asyncio.Task[None] | None = None

    def adopt(self, previous: "Discovery") -> None:
        """Go on with what an earlier configuration's discovery has listed."""
        self._version = previous._version
        self._listed = previous._listed
        self._ever = previous._ever
        self.success, self.error = previous.success, previous.error
        self._choose()

    def refresh(self) -> "asyncio.Task[None] | None":
        """The listing that is under way, started if it is due; None if there is nothing to do.

        It outlives whoever waits for it. Callers need not wait unless `found` is still unknown.
        """
        # Also where the clock was set back.
        due = not 0 <= self._clock() - self._asked_at < self._pause
        if self._task is None and due:
            self._task = asyncio.create_task(self._run())
        return self._task

    @property
    def known(self) -> bool:
        """Whether a listing has ever succeeded."""
        return self._ever

    async def _run(self) -> None:
        try:
            instances = await self._fetch_all()
        except (ApiError, DeadlineError) as exc:
            self._fail(exc)
            return
        finally:
            self._task = None
            self._asked_at = self._clock()
            # Not before the next scrape, and not at each of them.
            self._pause = min(60.0, self._filters.refresh_interval)
        if self.success is not True:
            log.info("discovery succeeded", project=self._project_id, instances=len(instances))
        before = set(self.found.monitored)
        self._listed = instances
        self._choose()
        if self._ever and (changed := before ^ set(self.found.monitored)):
            log.info(
                "discovered instances changed",
                project=self._project_id,
                added=sorted(changed - before),
                removed=sorted(changed & before),
            )
        self.success, self.error, self._ever = True, None, True
        self._pause = self._filters.refresh_interval

    def _choose(self) -> None:
        """Apply the filters to what is listed; say what they leave out where that has changed."""
        before, self.found = self.found, choose(self._listed, self._filters)
        found = self.found
        if found.unusable and set(found.unusable) != set(before.unusable):
            log.warning(
                "discovered instances without a usable id",
                project=self._project_id,
                instances=len(found.unusable),
                ids=list(found.unusable[:_TOLD]),
                hint="they are not watched: an id is 1 to 64 letters, digits, - or _",
            )
        if found.takes_none and not before.takes_none:
            log.warning(
                "discovery takes no instance",
                project=self._project_id,
                found=len(found.instances),
                filtered_out=len(found.unmonitored),
                names=[quote(each.name) for each in list(found.instances.values())[:_TOLD]],
                hint="check the project's discovery: name, tags and exclude",
            )

    def _fail(self, exc: ApiError | DeadlineError) -> None:
        if self.success is not False:
            log.warning(
                "discovery failing",
                project=self._project_id,
                reason=exc.reason.value if isinstance(exc, ApiError) else Reason.DEADLINE.value,
                error=str(exc),
                hint=exc.hint if isinstance(exc, ApiError) else "",
                **(Failure.of(exc).facts if isinstance(exc, ApiError) else {}),
                kept_instances=len(self.found.monitored),
            )
        self.success, self.error = False, exc
        # The instances are kept; what was told of each is old now, and may be wrong.
        if any(each.status or each.keep_days is not None for each in self._listed):
            self._listed = [replace(each, status="", keep_days=None) for each in self._listed]
            self._choose()

    async def _fetch_all(self) -> list[FoundInstance]:
        try:
            return await self._fetch_pages(self._version)
        except ApiError as exc:
            if exc.reason is not Reason.NOT_FOUND or self._version == "v3":
                raise
        # The older API is the only one on Open Telekom Cloud.
        instances = await self._fetch_pages("v3")
        self._version = "v3"
        return instances

    async def _fetch_pages(self, version: str) -> list[FoundInstance]:
        query = Query(deadline=asyncio.get_running_loop().time() + _PATIENCE_SECONDS)

        async def fetch(offset: int) -> InstancePage:
            return await self._client.fetch_instances(version=version, offset=offset, query=query)

        with query.until_deadline():
            rows = await read_pages(fetch, what="instances", most=_MAX_INSTANCES)
        return list(rows.values())

    async def aclose(self) -> None:
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
