"""Signals of the operating system, as calls of the running event loop."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

import structlog

log = structlog.get_logger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def signal_handlers(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Has the running loop call the handlers, and gives the signals back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in handlers}
    try:
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        yield
    finally:
        for number, previous in before.items():
            loop.remove_signal_handler(number)
            if previous is not None:  # None: set by something that is not Python
                signal.signal(number, previous)


@contextlib.asynccontextmanager
async def reloader(
    on_reload: Callable[[], Awaitable[None]] | None,
) -> AsyncIterator[Callable[[], None]]:
    """Gives a function that asks for a reload. Those asked for during one become one more."""
    wanted = asyncio.Event()

    async def run() -> None:
        while True:
            await wanted.wait()
            wanted.clear()
            if on_reload is None:
                log.info("nothing to reload")
                continue
            try:
                await on_reload()
            except Exception:
                log.exception("reload failed")

    task = asyncio.create_task(run())
    try:
        yield wanted.set
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
