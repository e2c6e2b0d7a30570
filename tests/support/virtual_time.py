"""Time under a test's control: an event loop that jumps to its next timer instead of waiting."""

import asyncio
import gc
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

NOON = 1_690_545_600.0  # 2023-07-28T12:00:00Z, 20:00 in the cloud's zone
HOUR = 3_600.0
DAY = 86_400.0


class NothingToDoError(AssertionError):
    """Every task waits, and no timer will ever wake one: outside of a test it would hang."""


class LostExceptionError(AssertionError):
    """A task or a callback failed, and nobody took notice."""


class _Selector(selectors.DefaultSelector):
    """Never waits: where the loop would, `jump` moves its time on."""

    jump: Callable[[], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events and (timeout is None or timeout > 0):
            self.jump()
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Hours pass in no time: `time()` starts at 0 and moves only where all tasks wait.

    Work for threads is done at once and in place, taking no virtual time. A loop without work and
    without timers raises NothingToDoError. `close` raises LostExceptionError for what asyncio
    would only have logged ("Task exception was never retrieved").
    """

    def __init__(self) -> None:
        selector = _Selector()
        selector.jump = self._jump
        super().__init__(selector)
        self._virtual_now = 0.0
        self.lost: list[str] = []
        self.set_exception_handler(self._note)

    def time(self) -> float:
        return self._virtual_now

    def _jump(self) -> None:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if not scheduled:
            waiting = "\n".join(repr(task) for task in asyncio.all_tasks(self))
            raise NothingToDoError(f"nothing to do and no timer to wait for:\n{waiting}")
        self._virtual_now = max(self._virtual_now, scheduled[0].when())

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        future: asyncio.Future[_T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as exc:  # noqa: BLE001 - handed to whoever waits
            future.set_exception(exc)
        return future

    def _note(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        self.lost.append(f"{context.get('message')}: {context.get('exception')!r}")

    def check_nothing_lost(self) -> None:
        """LostExceptionError for every failure that nobody has taken notice of so far."""
        lost, self.lost = self.lost, []
        if lost:
            raise LostExceptionError("\n".join(lost))

    def close(self) -> None:
        if self.is_closed():
            return
        super().close()
        self.check_nothing_lost()


class CarefulVirtualTimeLoop(VirtualTimeLoop):
    """The loop of single tests: it also looks for what only the garbage collector would find."""

    def close(self) -> None:
        if not self.is_closed():
            gc.collect()
        super().close()


class Clock:
    """The wall clock of a test: `base` when the loop starts, then as the loop's time.

    `offset` sets it off (a clock that is wrong, or set anew); without a running loop it stands
    still.
    """

    def __init__(self, base: float = NOON, offset: float = 0.0) -> None:
        self.base = base
        self.offset = offset

    def __call__(self) -> float:
        try:
            elapsed = asyncio.get_running_loop().time()
        except RuntimeError:
            elapsed = 0.0
        return self.base + self.offset + elapsed

    async def advance(self, seconds: float) -> None:
        """Let time pass, and with it whatever is due meanwhile."""
        await asyncio.sleep(seconds)
