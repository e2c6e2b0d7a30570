"""The exposition: what of a snapshot is published, and in which form."""

import gzip
import math
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from exporter import __version__
from exporter.errors import Reason
from exporter.exposition import metrics
from exporter.exposition.metrics import (
    Family,
    OwnMetrics,
    Registries,
    SnapshotCollector,
    render,
)
from exporter.exposition.restores import RESTORE_FAMILIES, RestoreFamily, Samples
from exporter.models import (
    BackupState,
    Failure,
    FullBackup,
    FullBackups,
    Instance,
    InstanceResult,
    ProjectResult,
    Reading,
    RestoreWindow,
    Snapshot,
    SourceResult,
    TimeRange,
)
from tests.support.paths import TESTDATA
from tests.support.programs import require

GOLDEN = TESTDATA / "metrics.txt"

NO_ERRORS = dict.fromkeys(Reason, 0)

# A project with discovery and a token. Its instances: one with everything, one whose backups
# ended before the lookback, one that has never had any.
PRODUCTION = "97b026aa9cc4417888c14c84a1ad9860"
ORDERS = InstanceResult(
    instance=Instance(
        PRODUCTION,
        "61a4ea66210545909d74a05c27a7179ein07",
        project_name="production",
        name="orders",
        region="cn-north-4",
        lookback_seconds=604_800.0,
        stale_after_seconds=1_800.0,
        restore_window=True,
        full_backups=True,
        full_stale_after_seconds=172_800.0,
        status="normal",
        retention_seconds=604_800.0,
    ),
    reading=Reading(
        at=1_690_545_600.0,
        count=2_016,
        size_kilobytes=4_128.109375,
        running=1,
        listing_complete=True,
        latest_end=1_690_545_312.0,
        latest_size_kilobytes=0.109375,
        oldest_end=1_689_940_860.0,
        max_interval_seconds=14_400.5,
    ),
    failure=None,
    duration_seconds=0.125,
    api_requests=2,
    api_errors=1,
    api_requests_total=120,
    api_errors_total=NO_ERRORS | {Reason.THROTTLED: 3, Reason.SERVER: 1},
    last_success=1_690_545_600.25,
    restore_window=SourceResult(
        RestoreWindow(
            1_690_545_500.0,
            (
                TimeRange(1_690_000_000.0, 1_690_100_000.0),
                TimeRange(1_690_100_007.5, 1_690_200_000.0),
                TimeRange(1_690_300_000.5, 1_690_545_312.25),
            ),
        ),
        None,
        1_690_545_500.125,
    ),
    full_backups=SourceResult(
        FullBackups(
            1_690_545_400.0,
            (),
            usable={"auto": 7, "manual": 1},
            latest={
                "auto": FullBackup(
                    "f1", "", "auto", BackupState.USABLE, 1_690_473_852.0, 1_690_474_242.0, 2_803.5
                ),
                # What the cloud did not tell of it is absent.
                "manual": FullBackup(
                    "f2", "", "manual", BackupState.USABLE, None, 1_690_000_060.0, None
                ),
            },
            oldest_end=1_689_900_060.0,
            latest_failed=True,
        ),
        None,
        1_690_545_410.0,
    ),
)
BILLING = InstanceResult(
    instance=Instance(
        PRODUCTION,
        "24a4ea66210545909d74a05c27a7179ein07",
        project_name="production",
        name="billing",
        region="cn-north-4",
        restore_window=True,
        full_backups=True,
    ),
    reading=Reading(
        at=1_690_545_600.0,
        count=0,
        size_kilobytes=0.0,
        running=0,
        listing_complete=False,
        latest_end=1_690_400_000.0,
        latest_size_kilobytes=2_048.0,
    ),
    failure=None,
    duration_seconds=1.5,
    api_requests=3,
    api_errors=0,
    api_requests_total=3,
    api_errors_total=NO_ERRORS,
    last_success=1_690_545_601.0,
    # Nothing to restore to, and no full backup.
    restore_window=SourceResult(RestoreWindow(1_690_545_520.0, ()), None, 1_690_545_520.0),
    full_backups=SourceResult(
        FullBackups(
            1_690_545_400.0,
            (),
            usable={"auto": 0, "manual": 0},
            latest={},
            oldest_end=None,
            latest_failed=None,
        ),
        None,
        1_690_545_410.0,
    ),
)
SANDBOX = InstanceResult(
    instance=Instance(
        PRODUCTION,
        "0b1c2d3e4f5061728394a5b6c7d8e9f0in07",
        region="cn-north-4",
        status="STORAGE FULL",
        retention_seconds=86_400.0,
    ),
    reading=Reading(
        at=1_690_545_600.0, count=0, size_kilobytes=0.0, running=0, listing_complete=True
    ),
    failure=None,
    duration_seconds=0.0625,
    api_requests=1,
    api_errors=0,
    api_requests_total=1,
    api_errors_total=NO_ERRORS,
    last_success=1_690_545_600.5,
)
# Its latest backup is known, and its window is still to be listed.
ARCHIVE = InstanceResult(
    instance=Instance(PRODUCTION, "5c6d7e8f901122334455667788990011in07", region="cn-north-4"),
    reading=Reading(
        at=1_690_545_600.0,
        count=None,
        size_kilobytes=None,
        running=None,
        listing_complete=False,
        latest_end=1_690_545_300.0,
        latest_size_kilobytes=4.0,
    ),
    failure=None,
    duration_seconds=0.25,
    api_requests=1,
    api_errors=0,
    api_requests_total=1,
    api_errors_total=NO_ERRORS,
    last_success=1_690_545_600.75,
)
# Another project; its instance has never been answered, and its name is hard to write.
LEGACY = InstanceResult(
    instance=Instance(
        "other_project",
        "legacy-1",
        name='a "quoted" \\ name\nof two lines',
        lookback_seconds=300.0,
        stale_after_seconds=60.5,
    ),
    reading=None,
    failure=Failure(Reason.DEADLINE, "the scrape's deadline came before the answer"),
    duration_seconds=29.5,
    api_requests=1,
    api_errors=1,
    api_requests_total=1,
    api_errors_total=NO_ERRORS | {Reason.DEADLINE: 1},
    last_success=None,
    # The last refresh of one has failed, of the other there was none yet.
    restore_window=SourceResult(
        None, Failure(Reason.FORBIDDEN, "HTTP 403: DBS.200010"), 1_690_540_000.0
    ),
    full_backups=SourceResult(None, None, None),
)
SNAPSHOT = Snapshot(
    started=1_690_545_600.0,
    finished=1_690_545_630.0,
    results=[ORDERS, BILLING, SANDBOX, ARCHIVE, LEGACY],
    projects=[
        ProjectResult(
            PRODUCTION,
            "production",
            "cn-north-4",
            token_expiry=1_690_632_000.701,
            discovery_success=True,
            discovered_instances=3,
            unmonitored_instances=2,
            clock_skew_seconds=-7_199.5,
        ),
        ProjectResult("other_project"),
    ],
)

