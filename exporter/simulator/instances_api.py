"""GaussDB(for MySQL): the listing of a project's instances, in both versions."""

import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from exporter.simulator.access import IncomingRequest
from exporter.simulator.cloud import SimulatedInstance, SimulatedProject
from exporter.simulator.gateway import Gateway, RecordedRequest, refuse_unpublished
from exporter.simulator.query import Query
from exporter.simulator.rendering import made_up_id


class InstancesApi:
    """Pages of a project's instances."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        return [
            Route("/v3/{project_id}/instances", self._list_instances, methods=["GET"]),
            Route("/v3.1/{project_id}/instances", self._list_instances_v31, methods=["GET"]),
        ]

    async def _list_instances_v31(self, request: Request) -> Response:
        if not self._gateway.knobs.v31_available:
            return await self._gateway.answer(request, "list_instances", refuse_unpublished)
        return await self._list_instances(request)

    async def _list_instances(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            project = self._gateway.open_project(incoming, record)
            query = Query(record.query, self._gateway.knobs)
            offset = query.whole_number("offset", 0)
            limit = query.whole_number("limit", 100)
            if not 1 <= limit <= 100:
                raise query.refusal("limit", "is not in 1 to 100")
            found = [
                instance
                for instance in project.instances.values()
                if not instance.hidden_from_discovery
                and _matches(instance.name, record.query.get("name"))
                and _matches(instance.id, record.query.get("id"))
                and query.tags().items() <= instance.tags.items()
            ]
            page = [_describe(i, project) for i in found[offset : offset + limit]]
            # Escaped, as Java's libraries do: half a surrogate pair in a name can be written so.
            content = json.dumps({"instances": page, "total_count": len(found)})
            return Response(content, media_type="application/json")

        return await self._gateway.answer(request, "list_instances", respond)


def _matches(text: str, wanted: str | None) -> bool:
    if wanted is None:
        return True
    return wanted[1:] in text if wanted.startswith("*") else wanted == text


def _describe(instance: SimulatedInstance, project: SimulatedProject) -> dict[str, object]:
    """An instance as the cloud lists it."""
    return {
        "id": instance.id,
        "name": instance.name,
        "status": instance.status,
        "private_ips": ["192.168.0.10"],
        "proxy_ips": [],
        "readonly_private_ips": [],
        "public_ips": [],
        "port": "3306",
        "type": "Cluster",
        "region": instance.region or project.region,
        "datastore": {
            "type": "gaussdb-mysql",
            "version": "8.0",
            "kernel_version": "2.0.60.240900",
        },
        "created": "2022-07-01T02:15:30+0000",
        "updated": "2023-07-28T10:15:55+0000",
        "db_user_name": "root",
        "vpc_id": made_up_id("vpc", project.id),
        "subnet_id": made_up_id("subnet", project.id),
        "security_group_id": made_up_id("group", project.id),
        "flavor_ref": "gaussdb.mysql.xlarge.x86.4",
        "flavor_info": {"vcpus": "4", "ram": "16"},
        "volume": {"type": "DL6", "size": "40"},
        "backup_strategy": {
            "start_time": "16:00-17:00",
            "keep_days": str(instance.keep_days),
        },
        "enterprise_project_id": instance.enterprise_project_id,
        "time_zone": "UTC+08:00",
        "charge_info": {"charge_mode": "postPaid"},
        "dedicated_resource_id": "",
        "tags": [{"key": key, "value": value} for key, value in instance.tags.items()],
    }
