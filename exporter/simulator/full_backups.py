"""Full backups one by one, and a schedule that makes them once a day by the clock. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import floor
from typing import Literal, cast, get_args

from exporter.simulator.schedule import fraction, mixed

FullStatus = Literal["COMPLETED", "AVAILABLE", "FAILED"]

_RETRY_SECONDS = 1_800.0  # after network or task trouble
_ATTEMPT_SECONDS = 60.0  # until one that fails has failed
_CHAIN = 7  # the first is full, the rest differential


@dataclass(slots=True)
class SimulatedFullBackup:
    """One full backup; the size is in MB. Until its end it is BUILDING, and then `status`."""

    id: str
    begin: float
    end: float | None
    megabytes: float | None = 2_048.0
    backup_type: str = "auto"
    status: FullStatus = "COMPLETED"
    name: str = ""
    backup_mode: str = "completed"
    # Of manual ones that outlive their instance; else it is the instance that holds them.
    instance_id: str = ""
    deleted_at: float | None = None

    def is_running(self, now: float) -> bool:
        return self.end is None or self.end > now

    def is_visible(self, now: float) -> bool:
        return self.begin <= now and (self.deleted_at is None or now < self.deleted_at)

    def is_usable(self, now: float) -> bool:
        return self.is_visible(now) and not self.is_running(now) and self.status != "FAILED"

    def shown_status(self, now: float) -> str:
        return "BUILDING" if self.is_running(now) else self.status


def make_full_backup_by_hand(number: int, now: float, status: str) -> SimulatedFullBackup:
    """One that has just ended; ValueError if it cannot have ended so."""
    if status not in get_args(FullStatus):
        raise ValueError(f"status {status!r}: one of {', '.join(get_args(FullStatus))}")
    return SimulatedFullBackup(
        f"{mixed(number, floor(now), 10):016x}{mixed(number, floor(now), 11):016x}br07",
        now - 1,
        now,
        backup_type="manual",
        status=cast(FullStatus, status),
        name=f"by-hand-{number}",
    )


@dataclass(slots=True, eq=False)
class FullSchedule:
    """One automated full backup every so often, without end, the same for the same seed.

    One that begins within a pair of `failing` fails, and is tried again half an hour later. What
    ended longer ago than the retention is gone, but for the last one before it: later ones, and
    the restorable range, build on it.
    """

    since: float
    every_seconds: float = 86_400.0
    lasting_seconds: float = 390.0
    typical_megabytes: float = 2_048.0
    retention_seconds: float = 7 * 86_400.0
    seed: int = 0
    failing: list[tuple[float, float]] = field(default_factory=list)  # [from, until)

    def rows(self, now: float) -> list[SimulatedFullBackup]:
        """All that the cloud has at `now`, by their begin."""
        last = floor((now - self.since) / self.every_seconds)
        first = floor((now - self.retention_seconds - self.since) / self.every_seconds) - 1
        rows = [row for slot in range(max(0, first), last + 1) for row in self._attempts(slot)]
        begun = [row for row in rows if row.begin <= now]
        kept_since = now - self.retention_seconds
        old = [row for row in begun if row.end is not None and row.end <= kept_since]
        base = [row for row in old if row.status != "FAILED"][-1:]
        return [row for row in begun if row not in old or row in base]

    def _attempts(self, slot: int) -> Iterator[SimulatedFullBackup]:
        begin = floor(self.since + slot * self.every_seconds)
        until = begin + self.every_seconds
        attempt = 0
        while any(start <= begin < end for start, end in self.failing) and begin < until:
            yield self._row(slot, attempt, begin, "FAILED")
            begin, attempt = floor(begin + _RETRY_SECONDS), attempt + 1
        if begin < until:
            yield self._row(slot, attempt, begin, "COMPLETED")

    def _row(
        self, slot: int, attempt: int, begin: float, status: FullStatus
    ) -> SimulatedFullBackup:
        made = slot * 64 + attempt
        lasting = self.lasting_seconds * (0.8 + 0.4 * fraction(self.seed, made, 6))
        size = self.typical_megabytes * (0.9 + 0.2 * fraction(self.seed, made, 7))
        failed = status == "FAILED"
        return SimulatedFullBackup(
            f"{mixed(self.seed, made, 8):016x}{mixed(self.seed, made, 9):016x}br07",
            begin,
            floor(begin + (_ATTEMPT_SECONDS if failed else lasting)),
            0.0 if failed else floor(size * 100) / 100,
            status=status,
            name=f"GaussDBforMySQL-full-{slot}",
            backup_mode="completed" if slot % _CHAIN == 0 else "differential",
        )
