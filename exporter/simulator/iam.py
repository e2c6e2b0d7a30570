"""The identity service: log-in, projects, the versions of its API."""

import json
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.simulator.access import IncomingRequest
from exporter.simulator.cloud import SimulatedProject
from exporter.simulator.faults import RefusalError
from exporter.simulator.gateway import Gateway, RecordedRequest
from exporter.simulator.rendering import made_up_id, render_utc


class Iam:
    """Knows users and tokens; whether they are right the gatekeeper says."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        return [
            Route("/", self._discover, methods=["GET"]),
            Route("/v3", self._discover, methods=["GET"]),
            Route("/v3/", self._discover, methods=["GET"]),
            Route("/v3/auth/tokens", self._log_in, methods=["POST"]),
            Route("/v3/projects", self._list_projects, methods=["GET"]),
        ]

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

        return await self._gateway.answer(request, "discovery", respond)

    async def _log_in(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            now, knobs = record.at, self._gateway.knobs
            user, password, scope = _parse_login(incoming.body)
            project_id = self._find_project_id(scope)
            record.project_id = project_id
            text, token = self._gateway.gatekeeper.log_in(user, password, project_id, now, knobs)
            project = self._gateway.projects[project_id]
            domain = {"id": made_up_id("domain", user[0]), "name": user[0]}
            described: dict[str, object] = {
                "methods": ["password"],
                "issued_at": render_utc(now),
                "expires_at": render_utc(token.expires),
                "user": {
                    "id": made_up_id("user", "/".join(user)),
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

        return await self._gateway.answer(request, "login", respond)

    def _find_project_id(self, scope: Mapping[str, object]) -> str:
        if isinstance(scope.get("id"), str):
            return str(scope["id"])
        for project in self._gateway.projects.values():
            if scope.get("name") == (project.name or project.region):
                return project.id
        return ""

    async def _list_projects(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            opened = self._gateway.gatekeeper.find_projects(
                incoming, record.at, self._gateway.knobs, form="iam"
            )
            projects = [
                {
                    "id": project.id,
                    "name": project.name or project.region,
                    "domain_id": made_up_id("domain", ""),
                    "parent_id": made_up_id("domain", ""),
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

        return await self._gateway.answer(request, "list_projects", respond)


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


def _build_catalog(project: SimulatedProject, base: str) -> list[dict[str, object]]:
    region = project.region
    return [
        {
            "id": made_up_id("service", kind),
            "name": name,
            "type": kind,
            "endpoints": [
                {
                    "id": made_up_id("endpoint", kind),
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
