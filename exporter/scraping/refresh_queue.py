"""Where a project's refreshes wait: a few run at once, none while what is urgent is asked."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

# So many are under way together; the limits are narrower at most times.
AT_ONCE = 16
# What is more urgent may end without saying it.
_LOOK_AGAIN_SECONDS = 0.25
# Who waits, and since when, in the loop's time.
_Waiter = tuple["asyncio.Future[None]", float]


@dataclass(slots=True, eq=False)
class RefreshQueue:
    """Of one project, in the order in which they were asked for."""

    # How many may be under way now, where the first one has waited for so many seconds.
    room: Callable[[float], int]
    _waiting: deque[_Waiter] = field(default_factory=deque)
    _running: int = 0
    _timer: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for it, and have it until the block ends."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((future, loop.time()))
        self.start()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._end()
            raise
        try:
            yield
        finally:
            self._end()

    def start(self) -> None:
        """Give out what turns there are."""
        while self._waiting and self._running < AT_ONCE:
            first, since = self._waiting[0]
            if first.done():  # it was cancelled
                self._waiting.popleft()
            elif self._running >= self.room(asyncio.get_running_loop().time() - since):
                self._look_again()
                return
            else:
                self._running += 1
                self._waiting.popleft()
                first.set_result(None)

    def _end(self) -> None:
        self._running -= 1
        self.start()

    def _look_again(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_LOOK_AGAIN_SECONDS, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.start()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
