"""The simulator on a loopback socket, under a real server."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn

from exporter.simulator.app import Simulator


class _EmbeddedServer(uvicorn.Server):
    """Leaves the signals to the program that it runs in, and ends as soon as it is told to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended = asyncio.Event()

    async def main_loop(self) -> None:
        await self.ended.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve(
    simulator: Simulator,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    log_level: str | int | None = None,
) -> AsyncIterator[str]:
    """Serves until the block ends; gives the address, like `http://127.0.0.1:41027`.

    `log_level` is that of uvicorn's own loggers, which the whole process shares; None leaves it.
    """
    config = uvicorn.Config(
        simulator,
        lifespan="off",
        date_header=False,  # the simulator's own clock tells it
        ws="none",
        access_log=False,
        log_config=None,
        log_level=log_level,
        timeout_graceful_shutdown=1,
    )
    with listen(host, port) as listener:
        server = _EmbeddedServer(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield address_of(listener)
        finally:
            server.ended.set()
            await running


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections from this moment on; port 0 takes a free one."""
    listener = socket.create_server((host, port), backlog=2048)
    # Accepted sockets inherit it. Without it an answer's body waits up to 40 ms for its head to be
    # acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"
