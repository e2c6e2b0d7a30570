"""Answers for whoever runs the exporter: is it well, is it ready, and read the file again."""

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from exporter.assembly import Exporter
from exporter.errors import ConfigError

log = structlog.get_logger(__name__)


class Lifecycle:
    """The handlers below `/-/`."""

    def __init__(self, exporter: Exporter, *, may_reload: bool, external_url: str = "") -> None:
        self._exporter = exporter
        self._may_reload = may_reload
        self._own_origin = _origin_of(external_url)

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
        if _comes_from_another_site(request, self._own_origin):
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


def _origin_of(url: str) -> str:
    """Scheme, host and port, as a browser tells the origin of a page."""
    scheme, _, rest = url.lower().partition("://")
    host = rest.partition("/")[0]
    default_port = {"http": ":80", "https": ":443"}.get(scheme, "")
    return f"{scheme}://{host.removesuffix(default_port)}"


def _comes_from_another_site(request: Request, own_origin: str) -> bool:
    """Whether a browser sends this for a page that is not ours: the person in front of it may be
    allowed to reload, that page is not."""
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    if "origin" not in request.headers:
        return False
    origin = _origin_of(request.headers["origin"])
    # A proxy may have ended TLS: then it keeps the host and not the scheme.
    scheme = origin.partition("://")[0]
    return origin not in (own_origin, _origin_of(f"{scheme}://{request.headers.get('host', '')}"))
