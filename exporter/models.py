"""The frozen values that pass between the modules. Times are seconds since the epoch (UTC)."""

import itertools
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from exporter.errors import ApiError, Reason

T = TypeVar("T")

FULL_BACKUP_TYPES = ("auto", "manual")


class InstanceKey(NamedTuple):
    """What tells one instance from all others, everywhere."""

    project_id: str
    instance_id: str


@dataclass(frozen=True, slots=True)
class Instance:
    """A database instance to watch, configured or discovered."""

    project_id: str
    id: str
    project_name: str = ""  # for people; empty where unknown
    name: str = ""
    region: str = ""
    lookback_seconds: float = 86_400.0
    stale_after_seconds: float = 3_600.0
    offsite: bool = False
    restore_window: bool = False
    full_backups: bool = False
    full_stale_after_seconds: float = 691_200.0
    # As discovery's listing tells; of configured instances too, if it lists them.
    status: str = ""  # normal, FROZEN, ...: as the cloud writes it; "" where unknown
    retention_seconds: float | None = None  # how long backups are kept; None where unknown

    @property
    def key(self) -> InstanceKey:
        return InstanceKey(self.project_id, self.id)


class Backup(NamedTuple):
    """One row of the API's listing, checked. `end` is None while the backup runs."""

    id: str
    begin: float | None
    end: float | None
    size_kilobytes: float


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of the listing: its rows, and how many rows the API says there are in all."""

    rows: Sequence[Backup]
    total_count: int | None

    @property
    def row_count(self) -> int:
        return len(self.rows)


class Overdue(NamedTuple):
    """The whole window should have been listed anew long ago: since when that fails, and why."""

    since: float
    reason: Reason


@dataclass(frozen=True, slots=True)
class Reading:
    """What one successful query of an instance learned, as of `at`; the backup gauges.

    What only a listing of the whole window tells is None until there was one: count, total size,
    running, oldest end and longest interval. The latest end is known from the first query on; it
    is None where the instance has no finished backup at all.
    Running backups that began within the lookback are in `count` and `size_kilobytes` too.
    """

    at: float
    count: int | None
    size_kilobytes: float | None
    running: int | None
    listing_complete: bool
    latest_end: float | None = None
    latest_size_kilobytes: float | None = None
    oldest_end: float | None = None
    max_interval_seconds: float | None = None
    # The latest end before the lookback, as far as it is known: where an interval that reaches into
    # it began.
    previous_end: float | None = None
    overdue: Overdue | None = None
    # End times within the lookback, ascending: the picture of the window. Shared, never written to.
    ends: Sequence[float] = field(default_factory=lambda: array("d"), repr=False)


class TimeRange(NamedTuple):
    """Every moment from `start` to `end` can be restored to; they may be the same moment."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class RestoreWindow:
    """To which moments an instance can be restored, as of `at`."""

    at: float
    ranges: Sequence[TimeRange]  # ascending; those that touch (1 s) are one

    @property
    def until(self) -> float | None:
        """The latest moment; None where there is nothing to restore to."""
        return self.ranges[-1].end if self.ranges else None

    @property
    def since(self) -> float | None:
        """The start of the latest range: every moment from here to `until` can be restored to."""
        return self.ranges[-1].start if self.ranges else None

    @property
    def oldest(self) -> float | None:
        """The earliest moment; between it and `since` there may be gaps."""
        return self.ranges[0].start if self.ranges else None

    @property
    def gaps(self) -> Sequence[TimeRange]:
        """Between two ranges: moments that cannot be restored to, though older ones can."""
        return [TimeRange(a.end, b.start) for a, b in itertools.pairwise(self.ranges)]

    @property
    def max_gap_seconds(self) -> float | None:
        """The longest of them; None under two ranges."""
        return max((gap.end - gap.start for gap in self.gaps), default=None)


class BackupState(StrEnum):
    """What a full backup's status means for a restore."""

    RUNNING = "running"
    USABLE = "usable"
    FAILED = "failed"


class FullBackup(NamedTuple):
    """One row of the project's listing of full backups, checked."""

    id: str
    instance_id: str
    backup_type: str  # auto or manual
    state: BackupState
    begin: float | None
    end: float | None  # None while it runs
    size_megabytes: float | None


class UnreadableBackup(NamedTuple):
    """A row that makes no sense: it spoils what is known of its instance, and of no other."""

    id: str
    instance_id: str
    problem: str


@dataclass(frozen=True, slots=True)
class FullBackups:
    """The full backups of one instance, as of `at`. A restore starts from a usable one."""

    at: float
    backups: Sequence[FullBackup]  # ascending by their end, those that run last
    usable: Mapping[str, int]  # how many, of each type
    latest: Mapping[str, FullBackup]  # the latest usable one, of each type that has any
    oldest_end: float | None  # of the oldest usable one
    latest_failed: bool | None  # the latest that has ended, of either type; None before the first


