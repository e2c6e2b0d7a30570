"""The simulated cloud's contents, and which backups a listing shows, in which order. Pure."""

import functools
import json
import random
import time
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import floor, inf
from typing import Any, Literal, get_args, get_origin, get_type_hints, overload

from exporter.simulator.faults import Fault

Order = Literal[
    "begin_asc",
    "begin_desc",
    "end_asc",
    "end_desc",
    "id",
    "shuffled_stable",
    "shuffled_each_request",
]
Bounds = Literal["inclusive", "exclusive", "half_open"]

LOG = "Log"
OFFSITE_LOG = "OffSiteLog"


@dataclass(slots=True)
class SimulatedBackup:
    """One incremental backup. Times are seconds since the epoch, the size is in KB.

    Without an end, or with one that the clock has not reached, it is shown as running. It is in
    the listing from `appears_at` (else: from its begin) until `deleted_at`.
    """

    id: str
    begin: float
    end: float | None
    size: float | None
    name: str = ""
    backup_type: str = LOG
    appears_at: float | None = None
    deleted_at: float | None = None

    def is_running(self, now: float) -> bool:
        return self.end is None or self.end > now

    def is_visible(self, now: float) -> bool:
        appears_at = self.begin if self.appears_at is None else self.appears_at
        return appears_at <= now and (self.deleted_at is None or now < self.deleted_at)


@dataclass(slots=True, eq=False)
class Schedule:
    """Backups made by the clock: one every so often, without end, the same for the same seed.

    Nothing is stored: the n-th backup follows from n, and both begin and end grow with n, so a
    window is found by bisection however long the past is. Only `pauses` may change later on.
    """

    since: float
    every_seconds: float = 300.0
    shortest_seconds: float = 40.0
    longest_seconds: float = 200.0
    typical_kilobytes: float = 2048.0
    retention_seconds: float = 8 * 86_400.0
    seed: int = 0
    pauses: list[tuple[float, float]] = field(default_factory=list)  # no begin in [from, until)

    def __post_init__(self) -> None:
        if self.longest_seconds - self.shortest_seconds >= 0.9 * self.every_seconds:
            raise ValueError("durations that differ by more than the cadence: ends out of order")

    def begin_of(self, slot: int) -> float:
        return float(floor(self._start_of(slot)))

    def end_of(self, slot: int) -> float:
        spread = self.longest_seconds - self.shortest_seconds
        duration = self.shortest_seconds + spread * _fraction(self.seed, slot, 2)
        return float(floor(self._start_of(slot) + duration))

    def _start_of(self, slot: int) -> float:
        lag = 0.1 * self.every_seconds * _fraction(self.seed, slot, 1)
        return self.since + slot * self.every_seconds + lag

    def row(self, slot: int) -> SimulatedBackup:
        """The backup of that slot; shared with other callers, so not to be changed."""
        return _make_row(self, slot)

    def stop(self, now: float) -> None:
        if not (self.pauses and self.pauses[-1][1] == inf):
            self.pauses.append((now, inf))

    def resume(self, now: float) -> None:
        if self.pauses and self.pauses[-1][1] == inf:
            self.pauses[-1] = (self.pauses[-1][0], now)

    def finished_and_running(self, now: float) -> tuple[range, range]:
        """The slots in the listing at `now`, those of pauses still among them."""
        begun = max(0, floor((now - self.since) / self.every_seconds) + 1)
        begun = bisect_right(range(begun), now, key=self.begin_of)
        ended = bisect_right(range(begun), now, key=self.end_of)
        deleted = bisect_right(range(begun), now - self.retention_seconds, key=self.end_of)
        return range(deleted, ended), range(ended, begun)

    def without_pauses(self, slots: range) -> list[range]:
        """`slots`, ascending, less those that a pause swallowed."""
        parts = [slots]
        for begin, end in self.pauses:
            first = bisect_left(slots, begin, key=self.begin_of) + slots.start
            last = bisect_left(slots, end, key=self.begin_of) + slots.start
            parts = [
                piece
                for part in parts
                for piece in (
                    range(part.start, min(part.stop, first)),
                    range(max(part.start, last), part.stop),
                )
                if piece
            ]
        return [part for part in parts if part]


