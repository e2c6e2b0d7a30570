"""One at a time, but nobody waits long for one that gets no answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakSet

# A project that hangs must not keep out those that share its key or its account.
_PATIENCE_SECONDS = 1.5
# With who was silent last time, while others are; so long it also lets the others go first.
_IMPATIENT_SECONDS = 0.1
_ARE_SILENT_SECONDS = 5.0


class Turn:
    """Those who take it go one after the other; the next one also goes when patience ends."""

    def __init__(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._lock = asyncio.Lock()
        self._known: WeakSet[object] = WeakSet()
        self._silent: WeakSet[object] = WeakSet()
        self._silence_at = float("-inf")  # the last time that patience ended
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
    ) -> AsyncIterator[Callable[[], None]]:
        """Wait for the turn and keep it, unless it is not needed any more by then.

        Patience begins when what is given is called: just before the request goes.
        """
        self._known.add(who)
        if who in self._silent and len(self._silent) < len(self._known):
            await asyncio.sleep(_IMPATIENT_SECONDS)
        await self._lock.acquire()
        is_kept = True
        loop = asyncio.get_running_loop()
        begun: list[float] = []
        timers: list[asyncio.TimerHandle] = []

        def pass_on() -> None:
            nonlocal is_kept
            if is_kept:
                is_kept = False
                self._lock.release()

        def lose_patience() -> None:
            self._silence_at = loop.time()
            on_silence()
            pass_on()

        def begin() -> None:
            begun.append(loop.time())
            # Who was silent may answer again, and be refused: then nobody else need be.
            are_silent = begun[0] - self._silence_at < _ARE_SILENT_SECONDS
            is_known = who in self._silent and are_silent
            patience = _IMPATIENT_SECONDS if is_known else self._patience_seconds
            timers.append(loop.call_later(patience, lose_patience))

        if not is_needed():
            pass_on()
            yield lambda: None
            return
        self._pass_on = pass_on
        try:
            yield begin
        finally:
            pass_on()
            for timer in timers:
                timer.cancel()
            if begun and loop.time() - begun[0] > self._patience_seconds:
                self._silent.add(who)
            else:
                self._silent.discard(who)
