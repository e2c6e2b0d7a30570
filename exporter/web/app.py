"""The exporter over HTTP: which path is whose."""

from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.types import ASGIApp

from exporter.assembly import Exporter
from exporter.web.lifecycle import Lifecycle
from exporter.web.pages import Pages
from exporter.web.routing import Elsewhere, Prefixed, get, post
from exporter.web.scrapes import Scrapes
from exporter.web.targets import ServiceDiscovery


def create_app(
    exporter: Exporter,
    *,
    telemetry_path: str = "/metrics",
    enable_lifecycle: bool = False,
    external_url: str = "",
) -> ASGIApp:
    """The application for an exporter that is loaded. Starting and stopping are not its own.

    What lies below the path of `external_url` is also found there, for proxies that leave the path
    as it is.
    """
    scrapes = Scrapes(exporter)
    pages = Pages(exporter, telemetry_path=telemetry_path)
    lifecycle = Lifecycle(exporter, may_reload=enable_lifecycle, external_url=external_url)
    routes = [
        get(telemetry_path, scrapes.metrics),
        get("/probe", scrapes.probe),
        get("/sd", ServiceDiscovery(exporter).targets),
        get("/", pages.status),
        get("/runbooks/", pages.runbooks),
        get("/runbooks/{alert}", pages.runbook),
        get("/-/healthy", lifecycle.healthy),
        get("/-/ready", lifecycle.ready),
        post("/-/reload", lifecycle.reload),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    app.router.default = Elsewhere(routes)
    prefix = urlsplit(external_url).path.rstrip("/")
    return Prefixed(app, prefix) if prefix else app
