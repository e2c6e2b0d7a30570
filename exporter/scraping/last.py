"""What the last scrapes learned, for whoever asks again soon, and for people."""

from exporter.errors import Reason
from exporter.models import Snapshot
from exporter.scraping.collecting import Span


class LastSnapshots:
    """The newest of all, and the newest that may answer another scrape."""

    def __init__(self, min_interval: float) -> None:
        self._min_interval = min_interval
        self.newest: Snapshot | None = None  # of a probe too
        self._whole: Snapshot | None = None  # of all instances, and cut short by no deadline
        self._newest_begun = self._whole_begun = float("-inf")

    def fresh(self, now: float) -> Snapshot | None:
        """What answers a scrape that comes sooner than `scrape.min_interval`."""
        age = now - self._whole.finished if self._whole is not None else float("inf")
        return self._whole if 0 <= age < self._min_interval else None

    def remember(self, snapshot: Snapshot, span: Span, *, is_whole: bool) -> None:
        """But not where a scrape that began later was faster."""
        if span.begun >= self._newest_begun and span.is_enough:
            self.newest, self._newest_begun = snapshot, span.begun
        if is_whole and span.begun >= self._whole_begun and not _was_cut_short(snapshot):
            self._whole, self._whole_begun = snapshot, span.begun


def _was_cut_short(snapshot: Snapshot) -> bool:
    """Whether another scrape, with more time, could have learned more."""
    return any(
        result.failure is not None and result.failure.reason is Reason.DEADLINE
        for result in snapshot.results
    )
