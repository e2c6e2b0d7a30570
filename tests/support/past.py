"""A past of some instances, made up minute by minute, and the truth about each of them.

As OpenMetrics text, which promtool makes a database of; and as what the exporter's own page judges,
so that the two can be compared.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import floor

from exporter.errors import Reason
from exporter.models import (
    Failure,
    Instance,
    InstanceResult,
    Reading,
    RestoreWindow,
    SourceResult,
)

HOUR, DAY, MINUTE = 3_600.0, 86_400.0, 60.0
PROJECT = "97b026aa9cc4417888c14c84a1ad9860"
JOB = "gaussdb-mysql-backup-exporter"
EVERY = 300.0  # a backup each five minutes
NOW = 1_700_000_400.0  # the end of the past
SINCE = NOW - 8 * HOUR
STALE_AFTER = HOUR


@dataclass(frozen=True, slots=True)
class Past:
    """One instance; times are ages at NOW, None where it never happened."""

    id: str
    name: str
    state: str  # the truth at NOW
    stopped: float | None = None  # no backup has ended since
    hole: float = 0.0  # seconds without backups that ended an hour ago
    failing: float | None = None  # queries have failed since
    reason: str = "server"
    incomplete: bool = False
    listing: bool = False  # the first listing is under way
    empty: bool = False  # there never was a backup
    gone: float | None = None  # not reported since
    ranges: int | None = None  # of moments to restore to; None: not asked
    status: str = ""

    def latest_end(self, at: float) -> float | None:
        if self.empty:
            return None
        until = at if self.stopped is None else min(at, NOW - self.stopped)
        end = floor(until / EVERY) * EVERY
        if self.hole and NOW - HOUR - self.hole < end < NOW - HOUR:
            end = floor((NOW - HOUR - self.hole) / EVERY) * EVERY
        return end

    def longest(self, at: float) -> float:
        """The longest interval within a lookback of a day."""
        return self.hole if self.hole and at >= NOW - HOUR else EVERY

    def is_reported(self, at: float) -> bool:
        return self.gone is None or at < NOW - self.gone

    def succeeds(self, at: float) -> bool:
        return self.failing is None or at < NOW - self.failing


# Each state, and what could be taken for another.
FLEET = (
    Past("db-healthy", "orders", "ok"),
    Past("db-late", "reports", "ok", stopped=50 * MINUTE),
    Past("db-stale", "invoices", "stale", stopped=3 * HOUR),
    Past("db-dead", "crm", "stale", stopped=3 * HOUR, failing=2.5 * HOUR, reason="forbidden"),
    Past("db-failing", "legacy", "failing", failing=40 * MINUTE),
    Past("db-hole", "carts", "hole", hole=5 * HOUR),
    Past("db-odd", "payments", "incomplete", incomplete=True),
    Past("db-empty", "archive", "no backups", empty=True),
    Past("db-lost", "ledger", "not restorable", ranges=0),
    Past("db-fresh", "search", "listing", listing=True),
    Past("db-frozen", "sandbox", "suspended", stopped=6 * HOUR, status="FROZEN"),
    Past("db-gone", "moved", "not reported", gone=2 * HOUR),
)
REASONS = tuple(reason.value for reason in Reason)


def samples(past: Past, at: float) -> Iterator[tuple[str, dict[str, str], float]]:
    """What a scrape at that moment publishes of the instance: name, further labels, value."""
    yield (
        "instance_info",
        {"project_name": "production", "instance_name": past.name, "region": "cn-north-4"},
        1.0,
    )
    good = past.succeeds(at)
    yield "scrape_success", {}, float(good)
    yield "incremental_backup_stale_after_seconds", {}, STALE_AFTER
    yield "incremental_backup_lookback_seconds", {}, DAY
    since = max(0.0, at - (NOW - past.failing)) if past.failing is not None else 0.0
    for reason in REASONS:
        errors = since // MINUTE if reason == past.reason else 0.0
        yield "api_errors_total", {"reason": reason}, errors
    yield "api_requests_total", {}, (at - SINCE) // MINUTE
    if past.status:
        yield "instance_status", {"status": past.status}, 1.0
    if past.ranges is not None:
        yield "restorable_ranges", {}, float(past.ranges)
        yield "full_backup_oldest_end_timestamp_seconds", {}, NOW - 3 * DAY
    if good:
        yield "last_success_timestamp_seconds", {}, at
        yield from backup_samples(past, at)


def backup_samples(past: Past, at: float) -> Iterator[tuple[str, dict[str, str], float]]:
    complete = not (past.incomplete or past.listing)
    yield "incremental_backups_listing_complete", {}, float(complete)
    end = past.latest_end(at)
    if end is not None:
        yield "incremental_backup_latest_end_timestamp_seconds", {}, end
        yield "incremental_backup_latest_size_bytes", {}, 1_048_576.0
    if past.listing:
        return
    yield "incremental_backups", {}, 0.0 if past.empty else 288.0
    yield "incremental_backups_size_bytes", {}, 0.0 if past.empty else 288 * 1_048_576.0
    if end is not None:
        yield "incremental_backup_max_interval_seconds", {}, past.longest(at)


def exposition(fleet: Iterable[Past] = FLEET, *, replicas: Iterable[str] = ("",)) -> str:
    """The whole past, series by series; the exporter is up until NOW. Replicas report the same."""
    series: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = {}
    moments = [SINCE + n * MINUTE for n in range(int((NOW - SINCE) / MINUTE) + 1)]
    for replica in replicas:
        own = {"job": JOB, **({"replica": replica} if replica else {})}
        address = {"instance": f"exporter{replica}:10042"}
        for at in moments:
            for name, value in (("up", 1.0), ("gaussdb_mysql_exporter_build_info", 1.0)):
                labels = tuple(sorted({**own, **address}.items()))
                series.setdefault((name, labels), []).append((at, value))
            for past in fleet:
                if not past.is_reported(at):
                    continue
                of = {**own, "project": PROJECT, "instance": past.id}
                for name, more, value in samples(past, at):
                    key = (f"gaussdb_mysql_{name}", tuple(sorted({**of, **more}.items())))
                    series.setdefault(key, []).append((at, value))
    lines: list[str] = []
    family = ""
    for (name, labels), points in sorted(series.items()):
        if name != family:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines.append(f"# TYPE {name.removesuffix('_total')} {kind}")
            family = name
        text = ",".join(f'{key}="{value}"' for key, value in labels)
        lines += [f"{name}{{{text}}} {value!r} {at:.0f}" for at, value in points]
    return "\n".join([*lines, "# EOF", ""])


def as_scraped(past: Past, at: float) -> InstanceResult:
    """The same, as the exporter itself remembers it at that moment: what its page judges."""
    good = past.succeeds(at)
    seen = at if good else NOW - (past.failing or 0.0) - MINUTE
    reading = Reading(
        at=seen,
        count=None if past.listing else (0 if past.empty else 288),
        size_kilobytes=None if past.listing else 0.0,
        running=None if past.listing else 0,
        listing_complete=not (past.incomplete or past.listing),
        latest_end=past.latest_end(seen),
        max_interval_seconds=None if past.listing or past.empty else past.longest(seen),
        ends=array("d"),
    )
    return InstanceResult(
        instance=Instance(
            PROJECT,
            past.id,
            name=past.name,
            stale_after_seconds=STALE_AFTER,
            lookback_seconds=DAY,
            status=past.status,
        ),
        reading=reading if good else None,
        failure=None if good else Failure(Reason(past.reason), "HTTP 500"),
        duration_seconds=0.1,
        api_requests=1,
        api_errors=int(not good),
        api_requests_total=1,
        api_errors_total={},
        last_success=seen,
        last_reading=reading,
        last_end=past.latest_end(seen),
        restore_window=(
            SourceResult(RestoreWindow(at=at, ranges=()), None, at)
            if past.ranges is not None
            else None
        ),
    )
