"""What the head of a request must be before anybody answers it (RFC 9110, RFC 9112): pure."""

import ipaddress
import re
from collections.abc import Sequence
from http import HTTPStatus

RawHeaders = Sequence[tuple[bytes, bytes]]

# uri-host [":" port] (RFC 9112, 3.2), with a name, an IPv4 address or an IPv6 address in brackets.
# An http URI has a host (RFC 9110, 4.2.1): an empty one is none.
_HOST = re.compile(
    rb"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)"
    rb"(?::(?P<port>[0-9]{0,5}))?"
)
_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/?#]*)(?P<rest>[^#]*)", re.IGNORECASE)
# As RFC 9110 has them; Python before 3.13 knows older ones.
_PHRASES = {413: "Content Too Large", 414: "URI Too Long"}


class RefusedError(Exception):
    """A request that is answered here and nowhere else; the connection ends with it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text

    def response(self, headers: RawHeaders = ()) -> bytes:
        """The whole answer; `headers` are added to its own."""
        body = f"{self.text}\n".encode()
        phrase = _PHRASES.get(self.status) or HTTPStatus(self.status).phrase
        lines = [
            f"HTTP/1.1 {self.status} {phrase}".encode(),
            *(b"%b: %b" % header for header in headers),
            b"content-type: text/plain; charset=utf-8",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


def check_version(version: str) -> None:
    if version not in ("1.0", "1.1"):
        raise RefusedError(505, "This server speaks HTTP/1.1.")


def check_host(version: str, headers: RawHeaders) -> None:
    """Exactly one that is valid; before 1.1 it may be left out."""
    hosts = [value for name, value in headers if name == b"host"]
    if not hosts and version == "1.0":
        return
    if not hosts:
        raise RefusedError(400, "The header Host is missing.")
    if len(hosts) > 1:
        raise RefusedError(400, "The header Host is there more than once.")
    if not is_host(hosts[0]):
        raise RefusedError(400, "The header Host is not a host and a port.")


def is_host(value: bytes) -> bool:
    match = _HOST.fullmatch(value)
    if match is None or int(match["port"] or 0) > 65535:
        return False
    if match["v6"] is None:
        return True
    try:
        ipaddress.IPv6Address(match["v6"].decode())
    except ValueError:
        return False
    return True


def split_target(method: str, target: bytes) -> tuple[bytes, bytes | None]:
    """Path and query of a request's target, and the host that it names itself (RFC 9112, 3.2)."""
    if target.startswith(b"/") or (target == b"*" and method == "OPTIONS"):
        return target, None
    absolute = _ABSOLUTE.fullmatch(target)
    if method == "CONNECT":
        raise RefusedError(501, "This is no proxy.")
    if absolute is None or not is_host(absolute["authority"]):
        raise RefusedError(400, "The request's target is no path.")
    rest = absolute["rest"]
    return (rest if rest.startswith(b"/") else b"/" + rest), absolute["authority"]


def check_expectation(version: str, headers: RawHeaders) -> bool:
    """Whether the client waits to be told to go on before it sends the body (RFC 9110, 10.1.1)."""
    expected = [value.strip().lower() for name, value in headers if name == b"expect"]
    if not expected or version == "1.0":
        return False
    if expected != [b"100-continue"]:
        raise RefusedError(417, "Of expectations this server knows 100-continue.")
    return True


def check_coding(headers: RawHeaders) -> None:
    """Of transfer codings only `chunked` is undone here (RFC 9112, 6.1)."""
    named = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if named and named != [b"chunked"]:
        raise RefusedError(501, "Of transfer codings this server knows chunked.")


def announced_body(headers: RawHeaders) -> int:
    """Its bytes, as far as the head tells; the parser has looked whether it is a number."""
    return max((int(value) for name, value in headers if name == b"content-length"), default=0)
