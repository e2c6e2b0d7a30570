"""Answers for whoever runs the exporter: is it well, is it ready, and read the file again."""

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from exporter.assembly import Exporter
from exporter.errors import ConfigError

log = structlog.get_logger(__name__)


class Lifecycle:
    """The handlers below `/-/`."""

    def __init__(self, exporter: Exporter, *, may_reload: bool) -> None:
        self._exporter = exporter
        self._may_reload = may_reload

    async def healthy(self, request: Request) -> Response:
        return PlainTextResponse("healthy\n")

    async def ready(self, request: Request) -> Response:
        if self._exporter.ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready\n", status_code=503)

    async def reload(self, request: Request) -> Response:
        if not self._may_reload:
            return PlainTextResponse(
                "reloading over HTTP is off: start with --web.enable-lifecycle\n", status_code=403
            )
        try:
            await self._exporter.reload()
        except ConfigError as exc:
            log.error("reload failed, the old configuration stays", problems=list(exc.problems))
            return PlainTextResponse(
                "the old configuration stays in force:\n" + "\n".join(exc.problems) + "\n",
                status_code=500,
            )
        return PlainTextResponse("configuration reloaded\n")