# Bounded for all schedules together: a load test has a thousand of them.
@functools.lru_cache(maxsize=20_000)
def _make_row(schedule: Schedule, slot: int) -> SimulatedBackup:
    seed = schedule.seed
    begin, end = schedule.begin_of(slot), schedule.end_of(slot)
    id_ = f"{_mixed(seed, slot, 3):016x}{_mixed(seed, slot, 4):016x}br07"
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(begin + 8 * 3600))
    # Busiest in the afternoon of the cloud's zone, quiet at night.
    hour = (begin / 3600 + 8) % 24
    rhythm = 1.75 - abs(hour - 15) / 24 * 2
    noise = 0.6 + 0.8 * _fraction(seed, slot, 5)
    size = floor(schedule.typical_kilobytes * rhythm * noise * 64) / 64
    name = f"GaussDBforMySQL--{stamp}{slot % 1000:03d}"
    return SimulatedBackup(id_, begin, end, size, name, deleted_at=end + schedule.retention_seconds)


def _mixed(seed: int, slot: int, salt: int) -> int:
    """A 64-bit number that looks random (the finaliser of splitmix64)."""
    x = (seed * 0x9E3779B97F4A7C15 + slot * 0xD1B54A32D192ED03 + salt) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)


def _fraction(seed: int, slot: int, salt: int) -> float:
    return _mixed(seed, slot, salt) / 2.0**64


@dataclass(slots=True)
class SimulatedInstance:
    """A database instance: rows written down one by one, a schedule that makes them, or both."""

    id: str
    name: str = ""
    backups: list[SimulatedBackup] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    status: str = "normal"
    region: str = ""  # else the project's
    hidden_from_discovery: bool = False
    schedule: Schedule | None = None
    failure: Fault | None = None  # the answer to every listing of its backups
    keep_days: int = 7
    enterprise_project_id: str = "0"


