"""Answers for people: the status page, and the runbooks that it leads to."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from exporter import __version__
from exporter.assembly import Exporter
from exporter.models import View
from exporter.shipped import read_runbook, read_runbook_index, runbook_names

_HEADERS: Mapping[str, str] = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Pages:
    """The handlers of `/`, of `/runbooks/ALERT` and of their table."""

    def __init__(self, exporter: Exporter, *, telemetry_path: str) -> None:
        self._exporter = exporter
        self._telemetry_path = telemetry_path

    async def status(self, request: Request) -> Response:
        parameters = request.query_params
        return await asyncio.to_thread(
            _render_status,
            self._exporter.scraper.view(),
            now=self._exporter.clock(),
            version=__version__,
            query=parameters.get("q", ""),
            state=parameters.get("state", ""),
            page=parameters.get("page", "1"),
            refresh=parameters.get("refresh", ""),
            telemetry_path=self._telemetry_path,
            configuration=self._exporter.configuration,
        )

    async def runbooks(self, request: Request) -> Response:
        """Which there are: where the dashboard's link leads."""
        text = read_runbook_index()
        return await asyncio.to_thread(_render_runbook, "Runbooks", text, runbook_names())

    async def runbook(self, request: Request) -> Response:
        names = runbook_names()
        name = request.path_params["alert"]
        if name not in names:
            return PlainTextResponse(
                f"there is no runbook of this name; there are: {', '.join(names)}\n",
                status_code=404,
            )
        return await asyncio.to_thread(_render_runbook, name, read_runbook(name), names)


# What renders is loaded for the first reader: two megabytes and a tenth of a second of each start.


def _render_status(view: View, **facts: Any) -> Response:
    from exporter.page.status import CONTENT_SECURITY_POLICY, render_status

    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(render_status(view, **facts), headers={**_HEADERS, **headers})


def _render_runbook(name: str, text: str, names: Collection[str]) -> Response:
    from exporter.page.runbook import RUNBOOK_SECURITY_POLICY, render_runbook

    headers = {"Content-Security-Policy": RUNBOOK_SECURITY_POLICY}
    page = render_runbook(name, text, names=names)
    return HTMLResponse(page, headers={**_HEADERS, **headers})
