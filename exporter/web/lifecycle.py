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
        if comes_from_another_site(request):
            return PlainTextResponse(
                "refused: a page of another site has sent this\n", status_code=403
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


def comes_from_another_site(request: Request) -> bool:
    """Whether a browser sends this for a page that is not ours: the person in front of it may be
    allowed to reload, that page is not."""
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origin = request.headers.get("origin")
    if origin is None:
        return False
    scheme, _, page = origin.lower().partition("://")
    default_port = {"http": ":80", "https": ":443"}.get(scheme, "")
    host = request.headers.get("host", "").lower()
    return page.removesuffix(default_port) != host.removesuffix(default_port)
