"""Backups one by one, and a schedule that makes them by the clock. Pure."""

import functools
import time
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from math import floor, inf

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
        duration = self.shortest_seconds + spread * fraction(self.seed, slot, 2)
        return float(floor(self._start_of(slot) + duration))

    def _start_of(self, slot: int) -> float:
        lag = 0.1 * self.every_seconds * fraction(self.seed, slot, 1)
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
    id_ = f"{mixed(seed, slot, 3):016x}{mixed(seed, slot, 4):016x}br07"
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(begin + 8 * 3600))
    # Busiest in the afternoon of the cloud's zone, quiet at night.
    hour = (begin / 3600 + 8) % 24
    rhythm = 1.75 - abs(hour - 15) / 24 * 2
    noise = 0.6 + 0.8 * fraction(seed, slot, 5)
    size = floor(schedule.typical_kilobytes * rhythm * noise * 64) / 64
    name = f"GaussDBforMySQL--{stamp}{slot % 1000:03d}"
    return SimulatedBackup(id_, begin, end, size, name, deleted_at=end + schedule.retention_seconds)


def mixed(seed: int, slot: int, salt: int) -> int:
    """A 64-bit number that looks random (the finaliser of splitmix64)."""
    x = (seed * 0x9E3779B97F4A7C15 + slot * 0xD1B54A32D192ED03 + salt) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)


def fraction(seed: int, slot: int, salt: int) -> float:
    return mixed(seed, slot, salt) / 2.0**64
