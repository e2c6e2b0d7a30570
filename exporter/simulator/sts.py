"""The security token service, v5: keys of an agency for a signature or an OIDC token."""

import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.simulator.access import IncomingRequest
from exporter.simulator.agencies import SimulatedAgency
from exporter.simulator.faults import RefusalError
from exporter.simulator.gateway import Gateway, RecordedRequest
from exporter.simulator.rendering import render_utc

_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,128}", re.ASCII)
_SHORTEST, _LONGEST, _LONGEST_BY_TEMPORARY_KEYS = 900, 43_200, 3_600


class Sts:
    """Says who may act as which agency, and for how long."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        return [
            Route("/v5/agencies/assume", self._assume, methods=["POST"]),
            Route("/v5/agencies/assume-with-oidc", self._assume_with_oidc, methods=["POST"]),
        ]

    async def _assume(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            gateway = self._gateway
            caller = gateway.gatekeeper.check_signature(incoming, record.at, gateway.knobs)
            asked = _read(incoming.body, record)
            agency = self._find(asked)
            if caller.name not in agency.trusted:
                raise _refusal(403, "PAP5.0001", f"access denied: {caller.name}")
            longest = _LONGEST_BY_TEMPORARY_KEYS if caller.is_temporary else _LONGEST
            return self._give_keys(agency, asked, record, longest)

        return await self._gateway.answer(request, "assume_agency", respond)

    async def _assume_with_oidc(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            asked = _read(incoming.body, record)
            agency = self._find(asked)
            shown = (asked.get("provider_urn"), asked.get("id_token"))
            if shown not in agency.oidc:
                # As careless services do, it repeats what it was sent.
                raise _refusal(401, "STS5.0011", f"invalid id_token: {asked.get('id_token')}")
            return self._give_keys(agency, asked, record, _LONGEST)

        return await self._gateway.answer(request, "assume_agency_with_oidc", respond)

    def _find(self, asked: Mapping[str, Any]) -> SimulatedAgency:
        for agency in self._gateway.agencies.all:
            if agency.urn == asked.get("agency_urn"):
                return agency
        raise _refusal(403, "PAP5.0001", "access denied: no such agency, or not for you")

    def _give_keys(
        self,
        agency: SimulatedAgency,
        asked: Mapping[str, Any],
        record: RecordedRequest,
        longest: int,
    ) -> Response:
        seconds, session = asked.get("duration_seconds", 3_600), asked.get("agency_session_name")
        longest = min(longest, agency.longest_seconds)
        if not isinstance(seconds, int) or not _SHORTEST <= seconds <= longest:
            raise _refusal(400, "STS5.0002", f"duration_seconds: {_SHORTEST} to {longest}")
        if not isinstance(session, str) or not _SESSION_NAME.fullmatch(session):
            raise _refusal(400, "STS5.0003", "invalid agency_session_name")
        key = self._gateway.issue_key(agency, record.at, seconds)
        return JSONResponse(
            {
                "assumed_agency": {
                    "urn": f"sts::{agency.account_id}:assumed-agency:{agency.name}/{session}",
                    "id": f"{agency.name}:{session}",
                },
                "credentials": {
                    "access_key_id": key.access,
                    "secret_access_key": key.secret,
                    "security_token": key.security_token,
                    "expiration": render_utc(key.expires),
                },
            }
        )


def _read(body: bytes, record: RecordedRequest) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise _refusal(400, "STS5.0001", "the body is no JSON object")
    record.sent = {name: value for name, value in asked.items() if name != "id_token"}
    return asked


def _refusal(status: int, code: str, message: str) -> RefusalError:
    return RefusalError(status, "service", code, message)
