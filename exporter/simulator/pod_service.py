"""The credential agent of a pod: keys of the agency that is bound to its service account."""

import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.simulator.access import IncomingRequest
from exporter.simulator.faults import RefusalError
from exporter.simulator.gateway import Gateway, RecordedRequest
from exporter.simulator.rendering import render_utc

POD_CREDENTIALS_PATH = "/v1/credentials"
_SPELLINGS = {
    "plain": ("credential", "access", "secret", "securitytoken", "expires_at"),
    "camel": (
        "credentials",
        "accessKeyId",
        "secretAccessKey",
        "securityToken",
        "expiration",
    ),
    "snake": (
        "credentials",
        "access_key_id",
        "secret_access_key",
        "security_token",
        "expiration",
    ),
}


class PodService:
    """Gives out keys to whoever shows the pod's token."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        return [Route(POD_CREDENTIALS_PATH, self._give_keys, methods=["POST"])]

    async def _give_keys(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            try:
                is_empty = json.loads(incoming.body) == {}
            except ValueError:
                is_empty = False
            if not is_empty or "json" not in incoming.headers.get("content-type", ""):
                raise RefusalError(400, "html", "", "Bad Request")
            shown = incoming.headers.get("authorization", "")
            for agency in self._gateway.agencies.all:
                if shown in agency.pod_tokens:
                    break
            else:
                raise RefusalError(401, "html", "", f"Unauthorized: {shown}")
            knobs = self._gateway.knobs
            key = self._gateway.issue_key(agency, record.at, knobs.pod_key_seconds)
            container, access, secret, token, end = _SPELLINGS[knobs.pod_key_spelling]
            return JSONResponse(
                {
                    container: {
                        access: key.access,
                        secret: key.secret,
                        token: key.security_token,
                        end: render_utc(key.expires),
                    }
                }
            )

        return await self._gateway.answer(request, "pod_identity", respond)
