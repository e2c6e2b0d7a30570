"""What is published: one table of families, filled from a snapshot, and the exporter's own.

Names, types and labels are the contract of the project; docs/metrics.md lists them.
"""

import gzip
import itertools
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.exposition import ALLOWUTF8, UNDERSCORES
from prometheus_client.registry import Collector

from exporter import __version__
from exporter.exposition.lines import Encoder, Labels, LastExpositions, Table
from exporter.exposition.negotiation import OPENMETRICS, Format, accepts_gzip, choose_format
from exporter.exposition.restores import RESTORE_FAMILIES, table_of
from exporter.models import InstanceResult, Snapshot

PREFIX = "gaussdb_mysql_"
BYTES_PER_KILOBYTE = 1024
# What is asked of the cloud: each has its histogram from the start.
OPERATIONS = (
    "list_backups",
    "show_restore_time",
    "list_full_backups",
    "list_instances",
    "login",
)


def _bytes(kilobytes: float | None) -> float | None:
    return None if kilobytes is None else kilobytes * BYTES_PER_KILOBYTE


@dataclass(frozen=True, slots=True)
class Family:
    """A metric of each instance or project: its name, its help, and where its value comes from."""

    name: str
    help: str
    value: Callable[..., float | None]  # None: no sample
    type: str = "gauge"


# Present only where this scrape's query of the instance succeeded; read from `Reading`.
BACKUP_FAMILIES: Sequence[Family] = (
    Family(
        "incremental_backups",
        "Incremental backups within the lookback (end_time, of running ones begin_time).",
        lambda reading: reading.count,
    ),
    Family(
        "incremental_backups_size_kilobytes",
        "Total size of the backups within the lookback in KB, the API's own unit (size).",
        lambda reading: reading.size_kilobytes,
    ),
    Family(
        "incremental_backups_size_bytes",
        "Total size of the backups within the lookback in bytes (size x 1024).",
        lambda reading: _bytes(reading.size_kilobytes),
    ),
    Family(
        "incremental_backup_latest_end_timestamp_seconds",
        "Latest end_time known, within the lookback or before it.",
        lambda reading: reading.latest_end,
    ),
    Family(
        "incremental_backup_latest_size_bytes",
        "Size of the backup with the latest end_time in bytes (size x 1024).",
        lambda reading: _bytes(reading.latest_size_kilobytes),
    ),
    Family(
        "incremental_backup_oldest_end_timestamp_seconds",
        "Earliest end_time within the lookback.",
        lambda reading: reading.oldest_end,
    ),
    Family(
        "incremental_backup_max_interval_seconds",
        "Longest time between two successive end_times of which the later lies within the"
        " lookback.",
        lambda reading: reading.max_interval_seconds,
    ),
    Family(
        "incremental_backups_running",
        "Backups in the listing without an end_time yet.",
        lambda reading: reading.running,
    ),
    Family(
        "incremental_backups_listing_complete",
        "1 if the rows collected match the API's total_count, else 0; 0 too while the whole window"
        " has not been listed yet, or its listing anew is overdue.",
        lambda reading: float(reading.listing_complete),
    ),
)

# Present for every instance from the first scrape on; read from `InstanceResult`.
INSTANCE_FAMILIES: Sequence[Family] = (
    Family(
        "scrape_success",
        "1 if this scrape's query of the instance succeeded, else 0.",
        lambda result: float(result.reading is not None),
    ),
    Family(
        "scrape_duration_seconds",
        "Duration of this scrape's query of the instance.",
        lambda result: result.duration_seconds,
    ),
    Family(
        "scrape_api_requests",
        "API requests that this scrape's query of the instance took.",
        lambda result: result.api_requests,
    ),
    Family(
        "scrape_api_errors",
        "API requests of this scrape's query that failed, those that a retry mended included.",
        lambda result: result.api_errors,
    ),
    Family(
        "api_requests",
        "API requests for the instance.",
        lambda result: result.api_requests_total,
        type="counter",
    ),
    Family(
        "last_success_timestamp_seconds",
        "End of the last successful query of the instance.",
        lambda result: result.last_success,
    ),
    Family(
        "incremental_backup_stale_after_seconds",
        "Configured threshold: an older latest backup is stale (stale_after).",
        lambda result: result.instance.stale_after_seconds,
    ),
    Family(
        "incremental_backup_lookback_seconds",
        "Configured lookback: how far back backups count as recent (lookback).",
        lambda result: result.instance.lookback_seconds,
    ),
)

API_ERRORS = Family(
    "api_errors",
    "API requests for the instance that failed, by reason.",
    lambda result: None,
    type="counter",
)
INSTANCE_INFO = Family(
    "instance_info", "The instance's names and region, empty where unknown.", lambda result: 1.0
)

# Of each project; read from `ProjectResult`.
PROJECT_FAMILIES: Sequence[Family] = (
    Family(
        "token_expiry_timestamp_seconds",
        "End of the project's IAM token (token auth).",
        lambda project: project.token_expiry,
    ),
    Family(
        "discovery_success",
        "1 if the last listing of the project's instances succeeded, else 0.",
        lambda project: (
            None if project.discovery_success is None else float(project.discovery_success)
        ),
    ),
    Family(
        "discovered_instances",
        "Instances that discovery found and its filters let through.",
        lambda project: project.discovered_instances,
    ),
    Family(
        "unmonitored_instances",
        "Instances that discovery found and its filters kept out; excluded ones not counted.",
        lambda project: project.unmonitored_instances,
    ),
    Family(
        "clock_skew_seconds",
        "This machine's clock less the cloud's, by the Date of its answers.",
        lambda project: project.clock_skew_seconds,
    ),
)


