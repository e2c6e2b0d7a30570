"""What every request passes: recorded, throttled, let in, its answer spoiled where told so."""

import asyncio
import itertools
import math
import random
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Literal
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from exporter.simulator.access import Gatekeeper, IncomingRequest
from exporter.simulator.agencies import Agencies, IssuedKey, SimulatedAgency
from exporter.simulator.cloud import SimulatedInstance, SimulatedProject
from exporter.simulator.faults import Fault, FaultyResponse, RefusalError, build_error
from exporter.simulator.knobs import Knobs

Operation = Literal[
    "login",
    "list_backups",
    "list_full_backups",
    "show_restore_time",
    "list_instances",
    "list_projects",
    "metadata",
    "pod_identity",
    "assume_agency",
    "assume_agency_with_oidc",
    "agency_keys",
    "id_token_login",
    "discovery",
    "unknown",
]
_INSTANCE_ID = re.compile(r"[0-9a-z]{32}in\d\d")
Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class RecordedRequest:
    """One request that came. `status` is None until its answer begins."""

    operation: Operation
    method: str
    path: str
    query: dict[str, str]
    at: float
    project_id: str = ""
    instance_id: str = ""
    status: int | None = None
    sent: dict[str, object] = field(default_factory=dict)  # of a body: what is no secret


@dataclass(slots=True)
class _Scripted:
    fault: Fault
    operation: str | None
    instance_id: str | None
    times: float


Respond = Callable[[IncomingRequest, RecordedRequest], Response]


