"""GaussDB(for MySQL): the restorable ranges of an instance, and a project's full backups."""

import json
from collections.abc import Iterator
from math import floor

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from exporter.simulator.access import IncomingRequest
from exporter.simulator.cloud import SimulatedInstance, SimulatedProject
from exporter.simulator.faults import RefusalError
from exporter.simulator.full_backups import SimulatedFullBackup
from exporter.simulator.gateway import Gateway, RecordedRequest, refuse_unpublished
from exporter.simulator.knobs import Knobs
from exporter.simulator.listing import put_in_order
from exporter.simulator.query import Query
from exporter.simulator.rendering import render_full_row, render_total
from exporter.simulator.restorable import Range, restorable_ranges


class RestoresApi:
    """What can be restored; both follow from the same backups."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        path = "/v3/{project_id}/instances/{instance_id}/restore-time"
        return [
            Route(path, self._show_restore_time, methods=["GET"]),
            Route("/v3/{project_id}/backups", self._list_full_backups, methods=["GET"]),
        ]

    async def _show_restore_time(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            knobs = self._gateway.knobs
            project = self._gateway.open_project(incoming, record)
            _refuse(knobs.restore_time_status, incoming, record)
            begin, end = Query(record.query, knobs).milliseconds()
            instance = self._gateway.find_instance(project, record.instance_id)
            if instance.failure is not None:
                return instance.failure.build_replacement(incoming.describe(), "")
            ranges = restorable_ranges(
                instance, record.at, breaks_after=knobs.chain_breaks_after_seconds
            )
            asked = [
                (max(start, begin), min(until, end))
                for start, until in ranges
                if start <= end and until >= begin
            ]
            content = json.dumps(_render_ranges(asked, knobs))
            return Response(content, media_type="application/json")

        return await self._gateway.answer(request, "show_restore_time", respond)

    async def _list_full_backups(self, request: Request) -> Response:
        def respond(incoming: IncomingRequest, record: RecordedRequest) -> Response:
            gateway, now, knobs = self._gateway, record.at, self._gateway.knobs
            project = gateway.open_project(incoming, record)
            _refuse(knobs.full_backups_status, incoming, record)
            query = Query(record.query, knobs)
            offset = query.whole_number("offset", 0)
            limit = query.whole_number("limit", 100)
            if not 1 <= limit <= 100:
                raise query.refusal("limit", "is not in 1 to 100")
            window = query.window(end_may_lack=True)
            found = {
                full.id: (full, instance)
                for full, instance in _all_full_backups(project, now)
                if window.begin <= floor(full.begin) <= window.end
                and _is_asked_for(full, instance, record)
            }
            listed = put_in_order(
                [full for full, _ in found.values()],
                knobs.order,
                now=now,
                rng=gateway.rng,
                seed=gateway.seed,
            )
            page = [found[full.id] for full in listed[offset : offset + limit]]
            rows = ", ".join(render_full_row(*row, knobs, now) for row in page)
            content = f'{{"backups": [{rows}]{render_total(len(listed), knobs)}}}'
            return Response(content, media_type="application/json")

        return await self._gateway.answer(request, "list_full_backups", respond)


def _refuse(status: int, incoming: IncomingRequest, record: RecordedRequest) -> None:
    """As a cloud that has no such call, or a policy that does not grant it."""
    if status == 404:
        refuse_unpublished(incoming, record)
    if status == 403:
        message = "Policy doesn't allow this action to be performed."
        raise RefusalError(403, "service", "DBS.200010", message)


def _render_ranges(ranges: list[Range], knobs: Knobs) -> dict[str, object]:
    """Milliseconds, as the documentation has them or as the knob spoils them."""
    form = knobs.restore_times
    if form == "missing":
        return {}
    if form == "empty":
        ranges = []
    if form == "split":
        ranges = [part for whole in reversed(ranges) for part in _split(whole)]
    pairs: list[tuple[object, object]] = [
        (floor(start * 1000), floor(end * 1000)) for start, end in ranges
    ]
    if form == "inverted":
        pairs = [(end, start) for start, end in pairs]
    elif form == "text":
        pairs = [(str(start), str(end)) for start, end in pairs]
    elif form == "seconds":
        pairs = [(floor(start), floor(end)) for start, end in ranges]
    return {"restore_times": [{"start_time": start, "end_time": end} for start, end in pairs]}


def _split(whole: Range) -> Iterator[Range]:
    """The same moments in three that touch or overlap, the last one first."""
    start, end = whole
    third = floor((end - start) / 3)
    yield start + 2 * third, end
    yield max(start, start + third - 1), start + 2 * third
    yield start, start + third


def _all_full_backups(
    project: SimulatedProject, now: float
) -> Iterator[tuple[SimulatedFullBackup, SimulatedInstance]]:
    """Of all instances, and the manual ones that deleted instances have left behind."""
    for instance in project.instances.values():
        for full in instance.full_backups_at(now):
            yield full, instance
    for full in project.left_behind:
        if full.is_visible(now):
            yield full, SimulatedInstance(full.instance_id, "deleted")


def _is_asked_for(
    full: SimulatedFullBackup, instance: SimulatedInstance, record: RecordedRequest
) -> bool:
    has = {
        "instance_id": instance.id,
        "backup_id": full.id,
        "backup_type": full.backup_type,
        "name": full.name,
    }
    return all(record.query.get(name) in (None, value) for name, value in has.items())