Series = tuple[str, frozenset[tuple[str, str]]]


def parse_strictly(text: str) -> Iterable[Metric]:
    """The parser of OpenMetrics: it refuses wrong names, types, orders and duplicates."""
    families: Iterable[Metric] = parse_openmetrics(text)  # type: ignore[no-untyped-call]  # has none
    return families


def series_of(families: Iterable[Metric]) -> dict[Series, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def classic(snapshot: Snapshot) -> str:
    return render(SnapshotCollector(snapshot)).body.decode()


def value(snapshot: Snapshot, name: str, instance: str) -> float | None:
    found = [
        number
        for (other, labels), number in series_of(parse_classic(classic(snapshot))).items()
        if other == name and ("instance", instance) in labels
    ]
    return found[0] if found else None


def one(result: InstanceResult) -> Snapshot:
    return Snapshot(started=0.0, finished=1.0, results=[result], projects=[])


# What -----------------------------------------------------------------------------------------


def test_a_snapshot_is_published_to_the_letter() -> None:
    assert classic(SNAPSHOT) == GOLDEN.read_text()


TABLES = {
    name: getattr(metrics, name)
    for name in ("BACKUP_FAMILIES", "INSTANCE_FAMILIES", "PROJECT_FAMILIES")
}


MAY_BE_ABSENT = {
    "incremental_backups",
    "incremental_backups_size_kilobytes",
    "incremental_backups_size_bytes",
    "incremental_backups_running",
    "incremental_backup_latest_end_timestamp_seconds",
    "incremental_backup_latest_size_bytes",
    "incremental_backup_oldest_end_timestamp_seconds",
    "incremental_backup_max_interval_seconds",
    "last_success_timestamp_seconds",
    "token_expiry_timestamp_seconds",
    "discovery_success",
    "discovered_instances",
    "unmonitored_instances",
    "clock_skew_seconds",
}


def wrong_values(family: Family, families: Sequence[Family]) -> Iterator[Family]:
    """The family with the value of each other one, with one that is off by one, with none."""
    right = family.value

    def one_more(source: object) -> float | None:
        value = right(source)
        return None if value is None else value + 1

    yield from (replace(family, value=other.value) for other in families if other is not family)
    yield replace(family, value=one_more)
    yield replace(family, value=lambda source: None)
    if family.name in MAY_BE_ABSENT:
        yield replace(family, value=lambda source: right(source) or 0.0)
    yield replace(family, type="counter" if family.type == "gauge" else "gauge")


@pytest.mark.parametrize(
    ("table", "index"),
    [
        pytest.param(table, index, id=family.name)
        for table, families in TABLES.items()
        for index, family in enumerate(families)
    ],
)
def test_the_golden_file_tells_each_value_from_a_wrong_one(
    monkeypatch: pytest.MonkeyPatch, table: str, index: int
) -> None:
    """The table is data, so that mutmut does not reach it (docs/mutation.md)."""
    families = TABLES[table]
    golden = GOLDEN.read_text()
    for wrong in wrong_values(families[index], families):
        mutant = [*families[:index], wrong, *families[index + 1 :]]
        with monkeypatch.context() as patch:
            patch.setattr(metrics, table, mutant)
            assert classic(SNAPSHOT) != golden


def wrong_families(right: RestoreFamily) -> Iterator[RestoreFamily]:
    """It with the samples of each other one of the same labels, with wrong values, with none."""

    def one_more(result: InstanceResult) -> Samples:
        return [(labels, None if v is None else v + 1) for labels, v in right.samples(result)]

    def never_absent(result: InstanceResult) -> Samples:
        return [(labels, v or 0.0) for labels, v in right.samples(result)]

    yield from (
        replace(right, samples=other.samples)
        for other in RESTORE_FAMILIES
        if other is not right and other.labels == right.labels
    )
    yield replace(right, samples=one_more)
    yield replace(right, samples=lambda result: [])
    if right.name in RESTORES_THAT_MAY_BE_ABSENT:
        yield replace(right, samples=never_absent)
    if right.labels:
        yield replace(right, labels=("other",))


RESTORES_THAT_MAY_BE_ABSENT = {
    "restorable_until_timestamp_seconds",
    "restorable_since_timestamp_seconds",
    "restorable_oldest_timestamp_seconds",
    "restorable_max_gap_seconds",
    "full_backup_latest_duration_seconds",
    "full_backup_latest_size_bytes",
    "full_backup_oldest_end_timestamp_seconds",
    "full_backup_latest_failed",
    "backup_retention_seconds",
    "source_last_success_timestamp_seconds",
}


@pytest.mark.parametrize("family", RESTORE_FAMILIES, ids=lambda family: str(family.name))
def test_the_golden_file_tells_each_number_of_restores_from_a_wrong_one(
    monkeypatch: pytest.MonkeyPatch, family: RestoreFamily
) -> None:
    golden, place = GOLDEN.read_text(), RESTORE_FAMILIES.index(family)
    for wrong in wrong_families(family):
        mutant = [*RESTORE_FAMILIES[:place], wrong, *RESTORE_FAMILIES[place + 1 :]]
        with monkeypatch.context() as patch:
            patch.setattr(metrics, "RESTORE_FAMILIES", mutant)
            assert classic(SNAPSHOT) != golden


def test_the_exposition_is_read_back_as_what_was_meant() -> None:
    series = series_of(parse_classic(classic(SNAPSHOT)))
    legacy = {"project": "other_project", "instance": "legacy-1"}
    info = legacy | {
        "project_name": "",
        "instance_name": 'a "quoted" \\ name\nof two lines',
        "region": "",
    }
    assert series["gaussdb_mysql_instance_info", frozenset(info.items())] == 1.0
    assert series["gaussdb_mysql_scrape_duration_seconds", frozenset(legacy.items())] == 29.5


@given(st.text(max_size=50))
def test_any_name_survives_in_a_label(name: str) -> None:
    result = replace(LEGACY, instance=replace(LEGACY.instance, name=name))
    exposition = render(SnapshotCollector(one(result))).body
    families = {family.name: family for family in parse_classic(exposition.decode("utf-8"))}
    sample = families["gaussdb_mysql_instance_info"].samples[0]
    assert sample.labels["instance_name"] == name


def test_a_failed_query_publishes_no_backup_gauge_at_all() -> None:
    names = {
        name
        for name, labels in series_of(parse_classic(classic(SNAPSHOT)))
        if ("instance", "legacy-1") in labels
    }
    assert names == {
        "gaussdb_mysql_scrape_success",
        "gaussdb_mysql_scrape_duration_seconds",
        "gaussdb_mysql_scrape_api_requests",
        "gaussdb_mysql_scrape_api_errors",
        "gaussdb_mysql_api_requests_total",
        "gaussdb_mysql_api_errors_total",
        "gaussdb_mysql_incremental_backup_stale_after_seconds",
        "gaussdb_mysql_incremental_backup_lookback_seconds",
        "gaussdb_mysql_instance_info",
        "gaussdb_mysql_full_backup_stale_after_seconds",
        "gaussdb_mysql_source_success",
        "gaussdb_mysql_source_last_success_timestamp_seconds",
    }


def test_what_only_the_whole_window_tells_is_absent_until_it_is_listed() -> None:
    series = series_of(parse_classic(classic(SNAPSHOT)))
    published = {
        name.removeprefix("gaussdb_mysql_incremental_backup"): number
        for (name, labels), number in series.items()
        if ("instance", ARCHIVE.instance.id) in labels and "incremental_backup" in name
    }
    assert published == {
        "_latest_end_timestamp_seconds": 1_690_545_300.0,
        "_latest_size_bytes": 4_096.0,
        "s_listing_complete": 0.0,
        "_stale_after_seconds": 3_600.0,
        "_lookback_seconds": 86_400.0,
    }
    assert value(SNAPSHOT, "gaussdb_mysql_scrape_success", ARCHIVE.instance.id) == 1


def test_what_is_gone_from_the_snapshot_leaves_nothing_behind() -> None:
    classic(SNAPSHOT)
    later = replace(SNAPSHOT, results=[ORDERS, replace(BILLING, reading=None)])
    text = classic(later)
    assert "legacy-1" not in text
    assert value(later, "gaussdb_mysql_incremental_backups", BILLING.instance.id) is None
    assert value(later, "gaussdb_mysql_incremental_backups", ORDERS.instance.id) == 2_016


def test_kilobytes_are_of_1024_bytes() -> None:
    # 4128.109375 KB and 0.109375 KB: the fraction is 7/64, that is 112 bytes.
    assert value(SNAPSHOT, "gaussdb_mysql_incremental_backups_size_bytes", ORDERS.instance.id) == (
        4_128 * 1_024 + 112
    )
    assert (
        value(SNAPSHOT, "gaussdb_mysql_incremental_backup_latest_size_bytes", ORDERS.instance.id)
        == 112
    )


def test_a_backup_of_no_size_has_a_size() -> None:
    assert ORDERS.reading is not None
    reading = replace(ORDERS.reading, latest_size_kilobytes=0.0)
    snapshot = one(replace(ORDERS, reading=reading))
    name = "gaussdb_mysql_incremental_backup_latest_size_bytes"
    assert value(snapshot, name, ORDERS.instance.id) == 0.0


def test_a_count_is_written_without_a_fraction_it_does_not_have() -> None:
    line = next(
        line
        for line in classic(SNAPSHOT).splitlines()
        if line.startswith("gaussdb_mysql_incremental_backups{") and "61a4ea" in line
    )
    assert float(line.rpartition(" ")[2]) == 2016


def test_a_probe_has_no_metric_of_a_project() -> None:
    scrape = render(SnapshotCollector(SNAPSHOT)).body.decode()
    probe = render(SnapshotCollector(SNAPSHOT, projects=False)).body.decode()
    assert "gaussdb_mysql_scrape_success" in probe
    for name in ("token_expiry", "discovery_success", "discovered_instances", "unmonitored"):
        assert name in scrape
        assert name not in probe


def test_every_reason_is_there_from_the_start() -> None:
    reasons = {
        dict(labels)["reason"]: number
        for (name, labels), number in series_of(parse_classic(classic(one(SANDBOX)))).items()
        if name == "gaussdb_mysql_api_errors_total"
    }
    assert reasons == dict.fromkeys(
        [
            *("auth", "forbidden", "not_found", "bad_request", "throttled", "server"),
            *("timeout", "network", "bad_response", "deadline"),
        ],
        0.0,
    )


def test_no_sample_has_a_time_of_its_own() -> None:
    stamped = [
        sample
        for family in parse_classic(classic(SNAPSHOT))
        for sample in family.samples
        if sample.timestamp is not None
    ]
    assert stamped == []


# The exporter's own ---------------------------------------------------------------------------


def test_the_exporter_says_what_it_is() -> None:
    own = OwnMetrics(revision="abc123")
    info = next(
        family
        for family in own.registry.collect()
        if family.name == "gaussdb_mysql_exporter_build_info"
    )
    labels = info.samples[0].labels
    assert (labels["version"], labels["revision"]) == (__version__, "abc123")
    assert labels["python_version"].startswith("3.")


def test_a_failed_reload_keeps_the_time_of_the_last_good_one() -> None:
    now = 1_690_545_600.0
    own = OwnMetrics(clock=lambda: now)
    get = own.registry.get_sample_value
    successful = "gaussdb_mysql_exporter_config_last_reload_successful"
    at = "gaussdb_mysql_exporter_config_last_reload_success_timestamp_seconds"
    own.config_loaded(True)
    assert (get(successful), get(at)) == (1.0, 1_690_545_600.0)
    now += 60.0
    own.config_loaded(False)
    assert (get(successful), get(at)) == (0.0, 1_690_545_600.0)


def test_requests_are_timed_by_operation() -> None:
    own = OwnMetrics()
    own.observe_request("list_backups", 0.2)
    own.observe_request("list_backups", 7.0)
    name = "gaussdb_mysql_api_request_duration_seconds"

    def sample(suffix: str, **labels: str) -> float | None:
        return own.registry.get_sample_value(f"{name}_{suffix}", labels)

    assert sample("count", operation="list_backups") == 2.0
    assert sample("sum", operation="list_backups") == pytest.approx(7.2)
    assert sample("bucket", operation="list_backups", le="0.1") == 0.0
    assert sample("bucket", operation="list_backups", le="0.25") == 1.0
    assert sample("bucket", operation="list_backups", le="10.0") == 2.0
    for operation in ("list_instances", "login"):
        assert sample("count", operation=operation) == 0.0


def test_the_exporter_tells_of_its_build_its_process_and_its_python() -> None:
    text = render(OwnMetrics(revision="abc").registry).body.decode()
    values = {name: number for (name, _), number in series_of(parse_classic(text)).items()}
    assert values["gaussdb_mysql_exporter_build_info"] == 1.0
    assert values["python_info"] == 1.0
    assert values["process_resident_memory_bytes"] > 1e6
    assert "python_gc_collections_total" in values


def test_durations_of_requests_are_told_apart_up_to_the_time_out() -> None:
    text = render(OwnMetrics().registry).body.decode()
    bounds = re.findall(r'operation="login",le="([^"]+)"|le="([^"]+)",operation="login"', text)
    assert [float(a or b) for a, b in bounds] == [
        *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, math.inf)
    ]


