"""What can go wrong: error bodies in every known form, and answers spoiled on purpose."""

import asyncio
import functools
import json
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Form = Literal["gateway", "service", "iam", "html", "empty"]
Rows = list[Any]

GATEWAY_CODES = {
    400: "APIGW.0201",
    401: "APIGW.0301",
    403: "APIGW.0302",
    404: "APIGW.0101",
    413: "APIGW.0201",
    429: "APIGW.0308",
    500: "APIGW.0601",
    502: "APIGW.0201",
    503: "APIGW.0613",
    504: "APIGW.0201",
}
SERVICE_CODES = {400: "DBS.200001", 403: "DBS.200010", 404: "DBS.201028", 409: "DBS.200011"}
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    429: "Too Many Requests",
}

_JSON = "application/json"
_CHUNK_BYTES = 64 * 1024
# JSON has a number that Python cannot write: put in after the text is made.
_OVERFLOW = "\x00overflow"


class DroppedConnectionError(ConnectionError):
    """The simulator hangs up in the middle of a body, as the script told it to."""


class RefusalError(Exception):
    """The cloud says no; becomes an answer in the form of whoever refuses."""

    def __init__(
        self,
        status: int,
        form: Form,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.form: Form = form
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def build_error(
    status: int, form: Form, code: str = "", message: str = "", request_id: str = ""
) -> tuple[bytes, str]:
    """The body and the content type of an error, as the named part of the cloud writes it."""
    message = message or TITLES.get(status, "Internal Server Error")
    document: Mapping[str, object]
    if form == "empty":
        return b"", "text/plain"
    if form == "html":
        page = f"<html><head><title>{status}</title></head><body><h1>{message}</h1></body></html>"
        return page.encode(), "text/html"
    if form == "gateway":
        document = {
            "error_msg": message,
            "error_code": code or GATEWAY_CODES.get(status, "APIGW.0601"),
            "request_id": request_id,
        }
    elif form == "service":
        document = {
            "error_code": code or SERVICE_CODES.get(status, "DBS.200412"),
            "error_msg": message,
        }
    elif code:
        document = {"error_code": code, "error_msg": message}
    else:
        title = TITLES.get(status, "Internal Server Error")
        document = {"error": {"code": status, "message": message, "title": title}}
    return json.dumps(document).encode(), _JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One spoiled answer. Every part that is left out stays as the cloud would have it.

    With `status`, `body`, `filler_bytes`, `gzip_bomb_bytes` or `nesting` the real answer is not
    even made: neither authentication nor anything else is checked. `rows` (a function, or a name
    out of `ROW_SPOILERS`) and `alter` change the real answer's `backups` and whole document.
    The rest is about how the bytes go out.
    """

    status: int | None = None
    form: Form = "service"
    code: str = ""
    message: str = ""
    leak: bool = False  # the message echoes the request with its headers
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str | None = None
    filler_bytes: int = 0  # a JSON document of about this size
    gzip_bomb_bytes: int = 0  # the same, but compressed: small on the wire
    nesting: int = 0  # so many JSON arrays in each other
    rows: Callable[[Rows], Rows] | str | None = None
    alter: Callable[[Any], Any] | None = None
    delay_seconds: float = 0.0
    hang: bool = False  # no answer, until the client gives up
    hold: asyncio.Event | None = None  # no answer, until the event is set
    chunk_bytes: int = _CHUNK_BYTES
    chunk_pause_seconds: float = 0.0
    cut_after_bytes: int | None = None  # hang up after so many bytes of the body

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"form {self.form!r}: one of {', '.join(get_args(Form))}")
        if isinstance(self.rows, str) and self.rows not in ROW_SPOILERS:
            raise ValueError(f"rows {self.rows!r}: one of {', '.join(ROW_SPOILERS)}")

    @property
    def replaces(self) -> bool:
        """Whether there is no need for the real answer."""
        return (
            self.status is not None
            or self.body is not None
            or bool(self.filler_bytes or self.gzip_bomb_bytes or self.nesting)
        )

    def build_replacement(self, request_text: str, request_id: str) -> Response:
        status = self.status or 200
        headers = dict(self.headers)
        content_type = _JSON
        if self.body is not None:
            content = self.body
        elif self.gzip_bomb_bytes:
            content = _gzip_bomb(self.gzip_bomb_bytes)
            headers["Content-Encoding"] = "gzip"
        elif self.filler_bytes:
            content = b'{"backups":[],"filler":"' + b"x" * self.filler_bytes + b'"}'
        elif self.nesting:
            content = b"[" * self.nesting + b"]" * self.nesting
        else:
            message = f"{self.message}{request_text}" if self.leak else self.message
            content, content_type = build_error(status, self.form, self.code, message, request_id)
        return Response(content, status, headers, self.content_type or content_type)

    def spoil(self, response: Response) -> Response:
        """The real answer with `rows`, `alter`, `headers` and `content_type` applied."""
        content = bytes(response.body)
        if self.rows is not None or self.alter is not None:
            content = self._spoil_document(content)
        headers = {
            name: value
            for name, value in response.headers.items()
            if name not in ("content-length", "content-type")
        }
        content_type = self.content_type or response.headers.get("content-type")
        return Response(content, response.status_code, headers | dict(self.headers), content_type)

    def _spoil_document(self, content: bytes) -> bytes:
        document = json.loads(content)
        spoiler = ROW_SPOILERS[self.rows] if isinstance(self.rows, str) else self.rows
        if spoiler is not None and isinstance(document.get("backups"), list):
            document["backups"] = spoiler(document["backups"])
        if self.alter is not None:
            document = self.alter(document)
        return json.dumps(document).replace(json.dumps(_OVERFLOW), "1e999").encode()


class FaultyResponse(Response):
    """Sends a response as its fault says: late, slowly, cut off or never."""

    def __init__(
        self, response: Response, fault: Fault, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self.status_code = response.status_code
        self.body = response.body
        self.raw_headers = response.raw_headers
        self.background = None
        self._fault = fault
        self._sleep = sleep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault
        if fault.delay_seconds:
            await self._sleep(fault.delay_seconds)
        if fault.hold is not None:
            await fault.hold.wait()
        if fault.hang:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        body = bytes(self.body)
        shown = body if fault.cut_after_bytes is None else body[: fault.cut_after_bytes]
        for chunk in _chunks(shown, fault.chunk_bytes):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if fault.chunk_pause_seconds:
                await self._sleep(fault.chunk_pause_seconds)
        if fault.cut_after_bytes is not None:
            raise DroppedConnectionError(f"cut off after {len(shown)} of {len(body)} bytes")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _chunks(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@functools.lru_cache(maxsize=2)
def _gzip_bomb(size: int) -> bytes:
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(b'{"backups":[],"filler":"')]
    block = b"x" * (1024 * 1024)
    parts += [packer.compress(block[: size - done]) for done in range(0, size, len(block))]
    return b"".join([*parts, packer.compress(b'"}'), packer.flush()])


def _with_first(**changes: object) -> Callable[[Rows], Rows]:
    """Changes fields of the first row; `...` takes the field away."""

    def spoil(rows: Rows) -> Rows:
        if not rows:
            return rows
        first = {**rows[0], **changes}
        return [{name: value for name, value in first.items() if value is not ...}, *rows[1:]]

    return spoil


def _first_becomes(row: object) -> Callable[[Rows], Rows]:
    return lambda rows: [row, *rows[1:]]


def _repeat_changed(rows: Rows) -> Rows:
    changed = [{**row, "size": 1.0, "end_time": row.get("begin_time")} for row in rows]
    return [*rows, *changed]


ROW_SPOILERS: Mapping[str, Callable[[Rows], Rows]] = {
    "unreadable_time": _with_first(end_time="yesterday"),
    "impossible_time": _with_first(end_time="2023-02-30T25:61:00+0800"),
    "number_time": _with_first(end_time=1690539355),
    "list_time": _with_first(end_time=["2023-07-28T18:15:55+0800"]),
    "no_zone_time": _with_first(end_time="2023-07-28T18:15:55"),
    "unreadable_begin": _with_first(begin_time="now"),
    "negative_size": _with_first(size=-1.0),
    "nan_size": _with_first(size=float("nan")),
    "infinite_size": _with_first(size=_OVERFLOW),
    "string_size": _with_first(size="12.5"),
    "bool_size": _with_first(size=True),
    "object_size": _with_first(size={"kb": 1}),
    "null_size": _with_first(size=None),
    "missing_size": _with_first(size=...),
    "null_id": _with_first(id=None),
    "empty_id": _with_first(id=""),
    "number_id": _with_first(id=7),
    "missing_id": _with_first(id=...),
    "missing_times": _with_first(begin_time=..., end_time=...),
    "list_row": _first_becomes(["a", "list"]),
    "text_row": _first_becomes("a string"),
    "number_row": _first_becomes(3),
    "null_row": _first_becomes(None),
    "repeated": lambda rows: [*rows, *rows],
    "repeated_changed": _repeat_changed,
}
