"""What clients can cause again and again must not fill the log."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

_MAX_KEYS = 64


@dataclass(slots=True)
class _Said:
    at: float
    unsaid: int = 0


class Repeats:
    """Decides when to say a thing again: once a minute for each key.

    Keys beyond 64 within a minute count as one, for clients have many addresses.
    """

    def __init__(
        self, *, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._said: dict[Hashable, _Said] = {}

    def count(self, *key: Hashable) -> int:
        """How often it was so since it was last said, this time included; 0: say nothing now."""
        now = self._clock()
        known = self._said.get(key)
        if known is None and len(self._said) >= _MAX_KEYS:
            self._forget(now)
            if len(self._said) >= _MAX_KEYS:
                key = ("others",)
                known = self._said.get(key)
        if known is not None and now - known.at < self._seconds:
            known.unsaid += 1
            return 0
        self._said[key] = _Said(now)
        return 1 + (known.unsaid if known is not None else 0)

    def _forget(self, now: float) -> None:
        self._said = {
            key: said for key, said in self._said.items() if now - said.at < self._seconds
        }
