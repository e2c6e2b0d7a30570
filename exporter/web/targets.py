"""What Prometheus scrapes beside us: the targets of `/probe`, for its http_sd_configs."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from exporter.assembly import Exporter
from exporter.models import Instance


class ServiceDiscovery:
    """The handler of `/sd`."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    async def targets(self, request: Request) -> Response:
        scraper = self._exporter.scraper
        await scraper.discover(scraper.config.scrape.timeout)
        return JSONResponse([_target_group(instance, request) for instance in scraper.instances])


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
