"""Who goes first: one request finds out whether the cloud takes who we are, not all of them.

More than five refused signatures lock an access key, and a scrape sends hundreds of requests.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from exporter.credentials.turns import Turn

# A key may be withdrawn between two scrapes: then one request of the next one learns it.
KEYS_LAST_SECONDS = 5.0


class Trust:
    """Whether requests may go all at once, or one first whose answer the others wait for.

    Until a request was accepted, and again from a refusal on, they go one at a time. What was
    accepted is trusted for `lasting_seconds` from the last answer; after that, and for a new
    value, one goes first, and the others follow as soon as it was not refused.

    `within` is the trust that this one is a part of: a project's is part of its access key's.
    """

    def __init__(
        self, lasting_seconds: float = float("inf"), *, within: "Trust | None" = None
    ) -> None:
        self._lasting_seconds = lasting_seconds
        self._within = within
        self._turn = Turn()
        self._is_established = False
        self._value: object = None
        self._heard_at = float("-inf")
        self._doubted_at = float("-inf")
        self._accepted_at = float("-inf")

    def holds(self, value: object) -> bool:
        """Whether requests with `value` need not wait for each other."""
        return (
            self._is_established
            and value == self._value
            and _now() - self._heard_at < self._lasting_seconds
        )

    def was_accepted_since(self, moment: float) -> bool:
        return self._accepted_at > moment

    def accept(self, value: object, sent_at: float) -> None:
        """A request of that moment was let in: it says nothing if a later one was refused."""
        if sent_at >= self._doubted_at:
            self._is_established = True
            self._accepted_at = _now()
            self._hold(value)
        if self._within is not None:
            self._within.accept(None, sent_at)

    def doubt(self) -> None:
        """A request was refused."""
        self._is_established = False
        self._doubted_at = _now()
        if self._within is not None:
            self._within.doubt()

    def hear(self, value: object) -> None:
        """An answer that neither accepts nor refuses: no reason for doubt."""
        self._hold_on(value)
        if self._within is not None:
            self._within.hear(None)

    def _hold_on(self, value: object) -> None:
        if self._is_established:
            self._hold(value)

    def _hold(self, value: object) -> None:
        self._value, self._heard_at = value, _now()
        self._turn.end()  # nobody need go first any more

    @asynccontextmanager
    async def turn(self, value: object) -> AsyncIterator[None]:
        """Wait for the turn to go first, or alone, and keep it until there is an answer.

        Whoever finds that it holds by now need not go first any more.
        """
        async with AsyncExitStack() as turns:
            begins = [await turns.enter_async_context(self._take(self, value))]
            if self._within is not None:
                begins.append(await turns.enter_async_context(self._within._take(self, None)))
            for begin in begins:
                begin()
            yield

    def _take(self, who: object, value: object) -> AbstractAsyncContextManager[Callable[[], None]]:
        return self._turn.take(
            who,
            is_needed=lambda: not self.holds(value),
            is_doubted=lambda: self._doubted_at > self._accepted_at,
            on_silence=lambda: self._hold_on(value),
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