class SnapshotCollector(Collector):
    """The families of a snapshot, built anew: what is gone leaves nothing behind."""

    def __init__(self, snapshot: Snapshot, *, projects: bool = True) -> None:
        self._snapshot = snapshot
        self._projects = projects

    def collect(self) -> Iterator[Table]:
        results = self._snapshot.results
        labels = [(result.instance.project_id, result.instance.id) for result in results]
        read = [result for result in results if result.reading is not None]
        read_labels = (
            labels
            if len(read) == len(results)
            else [(result.instance.project_id, result.instance.id) for result in read]
        )
        readings = [result.reading for result in read]
        projects = self._snapshot.projects if self._projects else ()
        project_labels = [(project.id,) for project in projects]
        # One at a time: with thousands of instances each is large.
        for table in itertools.chain(
            (_table(family, _LABELS, read_labels, readings) for family in BACKUP_FAMILIES),
            (_table(family, _LABELS, labels, results) for family in INSTANCE_FAMILIES),
            (make(results) for make in (_api_errors, _instance_info)),
            (table_of(family, PREFIX, results) for family in RESTORE_FAMILIES),
            (_table(family, ("project",), project_labels, projects) for family in PROJECT_FAMILIES),
        ):
            if table.values:  # absent means absent: not even a header
                yield table


_LABELS = ("project", "instance")


def _table(
    family: Family, label_names: Sequence[str], labels: Labels, sources: Iterable[object]
) -> Table:
    values = list(map(family.value, sources))
    if None in values:
        labels = [label for label, value in zip(labels, values, strict=True) if value is not None]
    return Table(
        PREFIX + family.name,
        family.help,
        family.type,
        label_names=label_names,
        labels=labels,
        values=[value for value in values if value is not None],
    )


def _api_errors(results: Sequence[InstanceResult]) -> Table:
    return Table(
        PREFIX + API_ERRORS.name,
        API_ERRORS.help,
        API_ERRORS.type,
        label_names=(*_LABELS, "reason"),
        labels=[
            (result.instance.project_id, result.instance.id, reason)
            for result in results
            for reason in result.api_errors_total
        ],
        values=[count for result in results for count in result.api_errors_total.values()],
    )


def _instance_info(results: Sequence[InstanceResult]) -> Table:
    instances = [result.instance for result in results]
    return Table(
        PREFIX + INSTANCE_INFO.name,
        INSTANCE_INFO.help,
        INSTANCE_INFO.type,
        label_names=(*_LABELS, "project_name", "instance_name", "region"),
        labels=[(i.project_id, i.id, i.project_name, i.name, i.region) for i in instances],
        values=[1.0] * len(instances),
    )


class OwnMetrics:
    """What the exporter says of itself, on a registry of its own: never a part of a probe."""

    def __init__(self, *, revision: str = "", clock: Callable[[], float] = time.time) -> None:
        # Else each counter and histogram comes with a `_created` series that nobody asked for.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # has no annotations
        self.registry = CollectorRegistry()
        self._clock = clock
        self._request_duration = Histogram(
            PREFIX + "api_request_duration_seconds",
            "Time from connecting to the last byte of an API request.",
            ["operation"],
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
            registry=self.registry,
        )
        self._observers = {
            operation: self._request_duration.labels(operation).observe for operation in OPERATIONS
        }
        Gauge(
            PREFIX + "exporter_build_info",
            "Version, revision and Python of the exporter.",
            ["version", "revision", "python_version"],
            registry=self.registry,
        ).labels(__version__, revision, platform.python_version()).set(1)
        self._reload_successful = Gauge(
            PREFIX + "exporter_config_last_reload_successful",
            "1 if the last load of the configuration succeeded, else 0.",
            registry=self.registry,
        )
        self._reload_success_time = Gauge(
            PREFIX + "exporter_config_last_reload_success_timestamp_seconds",
            "Time of the last successful load of the configuration.",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def observe_request(self, operation: str, seconds: float) -> None:
        self._observers[operation](seconds)

    def config_loaded(self, success: bool) -> None:
        self._reload_successful.set(float(success))
        if success:
            self._reload_success_time.set(self._clock())


class Registries(Collector):
    """Several collectors as one, for one exposition."""

    def __init__(self, *collectors: Collector) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        for collector in self._collectors:
            yield from collector.collect()


@dataclass(frozen=True, slots=True)
class Exposition:
    body: bytes
    content_type: str
    encoding: str | None = None


def render(
    collector: Collector,
    *,
    accept: str = "",
    accept_encoding: str = "",
    last: LastExpositions | None = None,
) -> Exposition:
    """The exposition in the format and the encoding that the client asks for.

    `last` is where to find what needs no encoding, and where to keep it for the next time.
    """
    form = choose_format(accept)
    encoder = _encoder_of(form)
    if last is None:
        body = encoder(collector)
    else:
        body = b"".join(last.of(form.content_type).encode(collector, encoder))
    if accepts_gzip(accept_encoding):
        # Level 1: a few times faster than the default for a body hardly larger.
        packed = gzip.compress(body, compresslevel=1, mtime=0)
        return Exposition(packed, form.content_type, "gzip")
    return Exposition(body, form.content_type)


def _encoder_of(form: Format) -> Encoder:
    generate = openmetrics.generate_latest if form.media_type == OPENMETRICS else generate_latest
    # Our names need no escaping. Told that any name will do, the encoder does not look at each of
    # their letters, and takes half as long.
    escaping = form.escaping or UNDERSCORES
    return partial(generate, escaping=ALLOWUTF8 if escaping == UNDERSCORES else escaping)
