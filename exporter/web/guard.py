"""What stands between the server and the application: passwords, headers, and the last answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.web.live_config import LoadedWebConfig


class Guard:
    """The application behind what the web configuration asks for.

    A request that is cancelled while the server stops is answered 503: its grace is over.
    """

    def __init__(
        self, app: ASGIApp, web_config: LoadedWebConfig | None, *, is_stopping: Callable[[], bool]
    ) -> None:
        self._web_config = web_config
        self._is_stopping = is_stopping
        self._app = app
        if web_config is not None:
            from exporter.web.basic_auth import BasicAuth  # and bcrypt with it

            self._app = BasicAuth(app, self._users)

    def _users(self) -> Mapping[str, str]:
        assert self._web_config is not None
        self._web_config.refresh()
        return self._web_config.users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_noting_start(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start" and self._web_config is not None:
                message = _with_headers(message, self._web_config.config.response_headers)
            await send(message)

        try:
            await self._app(scope, receive, send_noting_start)
        except asyncio.CancelledError:
            # Anything else that cancels is none of ours.
            if not self._is_stopping() or started or scope["type"] != "http":
                raise
            await _shutting_down(scope, receive, send)


def _with_headers(message: Message, added: Sequence[tuple[bytes, bytes]]) -> Message:
    """The start of a response with the headers that the application did not set itself."""
    headers = list(message.get("headers", ()))
    present = {name.lower() for name, _ in headers}
    return {**message, "headers": [*headers, *(h for h in added if h[0] not in present)]}


_shutting_down = PlainTextResponse(
    "Shutting down\n", status_code=503, headers={"Connection": "close"}
)
