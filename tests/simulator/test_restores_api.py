"""Restorable ranges and full backups follow from the same backups, but for what a knob bends."""

from typing import Any

import pytest

from exporter.simulator import (
    Fault,
    FullSchedule,
    Schedule,
    SimulatedBackup,
    SimulatedFullBackup,
    SimulatedInstance,
    Simulator,
)
from tests.support.simulated_cloud import (
    DAY,
    HOUR,
    NOON,
    ORDERS,
    PROJECT,
    TOKEN,
    Clock,
    at,
    fetch,
    ids,
    make_backup,
    make_simulator,
)

RESTORE_TIME = f"/v3/{PROJECT}/instances/{ORDERS}/restore-time"
FULL_BACKUPS = f"/v3/{PROJECT}/backups"
BILLING = "24a4ea66210545909d74a05c27a7179ein07"


def make_full(id_: str, begin: str, end: str | None, **more: Any) -> SimulatedFullBackup:
    return SimulatedFullBackup(id_, at(begin), None if end is None else at(end), **more)


def simulate(
    *contents: SimulatedBackup | SimulatedFullBackup, clock: Clock | None = None, **knobs: Any
) -> Simulator:
    logs = [item for item in contents if isinstance(item, SimulatedBackup)]
    simulator = make_simulator(*logs, clock=clock, **knobs)
    fulls = [item for item in contents if isinstance(item, SimulatedFullBackup)]
    simulator.instance(ORDERS).full_backups = fulls
    return simulator


def logs_at(*ends: str) -> list[SimulatedBackup]:
    return [SimulatedBackup(f"log-{end}", at(end) - 60, at(end), 1.0) for end in ends]


async def shown_ranges(simulator: Simulator, **query: object) -> list[tuple[Any, Any]]:
    answer = await fetch(simulator, RESTORE_TIME, TOKEN, **query)
    assert answer.status_code == 200, answer.text
    return [(pair["start_time"], pair["end_time"]) for pair in answer.json()["restore_times"]]


def milliseconds(*pairs: tuple[str, str]) -> list[tuple[float, float]]:
    return [(at(start) * 1000, at(end) * 1000) for start, end in pairs]


# What can be restored to -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fulls", "logs", "expected"),
    [
        ([], ["11:00", "11:10"], []),  # nothing to start from
        ([("10:00", "10:05")], [], [("10:05", "10:05")]),  # its own end alone
        ([("10:00", "10:05")], ["10:10", "10:20"], [("10:05", "10:20")]),
        ([("10:00", "10:05")], ["10:21"], [("10:05", "10:05")]),  # the chain never begins
        # It breaks: later backups are of no use without a full one
        ([("10:00", "10:05")], ["10:10", "10:25", "10:41"], [("10:05", "10:25")]),
        (
            [("10:00", "10:05"), ("11:00", "11:05")],
            ["10:10", "10:25", "10:41", "10:55", "11:10", "11:20"],
            [("10:05", "10:25"), ("11:05", "11:20")],
        ),
        # Two full ones in one chain
        ([("10:00", "10:05"), ("10:10", "10:12")], ["10:10", "10:20"], [("10:05", "10:20")]),
    ],
)
async def test_a_range_goes_as_far_as_the_chain_from_a_full_backup(
    fulls: list[tuple[str, str]], logs: list[str], expected: list[tuple[str, str]]
) -> None:
    made = [make_full(begin, begin, end) for begin, end in fulls]
    simulator = simulate(*made, *logs_at(*logs))
    assert await shown_ranges(simulator) == milliseconds(*expected)


@pytest.mark.parametrize(
    "full",
    [
        make_full("f", "10:00", "10:05", status="FAILED"),
        make_full("f", "11:59", "12:05"),  # not done yet
        make_full("f", "11:59", None),
        make_full("f", "10:00", "10:05", deleted_at=NOON),
    ],
)
async def test_what_is_not_usable_starts_no_range(full: SimulatedFullBackup) -> None:
    assert await shown_ranges(simulate(full, *logs_at("10:10", "10:20"))) == []


