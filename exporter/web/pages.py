"""Answers for people: the status page."""

import asyncio
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from exporter import __version__
from exporter.assembly import Exporter
from exporter.page.status import CONTENT_SECURITY_POLICY, render_status

_PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Pages:
    """The handler of `/`."""

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
        return HTMLResponse(page, headers=_PAGE_HEADERS)
