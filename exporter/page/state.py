"""What is the matter with an instance: one state, on the page, in `--once` and in the rules.

The states are those of the alerts, in the order of their severity. An instance may be in several
(it fails, and its last backup is old): the worst names it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from exporter.errors import Reason
from exporter.models import InstanceResult, Reading


class Severity(StrEnum):
    """How bad a state is: the severity of its alert, or none where there is no alert."""

    CRITICAL = "critical"
    WARNING = "warning"
    UNKNOWN = "unknown"
    GOOD = "good"

    @property
    def needs_attention(self) -> bool:
        return self in (Severity.CRITICAL, Severity.WARNING)


class State(StrEnum):
    """What is the matter with an instance, worst first; the value is the word that people read."""

    STALE = "stale"
    NO_BACKUPS = "no backups"
    NOT_RESTORABLE = "not restorable"
    FAILING = "failing"
    HOLE = "hole"
    INCOMPLETE = "incomplete"
    NOT_ASKED = "not asked yet"
    SUSPENDED = "suspended"
    LISTING = "listing"
    OK = "ok"

    @property
    def slug(self) -> str:
        return self.value.replace(" ", "-")

    @property
    def severity(self) -> Severity:
        return _SEVERITIES[self]

    @property
    def alert(self) -> str:
        """The shipped alert that fires for it, which is its runbook's name too; empty: none."""
        return _ALERTS.get(self, "")


_SEVERITIES: Mapping[State, Severity] = {
    State.STALE: Severity.CRITICAL,
    State.NO_BACKUPS: Severity.CRITICAL,
    State.NOT_RESTORABLE: Severity.CRITICAL,
    State.FAILING: Severity.WARNING,
    State.HOLE: Severity.WARNING,
    State.INCOMPLETE: Severity.WARNING,
    State.NOT_ASKED: Severity.UNKNOWN,
    State.SUSPENDED: Severity.UNKNOWN,
    State.LISTING: Severity.UNKNOWN,
    State.OK: Severity.GOOD,
}
_ALERTS: Mapping[State, str] = {
    State.STALE: "GaussDBMySQLBackupStale",
    State.NO_BACKUPS: "GaussDBMySQLBackupNone",
    State.NOT_RESTORABLE: "GaussDBMySQLBackupNotRestorable",
    State.FAILING: "GaussDBMySQLBackupAPIFailing",
    State.HOLE: "GaussDBMySQLBackupWindowHole",
    State.INCOMPLETE: "GaussDBMySQLBackupListingIncomplete",
}
# The cloud rightly makes no backups of an instance that it says is one of these.
_SUSPENDED: Mapping[str, str] = {
    "creating": "being created",
    "build": "being created",
    "frozen": "frozen",
    "restoring": "being restored",
}
_WITH_HOLE = frozenset({State.STALE, State.NO_BACKUPS, State.HOLE})
_RANK: Mapping[State, int] = {state: rank for rank, state in enumerate(State)}


@dataclass(frozen=True, slots=True)
class Judged:
    """An instance's result and what is to be thought of it."""

    result: InstanceResult
    states: Sequence[State]  # all that hold, worst first; never empty
    shows_hole: bool  # whether the picture of its window does, between backups or since the last
    now: float  # the time that its ages are told at, by the cloud's clock where ours is wrong

    @property
    def state(self) -> State:
        """The one that names the instance."""
        return self.states[0]

    @property
    def words(self) -> Sequence[str]:
        """The states as people read them, worst first."""
        return [self.word_of(state) for state in self.states]

    @property
    def word(self) -> str:
        """The one that names the instance, as people read it."""
        return self.word_of(self.state)

    def word_of(self, state: State) -> str:
        """Of a suspended instance why."""
        return describe_suspension(self.result) if state is State.SUSPENDED else state.value

    @property
    def reading(self) -> Reading | None:
        """The last known numbers: this scrape's, else those of the last query that succeeded."""
        return self.result.reading or self.result.last_reading

    @property
    def order(self) -> tuple[int, str, str, str]:
        """Worst first, then by name."""
        instance = self.result.instance
        name = (instance.name or instance.id).casefold()
        return _RANK[self.state], name, instance.project_id, instance.id


def judge(result: InstanceResult, *, now: float) -> Judged:
    """All states of an instance as of `now`, which is the time that its ages are told at."""
    now -= result.clock_ahead_seconds
    states = tuple(_find_states(result, now)) or (State.OK,)
    has_picture = result.reading is not None or result.last_reading is not None
    shows_hole = has_picture and not _WITH_HOLE.isdisjoint(states)
    if describe_suspension(result) and states[0].severity is Severity.CRITICAL:
        others = [each for each in states if each.severity is not Severity.CRITICAL]
        states = tuple(sorted((*others, State.SUSPENDED), key=_RANK.__getitem__))
    return Judged(result, states, shows_hole, now)


def describe_suspension(result: InstanceResult) -> str:
    """Why the cloud rightly makes no backups of the instance now; empty where it should."""
    return _SUSPENDED.get(result.instance.status.casefold(), "")


def has_hole(reading: Reading, stale_after_seconds: float) -> bool:
    """Whether a hole lies between two backups: over, but not restorable. As the alert has it."""
    gap = reading.max_interval_seconds
    return gap is not None and gap > stale_after_seconds


def _find_states(result: InstanceResult, now: float) -> Iterator[State]:
    """In the order of severity. What a failing instance's backups are is what was last known."""
    reading = result.reading or result.last_reading
    limit = result.instance.stale_after_seconds
    # The last end that was ever known: backups that expire one by one after they stopped being
    # made leave none in the listing, and are stale no less.
    latest_end = reading.latest_end if reading is not None else None
    if latest_end is None:
        latest_end = result.last_end
    is_stale = latest_end is not None and now - latest_end > limit
    if is_stale:
        yield State.STALE
    if reading is not None and reading.latest_end is None:
        yield State.NO_BACKUPS
    if _is_not_restorable(result, now, is_stale=is_stale):
        yield State.NOT_RESTORABLE
    if result.reading is None and _is_failing(result):
        yield State.FAILING
    if reading is not None and has_hole(reading, limit):
        yield State.HOLE
    if result.reading is not None:
        is_listed = result.reading.count is not None
        if not result.reading.listing_complete:
            yield State.INCOMPLETE if is_listed else State.LISTING
    elif result.failure is None:
        yield State.NOT_ASKED
    elif not _is_failing(result):
        yield State.LISTING


def _is_not_restorable(result: InstanceResult, now: float, *, is_stale: bool) -> bool:
    """Nothing to restore to, or backups arrive and the end of what can be restored stands still."""
    window = result.restore_window.reading if result.restore_window is not None else None
    if window is None:
        return False
    if window.until is None:
        return True
    return not is_stale and now - window.until > result.instance.stale_after_seconds


def _is_failing(result: InstanceResult) -> bool:
    """A failure, and not merely a first listing that the deadline interrupted after a page."""
    if result.failure is None:
        return False
    return (
        result.failure.reason is not Reason.DEADLINE
        or result.progress is None
        or result.progress.pages_done == 0
        or result.last_reading is not None
    )