async def test_a_schedule_and_its_pauses_make_ranges_as_written_rows_do() -> None:
    schedule = Schedule(since=NOON - DAY, pauses=[(NOON - 10 * HOUR, NOON - 6 * HOUR)])
    simulator = simulate(make_full("a", "00:30", "00:40"), make_full("b", "08:00", "08:10"))
    simulator.instance(ORDERS).schedule = schedule
    found = simulator.backups_between(PROJECT, ORDERS, 0, NOON)
    ends = sorted(row.end for row in found if row.end is not None and row.end <= NOON)
    before = [end for end in ends if end <= NOON - 9 * HOUR]

    assert await shown_ranges(simulator) == [
        (at("00:40") * 1000, before[-1] * 1000),
        (at("08:10") * 1000, ends[-1] * 1000),
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"start_time": at("10:10") * 1000, "end_time": at("11:30") * 1000}, [("10:10", "11:30")]),
        ({"start_time": at("09:00") * 1000, "end_time": at("10:00") * 1000}, []),
        ({"date": "2023-07-28"}, [("10:05", "11:55")]),
        ({"date": "2023-07-27"}, []),
        (
            {"date": "2023-07-28", "start_time": 1_000_000_000_000, "end_time": 1_000_000_001_000},
            [("10:05", "11:55")],  # the date wins
        ),
    ],
)
async def test_a_question_about_a_time_cuts_the_ranges(
    query: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    logs = logs_at("10:15", "10:30", "10:45", "11:00", "11:15", "11:30", "11:45", "11:55")
    simulator = simulate(make_full("a", "10:00", "10:05"), *logs)
    whole = {name: int(v) if isinstance(v, float) else v for name, v in query.items()}
    assert await shown_ranges(simulator, **whole) == milliseconds(*expected)


@pytest.mark.parametrize(
    "query",
    [
        {"start_time": "1690545600000"},
        {"end_time": "1690545600000"},
        {"start_time": "1690545600000", "end_time": "1690545600000"},
        {"start_time": "noon", "end_time": "1690545600000"},
        {"date": "28.07.2023"},
        {"date": "2023-02-30"},
    ],
)
async def test_a_time_against_the_documentation_is_a_bad_request(query: dict[str, str]) -> None:
    assert (await fetch(simulate(), RESTORE_TIME, TOKEN, **query)).status_code == 400


async def test_an_unknown_instance_and_a_failing_one_have_no_restore_time() -> None:
    simulator = simulate()
    unknown = RESTORE_TIME.replace(ORDERS, BILLING)
    assert (await fetch(simulator, unknown)).status_code == 404
    simulator.instance(ORDERS).failure = Fault(status=500)
    assert (await fetch(simulator, RESTORE_TIME)).status_code == 500


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("true", [(at("10:05") * 1000, at("10:20") * 1000)]),
        ("empty", []),
        ("inverted", [(at("10:20") * 1000, at("10:05") * 1000)]),
        ("text", [(str(int(at("10:05") * 1000)), str(int(at("10:20") * 1000)))]),
        ("seconds", [(at("10:05"), at("10:20"))]),
        (
            "split",
            [
                (at("10:15") * 1000, at("10:20") * 1000),
                (at("10:09:59") * 1000, at("10:15") * 1000),
                (at("10:05") * 1000, at("10:10") * 1000),
            ],
        ),
    ],
)
async def test_ranges_are_shown_in_the_form_of_the_knob(
    form: str, expected: list[tuple[Any, Any]]
) -> None:
    simulator = simulate(
        make_full("a", "10:00", "10:05"), *logs_at("10:12", "10:20"), restore_times=form
    )
    assert await shown_ranges(simulator) == expected


async def test_the_list_of_ranges_may_be_missing() -> None:
    simulator = simulate(make_full("a", "10:00", "10:05"), restore_times="missing")
    assert (await fetch(simulator, RESTORE_TIME)).json() == {}


@pytest.mark.parametrize("url", [RESTORE_TIME, FULL_BACKUPS])
@pytest.mark.parametrize(("status", "code"), [(403, "DBS.200010"), (404, "APIGW.0101")])
async def test_a_cloud_may_forbid_the_calls_or_not_have_them(
    url: str, status: int, code: str
) -> None:
    simulator = simulate(restore_time_status=status, full_backups_status=status)
    answer = await fetch(simulator, url)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


@pytest.mark.parametrize("url", [RESTORE_TIME, FULL_BACKUPS])
async def test_both_need_credentials_and_are_recorded_under_their_names(url: str) -> None:
    simulator = simulate()
    assert (await fetch(simulator, url, {})).status_code == 401
    await fetch(simulator, url)
    name = "show_restore_time" if url == RESTORE_TIME else "list_full_backups"
    assert simulator.request_counts == {name: 2}


# Full backups ----------------------------------------------------------------------------------


async def test_a_full_backup_has_every_documented_field() -> None:
    simulator = simulate(make_full("a", "10:00", "10:06:30", megabytes=2803.0, name="nightly"))

    assert (await fetch(simulator, FULL_BACKUPS)).json() == {
        "backups": [
            {
                "id": "a",
                "name": "nightly",
                "begin_time": "2023-07-28T18:00:00+0800",
                "end_time": "2023-07-28T18:06:30+0800",
                "status": "COMPLETED",
                "take_up_time": 6,
                "type": "auto",
                "size": 2803.0,
                "datastore": {"type": "gaussdb-mysql", "version": "8.0"},
                "instance_id": ORDERS,
                "instance_name": "orders",
                "backup_level": "0",
                "description": None,
                "backup_mode": "completed",
            }
        ],
        "total_count": 1,
    }


