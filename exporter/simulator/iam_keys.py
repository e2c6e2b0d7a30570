"""The older IAM's way to temporary keys: of an agency, or for an identity provider's token."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.simulator.access import IncomingRequest
from exporter.simulator.agencies import SimulatedAgency
from exporter.simulator.faults import RefusalError
from exporter.simulator.gateway import Gateway, RecordedRequest
from exporter.simulator.rendering import made_up_id, render_utc

_SHORTEST, _DEFAULT, _LONGEST = 900, 900, 86_400


class IamKeys:
    """Exchanges a signature, or a token, for temporary keys."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._unscoped: dict[str, SimulatedAgency] = {}

    def routes(self) -> list[Route]:
        return [
            Route("/v3.0/OS-CREDENTIAL/securitytokens", self._give_keys, methods=["POST"]),
            Route("/v3.0/OS-AUTH/id-token/tokens", self._log_in, methods=["POST"]),
        ]

    async def _log_in(self, request: Request) -> Response:
        """An unscoped token for one of an identity provider."""

        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            try:
                id_token = json.loads(incoming.body)["auth"]["id_token"]["id"]
            except (ValueError, KeyError, TypeError):
                raise _invalid() from None
            record.sent = {"idp_id": incoming.headers.get("x-idp-id", "")}
            shown = (incoming.headers.get("x-idp-id", ""), id_token)
            for agency in self._gateway.agencies.all:
                if shown in agency.id_tokens:
                    break
            else:
                message = f"The request you have made requires authentication: {id_token}"
                raise RefusalError(401, "iam", "", message)
            token = f"MII-unscoped-{made_up_id('unscoped', f'{shown}{record.at}')}"
            self._unscoped[token] = agency
            described = {"token": {"expires_at": render_utc(record.at + 86_400)}}
            return JSONResponse(described, 201, {"X-Subject-Token": token})

        return await self._gateway.answer(request, "id_token_login", respond)

    async def _give_keys(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            try:
                identity = json.loads(incoming.body)["auth"]["identity"]
                (method,) = identity["methods"]
                asked = identity[method]
                seconds = asked.get("duration_seconds", _DEFAULT)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise _invalid() from None
            if method == "token":
                agency = self._by_token(asked)
            elif method == "assume_role":
                agency = self._by_signature(incoming, asked, record)
            else:
                raise _invalid()
            record.sent = {name: value for name, value in asked.items() if name != "id"}
            if not isinstance(seconds, int) or not _SHORTEST <= seconds <= _LONGEST:
                raise _invalid()
            key = self._gateway.issue_key(agency, record.at, seconds)
            credential = {
                "access": key.access,
                "secret": key.secret,
                "securitytoken": key.security_token,
                "expires_at": render_utc(key.expires),
            }
            return JSONResponse({"credential": credential}, 201)

        return await self._gateway.answer(request, "agency_keys", respond)

    def _by_token(self, asked: dict[str, Any]) -> SimulatedAgency:
        agency = self._unscoped.get(asked.get("id", ""))
        if agency is None:
            raise RefusalError(401, "iam", "", "The token is invalid.")
        return agency

    def _by_signature(
        self, incoming: IncomingRequest, asked: dict[str, Any], record: RecordedRequest
    ) -> SimulatedAgency:
        gateway = self._gateway
        caller = gateway.gatekeeper.check_signature(incoming, record.at, gateway.knobs)
        for agency in gateway.agencies.all:
            named = asked.get("domain_name"), asked.get("domain_id")
            if agency.name == asked.get("agency_name") and named in (
                (agency.account_name, None),
                (None, agency.account_id),
            ):
                break
        else:
            raise RefusalError(404, "iam", "", "Could not find agency.")
        if caller.name not in agency.trusted:
            raise RefusalError(403, "iam", "IAM.0002", "You are not authorized to do this.")
        return agency


def _invalid() -> RefusalError:
    return RefusalError(400, "iam", "IAM.0011", "Request body is invalid.")