def test_nothing_tells_when_a_counter_was_created() -> None:
    own = OwnMetrics()
    own.observe_request("login", 0.1)
    for accept in ("", "application/openmetrics-text"):
        text = render(Registries(SnapshotCollector(SNAPSHOT), own.registry), accept=accept).body
        assert b"_created" not in text


def test_two_exporters_in_one_process_do_not_meet() -> None:
    first, second = OwnMetrics(), OwnMetrics()
    first.observe_request("login", 0.1)
    name = "gaussdb_mysql_api_request_duration_seconds_count"
    assert second.registry.get_sample_value(name, {"operation": "login"}) == 0.0


# Form -----------------------------------------------------------------------------------------

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5"


def test_plain_text_is_the_default() -> None:
    for accept in ("", "*/*", "text/plain", "application/json"):
        exposition = render(SnapshotCollector(SNAPSHOT), accept=accept)
        assert exposition.content_type.startswith("text/plain; version=0.0.4; charset=utf-8")
        assert exposition.encoding is None


def test_openmetrics_is_given_to_whom_asks_for_it() -> None:
    own = OwnMetrics()
    collector = Registries(SnapshotCollector(SNAPSHOT), own.registry)
    exposition = render(collector, accept=OPENMETRICS)
    assert exposition.content_type.startswith("application/openmetrics-text; version=1.0.0")
    text = exposition.body.decode()
    assert text.endswith("# EOF\n")
    assert series_of(parse_strictly(text)).keys() == (
        series_of(parse_classic(render(collector).body.decode())).keys()
    )


def test_openmetrics_has_the_same_numbers() -> None:
    text = render(SnapshotCollector(SNAPSHOT), accept=OPENMETRICS).body.decode()
    assert series_of(parse_strictly(text)) == series_of(parse_classic(classic(SNAPSHOT)))


def test_gzip_is_given_to_whom_takes_it() -> None:
    plain = render(SnapshotCollector(SNAPSHOT))
    packed = render(SnapshotCollector(SNAPSHOT), accept_encoding="gzip")
    assert packed.encoding == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 4
    assert packed.content_type == plain.content_type


@pytest.mark.e2e
def test_promtool_finds_nothing_but_the_unit_that_was_asked_for() -> None:
    own = OwnMetrics(revision="abc123")
    own.config_loaded(True)
    own.observe_request("login", 0.1)
    body = render(Registries(SnapshotCollector(SNAPSHOT), own.registry)).body
    checked = subprocess.run(
        [require("promtool"), "check", "metrics"], input=body, capture_output=True, timeout=60
    )
    findings = [line for line in checked.stderr.decode().splitlines() if line]
    assert findings == [
        'gaussdb_mysql_incremental_backups_size_kilobytes use base unit "bytes" instead of'
        ' "kilobytes"'
    ]
