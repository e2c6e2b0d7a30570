"""The listing of backups keeps to the documentation, and bends only where a knob says so."""

from dataclasses import replace
from typing import Any

import pytest

from exporter.simulator import (
    SimulatedBackup,
)
from exporter.simulator.query import parse_moment
from tests.support.simulated_cloud import (
    BACKUPS,
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
    utc,
)


async def test_row_has_every_documented_field_in_its_documented_form() -> None:
    backup = make_backup("f0d2aea28d26t4848b8c84ed3fea1822fbr07", "10:11:10", "10:15:55")
    backup.name = "GaussDBforMySQL--20230728181555006"

    answer = await fetch(make_simulator(backup))

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "backups": [
            {
                "id": "f0d2aea28d26t4848b8c84ed3fea1822fbr07",
                "name": "GaussDBforMySQL--20230728181555006",
                "begin_time": "2023-07-28T18:11:10+0800",
                "end_time": "2023-07-28T18:15:55+0800",
                "size": 0.109375,
                "backup_type": "Log",
                "instance_id": ORDERS,
            }
        ],
        "total_count": 1,
    }


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, "2023-07-28T18:15:55+0800"),
        ({"time_form": "colon"}, "2023-07-28T18:15:55+08:00"),
        ({"time_form": "zulu"}, "2023-07-28T10:15:55Z"),
        ({"time_offset": -210}, "2023-07-28T06:45:55-0330"),
        ({"time_offset": 0}, "2023-07-28T10:15:55+0000"),
    ],
)
async def test_times_are_shown_in_the_zone_and_form_of_the_knobs(
    knobs: dict[str, Any], expected: str
) -> None:
    answer = await fetch(make_simulator(make_backup("a", "10:11:10", "10:15:55"), **knobs))

    assert answer.json()["backups"][0]["end_time"] == expected


@pytest.mark.parametrize(
    ("shown_as", "expected"), [("null", {"end_time": None}), ("empty", {"end_time": ""})]
)
async def test_running_backup_has_no_end_yet(shown_as: str, expected: dict[str, object]) -> None:
    simulator = make_simulator(make_backup("a", "11:58", "12:05"), show_empty_end_as=shown_as)

    row = (await fetch(simulator)).json()["backups"][0]

    assert {"end_time": row["end_time"]} == expected


async def test_running_backup_may_lack_the_end_altogether() -> None:
    simulator = make_simulator(make_backup("a", "11:58", None), show_empty_end_as="missing")

    assert "end_time" not in (await fetch(simulator)).json()["backups"][0]


async def test_backup_appears_runs_ends_and_is_deleted_by_the_clock() -> None:
    clock = Clock(at("09:59"))
    backup = make_backup("a", "10:00", "10:04", deleted_at=at("11:00"))
    simulator = make_simulator(backup, clock=clock)
    ends = []

    for text in ("09:59", "10:00", "10:03:59", "10:04", "10:59:59", "11:00"):
        clock.now = at(text)
        ends.append([row["end_time"] for row in (await fetch(simulator)).json()["backups"]])

    done = "2023-07-28T18:04:00+0800"
    assert ends == [[], [None], [None], [done], [done], []]


async def test_row_stays_hidden_until_it_appears() -> None:
    clock = Clock(at("10:10"))
    backup = make_backup("late", "10:00", "10:04", appears_at=at("10:11"))
    simulator = make_simulator(backup, clock=clock)

    before = ids(await fetch(simulator))
    clock.now = at("10:11")

    assert (before, ids(await fetch(simulator))) == ([], ["late"])


async def test_cross_region_rows_come_only_when_asked_for() -> None:
    here = make_backup("here", "10:00", "10:04")
    there = make_backup("there", "10:01", "10:04", backup_type="OffSiteLog")
    simulator = make_simulator(here, there, order="begin_asc")

    assert ids(await fetch(simulator)) == ["here"]
    answer = await fetch(simulator, display_offsite_backup="true")
    assert [row["backup_type"] for row in answer.json()["backups"]] == ["Log", "OffSiteLog"]


