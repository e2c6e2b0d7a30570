"""The simulated cloud as one ASGI application: IAM, GaussDB(for MySQL) and the metadata service."""

import asyncio
import calendar
import dataclasses
import itertools
import json
import math
import random
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Literal, get_args
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exporter.simulator.access import Gatekeeper, IncomingRequest
from exporter.simulator.cloud import (
    Knobs,
    RateLimit,
    Schedule,
    SimulatedBackup,
    SimulatedInstance,
    SimulatedProject,
    Window,
    find_backups,
    find_listed,
    render_row,
)
from exporter.simulator.faults import Fault, FaultyResponse, RefusalError, build_error

Operation = Literal[
    "login", "list_backups", "list_instances", "list_projects", "metadata", "discovery", "unknown"
]
Sleep = Callable[[float], Awaitable[None]]

_INSTANCE_ID = re.compile(r"[0-9a-z]{32}in\d\d")
_MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)([+-])(\d\d)(\d\d)")
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_METADATA_TOKEN = "simulated-metadata-token"  # noqa: S105 - made up, like all in here


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


@dataclass(slots=True)
class _Scripted:
    fault: Fault
    operation: str | None
    instance_id: str | None
    times: float


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
    ) -> None:
        self.projects: dict[str, SimulatedProject] = {project.id: project for project in projects}
        self.clock = clock
        self.knobs = knobs or Knobs()
        self.requests: deque[RecordedRequest] = deque(maxlen=keep_requests)
        self.request_counts: Counter[Operation] = Counter()
        self.fault_script: Callable[[RecordedRequest], Fault | None] | None = None
        self.faults: list[_Scripted] = []
        self._seed = seed
        self._sleep = sleep
        self._rng = random.Random(f"order:{seed}")
        self._gatekeeper = Gatekeeper(self.projects, seed)
        self._request_numbers = itertools.count(1)
        self._recent: dict[str, deque[float]] = {}
        self._app = Starlette(
            routes=[
                Route("/", self._discover, methods=["GET"]),
                Route("/v3", self._discover, methods=["GET"]),
                Route("/v3/", self._discover, methods=["GET"]),
                Route("/v3/auth/tokens", self._log_in, methods=["POST"]),
                Route("/v3/projects", self._list_projects, methods=["GET"]),
                Route(
                    "/v3/{project_id}/instances/{instance_id}/incremental-backups",
                    self._list_backups,
                    methods=["GET"],
                ),
                Route("/v3/{project_id}/instances", self._list_instances, methods=["GET"]),
                Route("/v3.1/{project_id}/instances", self._list_instances_v31, methods=["GET"]),
                Route("/meta-data/latest/api/token", self._give_metadata_token, methods=["PUT"]),
                Route("/openstack/latest/securitykey", self._give_key, methods=["GET"]),
                *(self._control_routes() if control else []),
                Route("/{path:path}", self._not_published, methods=_METHODS),
            ]
        )
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    # What tests and demos ask for and change

    def instance(self, instance_id: str, project_id: str | None = None) -> SimulatedInstance:
        """The instance of that id (in that project, or in any); KeyError if there is none."""
        for project in self.projects.values():
            if project_id in (None, project.id) and instance_id in project.instances:
                return project.instances[instance_id]
        raise KeyError(instance_id)

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
        self._gatekeeper.revoke_tokens(project_id)

    def is_locked(self, name: str) -> bool:
        """Whether a user (`domain/user`) or an access key is locked after its failures."""
        return self._gatekeeper.is_locked(name, self.clock())

    def stop_backups(self, instance_id: str) -> None:
        """From now on the instance's schedule begins no more backups."""
        self._schedule_of(instance_id).stop(self.clock())

    def resume_backups(self, instance_id: str) -> None:
        self._schedule_of(instance_id).resume(self.clock())

    def _schedule_of(self, instance_id: str) -> Schedule:
        schedule = self.instance(instance_id).schedule
        if schedule is None:
            raise KeyError(f"{instance_id} has no schedule")
        return schedule

    # From request to answer

    async def _answer(
        self,
        request: Request,
        operation: Operation,
        respond: Callable[[IncomingRequest, RecordedRequest], Response],
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
            request.path_params.get("instance_id", ""),
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
                self._gatekeeper.set_limits(knobs)
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

    # IAM

    async def _discover(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            version = {
                "id": "v3.6",
                "status": "stable",
                "updated": "2016-04-04T00:00:00Z",
                "links": [{"rel": "self", "href": f"{_base(request)}/v3/"}],
                "media-types": [
                    {
                        "base": "application/json",
                        "type": "application/vnd.openstack.identity-v3+json",
                    }
                ],
            }
            if record.path == "/":
                return JSONResponse({"versions": {"values": [version]}}, 300)
            return JSONResponse({"version": version})

        return await self._answer(request, "discovery", respond)

    async def _log_in(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            now, knobs = record.at, self.knobs
            user, password, scope = _parse_login(incoming.body)
            project_id = self._find_project_id(scope)
            record.project_id = project_id
            text, token = self._gatekeeper.log_in(user, password, project_id, now, knobs)
            project = self.projects[project_id]
            domain = {"id": _made_up_id("domain", user[0]), "name": user[0]}
            described: dict[str, object] = {
                "methods": ["password"],
                "issued_at": _render_utc(now),
                "expires_at": _render_utc(token.expires),
                "user": {
                    "id": _made_up_id("user", "/".join(user)),
                    "name": user[1],
                    "domain": domain,
                    "password_expires_at": "",
                },
                "project": {
                    "id": project.id,
                    "name": project.name or project.region,
                    "domain": domain,
                },
                "roles": [{"id": "0", "name": "op_gated_eip_ipv6"}],
            }
            if "nocatalog" not in record.query:
                described["catalog"] = _build_catalog(project, _base(request))
            return JSONResponse({"token": described}, 201, {"X-Subject-Token": text})

        return await self._answer(request, "login", respond)

    def _find_project_id(self, scope: Mapping[str, object]) -> str:
        if isinstance(scope.get("id"), str):
            return str(scope["id"])
        for project in self.projects.values():
            if scope.get("name") == (project.name or project.region):
                return project.id
        return ""

    async def _list_projects(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            opened = self._gatekeeper.find_projects(incoming, record.at, self.knobs, form="iam")
            projects = [
                {
                    "id": project.id,
                    "name": project.name or project.region,
                    "domain_id": _made_up_id("domain", ""),
                    "parent_id": _made_up_id("domain", ""),
                    "is_domain": False,
                    "enabled": True,
                    "description": "",
                    "links": {"self": f"{_base(request)}/v3/projects/{project.id}"},
                }
                for project in opened
                if record.query.get("name") in (None, project.name or project.region)
            ]
            links = {"self": f"{_base(request)}/v3/projects", "previous": None, "next": None}
            return JSONResponse({"projects": projects, "links": links})

        return await self._answer(request, "list_projects", respond)

    # GaussDB(for MySQL)

    async def _list_backups(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            now, knobs = record.at, self.knobs
            project = self._gatekeeper.check_project(incoming, record.project_id, now, knobs)
            query = _Query(record.query, knobs)
            offset = query.whole_number("offset", 0)
            limit = query.whole_number("limit", 10)
            if limit not in knobs.page_limit_allowed:
                raise query.refusal("limit", f"is none of {knobs.page_limit_allowed}")
            window = query.window()
            offsite = query.flag("display_offsite_backup")
            instance = self._find_instance(project, record.instance_id)
            if instance.failure is not None:
                return instance.failure.build_replacement(incoming.describe(), "")
            listed = find_listed(
                instance, knobs, window, now=now, offsite=offsite, rng=self._rng, seed=self._seed
            )
            page = listed[offset : offset + limit]
            rows = ", ".join(render_row(backup, instance.id, knobs, now) for backup in page)
            total = _render_total(len(listed), knobs)
            content = f'{{"backups": [{rows}]{total}}}'
            return Response(content, media_type="application/json")

        return await self._answer(request, "list_backups", respond)

    def _find_instance(self, project: SimulatedProject, instance_id: str) -> SimulatedInstance:
        instance = project.instances.get(instance_id)
        if instance is not None:
            return instance
        if not _INSTANCE_ID.fullmatch(instance_id):
            raise RefusalError(400, "service", "DBS.280404", "Invalid instance ID.")
        if self.knobs.unknown_instance_status == 403:
            raise RefusalError(403, "service", "DBS.200044", "The instance is not accessible.")
        raise RefusalError(404, "service", "DBS.201028", "The DB instance does not exist.")

    async def _list_instances_v31(self, request: Request) -> Response:
        if not self.knobs.v31_available:
            return await self._answer(request, "list_instances", _refuse_unpublished)
        return await self._list_instances(request)

    async def _list_instances(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            now, knobs = record.at, self.knobs
            project = self._gatekeeper.check_project(incoming, record.project_id, now, knobs)
            query = _Query(record.query, knobs)
            offset = query.whole_number("offset", 0)
            limit = query.whole_number("limit", 100)
            if not 1 <= limit <= 100:
                raise query.refusal("limit", "is not in 1 to 100")
            found = [
                instance
                for instance in project.instances.values()
                if not instance.hidden_from_discovery
                and _matches(instance.name, record.query.get("name"))
                and _matches(instance.id, record.query.get("id"))
                and query.tags().items() <= instance.tags.items()
            ]
            page = [_describe(i, project) for i in found[offset : offset + limit]]
            return JSONResponse({"instances": page, "total_count": len(found)})

        return await self._answer(request, "list_instances", respond)

    # The metadata service of a cloud server

    async def _give_metadata_token(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            status = self.knobs.metadata_token_status
            if status != 200:
                raise RefusalError(status, "html", "", HTTPStatus(status).phrase)
            lifetime = incoming.headers.get("x-metadata-token-ttl-seconds", "")
            if not lifetime.isdecimal() or not 1 <= int(lifetime) <= 21_600:
                raise RefusalError(400, "html", "", "Bad Request")
            return Response(_METADATA_TOKEN, media_type="text/plain")

        return await self._answer(request, "metadata", respond)

    async def _give_key(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            token_is_right = incoming.headers.get("x-metadata-token") == _METADATA_TOKEN
            if self.knobs.metadata_token_status == 200 and not token_is_right:
                raise RefusalError(401, "html", "", "Unauthorized")
            if not any(project.agency for project in self.projects.values()):
                message = "Please configure Cloud Service Agency first"
                raise RefusalError(401, "html", "", message)
            key = self._gatekeeper.current_key(record.at, self.knobs)
            credential = {
                "access": key.access,
                "secret": key.secret,
                "securitytoken": key.security_token,
                "expires_at": _render_utc(key.expires),
            }
            return JSONResponse({"credential": credential})

        return await self._answer(request, "metadata", respond)

    async def _not_published(self, request: Request) -> Response:
        return await self._answer(request, "unknown", _refuse_unpublished)

    # Control from another process

    def _control_routes(self) -> list[Route]:
        return [
            Route("/_simulator/knobs", self._control_knobs, methods=["POST"]),
            Route("/_simulator/faults", self._control_faults, methods=["POST"]),
            Route("/_simulator/stop-backups", self._control_backups, methods=["POST"]),
            Route("/_simulator/resume-backups", self._control_backups, methods=["POST"]),
            Route("/_simulator/revoke-tokens", self._control_tokens, methods=["POST"]),
            Route("/_simulator/requests", self._control_requests, methods=["GET"]),
        ]

    async def _control_knobs(self, request: Request) -> Response:
        try:
            self.knobs = change_knobs(self.knobs, await request.json())
        except (TypeError, ValueError) as problem:
            return JSONResponse({"problem": str(problem)}, 400)
        return JSONResponse(dataclasses.asdict(self.knobs))

    async def _control_faults(self, request: Request) -> Response:
        """{"fault": {...}, "operation": ..., "instance_id": ..., "times": 1}; [] clears."""
        asked = await request.json()
        if asked == []:
            self.clear_faults()
            return Response(status_code=204)
        try:
            fault = Fault(**asked.pop("fault"))
            if asked.get("operation") not in (None, *get_args(Operation)):
                raise ValueError(f"operation: one of {', '.join(get_args(Operation))}")
            self.add_fault(fault, **asked)
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            return JSONResponse({"problem": str(problem)}, 400)
        return Response(status_code=204)

    async def _control_backups(self, request: Request) -> Response:
        change = self.stop_backups if "stop" in request.url.path else self.resume_backups
        try:
            change((await request.json())["instance_id"])
        except (KeyError, TypeError, ValueError) as problem:
            return JSONResponse({"problem": str(problem)}, 400)
        return Response(status_code=204)

    async def _control_tokens(self, request: Request) -> Response:
        self.revoke_tokens()
        return Response(status_code=204)

    async def _control_requests(self, request: Request) -> Response:
        """The latest (`?last=`, 1000) of them, and how many there were by operation."""
        last = int(request.query_params.get("last", 1000))
        kept = list(self.requests)[-last:] if last > 0 else []
        return JSONResponse(
            {
                "counts": dict(self.request_counts),
                "requests": [dataclasses.asdict(record) for record in kept],
            }
        )


def change_knobs(knobs: Knobs, changes: Mapping[str, Any]) -> Knobs:
    """`knobs` with plain JSON values put in; TypeError or ValueError says what is wrong."""
    made = dict(changes)
    if made.get("rate_limit") is not None:
        made["rate_limit"] = RateLimit(**made["rate_limit"])
    if "page_limit_allowed" in made:
        made["page_limit_allowed"] = tuple(made["page_limit_allowed"])
    return dataclasses.replace(knobs, **made)


def parse_moment(text: str) -> int | None:
    """Seconds since the epoch of `yyyy-mm-ddThh:mm:ss+0800`; None for anything else."""
    parsed = _MOMENT.fullmatch(text)
    if parsed is None or not text.isascii():
        return None
    *parts, sign, hours, minutes = parsed.groups()
    year, month, day, hour, minute, second = map(int, parts)
    try:
        time.strptime("-".join(parts), "%Y-%m-%d-%H-%M-%S")
    except ValueError:
        return None
    offset = (int(hours) * 60 + int(minutes)) * 60
    local = calendar.timegm((year, month, day, hour, minute, second))
    return local - offset if sign == "+" else local + offset


class _Query:
    """Reads parameters as strictly as the documentation does."""

    def __init__(self, values: Mapping[str, str], knobs: Knobs) -> None:
        self._values = values
        self._form = knobs.parameter_error_form

    def refusal(self, name: str, problem: str) -> RefusalError:
        code = "DBS.200001" if self._form == "service" else "APIGW.0201"
        text = f"Parameter error: {name}={self._values.get(name)!r} {problem}."
        return RefusalError(400, self._form, code, text)

    def whole_number(self, name: str, default: int) -> int:
        text = self._values.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdecimal()):
            raise self.refusal(name, "is not a whole number from 0")
        return int(text)

    def flag(self, name: str) -> bool:
        text = self._values.get(name, "false")
        if text not in ("true", "false"):
            raise self.refusal(name, "is neither true nor false")
        return text == "true"

    def window(self) -> Window:
        names = [name for name in ("begin_time", "end_time") if name in self._values]
        if not names:
            return Window()
        if len(names) == 1:
            raise self.refusal(names[0], "needs the other time too")
        begin, end = (parse_moment(self._values[name]) for name in names)
        if begin is None:
            raise self.refusal("begin_time", "is not of the form yyyy-mm-ddThh:mm:ss+0800")
        if end is None:
            raise self.refusal("end_time", "is not of the form yyyy-mm-ddThh:mm:ss+0800")
        if end <= begin:
            raise self.refusal("end_time", "is not later than begin_time")
        return Window(begin, end)

    def tags(self) -> dict[str, str]:
        pairs = [part for part in self._values.get("tags", "").split(",") if part]
        if any("=" not in pair for pair in pairs):
            raise self.refusal("tags", "is not of the form key=value,key=value")
        return dict(pair.split("=", 1) for pair in pairs)


def _refuse_unpublished(incoming: IncomingRequest, record: RecordedRequest) -> Response:
    message = "The API does not exist or has not been published in the environment"
    raise RefusalError(404, "gateway", "APIGW.0101", message)


def _parse_login(body: bytes) -> tuple[tuple[str, str], str, Mapping[str, object]]:
    """(domain, user), the password and the project's scope out of the body of a login."""
    malformed = RefusalError(400, "iam", "", "Request body is invalid.")
    try:
        auth = json.loads(body)["auth"]
        if "password" not in auth["identity"]["methods"]:
            raise malformed
        user = auth["identity"]["password"]["user"]
        scope = auth["scope"]["project"]
        values = (user["domain"]["name"], user["name"], user["password"])
    except (ValueError, KeyError, TypeError):
        raise malformed from None
    if not all(isinstance(value, str) for value in values) or not isinstance(scope, dict):
        raise malformed
    return (values[0], values[1]), values[2], scope


def _render_total(total: int, knobs: Knobs) -> str:
    """The member `total_count` with its comma, as true as the knob wants it."""
    shown: object = {
        "true": total,
        "null": None,
        "lie": total + knobs.total_count_lie,
        "negative": -1,
        "string": str(total),
        "float": float(total),
    }.get(knobs.total_count)
    return "" if knobs.total_count == "missing" else f', "total_count": {json.dumps(shown)}'


def _matches(text: str, wanted: str | None) -> bool:
    if wanted is None:
        return True
    return wanted[1:] in text if wanted.startswith("*") else wanted == text


def _describe(instance: SimulatedInstance, project: SimulatedProject) -> dict[str, object]:
    """An instance as the cloud lists it."""
    return {
        "id": instance.id,
        "name": instance.name,
        "status": instance.status,
        "private_ips": ["192.168.0.10"],
        "proxy_ips": [],
        "readonly_private_ips": [],
        "public_ips": [],
        "port": "3306",
        "type": "Cluster",
        "region": instance.region or project.region,
        "datastore": {
            "type": "gaussdb-mysql",
            "version": "8.0",
            "kernel_version": "2.0.60.240900",
        },
        "created": "2022-07-01T02:15:30+0000",
        "updated": "2023-07-28T10:15:55+0000",
        "db_user_name": "root",
        "vpc_id": _made_up_id("vpc", project.id),
        "subnet_id": _made_up_id("subnet", project.id),
        "security_group_id": _made_up_id("group", project.id),
        "flavor_ref": "gaussdb.mysql.xlarge.x86.4",
        "flavor_info": {"vcpus": "4", "ram": "16"},
        "volume": {"type": "DL6", "size": "40"},
        "backup_strategy": {
            "start_time": "16:00-17:00",
            "keep_days": str(instance.keep_days),
        },
        "enterprise_project_id": instance.enterprise_project_id,
        "time_zone": "UTC+08:00",
        "charge_info": {"charge_mode": "postPaid"},
        "dedicated_resource_id": "",
        "tags": [{"key": key, "value": value} for key, value in instance.tags.items()],
    }


def _build_catalog(project: SimulatedProject, base: str) -> list[dict[str, object]]:
    region = project.region
    return [
        {
            "id": _made_up_id("service", kind),
            "name": name,
            "type": kind,
            "endpoints": [
                {
                    "id": _made_up_id("endpoint", kind),
                    "interface": "public",
                    "region": region,
                    "region_id": region,
                    "url": url,
                }
            ],
        }
        for name, kind, url in (
            ("keystone", "identity", f"{base}/v3"),
            ("gaussdb", "gaussdb", f"{base}/v3/{project.id}"),
        )
    ]


def _base(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def _made_up_id(kind: str, name: str) -> str:
    return f"{random.Random(f'{kind}:{name}').getrandbits(128):032x}"


def _render_utc(moment: float) -> str:
    """`2020-01-04T09:05:22.701000Z`."""
    whole = math.floor(moment)
    micros = int((moment - whole) * 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{micros:06d}Z"
