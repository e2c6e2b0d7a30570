"""Changes from another process: knobs, faults, backups, tokens, and what was asked so far."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.simulator.cloud import find_instance, find_schedule
from exporter.simulator.faults import Fault
from exporter.simulator.full_backups import make_full_backup_by_hand
from exporter.simulator.gateway import Gateway, Operation
from exporter.simulator.knobs import Knobs, RateLimit


class Control:
    """The routes under `/_simulator/`; they need no credentials."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        return [
            Route("/_simulator/knobs", self._change_knobs, methods=["POST"]),
            Route("/_simulator/faults", self._change_faults, methods=["POST"]),
            Route("/_simulator/stop-backups", self._change_backups, methods=["POST"]),
            Route("/_simulator/resume-backups", self._change_backups, methods=["POST"]),
            Route("/_simulator/full-backups", self._add_full_backup, methods=["POST"]),
            Route("/_simulator/revoke-tokens", self._revoke_tokens, methods=["POST"]),
            Route("/_simulator/end-agency-keys", self._end_agency_keys, methods=["POST"]),
            Route("/_simulator/agencies", self._change_agency, methods=["POST"]),
            Route("/_simulator/requests", self._show_requests, methods=["GET"]),
        ]

    async def _change_knobs(self, request: Request) -> Response:
        try:
            self._gateway.knobs = change_knobs(self._gateway.knobs, await request.json())
        except (TypeError, ValueError) as problem:
            return JSONResponse({"problem": str(problem)}, 400)
        return JSONResponse(dataclasses.asdict(self._gateway.knobs))

    async def _change_faults(self, request: Request) -> Response:
        """{"fault": {...}, "operation": ..., "instance_id": ..., "times": 1}; [] clears."""
        asked = await request.json()
        if asked == []:
            self._gateway.clear_faults()
            return Response(status_code=204)
        try:
            fault = Fault(**_with_bytes(asked.pop("fault")))
            if asked.get("operation") not in (None, *get_args(Operation)):
                raise ValueError(f"operation: one of {', '.join(get_args(Operation))}")
            self._gateway.add_fault(fault, **asked)
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            return JSONResponse({"problem": str(problem)}, 400)
        return Response(status_code=204)

    async def _change_backups(self, request: Request) -> Response:
        try:
            schedule = find_schedule(self._gateway.projects, (await request.json())["instance_id"])
        except (KeyError, TypeError, ValueError) as problem:
            return JSONResponse({"problem": str(problem)}, 400)
        change = schedule.stop if "stop" in request.url.path else schedule.resume
        change(self._gateway.clock())
        return Response(status_code=204)

    async def _add_full_backup(self, request: Request) -> Response:
        """{"instance_id": ..., "status": "COMPLETED"}: one by hand, which has just ended."""
        asked = await request.json()
        try:
            instance = find_instance(self._gateway.projects, asked["instance_id"])
            number, status = len(instance.full_backups), asked.get("status", "COMPLETED")
            full = make_full_backup_by_hand(number, self._gateway.clock(), status)
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            return JSONResponse({"problem": str(problem)}, 400)
        instance.full_backups.append(full)
        return Response(status_code=204)

    async def _revoke_tokens(self, request: Request) -> Response:
        self._gateway.gatekeeper.revoke_tokens(None)
        return Response(status_code=204)

    async def _end_agency_keys(self, request: Request) -> Response:
        self._gateway.agencies.end_keys()
        return Response(status_code=204)

    async def _change_agency(self, request: Request) -> Response:
        """{"name": ..., "trusted": [...], "pod_tokens": [...], "oidc": [[URN, token], ...]}"""
        asked = await request.json()
        for agency in self._gateway.agencies.all:
            if agency.name == asked.get("name"):
                for name in ("trusted", "pod_tokens"):
                    if name in asked:
                        setattr(agency, name, set(asked[name]))
                for name in ("oidc", "id_tokens"):
                    if name in asked:
                        setattr(agency, name, {(first, second) for first, second in asked[name]})
                return Response(status_code=204)
        return JSONResponse({"problem": "there is no such agency"}, 400)

    async def _show_requests(self, request: Request) -> Response:
        """The latest (`?last=`, 1000) of them, and how many there were by operation."""
        last = int(request.query_params.get("last", 1000))
        kept = list(self._gateway.requests)[-last:] if last > 0 else []
        return JSONResponse(
            {
                "counts": dict(self._gateway.request_counts),
                "requests": [dataclasses.asdict(record) for record in kept],
            }
        )


def _with_bytes(fault: Mapping[str, Any]) -> Mapping[str, Any]:
    """A body is text in JSON."""
    body = fault.get("body")
    return {**fault, "body": body.encode()} if isinstance(body, str) else fault


def change_knobs(knobs: Knobs, changes: Mapping[str, Any]) -> Knobs:
    """`knobs` with plain JSON values put in; TypeError or ValueError says what is wrong."""
    made = dict(changes)
    if made.get("rate_limit") is not None:
        made["rate_limit"] = RateLimit(**made["rate_limit"])
    if "page_limit_allowed" in made:
        made["page_limit_allowed"] = tuple(made["page_limit_allowed"])
    return dataclasses.replace(knobs, **made)
