"""Answers with numbers: `/metrics` and `/probe`, within the deadline that Prometheus names."""

import asyncio
import time

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from exporter.assembly import Exporter
from exporter.exposition.lines import LastExpositions
from exporter.exposition.metrics import Exposition, Registries, SnapshotCollector, render
from exporter.models import Snapshot
from exporter.web.deadlines import seconds_of_scrape

# What rendering takes of an instance's share of the deadline before it was measured.
_RENDER_SECONDS_PER_INSTANCE = 0.001
# One is rendered as fast alone; each takes a few times its size of memory.
RENDERED_AT_ONCE = 2
PARTS = frozenset({"exporter", "instances"})


class Renderer:
    """Renders beside the event loop, and knows how long that takes, and the collecting before it:
    the deadline includes both."""

    def __init__(self) -> None:
        self._seconds_per_instance = _RENDER_SECONDS_PER_INSTANCE
        # Of each choice of parts its own: what one leaves out would be encoded anew for the other.
        self._last = {parts: LastExpositions() for parts in (PARTS, frozenset({"instances"}))}
        self._rendering = asyncio.Semaphore(RENDERED_AT_ONCE)

    def reserve(self, instances: int) -> float:
        return instances * self._seconds_per_instance

    async def render(
        self,
        collector: Registries | SnapshotCollector,
        instances: int,
        request: Request,
        *,
        parts: frozenset[str] = frozenset(),
        spent_seconds: float = 0.0,
    ) -> Exposition:
        """`spent_seconds`: what the scrape took already after its deadline."""
        started = time.perf_counter()
        async with self._rendering:
            exposition = await asyncio.to_thread(
                render,
                collector,
                accept=request.headers.get("accept", ""),
                accept_encoding=request.headers.get("accept-encoding", ""),
                last=self._last.get(parts),
            )
        if instances >= 100:
            # Half as much again as it last took, never less than half of what was known.
            took = 1.5 * (spent_seconds + time.perf_counter() - started) / instances
            self._seconds_per_instance = max(took, self._seconds_per_instance / 2)
        return exposition


class Scrapes:
    """The handlers of `/metrics` and `/probe`."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._renderer = Renderer()

    async def metrics(self, request: Request) -> Response:
        """All of it, or the parts that `collect[]` names."""
        named = request.query_params.getlist("collect[]")
        if unknown := set(named) - PARTS:
            return PlainTextResponse(
                f"collect[] has no {sorted(unknown)[0][:64]!r}: it takes exporter and instances\n",
                status_code=400,
            )
        parts = frozenset(named) or PARTS
        scraper = self._exporter.scraper
        if "instances" in parts:
            count = len(scraper.instances)
            seconds = seconds_of_scrape(request, scraper.config.scrape)
            reserve = min(self._renderer.reserve(count), seconds / 2)
            snapshot = await scraper.scrape(seconds - reserve)
        else:
            count, now = 0, self._exporter.clock()
            snapshot = Snapshot(now, now, (), scraper.view().projects)
        collector = SnapshotCollector(snapshot, projects="exporter" in parts)
        return _respond(
            await self._renderer.render(
                Registries(collector, self._exporter.own.registry)
                if "exporter" in parts
                else collector,
                count,
                request,
                parts=parts,
                spent_seconds=scraper.collecting_seconds,
            )
        )

    async def probe(self, request: Request) -> Response:
        project, instance = (request.query_params.get(name, "") for name in ("project", "instance"))
        if not project or not instance:
            return PlainTextResponse(
                "name the instance: /probe?project=ID&instance=ID (or their names)\n",
                status_code=400,
            )
        scraper = self._exporter.scraper
        started = time.monotonic()
        seconds = seconds_of_scrape(request, scraper.config.scrape)
        key = scraper.find(project, instance)
        if key is None:
            await scraper.discover(seconds)
            scraper = self._exporter.scraper  # a reload may have replaced it meanwhile
            key = scraper.find(project, instance)
        if key is None:
            return PlainTextResponse(
                f"unknown instance {instance[:64]!r} of project {project[:64]!r}: it is neither"
                " configured nor discovered, is another shard's, or its name is not unique\n",
                status_code=400,
            )
        snapshot = await scraper.scrape(seconds - (time.monotonic() - started), only=key)
        collector = SnapshotCollector(snapshot, projects=False)
        return _respond(await self._renderer.render(collector, 1, request))


def _respond(exposition: Exposition) -> Response:
    headers = {"Vary": "Accept, Accept-Encoding"}
    if exposition.encoding is not None:
        headers["Content-Encoding"] = exposition.encoding
    return Response(exposition.body, headers=headers, media_type=exposition.content_type)