@pytest.mark.parametrize(
    ("meaning", "bounds", "expected"),
    [
        ("begin", "inclusive", ["late", "running"]),
        ("begin", "half_open", ["late"]),
        ("begin", "exclusive", ["late"]),
        ("end", "inclusive", ["early", "running"]),
        ("end", "half_open", ["early"]),
        ("end", "exclusive", []),
        ("overlap", "inclusive", ["early", "late", "running"]),
        ("overlap", "half_open", ["early", "late"]),
        ("overlap", "exclusive", ["late"]),
    ],
)
async def test_window_filters_as_the_knobs_understand_it(
    meaning: str, bounds: str, expected: list[str]
) -> None:
    simulator = make_simulator(
        make_backup("early", "11:00", "11:05"),  # ends where the window begins
        make_backup("late", "11:50", "12:00"),  # ends after it
        make_backup("running", "11:55", None),  # begins where the window ends
        order="begin_asc",
        filter_meaning=meaning,
        bounds=bounds,
    )

    answer = await fetch(simulator, begin_time=utc("11:05:00"), end_time=utc("11:55:00"))

    assert ids(answer) == expected
    assert answer.json()["total_count"] == len(expected)


@pytest.mark.parametrize(
    ("running", "expected"), [("always", ["running"]), ("hidden", []), ("by_begin", [])]
)
async def test_filter_by_end_shows_running_backups_as_the_knob_says(
    running: str, expected: list[str]
) -> None:
    simulator = make_simulator(
        make_backup("running", "11:00", None),
        filter_meaning="end",
        running_under_end_filter=running,
    )

    answer = await fetch(simulator, begin_time=utc("11:05:00"), end_time=utc("11:55:00"))

    assert ids(answer) == expected


async def test_running_backups_can_be_left_out_of_the_listing() -> None:
    rows = (make_backup("done", "11:00", "11:04"), make_backup("running", "11:58", None))

    assert ids(await fetch(make_simulator(*rows, hide_running=True))) == ["done"]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("begin_asc", ["c", "a", "d", "b"]),
        ("begin_desc", ["b", "d", "a", "c"]),
        ("end_asc", ["a", "c", "d", "b"]),
        ("end_desc", ["b", "d", "c", "a"]),
        ("id", ["a", "b", "c", "d"]),
    ],
)
async def test_rows_come_in_the_order_of_the_knob(order: str, expected: list[str]) -> None:
    simulator = make_simulator(
        make_backup("b", "11:58", None),
        make_backup("a", "11:05", "11:06"),
        make_backup("d", "11:40", "11:44"),
        make_backup("c", "11:00", "11:07"),
        order=order,
    )

    assert ids(await fetch(simulator)) == expected


async def test_stable_shuffle_keeps_its_order_and_the_other_does_not() -> None:
    rows = [make_backup(f"{n:02d}", f"10:{n:02d}", f"10:{n:02d}:30") for n in range(20)]
    simulator = make_simulator(*rows, order="shuffled_stable")

    stable = [ids(await fetch(simulator, limit=20)) for _ in range(2)]
    simulator.knobs = replace(simulator.knobs, order="shuffled_each_request")
    restless = [ids(await fetch(simulator, limit=20)) for _ in range(2)]

    assert stable[0] == stable[1] != sorted(stable[0]) == [row.id for row in rows]
    assert restless[0] != restless[1]
    assert sorted(restless[0]) == sorted(restless[1]) == sorted(stable[0])


