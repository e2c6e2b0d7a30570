"""When the whole window is listed anew, and what becomes of that."""

import math
from dataclasses import dataclass

import structlog

from exporter.errors import ApiError, Reason
from exporter.models import Instance, Overdue
from exporter.transport.backoff import doubled
from exporter.transport.spread import next_due

log = structlog.get_logger(__name__)

# Overdue by so many intervals the numbers are no longer believed.
_INTERVALS_BELIEVED = 3
_AGAIN_SECONDS = 60.0


@dataclass(slots=True)
class Retry:
    """What did not help is tried again after a minute, then after two, four, and so on."""

    longest: float = math.inf
    failures: int = 0  # in a row
    failed_at: float = -math.inf

    @property
    def wait(self) -> float:
        return doubled(_AGAIN_SECONDS, self.failures, cap=self.longest)

    def is_due(self, now: float) -> bool:
        return not 0 <= now - self.failed_at < self.wait

    def fail(self, now: float) -> None:
        self.failures += 1
        self.failed_at = now

    def succeed(self) -> None:
        self.failures, self.failed_at = 0, -math.inf


class Resync:
    """One instance's listings of the whole window."""

    def __init__(self, instance: Instance, interval: float) -> None:
        self._instance = instance
        self._interval = interval
        self._due_at = -math.inf
        # Of a listing whose rows do not match the API's total_count: worth another try soon, but
        # not at every scrape, since total_count may be wrong for good.
        self._incomplete = Retry()
        # Since when a scrape has wanted it: of who is not scraped nothing is overdue.
        self._wanted_since: float | None = None
        self._told = False
        self.error: ApiError | None = None  # why the last try failed

    def is_due(self, now: float) -> bool:
        # Further away than an interval: the clock was wrong when it was planned.
        return not now < self._due_at <= now + self._interval

    def hasten(self) -> None:
        """It is due at once."""
        self._due_at = -math.inf

    def want(self, now: float) -> None:
        """It is waited for, whether it gets its turn or not."""
        if self._wanted_since is None or now < self._wanted_since:
            self._wanted_since = now

    def fail(self, error: ApiError) -> None:
        self.error = error.kept()
        self.error.counted = True  # by who met it

    def succeed(self, now: float, *, complete: bool) -> None:
        if self._told:
            log.info("the whole window is listed again", **self._facts)
        self._due_at = next_due(self._instance.key, now, self._interval)
        if complete:
            self._incomplete.succeed()
        else:
            self._incomplete.fail(now)
            self._due_at = min(self._due_at, now + self._incomplete.wait)
        self._wanted_since, self._told, self.error = None, False, None

    def overdue(self, now: float) -> Overdue | None:
        """Since when it has been wanted in vain; None within the first interval."""
        since = self._wanted_since
        if since is None or now - since < self._interval:
            return None
        reason = self.failure().reason
        if not self._told:
            self._told = True
            log.warning(
                "listing the whole window anew is overdue",
                overdue_seconds=round(now - since),
                reason=reason.value,
                **self._facts,
            )
        return Overdue(since, reason)

    def is_believed(self, now: float) -> bool:
        """Whether what was listed last may still be published."""
        since = self._wanted_since
        return since is None or now - since < _INTERVALS_BELIEVED * self._interval

    def failure(self) -> ApiError:
        """Why it is overdue."""
        if self.error is not None:
            return self.error.kept()
        return ApiError(
            "the whole window could not be listed before the deadline of any scrape",
            reason=Reason.DEADLINE,
            hint="raise scrape_timeout in Prometheus, or lower the number of instances (shards)",
        )

    def adopt(self, previous: "Resync", now: float) -> None:
        """Go on from an earlier configuration's."""
        self._due_at = min(previous._due_at, next_due(self._instance.key, now, self._interval))
        self._incomplete.failures = previous._incomplete.failures
        self._wanted_since = previous._wanted_since
        self._told, self.error = previous._told, previous.error

    @property
    def _facts(self) -> dict[str, str]:
        return {"project": self._instance.project_id, "instance": self._instance.id}