class Source(StrEnum):
    """What is asked of the cloud for an instance beside its incremental backups."""

    RESTORE_WINDOW = "restore_window"
    FULL_BACKUPS = "full_backups"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a query of the API failed; free of secrets, for people."""

    reason: Reason
    message: str
    hint: str = ""
    operation: str = ""
    host: str = ""
    status: int | None = None
    error_code: str = ""
    request_id: str = ""
    tried: int = 1  # how often the request was sent

    @classmethod
    def of(cls, error: ApiError, redact: Callable[[str], str] = str) -> "Failure":
        """What is known of `error`; `redact` takes the secrets out of what others wrote."""
        facts = error.facts
        facts["error_code"] = redact(facts["error_code"])
        facts["request_id"] = redact(facts["request_id"])
        return cls(error.reason, redact(str(error)), error.hint, **facts)

    @property
    def facts(self) -> dict[str, object]:
        """The evidence that there is, as fields of a log line."""
        names = ("operation", "host", "status", "error_code", "request_id")
        known = {name: value for name in names if (value := getattr(self, name))}
        return known | ({"tried": self.tried} if self.tried > 1 else {})

    @property
    def evidence(self) -> str:
        """What support asks for: `list_backups at HOST: HTTP 403, DBS.200010, request 8d0f3a`."""
        answer = [
            f"HTTP {self.status}" if self.status is not None else "",
            self.error_code,
            f"request {self.request_id}" if self.request_id else "",
        ]
        place = " at ".join(filter(None, (self.operation, self.host)))
        return ": ".join(filter(None, (place, ", ".join(filter(None, answer)))))


@dataclass(frozen=True, slots=True)
class SourceResult(Generic[T]):
    """What is known of a source when a scrape ends. Neither reading nor failure: not asked yet."""

    reading: T | None  # of the last refresh; None if it failed, or is too old to be said
    failure: Failure | None  # of the last refresh
    last_success: float | None  # the end of the last refresh that succeeded


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long listing is."""

    pages_done: int
    pages_total: int


@dataclass(frozen=True, slots=True)
class InstanceResult:
    """One instance in one scrape: a reading or a failure, and what it took.

    Neither of them: it has not been asked yet.
    """

    instance: Instance
    reading: Reading | None
    failure: Failure | None
    duration_seconds: float
    api_requests: int
    api_errors: int
    api_requests_total: int
    api_errors_total: Mapping[Reason, int]
    last_success: float | None
    progress: Progress | None = None
    # What is remembered, for people: the last reading (this one, if there is one), and the latest
    # `end_time` that was ever known, which a later listing may no longer show.
    last_reading: Reading | None = None
    last_end: float | None = None
    # What is to be taken off this machine's clock to have the time that all of it is told in.
    clock_ahead_seconds: float = 0.0
    # What is asked beside the backups; None where the setting is off.
    restore_window: SourceResult[RestoreWindow] | None = None
    full_backups: SourceResult[FullBackups] | None = None

    @property
    def sources(self) -> "Mapping[Source, SourceResult[RestoreWindow] | SourceResult[FullBackups]]":
        """Those that are asked for."""
        both = {Source.RESTORE_WINDOW: self.restore_window, Source.FULL_BACKUPS: self.full_backups}
        return {source: result for source, result in both.items() if result is not None}

    @classmethod
    def unasked(cls, instance: Instance) -> "InstanceResult":
        """Of an instance that no scrape has come to yet."""
        return cls(
            instance=instance,
            reading=None,
            failure=None,
            duration_seconds=0.0,
            api_requests=0,
            api_errors=0,
            api_requests_total=0,
            api_errors_total={},
            last_success=None,
        )


@dataclass(frozen=True, slots=True)
class ProjectResult:
    """What a scrape knows of a project. None where the project has no such thing."""

    id: str
    name: str = ""
    region: str = ""
    token_expiry: float | None = None
    discovery_success: bool | None = None
    discovery_failure: Failure | None = None
    # Of the last listing that succeeded; None before it.
    found_instances: int | None = None  # all of them, excluded ones too
    discovered_instances: int | None = None
    unmonitored_instances: int | None = None
    clock_skew_seconds: float | None = None  # this machine's clock less the cloud's
    clock_ahead_seconds: float = 0.0  # the same where it is too much: then the cloud's time counts
    unusable_ids: Sequence[str] = ()  # for people: ids of another form, which are not watched

    @property
    def takes_none(self) -> bool:
        """Whether discovery found instances and its filters take not one of them."""
        return bool(self.found_instances) and not self.discovered_instances


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one scrape learned: what is rendered as metrics and as the status page."""

    started: float
    finished: float
    results: Sequence[InstanceResult]
    projects: Sequence[ProjectResult]


@dataclass(frozen=True, slots=True)
class View:
    """What is known now of every instance that is watched, for people.

    Each result is the last one, of a scrape or a probe; an instance that was not asked yet has one
    without a reading and without a failure.
    """

    results: Sequence[InstanceResult]
    projects: Sequence[ProjectResult]
    started: float | None = None  # of the last scrape; None before the first
    finished: float | None = None


@dataclass(frozen=True, slots=True)
class ConfigurationState:
    """Which configuration is in force, and why a newer one is not."""

    loaded_at: float
    refused_at: float = 0.0  # meaningful where there are problems
    problems: Sequence[str] = ()
