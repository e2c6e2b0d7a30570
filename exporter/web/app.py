"""The exporter over HTTP: which path is whose."""

from starlette.applications import Starlette
from starlette.routing import Route

from exporter.assembly import Exporter
from exporter.web.lifecycle import Lifecycle
from exporter.web.pages import Pages
from exporter.web.scrapes import Scrapes
from exporter.web.targets import ServiceDiscovery


def create_app(
    exporter: Exporter, *, telemetry_path: str = "/metrics", enable_lifecycle: bool = False
) -> Starlette:
    """The application for an exporter that is loaded. Starting and stopping are not its own."""
    scrapes = Scrapes(exporter)
    pages = Pages(exporter, telemetry_path=telemetry_path)
    lifecycle = Lifecycle(exporter, may_reload=enable_lifecycle)
    return Starlette(
        routes=[
            Route(telemetry_path, scrapes.metrics),
            Route("/probe", scrapes.probe),
            Route("/sd", ServiceDiscovery(exporter).targets),
            Route("/", pages.status),
            Route("/-/healthy", lifecycle.healthy),
            Route("/-/ready", lifecycle.ready),
            Route("/-/reload", lifecycle.reload, methods=["POST"]),
        ]
    )
