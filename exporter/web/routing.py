"""Paths and methods: what HTTP says of those that are there and those that are not."""

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]


class _Endpoint:
    """A handler of one method; it also tells which there are (RFC 9110, 9.3.7 and 15.5.6)."""

    def __init__(self, handler: Handler, method: str) -> None:
        self._handler = handler
        self._methods = ("GET", "HEAD") if method == "GET" else (method,)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        allow = {"Allow": ", ".join((*self._methods, "OPTIONS"))}
        response: Response
        if scope["method"] in self._methods:
            response = await self._handler(Request(scope, receive))
        elif scope["method"] == "OPTIONS":
            response = Response(status_code=204, headers=allow)
        else:
            text = f"{scope['method']} is not for this path\n"
            response = PlainTextResponse(text, status_code=405, headers=allow)
        await response(scope, receive, send)


def get(path: str, handler: Handler) -> Route:
    return Route(path, _Endpoint(handler, "GET"))


def post(path: str, handler: Handler) -> Route:
    return Route(path, _Endpoint(handler, "POST"))


class Elsewhere:
    """Answers for the paths that no route has."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._respond(scope)(scope, receive, send)

    def _respond(self, scope: Scope) -> Response:
        path: str = scope["path"]
        if path == "*" and scope["method"] == "OPTIONS":
            return Response(status_code=204, headers={"Allow": "GET, HEAD, POST, OPTIONS"})
        if path.endswith("/"):
            meant, name = path[:-1], path[:-1].rpartition("/")[2]
            location = f"../{quote(name)}"
        else:
            meant, name = path + "/", path.rpartition("/")[2]
            location = f"./{quote(name)}/"
        if not name or not self._is_there(scope, meant):
            return PlainTextResponse("Not Found\n", status_code=404)
        # Relative: under which name and below which path we are reached is not ours to tell.
        if query := scope["query_string"].decode("latin-1"):
            location = f"{location}?{query}"
        return Response(status_code=307, headers={"Location": location})

    def _is_there(self, scope: Scope, path: str) -> bool:
        return any(
            route.matches({**scope, "path": path})[0] == Match.FULL for route in self._routes
        )


class Prefixed:
    """The application at its root, and below a path too."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if path == self._prefix:
            name = quote(path.rpartition("/")[2])
            response = Response(status_code=307, headers={"Location": f"./{name}/"})
            await response(scope, receive, send)
        elif path.startswith(f"{self._prefix}/"):
            # Not as ASGI has it (a path that keeps its root): our own routes begin at the root.
            inner = {"path": path.removeprefix(self._prefix), "mounted_at": self._prefix}
            await self._app({**scope, **inner}, receive, send)
        else:
            await self._app(scope, receive, send)
