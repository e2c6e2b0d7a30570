"""When a source is asked again, and the asking that is under way."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from exporter.transport.backoff import doubled
from exporter.transport.spread import next_due

_AGAIN_SECONDS = 60.0


@dataclass(slots=True, eq=False)
class RefreshSchedule:
    """Due at once at first, and then once in each interval, when `key` says so.

    What has failed is tried again after a minute, then twice as long, up to the interval.
    """

    key: Sequence[str]
    interval: float
    due_at: float = float("-inf")
    failures: int = 0  # so many in a row
    task: "asyncio.Task[None] | None" = None

    def is_due(self, now: float) -> bool:
        """Not while it is under way. Also where the clock was set back."""
        return self.task is None and not 0 < self.due_at - now <= self.interval

    def done(self, now: float, *, succeeded: bool) -> None:
        self.due_at = next_due(self.key, now, self.interval)
        self.failures = 0 if succeeded else self.failures + 1
        if not succeeded:
            wait = doubled(_AGAIN_SECONDS, self.failures)
            self.due_at = min(self.due_at, now + wait) if wait < self.interval else self.due_at

    def adopt(self, previous: "RefreshSchedule", now: float) -> None:
        """Go on with the times of an earlier configuration's, not later than those of this."""
        self.failures = previous.failures
        self.due_at = min(previous.due_at, next_due(self.key, now, self.interval))
