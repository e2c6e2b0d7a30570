"""The listening sockets: addresses, ports, and what keeps them from being opened."""

import contextlib
import errno
import ipaddress
import resource
import socket
from collections.abc import Iterable
from typing import Any

from exporter.errors import ConfigError

BACKLOG = 1024
_NO_SUCH_ADDRESS_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def parse_listen_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port` or `:port`; raises ConfigError.

    The host of `:port` is empty: all interfaces, IPv4 and IPv6.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon or not port_text:
        raise _address_error(text, "has no port; write host:port, [v6]:port or :port")
    if not (port_text.isascii() and port_text.isdigit() and int(port_text[:6]) <= 65535):
        raise _address_error(text, "has no port between 0 and 65535 after its last colon")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise _address_error(text, "has no IPv6 address between its brackets") from None
    elif ":" in host:
        raise _address_error(text, "has an IPv6 address without brackets; write [v6]:port")
    elif any(letter in "[]/@" or letter.isspace() for letter in host):
        raise _address_error(text, "is not a host and a port; write host:port without http://")
    return host, int(port_text)


def parse_listen_addresses(texts: Iterable[str]) -> list[tuple[str, int]]:
    """ConfigError with what is wrong with each of them."""
    addresses: list[tuple[str, int]] = []
    problems: list[str] = []
    for text in texts:
        try:
            addresses.append(parse_listen_address(text))
        except ConfigError as exc:
            problems += exc.problems
    if problems:
        raise ConfigError(problems)
    return addresses


def _address_error(text: str, problem: str) -> ConfigError:
    return ConfigError([f"--web.listen-address: {text!r} {problem}"])


def bind_all(addresses: Iterable[tuple[str, int]]) -> list[socket.socket]:
    """Listening sockets for all of the addresses, or none of them; raises ConfigError."""
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            sockets += bind(address)
    except ConfigError:
        for listening in sockets:
            listening.close()
        raise
    return sockets


def bind(address: tuple[str, int]) -> list[socket.socket]:
    """Listening sockets for the address, one for each of a host name's; raises ConfigError.

    Clients may connect at once; they are answered when `serve` runs. Port 0 takes a free port.
    """
    host, port = address
    if host in ("", "::"):
        return [_bind_all_interfaces(port)]
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except (OSError, UnicodeError):
        raise _listen_error(address, "no such host") from None
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    for family, _, _, _, resolved in dict.fromkeys(found):
        if sockets and port == 0:  # the name's other addresses get the port that the first one took
            resolved = (resolved[0], sockets[0].getsockname()[1], *resolved[2:])
        try:
            sockets.append(_listen(family, resolved))
        except OSError as exc:
            if exc.errno in _NO_SUCH_ADDRESS_FAMILY:  # localhost is ::1 too, where there is none
                absent = exc
                continue
            for listening in sockets:
                listening.close()
            raise _listen_error(address, exc) from None
    if not sockets:
        raise _listen_error(address, absent or "no such host")
    return sockets


def _bind_all_interfaces(port: int) -> socket.socket:
    try:
        return _listen(socket.AF_INET6, ("::", port, 0, 0))
    except OSError as exc:
        if exc.errno not in _NO_SUCH_ADDRESS_FAMILY:
            raise _listen_error(("", port), exc) from None
    try:
        return _listen(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 - what was asked for
    except OSError as exc:
        raise _listen_error(("", port), exc) from None


def _listen(family: int, resolved: tuple[Any, ...]) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            everything = resolved[0] == "::"
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if everything else 1)
        listening.bind(resolved)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _listen_error(address: tuple[str, int], cause: OSError | str) -> ConfigError:
    host, port = address
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    match cause.errno if isinstance(cause, OSError) else cause:
        case errno.EADDRINUSE:
            problem = "the port is taken by another program; stop it or choose another port"
        case errno.EADDRNOTAVAIL:
            problem = "this machine does not have that address; :PORT listens on all that it has"
        case errno.EACCES:
            problem = "no permission; ports below 1024 need privileges"
        case _:
            problem = str(cause.strerror) if isinstance(cause, OSError) else cause
    return ConfigError([f"--web.listen-address: cannot listen on {text}: {problem}"])


def raise_open_files_limit() -> int:
    """Lets this process open as many files as it is ever allowed to; gives the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems name a hard limit that they do not grant.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft if soft != resource.RLIM_INFINITY else 1_000_000


def describe_address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