async def test_pages_are_slices_of_the_listing() -> None:
    rows = [make_backup(f"{n:02d}", f"10:{n:02d}", f"10:{n:02d}:30") for n in range(25)]
    simulator = make_simulator(*rows, order="begin_asc")

    pages = [ids(await fetch(simulator, offset=offset, limit=10)) for offset in (0, 10, 20, 30)]

    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert [id_ for page in pages for id_ in page] == [row.id for row in rows]
    assert len(ids(await fetch(simulator))) == 10  # the documented default


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("true", '"total_count": 2}'),
        ("null", '"total_count": null}'),
        ("lie", '"total_count": 3}'),
        ("negative", '"total_count": -1}'),
        ("string", '"total_count": "2"}'),
        ("float", '"total_count": 2.0}'),
        ("missing", "}]}"),
    ],
)
async def test_total_count_is_as_true_as_the_knob(shown: str, expected: str) -> None:
    rows = (make_backup("a", "10:00", "10:04"), make_backup("b", "10:05", "10:09"))

    assert (await fetch(make_simulator(*rows, total_count=shown))).text.endswith(expected)


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "11"},
        {"limit": "100"},
        {"limit": "ten"},
        {"limit": ""},
        {"limit": "\u0661\u0660"},  # digits, but not ours
        {"offset": "-1"},
        {"offset": "1.0"},
        {"begin_time": "2023-07-28T10:00:00+0800"},
        {"end_time": "2023-07-28T10:00:00+0800"},
        {"begin_time": "2023-07-28T10:00:00+0800", "end_time": "2023-07-28T10:00:00+0800"},
        {"begin_time": "2023-07-28T10:00:01+0800", "end_time": "2023-07-28T02:00:00+0000"},
        {"begin_time": "2023-07-28T10:00:00Z", "end_time": "2023-07-28T11:00:00+0800"},
        {"begin_time": "2023-07-28T10:00:00+08:00", "end_time": "2023-07-28T11:00:00+0800"},
        {"begin_time": "2023-07-28T10:00:00", "end_time": "2023-07-28T11:00:00+0800"},
        {"begin_time": "2023-07-28T10:00:00.5+0800", "end_time": "2023-07-28T11:00:00+0800"},
        {"begin_time": "2023-02-29T10:00:00+0800", "end_time": "2023-07-28T11:00:00+0800"},
        {"begin_time": "1690538400", "end_time": "1690539400"},
        {"display_offsite_backup": "yes"},
    ],
)
async def test_parameter_against_the_documentation_is_a_bad_request(query: dict[str, str]) -> None:
    answer = await fetch(make_simulator(), BACKUPS, TOKEN, **query)

    assert answer.status_code == 400
    assert answer.json()["error_code"] == "DBS.200001"
    assert any(f"{name}=" in answer.json()["error_msg"] for name in query)


async def test_plus_sign_that_arrives_as_a_space_is_a_bad_request() -> None:
    query = "begin_time=2023-07-28T10:00:00+0800&end_time=2023-07-28T11:00:00+0800"

    bare = await fetch(make_simulator(), f"{BACKUPS}?{query}")
    escaped = await fetch(make_simulator(), f"{BACKUPS}?{query.replace('+', '%2B')}")

    assert (bare.status_code, escaped.status_code) == (400, 200)


def test_moment_is_read_with_its_zone() -> None:
    assert parse_moment("2023-07-28T20:00:00+0800") == NOON
    assert parse_moment("2023-07-28T08:30:00-0330") == NOON


@pytest.mark.parametrize(
    ("instance_id", "knobs", "status", "code"),
    [
        ("db-1", {}, 400, "DBS.280404"),
        ("24a4ea66210545909d74a05c27a7179ein07", {}, 404, "DBS.201028"),
        (
            "24a4ea66210545909d74a05c27a7179ein07",
            {"unknown_instance_status": 403},
            403,
            "DBS.200044",
        ),
    ],
)
async def test_unknown_instance_is_refused_in_the_form_of_the_service(
    instance_id: str, knobs: dict[str, Any], status: int, code: str
) -> None:
    answer = await fetch(make_simulator(**knobs), BACKUPS.replace(ORDERS, instance_id))

    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert set(answer.json()) == {"error_code", "error_msg"}


async def test_unknown_path_is_refused_in_the_form_of_the_gateway() -> None:
    answer = await fetch(make_simulator(), f"/v3/{PROJECT}/flavors")

    assert (answer.status_code, answer.json()["error_code"]) == (404, "APIGW.0101")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_truth_counts_by_whole_seconds_what_ended_or_began_in_the_window() -> None:
    fraction = SimulatedBackup("fraction", at("11:00"), at("11:05") + 0.7, 1.0)
    before = make_backup("before", "10:00", "10:59:59")
    running = make_backup("running", "11:05", "12:01")
    began_before = make_backup("began before", "10:58", None)
    hidden = make_backup("hidden", "11:01", "11:02", appears_at=at("13:00"))
    offsite = make_backup("offsite", "11:02", "11:03", backup_type="OffSiteLog")
    simulator = make_simulator(running, fraction, before, began_before, hidden, offsite)

    def truth(**more: Any) -> list[str]:
        window = (at("11:00"), at("11:05"))
        return [b.id for b in simulator.backups_between(PROJECT, ORDERS, *window, **more)]

    assert truth() == ["fraction", "running"]
    assert truth(offsite=True) == ["fraction", "offsite", "running"]
    assert truth(now=at("13:00")) == ["fraction", "hidden"]
