"""A network before a cloud: renewed certificates, a NAT that forgets, addresses that move.

It stands in the cloud's process; who looks its name up (`address_of_now`) may be another one.
"""

import asyncio
import contextlib
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
MOVE_SECONDS = 10.0
# How long a connection may be silent before the NAT forgets it.
NAT_SECONDS = 1.5
_LOOK_SECONDS = 0.2
_MOVED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def address_of_now() -> str:
    """Where the cloud is just now: the clock behind it is one for all processes."""
    return ADDRESSES[int(time.monotonic() / MOVE_SECONDS) % len(ADDRESSES)]


@dataclass(slots=True)
class Relay:
    """Passes bytes on to `port`, with the certificate and key that lie in `folder` now."""

    folder: Path
    port: int
    rng: random.Random
    seen: Counter[str] = field(default_factory=Counter)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        """On all addresses; gives the port."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        async with contextlib.AsyncExitStack() as stack:
            port = 0
            for address in ADDRESSES:
                server = await asyncio.start_server(self._talk, address, port, ssl=context)
                await stack.enter_async_context(server)
                port = server.sockets[0].getsockname()[1]
            renewing = asyncio.create_task(self._renew(context))
            try:
                yield port
            finally:
                renewing.cancel()

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")

    async def _renew(self, context: ssl.SSLContext) -> None:
        """New connections get the new certificate; `renewed` is written when both files are."""
        mark = self.folder / "renewed"
        seen = mark.stat().st_mtime_ns
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if (now := mark.stat().st_mtime_ns) != seen:
                seen = now
                self._load(context)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("sockname")[0]
        with contextlib.suppress(OSError):
            upstream, upwards = await asyncio.open_connection("127.0.0.1", self.port)
            down = asyncio.create_task(_pump(upstream, writer))
            try:
                await self._listen(reader, writer, upwards, address)
            finally:
                down.cancel()
                upwards.close()
        writer.close()

    async def _listen(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upwards: asyncio.StreamWriter,
        address: str,
    ) -> None:
        heard = time.monotonic()
        while data := await reader.read(65_536):
            silent, heard = time.monotonic() - heard, time.monotonic()
            if silent > NAT_SECONDS:
                self.seen["cuts"] += 1
                if self.rng.random() < 0.5:
                    writer.transport.abort()
                    return
                while await reader.read(65_536):
                    pass  # it goes nowhere, and nobody says so
                return
            if address != address_of_now():
                self.seen["moved"] += 1
                writer.write(_MOVED)
            else:
                upwards.write(data)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
