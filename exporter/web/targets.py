"""What Prometheus scrapes beside us: the targets of `/probe`, for its http_sd_configs."""

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from exporter.assembly import Exporter
from exporter.models import Instance
from exporter.scraping.scraper import Scraper
from exporter.web.deadlines import seconds_of_refresh


class ServiceDiscovery:
    """The handler of `/sd`."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    async def targets(self, request: Request) -> Response:
        """503 until all are known: then Prometheus keeps those that it has."""
        scraper = self._exporter.scraper
        await scraper.discover(seconds_of_refresh(request, scraper.config.scrape))
        scraper = self._exporter.scraper  # a reload may have replaced it meanwhile
        if unlisted := list(_unlisted(scraper)):
            return PlainTextResponse(
                f"instances not listed yet of: {', '.join(unlisted)}\n", status_code=503
            )
        return JSONResponse([_target_group(instance, request) for instance in scraper.instances])


def _unlisted(scraper: Scraper) -> Iterator[str]:
    """Projects whose instances no discovery has ever told."""
    for project in scraper.projects.values():
        if project.discovery is not None and not project.discovery.known:
            yield project.config.name or project.config.id


def _target_group(instance: Instance, request: Request) -> dict[str, object]:
    """One instance as a target of `/probe`, as Prometheus' http_sd_configs takes it."""
    # Behind a proxy that ends TLS the scheme is not ours to tell.
    scheme = {"__scheme__": "https"} if request.url.scheme == "https" else {}
    return {
        "targets": [request.headers.get("host", "")],
        "labels": {
            **scheme,
            "__metrics_path__": f"{request.scope.get('mounted_at', '')}/probe",
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
