"""GaussDB(for MySQL): the listing of an instance's incremental backups."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from exporter.simulator.access import IncomingRequest
from exporter.simulator.gateway import Gateway, RecordedRequest
from exporter.simulator.listing import find_listed
from exporter.simulator.query import Query
from exporter.simulator.rendering import render_row, render_total


class BackupsApi:
    """Pages of what an instance's backups look like through the knobs."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        return [
            Route(
                "/v3/{project_id}/instances/{instance_id}/incremental-backups",
                self._list_backups,
                methods=["GET"],
            ),
        ]

    async def _list_backups(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            gateway, now, knobs = self._gateway, record.at, self._gateway.knobs
            project = gateway.open_project(incoming, record)
            query = Query(record.query, knobs)
            offset = query.whole_number("offset", 0)
            limit = query.whole_number("limit", 10)
            if limit not in knobs.page_limit_allowed:
                raise query.refusal("limit", f"is none of {knobs.page_limit_allowed}")
            window = query.window()
            offsite = query.flag("display_offsite_backup")
            instance = gateway.find_instance(project, record.instance_id)
            if instance.failure is not None:
                return instance.failure.build_replacement(incoming.describe(), "")
            listed = find_listed(
                instance,
                knobs,
                window,
                now=now,
                offsite=offsite,
                rng=gateway.rng,
                seed=gateway.seed,
            )
            page = listed[offset : offset + limit]
            rows = ", ".join(render_row(backup, instance.id, knobs, now) for backup in page)
            total = render_total(len(listed), knobs)
            content = f'{{"backups": [{rows}]{total}}}'
            return Response(content, media_type="application/json")

        return await self._gateway.answer(request, "list_backups", respond)
