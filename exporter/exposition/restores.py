"""What is published of restores: restorable ranges, full backups, and how their refreshes went."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

from exporter.exposition.lines import Table
from exporter.models import (
    FULL_BACKUP_TYPES,
    FullBackup,
    FullBackups,
    InstanceResult,
    RestoreWindow,
    SourceResult,
)

R = TypeVar("R")

BYTES_PER_MEGABYTE = 1024 * 1024

# The values of further labels, and a value; None: no sample.
Samples = Iterable[tuple[tuple[str, ...], float | None]]


@dataclass(frozen=True, slots=True)
class RestoreFamily:
    """A metric of each instance, of which there may be several samples, told apart by `labels`."""

    name: str
    help: str
    samples: Callable[[InstanceResult], Samples]
    labels: tuple[str, ...] = ()


def table_of(family: RestoreFamily, prefix: str, results: Sequence[InstanceResult]) -> Table:
    labels, values = [], []
    for result in results:
        instance = result.instance
        for more, value in family.samples(result):
            if value is not None:
                labels.append((instance.project_id, instance.id, *more))
                values.append(float(value))
    return Table(
        prefix + family.name,
        family.help,
        "gauge",
        label_names=("project", "instance", *family.labels),
        labels=labels,
        values=values,
    )


def _told(
    source: Callable[[InstanceResult], SourceResult[R] | None], samples: Callable[[R], Samples]
) -> Callable[[InstanceResult], Samples]:
    """The samples of what the source's last refresh has read; none where it has read nothing."""

    def samples_of(result: InstanceResult) -> Samples:
        known = source(result)
        return [] if known is None or known.reading is None else samples(known.reading)

    return samples_of


def _window(value: Callable[[RestoreWindow], float | None]) -> Callable[[InstanceResult], Samples]:
    return _told(attrgetter("restore_window"), lambda window: [((), value(window))])


def _full(value: Callable[[FullBackups], float | None]) -> Callable[[InstanceResult], Samples]:
    return _told(attrgetter("full_backups"), lambda known: [((), value(known))])


def _count(known: FullBackups) -> Samples:
    return [((kind,), known.usable[kind]) for kind in FULL_BACKUP_TYPES]


def _latest(value: Callable[[FullBackup], float | None]) -> Callable[[InstanceResult], Samples]:
    return _told(
        attrgetter("full_backups"),
        lambda known: [((kind,), value(backup)) for kind, backup in known.latest.items()],
    )


def _duration(backup: FullBackup) -> float | None:
    known = backup.begin is not None and backup.end is not None
    return backup.end - backup.begin if known else None  # type: ignore[operator]  # both are known


def _bytes(backup: FullBackup) -> float | None:
    size = backup.size_megabytes
    return size * BYTES_PER_MEGABYTE if size is not None else None


def _sources(
    value: Callable[[SourceResult[RestoreWindow] | SourceResult[FullBackups]], float | None],
) -> Callable[[InstanceResult], Samples]:
    def samples(result: InstanceResult) -> Samples:
        return [((source.value,), value(known)) for source, known in result.sources.items()]

    return samples


_OF_A_TYPE = ("backup_type",)

# Present where the setting is on and the last refresh succeeded, not too long ago.
RESTORE_FAMILIES: Sequence[RestoreFamily] = (
    RestoreFamily(
        "restorable_until_timestamp_seconds",
        "End of the latest range of moments that can be restored to (restore-time, end_time).",
        _window(lambda window: window.until),
    ),
    RestoreFamily(
        "restorable_since_timestamp_seconds",
        "Start of the latest range of moments that can be restored to (restore-time, start_time).",
        _window(lambda window: window.since),
    ),
    RestoreFamily(
        "restorable_oldest_timestamp_seconds",
        "Start of the oldest range of moments that can be restored to (restore-time, start_time).",
        _window(lambda window: window.oldest),
    ),
    RestoreFamily(
        "restorable_ranges",
        "Ranges of moments that can be restored to; 0: there is nothing to restore to.",
        _window(lambda window: len(window.ranges)),
    ),
    RestoreFamily(
        "restorable_max_gap_seconds",
        "Longest gap between two ranges of moments that can be restored to.",
        _window(lambda window: window.max_gap_seconds),
    ),
    RestoreFamily(
        "full_backups",
        "Usable full backups (status COMPLETED or AVAILABLE).",
        _told(attrgetter("full_backups"), _count),
        _OF_A_TYPE,
    ),
    RestoreFamily(
        "full_backup_latest_end_timestamp_seconds",
        "Latest end_time of a usable full backup.",
        _latest(lambda backup: backup.end),
        _OF_A_TYPE,
    ),
    RestoreFamily(
        "full_backup_latest_duration_seconds",
        "How long the latest usable full backup took (end_time less begin_time).",
        _latest(_duration),
        _OF_A_TYPE,
    ),
    RestoreFamily(
        "full_backup_latest_size_bytes",
        "Size of the latest usable full backup in bytes (size, MB x 1024 x 1024).",
        _latest(_bytes),
        _OF_A_TYPE,
    ),
    RestoreFamily(
        "full_backup_oldest_end_timestamp_seconds",
        "Earliest end_time of a usable full backup, of either type.",
        _full(lambda known: known.oldest_end),
    ),
    RestoreFamily(
        "full_backup_latest_failed",
        "1 if the latest full backup that has ended, of either type, failed, else 0.",
        _full(lambda known: known.latest_failed),
    ),
    RestoreFamily(
        "full_backup_stale_after_seconds",
        "Configured threshold: an older latest full backup is stale (full_stale_after).",
        lambda result: (
            [((), result.instance.full_stale_after_seconds)]
            if result.full_backups is not None
            else []
        ),
    ),
    RestoreFamily(
        "backup_retention_seconds",
        "How long the cloud keeps the instance's backups (backup_strategy, keep_days).",
        lambda result: [((), result.instance.retention_seconds)],
    ),
    RestoreFamily(
        "instance_status",
        "1 for the status that the cloud reports for the instance (status).",
        lambda result: [((result.instance.status,), 1.0)] if result.instance.status else [],
        ("status",),
    ),
    RestoreFamily(
        "source_success",
        "1 if the last refresh of the source (restore_window, full_backups) succeeded, else 0.",
        _sources(lambda known: known.reading is not None),
        ("source",),
    ),
    RestoreFamily(
        "source_last_success_timestamp_seconds",
        "End of the last refresh of the source that succeeded.",
        _sources(lambda known: known.last_success),
        ("source",),
    ),
)
