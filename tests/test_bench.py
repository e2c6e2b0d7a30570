"""The benchmark: its arithmetic, its prepared cloud, its command line. Nothing is measured here."""

import json
from typing import Any

import pytest

from bench import after_start
from bench.__main__ import Case, build_config, parse_arguments, parse_case
from bench.cloud import Answers, first_and_last, instance_id, phase_of
from bench.report import Row, Sample, render_table
from exporter.assembly import Exporter
from exporter.command import running
from exporter.config.load import parse_config

NOON = 1_752_494_400.0  # 2025-07-14T12:00:00Z, a multiple of 300


def make_row(*samples: Sample, instances: int = 1_000, connections: int = 50) -> Row:
    return Row(
        subject="exporter",
        state="steady",
        instances=instances,
        window="7d",
        samples=samples or [Sample(requests=1_000, wall_seconds=1.2, cpu_seconds=0.9)],
        connections=connections,
        latency_seconds=0.05,
        peak_rss_bytes=150_000_000,
    )


def test_ideal_is_the_latency_of_the_requests_spread_over_the_connections() -> None:
    row = make_row(Sample(requests=1_000, wall_seconds=1.2, cpu_seconds=0.9))

    assert row.ideal_seconds == pytest.approx(1.0)  # 20 rounds of 50 ms
    assert row.ratio == pytest.approx(1.2)
    assert row.cpu_milliseconds_per_instance == pytest.approx(0.9)


def test_one_slow_sample_does_not_change_a_row() -> None:
    row = make_row(
        Sample(1_000, wall_seconds=1.1, cpu_seconds=0.8),
        Sample(1_000, wall_seconds=9.0, cpu_seconds=5.0),
        Sample(1_000, wall_seconds=1.2, cpu_seconds=0.9),
    )

    assert row.wall_seconds == 1.2
    assert row.cpu_milliseconds_per_instance == pytest.approx(0.9)


def test_requests_of_an_instance_are_the_mean_of_all_samples() -> None:
    row = make_row(Sample(1_000, 1.0, 1.0), Sample(1_100, 1.0, 1.0))

    assert row.requests_per_instance == pytest.approx(1.05)


def test_table_is_markdown_with_a_line_for_each_row() -> None:
    heading, rule, line = render_table([make_row()]).splitlines()

    assert heading.count("|") == rule.count("|") == line.count("|") == 13
    texts = [text.strip() for text in line.strip("|").split("|")]
    assert texts == [
        *("exporter", "steady", "1,000", "7d"),
        *("1.00", "1.20", "1.00", "1.20", "0.90", "150", "", "1"),
    ]


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("1000:7d", Case(1_000, "7d", 10)),
        ("100:24h:3", Case(100, "24h", 3)),
        ("100:24h:3:resync", Case(100, "24h", 3, resync=True)),
        ("100:24h:aksk", Case(100, "24h", 10, signed=True)),
        ("100:24h:restores", Case(100, "24h", 10, restores=True)),
    ],
)
def test_case_is_read_from_its_short_form(text: str, case: Case) -> None:
    assert parse_case(text) == case


