"""One at a time, but nobody waits long for one that gets no answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakSet

# A project that hangs must not keep out those that share its key or its account.
_PATIENCE_SECONDS = 1.5
_IMPATIENT_SECONDS = 0.1  # with who was silent last time


class Turn:
    """Those who take it go one after the other; the next one also goes when patience ends."""

    def __init__(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._lock = asyncio.Lock()
        self._silent: WeakSet[object] = WeakSet()
        self._pass_on: Callable[[], None] = lambda: None

    def end(self) -> None:
        """Whoever has the turn need not keep it any longer."""
        self._pass_on()

    @asynccontextmanager
    async def take(
        self,
        who: object,
        *,
        is_needed: Callable[[], bool] = lambda: True,
        on_silence: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[None]:
        """Wait for the turn and keep it, unless it is not needed any more by then."""
        await self._lock.acquire()
        is_kept = True

        def pass_on() -> None:
            nonlocal is_kept
            if is_kept:
                is_kept = False
                self._lock.release()

        def lose_patience() -> None:
            on_silence()
            pass_on()

        if not is_needed():
            pass_on()
            yield
            return
        self._pass_on = pass_on
        loop = asyncio.get_running_loop()
        begun = loop.time()
        patience = _IMPATIENT_SECONDS if who in self._silent else self._patience_seconds
        timer = loop.call_later(patience, lose_patience)
        try:
            yield
        finally:
            timer.cancel()
            pass_on()
            if loop.time() - begun > self._patience_seconds:
                self._silent.add(who)
            else:
                self._silent.discard(who)