@dataclass(slots=True)
class SimulatedProject:
    """A project: who may ask about it, and what it holds.

    `users` maps (domain, user) to the password, `access_keys` the access key to the secret key.
    `tokens` are valid for ever. The metadata service's keys are those of an agency that reads the
    projects with `agency`.
    """

    id: str
    region: str = "cn-north-4"
    users: dict[tuple[str, str], str] = field(default_factory=dict)
    access_keys: dict[str, str] = field(default_factory=dict)
    instances: dict[str, SimulatedInstance] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    agency: bool = True
    name: str = ""  # else the region's, as the cloud's default projects are called


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`limit` requests in each `seconds` of a project; more get a 429."""

    limit: int
    seconds: float
    retry_after: Literal["none", "seconds", "date"] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """What the documentation leaves open, and what may differ from one cloud to another."""

    order: Order = "begin_desc"
    filter_meaning: Literal["begin", "end", "overlap"] = "begin"
    running_under_end_filter: Literal["by_begin", "always", "hidden"] = "by_begin"
    bounds: Bounds = "inclusive"
    hide_running: bool = False
    time_offset: int = 480  # minutes east of Greenwich, of the times in the rows
    time_form: Literal["basic", "colon", "zulu"] = "basic"  # +0800, +08:00, or UTC with a Z
    show_empty_end_as: Literal["null", "empty", "missing"] = "null"
    total_count: Literal["true", "missing", "null", "lie", "negative", "string", "float"] = "true"
    total_count_lie: int = 1  # added to the true one
    page_limit_allowed: tuple[int, ...] = (10, 20, 50)
    parameter_error_form: Literal["service", "gateway"] = "service"
    unknown_instance_status: Literal[404, 403] = 404
    unknown_project_status: Literal[401, 404] = 401  # at the login
    require_project_header: bool = False  # X-Project-Id with a signature
    echo_refused_signature: bool = True  # the canonical request in the error, headers and all
    latency_seconds: float = 0.0
    rate_limit: RateLimit | None = None
    token_lifetime_seconds: float = 86_400.0
    max_clock_skew_seconds: float = 900.0
    failures_until_locked: int = 5
    login_lock_seconds: float = 900.0
    key_lock_seconds: float = 300.0
    v31_available: bool = True
    metadata_token_status: Literal[200, 404, 405, 503] = 200
    agency_key_seconds: float = 3_600.0
    agency_key_overlap_seconds: float = 600.0

    def __post_init__(self) -> None:
        for name, allowed in _allowed_values().items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"knob {name}: {getattr(self, name)!r} is none of {allowed}")


@functools.cache
def _allowed_values() -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(Knobs)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


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


def find_backups(
    instance: SimulatedInstance, begin: float, end: float, now: float, *, offsite: bool
) -> list[SimulatedBackup]:
    """The truth about a window: what ended in [begin, end] or, still running, began in it.

    Whole seconds, as the API shows them; sorted by begin. Independent of every knob.
    """
    rows: Iterable[SimulatedBackup] = instance.backups
    if instance.schedule is not None:
        schedule = instance.schedule
        finished, running = schedule.finished_and_running(now)
        both = range(finished.start, running.stop)
        made = (slot for part in schedule.without_pauses(both) for slot in part)
        rows = [*instance.backups, *map(schedule.row, made)]
    found = []
    for backup in rows:
        if not backup.is_visible(now) or (not offsite and backup.backup_type == OFFSITE_LOG):
            continue
        moment = backup.begin if backup.end is None or backup.end > now else backup.end
        if begin <= floor(moment) <= end:
            found.append(backup)
    return sorted(found, key=lambda backup: (backup.begin, backup.id))


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


def put_in_order(
    rows: list[SimulatedBackup], order: Order, *, now: float, rng: random.Random, seed: int
) -> list[SimulatedBackup]:
    if order == "shuffled_each_request":
        rng.shuffle(rows)
        return rows
    keys: dict[str, Callable[[SimulatedBackup], Any]] = {
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


def render_row(backup: SimulatedBackup, instance_id: str, knobs: Knobs, now: float) -> str:
    """One row of the listing, as JSON text."""
    end = None if backup.end is None or backup.end > now else floor(backup.end)
    return _render_row(
        backup.id,
        backup.name,
        floor(backup.begin),
        end,
        backup.size,
        backup.backup_type,
        instance_id,
        knobs.time_offset,
        knobs.time_form,
        knobs.show_empty_end_as,
    )


@functools.lru_cache(maxsize=20_000, typed=True)
def _render_row(
    id_: str,
    name: str,
    begin: int,
    end: int | None,
    size: float | None,
    backup_type: str,
    instance_id: str,
    time_offset: int,
    time_form: str,
    show_empty_end_as: str,
) -> str:
    row: dict[str, object] = {
        "id": id_,
        "name": name,
        "begin_time": render_time(begin, time_offset, time_form),
        "end_time": None if end is None else render_time(end, time_offset, time_form),
        "size": size,
        "backup_type": backup_type,
        "instance_id": instance_id,
    }
    if end is None and show_empty_end_as == "empty":
        row["end_time"] = ""
    elif end is None and show_empty_end_as == "missing":
        del row["end_time"]
    return json.dumps(row)


def render_time(moment: float, offset_minutes: int, form: str) -> str:
    """`2022-07-07T12:41:14+0800`, or the other forms of `Knobs.time_form`."""
    if form == "zulu":
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    local = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment + offset_minutes * 60))
    hours, minutes = divmod(abs(offset_minutes), 60)
    colon = ":" if form == "colon" else ""
    return f"{local}{'-' if offset_minutes < 0 else '+'}{hours:02d}{colon}{minutes:02d}"