@pytest.mark.parametrize(
    "text",
    ["1000", "1000:8d", "x:7d", "0:7d", "1:7d:0", "1:7d:2:3", "1:7d:z", "1001:7d:restores"],
)
def test_case_that_cannot_be_measured_is_a_usage_error(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as usage:
        parse_arguments(["--case", text])

    assert usage.value.code == 2
    assert text in capsys.readouterr().err


def test_everything_is_measured_unless_told_otherwise() -> None:
    assert parse_arguments([]).only == ["exporter", "loop", "sdk", "cloud", "start"]
    assert parse_arguments(["--only", "sdk"]).only == ["sdk"]


@pytest.mark.parametrize("signed", [True, False])
def test_configuration_is_one_that_the_exporter_takes(signed: bool) -> None:
    case = Case(3, "7d", 10, signed=signed)

    config = parse_config(build_config(case, "http://127.0.0.1:1", 50))

    instances = config.configured_instances()
    assert [instance.lookback_seconds for instance in instances] == [604_800.0] * 3
    assert len({instance.id for instance in instances}) == 3
    assert config.api.rate_limit == 0


def test_configuration_asks_for_restores_where_they_are_measured() -> None:
    for restores in (True, False):
        text = build_config(Case(1, "24h", 1, restores=restores), "http://127.0.0.1:1", 50)
        (instance,) = parse_config(text).configured_instances()
        assert (instance.restore_window, instance.full_backups) == (restores, restores)


def test_prepared_cloud_has_a_range_and_eight_full_backups_of_each_instance() -> None:
    answers = Answers(NOON)
    path = f"/v3/p/instances/{instance_id(0)}/restore-time"
    body = answers.answer(f"GET {path} HTTP/1.1".encode()).partition(b"\r\n\r\n")[2]
    end = int(NOON - 60) * 1000
    expected = {"start_time": end - 7 * 86_400_000, "end_time": end}
    assert json.loads(body) == {"restore_times": [expected]}

    rows = []
    for offset in range(0, 8_000, 100):
        head = f"GET /v3/p/backups?limit=100&offset={offset} HTTP/1.1".encode()
        page = json.loads(answers.answer(head).partition(b"\r\n\r\n")[2])
        assert page["total_count"] == 8_000
        rows += page["backups"]
    assert len({row["id"] for row in rows}) == 8_000
    assert [row["instance_id"] for row in rows].count(instance_id(999)) == 8
    assert rows[0]["end_time"] == "2025-07-14T19:00:00+0800"
    assert answers.listings == 81


def list_page(answers: Answers, instance: str, *, begin: str, offset: int) -> dict[str, Any]:
    answer = answers.answer(
        f"GET /v3/p/instances/{instance}/incremental-backups?begin_time={begin}%2B0000"
        f"&end_time=2025-07-14T12%3A00%3A00%2B0000&limit=50&offset={offset} HTTP/1.1".encode()
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    page: dict[str, Any] = json.loads(body)
    return page


def test_prepared_cloud_lists_a_backup_every_five_minutes_page_by_page() -> None:
    answers, instance = Answers(NOON), instance_id(0)
    day = "2025-07-13T12%3A00%3A00"

    pages = [list_page(answers, instance, begin=day, offset=offset) for offset in range(0, 300, 50)]

    rows = [row for page in pages for row in page["backups"]]
    assert {page["total_count"] for page in pages} == {289}  # both bounds count
    assert len({row["id"] for row in rows}) == len(rows) == 289
    assert rows[0]["end_time"] == "2025-07-14T20:00:00+0800"
    assert rows[-1]["end_time"] == "2025-07-13T20:00:00+0800"


def test_instances_of_the_prepared_cloud_take_turns() -> None:
    assert [phase_of(instance_id(number)) for number in (0, 1, 9, 10)] == [0, 1, 9, 0]
    # Phase 1 makes its backups half a minute after phase 0.
    assert first_and_last(0, NOON, NOON + 300) == (NOON / 300, NOON / 300 + 1)
    assert first_and_last(1, NOON, NOON + 300) == (NOON / 300, NOON / 300)


def test_after_a_start_the_latest_is_known_first_and_then_the_counts() -> None:
    start = after_start.Start(20, "24h", rate_limit=2)
    known = after_start.run(start, 0.05)

    assert {one.latest for one in known} == {1.0}
    assert known[0].count < 0.5
    assert known[-1].count == 1.0
    row = after_start.tell(start, known)
    assert row[:3] == ["after a start, rate_limit 2", "20", "24h"]
    assert row[3].startswith("100.0% / ")
    heading, rule, line = after_start.render([row]).splitlines()
    assert heading.count("|") == rule.count("|") == line.count("|") == 12


def test_what_is_measured_is_the_program_with_another_clock() -> None:
    """bench/subjects.py puts its own in this place."""
    assert vars(running)["Exporter"] is Exporter