async def test_a_full_backup_is_building_until_its_end() -> None:
    clock = Clock(at("09:59"))
    simulator = simulate(make_full("a", "10:00", "10:05", status="AVAILABLE"), clock=clock)
    shown = []
    for text in ("09:59", "10:00", "10:04:59", "10:05"):
        clock.now = at(text)
        rows = (await fetch(simulator, FULL_BACKUPS)).json()["backups"]
        shown.append([(row["status"], row["end_time"]) for row in rows])
    building = [("BUILDING", None)]
    assert shown == [[], building, building, [("AVAILABLE", "2023-07-28T18:05:00+0800")]]


def make_fleet() -> Simulator:
    simulator = simulate(
        make_full("a1", "10:00", "10:05"),
        make_full("a2", "11:00", "11:05", backup_type="manual", name="before the release"),
    )
    project = simulator.projects[PROJECT]
    billing = SimulatedInstance(BILLING, "billing")
    billing.full_backups = [make_full("b1", "10:30", "10:35", status="FAILED")]
    project.instances[BILLING] = billing
    project.left_behind = [
        make_full("gone", "09:00", "09:05", backup_type="manual", instance_id="ff" * 16 + "in07")
    ]
    return simulator


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["a2", "b1", "a1", "gone"]),  # the whole project, newest first
        ({"limit": "2"}, ["a2", "b1"]),
        ({"offset": "3", "limit": "2"}, ["gone"]),
        ({"instance_id": ORDERS}, ["a2", "a1"]),
        ({"instance_id": "ff" * 16 + "in07"}, ["gone"]),
        ({"backup_type": "manual"}, ["a2", "gone"]),
        ({"backup_id": "b1"}, ["b1"]),
        ({"name": "before the release"}, ["a2"]),
        ({"begin_time": "2023-07-28T10:30:00+0000"}, ["a2", "b1"]),  # alone
        (
            {
                "begin_time": "2023-07-28T09:00:00+0000",
                "end_time": "2023-07-28T10:00:00+0000",
            },
            ["a1", "gone"],
        ),
    ],
)
async def test_full_backups_of_the_project_are_listed_by_page_and_filter(
    query: dict[str, str], expected: list[str]
) -> None:
    assert ids(await fetch(make_fleet(), FULL_BACKUPS, TOKEN, **query)) == expected


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "101"}, {"begin_time": "now"}, {"end_time": "now"}]
)
async def test_the_listing_of_full_backups_checks_its_parameters(query: dict[str, str]) -> None:
    assert (await fetch(make_fleet(), FULL_BACKUPS, TOKEN, **query)).status_code == 400


async def test_faults_can_meet_the_full_backups_of_one_instance() -> None:
    simulator = make_fleet()
    simulator.add_fault(Fault(status=503), "list_full_backups", ORDERS)
    assert (await fetch(simulator, FULL_BACKUPS)).status_code == 200
    answer = await fetch(simulator, FULL_BACKUPS, TOKEN, instance_id=ORDERS)
    assert answer.status_code == 503


# The schedule of full backups ------------------------------------------------------------------


def test_one_full_backup_is_made_a_day_and_kept_for_the_retention_and_one_more() -> None:
    schedule = FullSchedule(since=NOON - 30 * DAY - HOUR, retention_seconds=7 * DAY)
    rows = schedule.rows(NOON)
    begins = [(row.begin - NOON + HOUR) / DAY for row in rows]
    # That of seven days and an hour ago is past it, and what later ones build on.
    assert begins == [-7, -6, -5, -4, -3, -2, -1, 0]
    assert [row.backup_mode for row in rows].count("completed") == 1  # each seventh
    assert len({row.id for row in schedule.rows(NOON) + schedule.rows(NOON + 20 * DAY)}) == 16
    assert schedule.rows(NOON) == FullSchedule(since=NOON - 30 * DAY - HOUR).rows(NOON)


def test_a_full_backup_that_failed_is_tried_again_half_an_hour_later() -> None:
    schedule = FullSchedule(since=NOON - 2 * HOUR, failing=[(NOON - 2 * HOUR, NOON - HOUR)])
    assert [(row.status, (row.begin - NOON) / 60) for row in schedule.rows(NOON)] == [
        ("FAILED", -120),
        ("FAILED", -90),
        ("COMPLETED", -60),
    ]


def test_nothing_is_scheduled_before_its_begin() -> None:
    assert FullSchedule(since=NOON + 1).rows(NOON) == []
    (first,) = FullSchedule(since=NOON).rows(NOON)
    assert first.shown_status(NOON) == "BUILDING"


def test_the_truth_is_told_whatever_the_knobs_show() -> None:
    simulator = simulate(
        make_full("a", "10:00", "10:05"), make_backup("l", "10:08", "10:10"), restore_times="empty"
    )
    assert simulator.restorable_ranges(PROJECT, ORDERS) == [(at("10:05"), at("10:10"))]
    assert [full.id for full in simulator.full_backups(PROJECT, ORDERS)] == ["a"]
    assert simulator.full_backups(PROJECT, ORDERS, at("09:00")) == []
