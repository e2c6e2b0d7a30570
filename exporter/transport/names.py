"""Names to addresses, by the system's own resolver, each name in a thread of its own.

The loop's pool of threads is small: a few names whose DNS hangs would keep all others from being
looked up (docs/decisions.md). Here each hanging name keeps one thread, and its own project waiting.
"""

import asyncio
import contextlib
import errno
import socket
import threading
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

_Key = tuple[str, int, int]


class NameResolver(AbstractResolver):
    """For aiohttp, which keeps what is found for a few seconds."""

    def __init__(self) -> None:
        self._under_way: dict[_Key, asyncio.Future[list[Any]]] = {}

    def is_resolving(self, name: str) -> bool:
        """Whether an answer is still awaited."""
        return any(key[0] == name for key in self._under_way)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError. A name that is being looked up is not looked up once more."""
        key = host, port, int(family)
        if key not in self._under_way:
            self._under_way[key] = asyncio.get_running_loop().create_future()
            # No pool, and no end to wait for: nobody can stop a lookup, not even at the exit.
            thread = threading.Thread(target=self._look_up, args=(key,), name="dns", daemon=True)
            try:
                thread.start()
            except RuntimeError as exc:
                del self._under_way[key]
                raise OSError(errno.EAGAIN, f"no thread to look {host} up with") from exc
        found = await asyncio.shield(self._under_way[key])
        return [
            _as_result(host, port, family, protocol, to) for family, _, protocol, _, to in found
        ]

    def _look_up(self, key: _Key) -> None:
        future = self._under_way[key]
        host, port, family = key
        found: list[Any] | OSError
        try:
            found = socket.getaddrinfo(
                host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
        except OSError as exc:
            found = exc
        except UnicodeError:  # of a name that IDNA does not know how to write
            found = socket.gaierror(socket.EAI_NONAME, "not a name")
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            future.get_loop().call_soon_threadsafe(self._end, key, found)

    def _end(self, key: _Key, found: list[Any] | OSError) -> None:
        future = self._under_way.pop(key)
        if future.cancelled():
            return
        if isinstance(found, OSError):
            future.set_exception(found)
            future.exception()  # nobody may be waiting any more
        else:
            future.set_result(found)

    async def close(self) -> None:
        for future in self._under_way.values():
            future.cancel()


def _as_result(
    name: str, port: int, family: socket.AddressFamily, protocol: int, to: tuple[Any, ...]
) -> ResolveResult:
    host = str(to[0])
    if family == socket.AF_INET6 and len(to) > 3 and to[3]:
        host = f"{host.partition('%')[0]}%{to[3]}"  # a link-local address is one of an interface
    return ResolveResult(
        hostname=name,
        host=host,
        port=port,
        family=family,
        proto=protocol,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
