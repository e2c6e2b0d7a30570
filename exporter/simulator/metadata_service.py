"""The metadata service of a cloud server: temporary keys of its agency."""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.simulator.access import IncomingRequest
from exporter.simulator.faults import RefusalError
from exporter.simulator.gateway import Gateway, RecordedRequest
from exporter.simulator.rendering import render_utc

_TOKEN = "simulated-metadata-token"  # noqa: S105 - made up, like all in here


class MetadataService:
    """Gives out the key of the moment, to whoever shows the service's own token."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        return [
            Route("/meta-data/latest/api/token", self._give_metadata_token, methods=["PUT"]),
            Route("/openstack/latest/securitykey", self._give_key, methods=["GET"]),
        ]

    async def _give_metadata_token(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            status = self._gateway.knobs.metadata_token_status
            if status != 200:
                raise RefusalError(status, "html", "", HTTPStatus(status).phrase)
            lifetime = incoming.headers.get("x-metadata-token-ttl-seconds", "")
            if not lifetime.isdecimal() or not 1 <= int(lifetime) <= 21_600:
                raise RefusalError(400, "html", "", "Bad Request")
            return Response(_TOKEN, media_type="text/plain")

        return await self._gateway.answer(request, "metadata", respond)

    async def _give_key(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            token_is_right = incoming.headers.get("x-metadata-token") == _TOKEN
            if self._gateway.knobs.metadata_token_status == 200 and not token_is_right:
                raise RefusalError(401, "html", "", "Unauthorized")
            if not any(project.agency for project in self._gateway.projects.values()):
                message = "Please configure Cloud Service Agency first"
                raise RefusalError(401, "html", "", message)
            key = self._gateway.gatekeeper.current_key(record.at, self._gateway.knobs)
            credential = {
                "access": key.access,
                "secret": key.secret,
                "securitytoken": key.security_token,
                "expires_at": render_utc(key.expires),
            }
            return JSONResponse({"credential": credential})

        return await self._gateway.answer(request, "metadata", respond)