class Gateway:
    """In front of every API; the APIs ask it for the knobs, the projects and who may come in."""

    def __init__(
        self,
        projects: Iterable[SimulatedProject],
        *,
        clock: Callable[[], float] = time.time,
        knobs: Knobs | None = None,
        seed: int = 0,
        sleep: Sleep = asyncio.sleep,
        keep_requests: int = 20_000,
        agencies: Iterable[SimulatedAgency] = (),
    ) -> None:
        self.projects: dict[str, SimulatedProject] = {project.id: project for project in projects}
        self.clock = clock
        self.knobs = knobs or Knobs()
        self.requests: deque[RecordedRequest] = deque(maxlen=keep_requests)
        self.request_counts: Counter[Operation] = Counter()
        self.fault_script: Callable[[RecordedRequest], Fault | None] | None = None
        self.faults: list[_Scripted] = []
        self.seed = seed
        self.rng = random.Random(f"order:{seed}")
        self.agencies = Agencies(agencies, seed)
        self.gatekeeper = Gatekeeper(self.projects, seed, self.agencies)
        self._sleep = sleep
        self._request_numbers = itertools.count(1)
        self._recent: dict[str, deque[float]] = {}

    def add_fault(
        self,
        fault: Fault,
        operation: Operation | None = None,
        instance_id: str | None = None,
        times: int | None = 1,
    ) -> None:
        """Spoils the next `times` answers (None: all) to that operation, about that instance."""
        self.faults.append(
            _Scripted(fault, operation, instance_id, math.inf if times is None else times)
        )

    def clear_faults(self) -> None:
        self.faults.clear()
        self.fault_script = None

    def issue_key(self, agency: SimulatedAgency, now: float, seconds: float) -> IssuedKey:
        """Keys of an agency that was asked for them for so long."""
        lifetime = self.knobs.issued_key_seconds
        return self.agencies.issue(agency, now, seconds if lifetime is None else lifetime)

    def open_project(self, incoming: IncomingRequest, record: RecordedRequest) -> SimulatedProject:
        """The project of the request's path; raises the refusal if it may not be read."""
        return self.gatekeeper.check_project(incoming, record.project_id, record.at, self.knobs)

    def find_instance(self, project: SimulatedProject, instance_id: str) -> SimulatedInstance:
        """The instance of the request's path; raises the refusal if there is none."""
        instance = project.instances.get(instance_id)
        if instance is not None:
            return instance
        if not _INSTANCE_ID.fullmatch(instance_id):
            raise RefusalError(400, "service", "DBS.280404", "Invalid instance ID.")
        if self.knobs.unknown_instance_status == 403:
            raise RefusalError(403, "service", "DBS.200044", "The instance is not accessible.")
        raise RefusalError(404, "service", "DBS.201028", "The DB instance does not exist.")

    async def answer(
        self,
        request: Request,
        operation: Operation,
        respond: Respond,
    ) -> Response:
        """Records the request, applies latency, limits and faults; a refusal becomes an answer."""
        knobs = self.knobs
        record = RecordedRequest(
            operation,
            request.method,
            request.scope["path"],
            dict(request.query_params),
            self.clock(),
            request.path_params.get("project_id", ""),
            request.path_params.get("instance_id", request.query_params.get("instance_id", "")),
        )
        self.requests.append(record)
        self.request_counts[operation] += 1
        request_id = f"{next(self._request_numbers):032x}"
        incoming = IncomingRequest(
            request.method,
            request.scope.get("raw_path", quote(request.scope["path"]).encode()).decode("latin-1"),
            request.scope["query_string"].decode("latin-1"),
            {
                name.decode("latin-1"): value.decode("utf-8", "replace")
                for name, value in request.scope["headers"]
            },
            await request.body(),
        )
        if knobs.latency_seconds:
            await self._sleep(knobs.latency_seconds)
        fault = self._take_fault(record)
        if fault is not None and fault.replaces:
            response = fault.build_replacement(incoming.describe(), request_id)
        else:
            try:
                self.gatekeeper.set_limits(knobs)
                self._limit_rate(record)
                response = respond(incoming, record)
            except RefusalError as refusal:
                content, media_type = build_error(
                    refusal.status, refusal.form, refusal.code, refusal.message, request_id
                )
                response = Response(content, refusal.status, refusal.headers, media_type)
            if fault is not None:
                response = fault.spoil(response)
        response.headers["X-Request-Id"] = request_id
        if knobs.date == "true" and "date" not in response.headers:
            response.headers["Date"] = formatdate(self.clock(), usegmt=True)
        record.status = response.status_code
        return response if fault is None else FaultyResponse(response, fault, self._sleep)

    def _take_fault(self, record: RecordedRequest) -> Fault | None:
        if self.fault_script is not None:
            fault = self.fault_script(record)
            if fault is not None:
                return fault
        for scripted in self.faults:
            if scripted.operation in (None, record.operation) and scripted.instance_id in (
                None,
                record.instance_id,
            ):
                scripted.times -= 1
                if scripted.times <= 0:
                    self.faults.remove(scripted)
                return scripted.fault
        return None

    def _limit_rate(self, record: RecordedRequest) -> None:
        limit = self.knobs.rate_limit
        if limit is None or not record.project_id:
            return
        now = record.at
        recent = self._recent.setdefault(record.project_id, deque())
        while recent and recent[0] <= now - limit.seconds:
            recent.popleft()
        if len(recent) < limit.limit:
            recent.append(now)
            return
        wait = math.ceil(recent[0] + limit.seconds - now)
        headers = {
            "none": {},
            "seconds": {"Retry-After": str(wait)},
            "date": {"Retry-After": formatdate(now + wait, usegmt=True)},
        }[limit.retry_after]
        minutes, seconds = divmod(limit.seconds, 60)
        span = f"{limit.seconds:g} second" if seconds or not minutes else f"{minutes:g} minute"
        raise RefusalError(
            429,
            "gateway",
            "APIGW.0308",
            "The throttling threshold has been reached: "
            f"policy user over ratelimit,limit:{limit.limit},time:{span}",
            headers,
        )


def refuse_unpublished(incoming: IncomingRequest, record: RecordedRequest) -> Response:
    message = "The API does not exist or has not been published in the environment"
    raise RefusalError(404, "gateway", "APIGW.0101", message)
