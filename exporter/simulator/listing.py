"""Which backups a listing shows, and in which order. Pure."""

import random
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import floor, inf
from typing import Any, Protocol, TypeVar, overload

from exporter.simulator.cloud import SimulatedInstance
from exporter.simulator.knobs import Bounds, Knobs, Order
from exporter.simulator.schedule import OFFSITE_LOG, Schedule, SimulatedBackup


@dataclass(frozen=True, slots=True)
class Window:
    """What a listing asks for: seconds since the epoch, open where not named."""

    begin: float = -inf
    end: float = inf


def find_listed(
    instance: SimulatedInstance,
    knobs: Knobs,
    window: Window,
    *,
    now: float,
    offsite: bool,
    rng: random.Random,
    seed: int,
) -> Sequence[SimulatedBackup]:
    """All rows of a listing, in its order; pages are slices of it."""
    scheduled: Sequence[SimulatedBackup] = ()
    if instance.schedule is not None:
        scheduled = _ScheduledListing(instance.schedule, knobs, window, now)
        if not instance.backups and knobs.order.startswith(("begin_", "end_")):
            return scheduled
    listed = [
        backup
        for backup in instance.backups
        if (offsite or backup.backup_type != OFFSITE_LOG) and is_listed(backup, knobs, window, now)
    ]
    return put_in_order([*scheduled, *listed], knobs.order, now=now, rng=rng, seed=seed)


def is_listed(backup: SimulatedBackup, knobs: Knobs, window: Window, now: float) -> bool:
    """Whether the cloud's own filter lets a row through, by the meaning that the knobs give it."""
    if not backup.is_visible(now):
        return False
    begin = floor(backup.begin)
    if backup.end is not None and backup.end <= now:
        end = floor(backup.end)
        if knobs.filter_meaning == "end":
            return _is_within(end, window, knobs.bounds)
    else:
        if knobs.hide_running:
            return False
        end = floor(now)
        if knobs.filter_meaning == "end" and knobs.running_under_end_filter != "by_begin":
            return knobs.running_under_end_filter == "always"
    if knobs.filter_meaning == "overlap":
        starts_early = begin <= window.end if knobs.bounds == "inclusive" else begin < window.end
        return starts_early and (
            end > window.begin if knobs.bounds == "exclusive" else end >= window.begin
        )
    return _is_within(begin, window, knobs.bounds)


def _is_within(moment: float, window: Window, bounds: Bounds) -> bool:
    if bounds == "inclusive":
        return window.begin <= moment <= window.end
    if bounds == "exclusive":
        return window.begin < moment < window.end
    return window.begin <= moment < window.end


class Ordered(Protocol):
    """What a row needs to have a place in a listing."""

    id: str
    begin: float
    end: float | None

    def is_running(self, now: float) -> bool: ...


R = TypeVar("R", bound=Ordered)


def put_in_order(
    rows: list[R], order: Order, *, now: float, rng: random.Random, seed: int
) -> list[R]:
    if order == "shuffled_each_request":
        rng.shuffle(rows)
        return rows
    keys: dict[str, Callable[[R], Any]] = {
        "begin": lambda row: (row.begin, row.id),
        # One that still runs ends last of all.
        "end": lambda row: (inf if row.is_running(now) else row.end, row.begin, row.id),
        "id": lambda row: row.id,
        "shuffled": lambda row: zlib.crc32(f"{seed}:{row.id}".encode()),
    }
    rows.sort(key=keys[order.split("_")[0]], reverse=order.endswith("_desc"))
    return rows


class _ScheduledListing(Sequence[SimulatedBackup]):
    """A listing of a schedule: slot ranges found by bisection; rows are made when looked at."""

    def __init__(self, schedule: Schedule, knobs: Knobs, window: Window, now: float) -> None:
        self._schedule = schedule
        finished, running = schedule.finished_and_running(now)
        if knobs.hide_running:
            running = range(running.start, running.start)
        if knobs.filter_meaning == "end":
            finished = _clip(finished, schedule.end_of, window, knobs.bounds)
            if knobs.running_under_end_filter == "hidden":
                running = range(running.start, running.start)
            elif knobs.running_under_end_filter == "by_begin":
                running = _clip(running, schedule.begin_of, window, knobs.bounds)
        elif knobs.filter_meaning == "begin":
            finished = _clip(finished, schedule.begin_of, window, knobs.bounds)
            running = _clip(running, schedule.begin_of, window, knobs.bounds)
        else:
            until, since = Window(end=window.end), Window(begin=window.begin)
            finished = _clip(finished, schedule.begin_of, until, knobs.bounds)
            finished = _clip(finished, schedule.end_of, since, knobs.bounds)
            if not _is_within(floor(now), since, knobs.bounds):
                running = range(running.start, running.start)
            running = _clip(running, schedule.begin_of, until, knobs.bounds)
        self._parts = [
            part for slots in (finished, running) for part in schedule.without_pauses(slots)
        ]
        self._descending = knobs.order.endswith("_desc")
        self._length = sum(len(part) for part in self._parts)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[SimulatedBackup]:
        return iter(self[:])

    @overload
    def __getitem__(self, index: int) -> SimulatedBackup: ...
    @overload
    def __getitem__(self, index: slice) -> list[SimulatedBackup]: ...
    def __getitem__(self, index: int | slice) -> SimulatedBackup | list[SimulatedBackup]:
        if isinstance(index, slice):
            positions = range(self._length)[index]
            return [self._schedule.row(self._slot_at(position)) for position in positions]
        return self._schedule.row(self._slot_at(range(self._length)[index]))

    def _slot_at(self, position: int) -> int:
        if self._descending:
            position = self._length - 1 - position
        for part in self._parts:
            if position < len(part):
                return part[position]
            position -= len(part)
        raise AssertionError("a position beyond the length")


def _clip(slots: range, moment_of: Callable[[int], float], window: Window, bounds: Bounds) -> range:
    """The slots whose moment, which grows with them, lies in the window."""
    first_of = bisect_right if bounds == "exclusive" else bisect_left
    last_of = bisect_right if bounds == "inclusive" else bisect_left
    first = first_of(slots, window.begin, key=moment_of)
    last = last_of(slots, window.end, key=moment_of)
    return slots[first : max(first, last)]
