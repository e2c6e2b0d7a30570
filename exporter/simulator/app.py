"""The simulated cloud as one ASGI application: IAM, GaussDB(for MySQL) and the metadata service."""

import asyncio
import time
from collections.abc import Callable, Iterable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exporter.simulator.agencies import SimulatedAgency
from exporter.simulator.backups_api import BackupsApi
from exporter.simulator.cloud import (
    SimulatedInstance,
    SimulatedProject,
    find_backups,
    find_instance,
    find_schedule,
)
from exporter.simulator.control import Control
from exporter.simulator.faults import Fault
from exporter.simulator.full_backups import SimulatedFullBackup
from exporter.simulator.gateway import (
    Gateway,
    Operation,
    RecordedRequest,
    Sleep,
    refuse_unpublished,
)
from exporter.simulator.iam import Iam
from exporter.simulator.iam_keys import IamKeys
from exporter.simulator.instances_api import InstancesApi
from exporter.simulator.knobs import Knobs
from exporter.simulator.metadata_service import MetadataService
from exporter.simulator.pod_service import PodService
from exporter.simulator.restorable import Range, restorable_ranges
from exporter.simulator.restores_api import RestoresApi
from exporter.simulator.schedule import SimulatedBackup
from exporter.simulator.sts import Sts

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class Simulator:
    """The cloud, as an ASGI callable. It answers for any host name.

    `clock` is the cloud's (seconds since the epoch); `sleep` is awaited for delays, so that tests
    need not wait. `knobs` may be assigned at any time. `fault_script` is asked before every
    answer, ahead of what `add_fault` queued. With `control`, `/_simulator/` changes things from
    another process.
    """

    def __init__(
        self,
        projects: Iterable[SimulatedProject],
        *,
        clock: Callable[[], float] = time.time,
        knobs: Knobs | None = None,
        seed: int = 0,
        sleep: Sleep = asyncio.sleep,
        control: bool = False,
        keep_requests: int = 20_000,
        agencies: Iterable[SimulatedAgency] = (),
    ) -> None:
        gateway = Gateway(
            projects,
            clock=clock,
            knobs=knobs,
            seed=seed,
            sleep=sleep,
            keep_requests=keep_requests,
            agencies=agencies,
        )
        self._gateway = gateway
        self.clock = clock
        self.projects = gateway.projects
        self.requests = gateway.requests
        self.request_counts = gateway.request_counts
        self._app = Starlette(
            routes=[
                *Iam(gateway).routes(),
                *BackupsApi(gateway).routes(),
                *RestoresApi(gateway).routes(),
                *InstancesApi(gateway).routes(),
                *MetadataService(gateway).routes(),
                *PodService(gateway).routes(),
                *Sts(gateway).routes(),
                *IamKeys(gateway).routes(),
                *(Control(gateway).routes() if control else []),
                Route("/{path:path}", self._not_published, methods=_METHODS),
            ]
        )
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _not_published(self, request: Request) -> Response:
        return await self._gateway.answer(request, "unknown", refuse_unpublished)

    @property
    def knobs(self) -> Knobs:
        return self._gateway.knobs

    @knobs.setter
    def knobs(self, knobs: Knobs) -> None:
        self._gateway.knobs = knobs

    @property
    def fault_script(self) -> Callable[[RecordedRequest], Fault | None] | None:
        return self._gateway.fault_script

    @fault_script.setter
    def fault_script(self, script: Callable[[RecordedRequest], Fault | None] | None) -> None:
        self._gateway.fault_script = script

    def add_fault(
        self,
        fault: Fault,
        operation: Operation | None = None,
        instance_id: str | None = None,
        times: int | None = 1,
    ) -> None:
        """Spoils the next `times` answers (None: all) to that operation, about that instance."""
        self._gateway.add_fault(fault, operation, instance_id, times)

    def clear_faults(self) -> None:
        self._gateway.clear_faults()

    def instance(self, instance_id: str, project_id: str | None = None) -> SimulatedInstance:
        """The instance of that id (in that project, or in any); KeyError if there is none."""
        return find_instance(self.projects, instance_id, project_id)

    def backups_between(
        self,
        project_id: str,
        instance_id: str,
        begin: float,
        end: float,
        now: float | None = None,
        *,
        offsite: bool = False,
    ) -> list[SimulatedBackup]:
        """What ended in [begin, end] or, still running, began in it: see `find_backups`."""
        instance = self.projects[project_id].instances[instance_id]
        at = self.clock() if now is None else now
        return find_backups(instance, begin, end, at, offsite=offsite)

    def full_backups(
        self, project_id: str, instance_id: str, now: float | None = None
    ) -> list[SimulatedFullBackup]:
        """All full backups of an instance that the cloud has."""
        at = self.clock() if now is None else now
        return self.projects[project_id].instances[instance_id].full_backups_at(at)

    def restorable_ranges(
        self, project_id: str, instance_id: str, now: float | None = None
    ) -> list[Range]:
        """To which moments an instance can be restored, whatever the knobs show."""
        instance = self.projects[project_id].instances[instance_id]
        at = self.clock() if now is None else now
        return restorable_ranges(instance, at, breaks_after=self.knobs.chain_breaks_after_seconds)

    def requests_of(
        self, operation: Operation, instance_id: str | None = None
    ) -> list[RecordedRequest]:
        return [
            request
            for request in self.requests
            if request.operation == operation and instance_id in (None, request.instance_id)
        ]

    def revoke_tokens(self, project_id: str | None = None) -> None:
        """Makes every token given out so far worthless, as a changed password does."""
        self._gateway.gatekeeper.revoke_tokens(project_id)

    def end_agency_keys(self) -> None:
        """Makes every key that was given out for an agency worthless, long before its end."""
        self._gateway.agencies.end_keys()

    def is_locked(self, name: str) -> bool:
        """Whether a user (`domain/user`) or an access key is locked after its failures."""
        return self._gateway.gatekeeper.is_locked(name, self.clock())

    def stop_backups(self, instance_id: str) -> None:
        """From now on the instance's schedule begins no more backups."""
        find_schedule(self.projects, instance_id).stop(self.clock())

    def resume_backups(self, instance_id: str) -> None:
        find_schedule(self.projects, instance_id).resume(self.clock())
