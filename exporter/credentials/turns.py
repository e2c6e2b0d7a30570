"""One at a time, but nobody waits long for one that gets no answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakSet

# A project that hangs must not keep out those that share its key or its account.
_PATIENCE_SECONDS = 1.5
# With who was silent last time, while others are; so long it also lets the others go first.
_IMPATIENT_SECONDS = 0.1
_ARE_SILENT_SECONDS = 5.0
# Five refusals lock an account: so no more are without an answer at once. One, where one has been
# refused.
_MOST_UNANSWERED = 4
# Who is silent for so long hangs: what answers, answers before. Others of a scrape of 10 s go.
_HANGS_SECONDS = 8.0


@dataclass(slots=True, eq=False)
class _Holder:
    """Who has the turn, or has been overtaken by the next one and still gets no answer."""

    is_doubted: Callable[[], bool]
    on_silence: Callable[[], None]
    release: Callable[[], None]
    begun: float = float("inf")  # when its request went, in the loop's time
    timer: asyncio.TimerHandle | None = None
    has_turn: bool = True

    def hangs(self) -> bool:
        return asyncio.get_running_loop().time() - self.begun >= _HANGS_SECONDS

    def pass_on(self) -> None:
        if self.has_turn:
            self.has_turn = False
            self.release()


class Turn:
    """Those who take it go one after the other; the next one also goes when patience ends, while
    few are without an answer."""

    def __init__(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._lock = asyncio.Lock()
        self._known: WeakSet[object] = WeakSet()
        self._silent: WeakSet[object] = WeakSet()
        self._silence_at = float("-inf")  # the last time that patience ended
        self._unanswered: list[_Holder] = []  # in the order in which they went
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
        is_doubted: Callable[[], bool] = lambda: False,
        on_silence: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[Callable[[], None]]:
        """Wait for the turn and keep it, unless it is not needed any more by then.

        Patience begins when what is given is called: just before the request goes. `is_doubted`:
        whether what it shows was refused before.
        """
        self._known.add(who)
        if who in self._silent and len(self._silent) < len(self._known):
            await asyncio.sleep(_IMPATIENT_SECONDS)
        await self._lock.acquire()
        holder = _Holder(is_doubted, on_silence, self._lock.release)
        if not is_needed():
            holder.pass_on()
            yield lambda: None
            return
        self._pass_on = holder.pass_on
        try:
            yield lambda: self._begin(who, holder)
        finally:
            holder.pass_on()
            self._end(who, holder)

    def _begin(self, who: object, holder: _Holder) -> None:
        loop = asyncio.get_running_loop()
        holder.begun = loop.time()
        self._unanswered.append(holder)
        # Who was silent may answer again, and be refused: then nobody else need be.
        are_silent = holder.begun - self._silence_at < _ARE_SILENT_SECONDS
        is_known = (who in self._silent and are_silent) or self._unanswered[0].hangs()
        patience = _IMPATIENT_SECONDS if is_known else self._patience_seconds
        holder.timer = loop.call_later(patience, self._lose_patience, holder)

    def _lose_patience(self, holder: _Holder) -> None:
        loop = asyncio.get_running_loop()
        if not holder.hangs() and (
            holder.is_doubted()
            or (len(self._unanswered) >= _MOST_UNANSWERED and not self._unanswered[0].hangs())
        ):
            holder.timer = loop.call_later(_IMPATIENT_SECONDS, self._lose_patience, holder)
            return
        self._silence_at = loop.time()
        holder.on_silence()
        holder.pass_on()

    def _end(self, who: object, holder: _Holder) -> None:
        if holder.timer is None:
            return  # it never went
        holder.timer.cancel()
        self._unanswered.remove(holder)
        if asyncio.get_running_loop().time() - holder.begun > self._patience_seconds:
            self._silent.add(who)
        else:
            self._silent.discard(who)
