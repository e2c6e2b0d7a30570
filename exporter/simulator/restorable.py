"""To which moments an instance can be restored, out of the backups that it has. Pure."""

from collections.abc import Iterator
from math import floor

from exporter.simulator.cloud import SimulatedInstance
from exporter.simulator.schedule import OFFSITE_LOG

Range = tuple[float, float]


def restorable_ranges(
    instance: SimulatedInstance, now: float, *, breaks_after: float
) -> list[Range]:
    """From each usable full backup on, as far as the chain of incremental ones goes.

    The chain breaks where the next one ends more than `breaks_after` seconds later. What follows
    can be restored to from the next full backup on alone. One range for each chain, ascending.
    """
    runs = list(_runs(instance, now, breaks_after))
    ranges: list[Range] = []
    for full in sorted(instance.full_backups_at(now), key=lambda full: full.end or 0.0):
        if not full.is_usable(now) or full.end is None:
            continue
        start = end = float(floor(full.end))
        for first, last in runs:
            if first - breaks_after <= start <= last:
                end = last
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    return ranges


def _runs(instance: SimulatedInstance, now: float, breaks_after: float) -> Iterator[Range]:
    """The first and the last end of incremental backups that follow each other closely."""
    run: Range | None = None
    for first, last in sorted([*_scheduled_runs(instance, now), *_written_ends(instance, now)]):
        if run is not None and first - run[1] <= breaks_after:
            run = (run[0], max(run[1], last))
        else:
            if run is not None:
                yield run
            run = (first, last)
    if run is not None:
        yield run


def _scheduled_runs(instance: SimulatedInstance, now: float) -> Iterator[Range]:
    """Of a schedule they are the stretches between its pauses."""
    schedule = instance.schedule
    if schedule is None:
        return
    finished, _ = schedule.finished_and_running(now)
    for part in schedule.without_pauses(finished):
        yield schedule.end_of(part[0]), schedule.end_of(part[-1])


def _written_ends(instance: SimulatedInstance, now: float) -> Iterator[Range]:
    for backup in instance.backups:
        if backup.backup_type == OFFSITE_LOG or not backup.is_visible(now):
            continue
        if backup.end is not None and backup.end <= now:
            yield float(floor(backup.end)), float(floor(backup.end))
