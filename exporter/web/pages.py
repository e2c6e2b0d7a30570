"""Answers for people: the status page, and the runbooks that it leads to."""

import asyncio
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from exporter import __version__
from exporter.assembly import Exporter
from exporter.page.runbook import RUNBOOK_SECURITY_POLICY, render_runbook
from exporter.page.status import CONTENT_SECURITY_POLICY, render_status
from exporter.shipped import read_runbook, runbook_names

_HEADERS: Mapping[str, str] = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_STATUS_HEADERS = {
    **_HEADERS,
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
}
_RUNBOOK_HEADERS = {**_HEADERS, "Content-Security-Policy": RUNBOOK_SECURITY_POLICY}


class Pages:
    """The handlers of `/` and of `/runbooks/ALERT`."""

    def __init__(self, exporter: Exporter, *, telemetry_path: str) -> None:
        self._exporter = exporter
        self._telemetry_path = telemetry_path

    async def status(self, request: Request) -> Response:
        parameters = request.query_params
        page = await asyncio.to_thread(
            render_status,
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
        return HTMLResponse(page, headers=_STATUS_HEADERS)

    async def runbook(self, request: Request) -> Response:
        names = runbook_names()
        name = request.path_params["alert"]
        if name not in names:
            return PlainTextResponse(
                f"there is no runbook of this name; there are: {', '.join(names)}\n",
                status_code=404,
            )
        page = await asyncio.to_thread(render_runbook, name, read_runbook(name), names=names)
        return HTMLResponse(page, headers=_RUNBOOK_HEADERS)
