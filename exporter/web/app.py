"""The exporter over HTTP: metrics, probes, discovery, health, reload, and a page for people."""

import asyncio
import math
import time
from collections.abc import Mapping

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from exporter import __version__
from exporter.assembly import Exporter
from exporter.config.schema import ScrapeConfig
from exporter.errors import ConfigError
from exporter.exposition.lines import LastExpositions
from exporter.exposition.metrics import Exposition, Registries, SnapshotCollector, render
from exporter.models import Instance
from exporter.page.status import CONTENT_SECURITY_POLICY, render_status

log = structlog.get_logger(__name__)

_SCRAPE_TIMEOUT_HEADER = "x-prometheus-scrape-timeout-seconds"
# What rendering takes of an instance's share of the deadline before it was measured.
_RENDER_SECONDS_PER_INSTANCE = 0.001


def scrape_seconds(header: str | None, config: ScrapeConfig) -> float:
    """How long a scrape may take: as Prometheus names less the offset, within `scrape.timeout`."""
    try:
        named = float(header) if header is not None else math.inf
    except ValueError:
        named = math.inf
    if not named > 0:  # zero, negative, or no number
        named = math.inf
    return max(0.0, min(named - config.timeout_offset, config.timeout))


class Renderer:
    """Renders beside the event loop, and knows how long that takes, and the collecting before it:
    the deadline includes both."""

    def __init__(self) -> None:
        self._seconds_per_instance = _RENDER_SECONDS_PER_INSTANCE
        self.last = LastExpositions()

    def reserve(self, instances: int) -> float:
        return instances * self._seconds_per_instance

    async def render(
        self,
        collector: Registries | SnapshotCollector,
        instances: int,
        request: Request,
        last: LastExpositions | None = None,
        spent_seconds: float = 0.0,
    ) -> Exposition:
        """`spent_seconds`: what the scrape took already after its deadline."""
        started = time.perf_counter()
        exposition = await asyncio.to_thread(
            render,
            collector,
            accept=request.headers.get("accept", ""),
            accept_encoding=request.headers.get("accept-encoding", ""),
            last=last,
        )
        if instances >= 100:
            # Half as much again as it last took, never less than half of what was known.
            took = 1.5 * (spent_seconds + time.perf_counter() - started) / instances
            self._seconds_per_instance = max(took, self._seconds_per_instance / 2)
        return exposition


def create_app(
    exporter: Exporter, *, telemetry_path: str = "/metrics", enable_lifecycle: bool = False
) -> Starlette:
    """The application for an exporter that is loaded. Starting and stopping are not its own."""
    renderer = Renderer()

    async def metrics(request: Request) -> Response:
        scraper = exporter.scraper
        seconds = scrape_seconds(request.headers.get(_SCRAPE_TIMEOUT_HEADER), scraper.config.scrape)
        count = len(scraper.instances)
        snapshot = await scraper.scrape(seconds - min(renderer.reserve(count), seconds / 2))
        collector = Registries(SnapshotCollector(snapshot), exporter.own.registry)
        return _exposition(
            await renderer.render(
                collector, count, request, renderer.last, scraper.collecting_seconds
            )
        )

    async def probe(request: Request) -> Response:
        project, instance = (request.query_params.get(name, "") for name in ("project", "instance"))
        if not project or not instance:
            return PlainTextResponse(
                "name the instance: /probe?project=ID&instance=ID (or their names)\n",
                status_code=400,
            )
        scraper = exporter.scraper
        started = time.monotonic()
        seconds = scrape_seconds(request.headers.get(_SCRAPE_TIMEOUT_HEADER), scraper.config.scrape)
        key = scraper.find(project, instance)
        if key is None:
            await scraper.discover(seconds)
            scraper = exporter.scraper  # a reload may have replaced it meanwhile
            key = scraper.find(project, instance)
        if key is None:
            return PlainTextResponse(
                f"unknown instance {instance[:64]!r} of project {project[:64]!r}: it is neither"
                " configured nor discovered, is another shard's, or its name is not unique\n",
                status_code=400,
            )
        snapshot = await scraper.scrape(seconds - (time.monotonic() - started), only=key)
        collector = SnapshotCollector(snapshot, projects=False)
        return _exposition(await renderer.render(collector, 1, request))

    async def service_discovery(request: Request) -> Response:
        scraper = exporter.scraper
        await scraper.discover(scraper.config.scrape.timeout)
        groups = [_target_group(instance, request) for instance in scraper.instances]
        return JSONResponse(groups)

    async def status(request: Request) -> Response:
        parameters = request.query_params
        snapshot = exporter.scraper.view()
        page = await asyncio.to_thread(
            render_status,
            snapshot,
            now=exporter.clock(),
            version=__version__,
            query=parameters.get("q", ""),
            state=parameters.get("state", ""),
            page=parameters.get("page", "1"),
            telemetry_path=telemetry_path,
        )
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    async def healthy(request: Request) -> Response:
        return PlainTextResponse("healthy\n")

    async def ready(request: Request) -> Response:
        if exporter.ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready\n", status_code=503)

    async def reload(request: Request) -> Response:
        if not enable_lifecycle:
            return PlainTextResponse(
                "reloading over HTTP is off: start with --web.enable-lifecycle\n", status_code=403
            )
        try:
            await exporter.reload()
        except ConfigError as exc:
            log.error("reload failed, the old configuration stays", problems=list(exc.problems))
            return PlainTextResponse(
                "the old configuration stays in force:\n" + "\n".join(exc.problems) + "\n",
                status_code=500,
            )
        return PlainTextResponse("configuration reloaded\n")

    return Starlette(
        routes=[
            Route(telemetry_path, metrics),
            Route("/probe", probe),
            Route("/sd", service_discovery),
            Route("/", status),
            Route("/-/healthy", healthy),
            Route("/-/ready", ready),
            Route("/-/reload", reload, methods=["POST"]),
        ]
    )


_PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _exposition(exposition: Exposition) -> Response:
    headers = {"Vary": "Accept, Accept-Encoding"}
    if exposition.encoding is not None:
        headers["Content-Encoding"] = exposition.encoding
    return Response(exposition.body, headers=headers, media_type=exposition.content_type)


def _target_group(instance: Instance, request: Request) -> dict[str, object]:
    """One instance as a target of `/probe`, as Prometheus' http_sd_configs takes it."""
    # Behind a proxy that ends TLS the scheme is not ours to tell.
    scheme = {"__scheme__": "https"} if request.url.scheme == "https" else {}
    return {
        "targets": [request.headers.get("host", "")],
        "labels": {
            **scheme,
            "__metrics_path__": "/probe",
            "__param_project": instance.project_id,
            "__param_instance": instance.id,
            "project": instance.project_id,
            "instance": instance.id,
            "__meta_gaussdb_mysql_project": instance.project_id,
            "__meta_gaussdb_mysql_project_name": instance.project_name,
            "__meta_gaussdb_mysql_instance": instance.id,
            "__meta_gaussdb_mysql_instance_name": instance.name,
            "__meta_gaussdb_mysql_region": instance.region,
        },
    }
