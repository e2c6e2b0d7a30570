"""What the refreshes of a source have told of one instance, and for how long it may be said."""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from exporter.errors import Reason
from exporter.models import Failure, SourceResult


class Dated(Protocol):
    @property
    def at(self) -> float: ...


T = TypeVar("T", bound=Dated)

# A reading is said for so many intervals.
_INTERVALS_KEPT = 2


@dataclass(slots=True, eq=False)
class Known(Generic[T]):
    """A refresh that failed ends what was known: an old number is never published as a new one."""

    reading: T | None = None
    failure: Failure | None = None
    last_success: float | None = None

    def learn(self, reading: T, now: float) -> None:
        self.reading, self.failure, self.last_success = reading, None, now

    def fail(self, failure: Failure) -> None:
        self.reading, self.failure = None, failure

    def excuse(self, failure: Failure) -> None:
        """Say why there is nothing to say, where that is so."""
        if self.reading is None:
            self.failure = failure

    def is_wanting(self, now: float, interval: float) -> bool:
        """Whether there is nothing to say, and no failure that explains it."""
        return self.failure is None and (
            self.reading is None or _is_old(self.reading, now, interval)
        )

    def result(self, now: float, interval: float) -> SourceResult[T]:
        """As of now. A reading that is too old is none: the refresh that was due has failed."""
        reading, failure = self.reading, self.failure
        if reading is not None and _is_old(reading, now, interval):
            failure = _overdue(now - reading.at)
            reading = None
        return SourceResult(reading, failure, self.last_success)


def _is_old(reading: Dated, now: float, interval: float) -> bool:
    return abs(now - reading.at) > _INTERVALS_KEPT * interval


def _overdue(age: float) -> Failure:
    return Failure(
        Reason.DEADLINE,
        f"the last answer is {age / 60:.0f} minutes old, and no newer one came in time",
        "queries of incremental backups go first: raise api.rate_limit, or use shards",
    )
