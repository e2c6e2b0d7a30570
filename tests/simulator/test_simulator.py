"""The simulator keeps to the documentation, and spoils answers only as it is told to."""

import ast
import asyncio
import gzip
import itertools
import json
import math
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.algorithm import SigningAlgorithm
from hypothesis import given
from hypothesis import strategies as st

import exporter.simulator
from exporter.simulator import (
    DEMO_BUSY,
    DEMO_EMPTY,
    DEMO_FAILING,
    DEMO_HEALTHY,
    DEMO_HOLE,
    DEMO_PROJECT_ID,
    DEMO_STALE,
    ROW_SPOILERS,
    DroppedConnectionError,
    Fault,
    Knobs,
    RateLimit,
    Schedule,
    SimulatedBackup,
    SimulatedInstance,
    SimulatedProject,
    Simulator,
    build_cloud,
    build_demo,
    serve,
)
from exporter.simulator.__main__ import build_simulator, parse_arguments
from exporter.simulator.access import IncomingRequest, build_canonical_request, compute_signature
from exporter.simulator.app import parse_moment
from exporter.simulator.cloud import Window, find_listed
from tests.support.paths import TESTDATA

NOON = 1_690_545_600.0  # 2023-07-28T12:00:00Z, 20:00 in the cloud's zone
HOUR = 3_600.0
DAY = 86_400.0
PROJECT = "97b026aa9cc4417888c14c84a1ad9860"
OTHER_PROJECT = "0483b6b16e954cb88930a360d2c4e663"
FAR_PROJECT = "11111b16e954cb88930a360d2c4e6630"
ORDERS = "61a4ea66210545909d74a05c27a7179ein07"
BACKUPS = f"/v3/{PROJECT}/instances/{ORDERS}/incremental-backups"
TOKEN = {"X-Auth-Token": "a-static-token"}
VECTORS = json.loads((TESTDATA / "signing_vectors.json").read_text())


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def at(text: str) -> float:
    """Seconds since the epoch of a time of NOON's day, UTC."""
    hours, minutes, *seconds = map(int, text.split(":"))
    return NOON - 12 * HOUR + hours * HOUR + minutes * 60 + sum(seconds)


def make_backup(id_: str, begin: str, end: str | None, **more: Any) -> SimulatedBackup:
    return SimulatedBackup(id_, at(begin), None if end is None else at(end), 0.109375, **more)


def make_simulator(
    *backups: SimulatedBackup, clock: Clock | None = None, **knobs: Any
) -> Simulator:
    instance = SimulatedInstance(ORDERS, "orders", list(backups), tags={"env": "prod"})
    project = SimulatedProject(
        PROJECT,
        users={("my-account", "reader"): "right"},
        access_keys={"AKEXAMPLE": "SKexample"},
        instances={ORDERS: instance},
        tokens={"a-static-token"},
    )
    other = SimulatedProject(OTHER_PROJECT, users={("my-account", "reader"): "right"})
    far = SimulatedProject(FAR_PROJECT, "eu-west-101", users={("my-account", "reader"): "right"})
    return Simulator([project, other, far], clock=clock or Clock(), knobs=Knobs(**knobs))


def connect(simulator: Simulator) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=simulator), base_url="https://cloud.example"
    )


async def fetch(
    simulator: Simulator, url: str = BACKUPS, headers: Mapping[str, str] = TOKEN, **query: object
) -> httpx.Response:
    params = {name: str(value) for name, value in query.items()}
    async with connect(simulator) as client:
        return await client.get(url, headers=headers, params=params or None)


async def log_in(
    simulator: Simulator, password: str = "right", project_id: str = PROJECT, query: str = ""
) -> httpx.Response:
    user = {"name": "reader", "password": password, "domain": {"name": "my-account"}}
    body = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"id": project_id}},
        }
    }
    async with connect(simulator) as client:
        return await client.post(f"/v3/auth/tokens{query}", json=body)


def sign(
    *,
    date: str = "20230728T120000Z",
    secret: str = "SKexample",
    access: str = "AKEXAMPLE",
    security_token: str | None = None,
    project_id: str | None = PROJECT,
    path: str = BACKUPS,
) -> dict[str, str]:
    """The headers that the vendor's own signer sends along."""
    credentials = BasicCredentials(access, secret, project_id)
    credentials.security_token = security_token
    request = SdkRequest(
        method="GET",
        schema="https",
        host="cloud.example",
        resource_path=path,
        query_params=[],
        header_params={"X-Sdk-Date": date},
        body="",
        signing_algorithm=SigningAlgorithm.HMAC_SHA256,
    )
    headers: dict[str, str] = credentials.sign_request(request).header_params
    return headers


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["backups"]]


def utc(text: str) -> str:
    return f"2023-07-28T{text}+0000"


# Listing


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
    answer = await fetch(make_simulator(), f"/v3/{PROJECT}/backups")

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


# Schedules


def make_schedule(**changes: Any) -> Schedule:
    return Schedule(**{"since": NOON - 2 * DAY, "retention_seconds": 1.5 * DAY, **changes})


def test_schedule_whose_backups_would_overtake_each_other_is_refused() -> None:
    with pytest.raises(ValueError, match="out of order"):
        make_schedule(every_seconds=60.0)


@given(
    meaning=st.sampled_from(["begin", "end", "overlap"]),
    running=st.sampled_from(["by_begin", "always", "hidden"]),
    bounds=st.sampled_from(["inclusive", "exclusive", "half_open"]),
    order=st.sampled_from(["begin_asc", "begin_desc", "end_asc", "end_desc"]),
    hide_running=st.booleans(),
    now=st.floats(-2.1 * DAY, 0.1 * DAY),
    begin=st.integers(int(-2.1 * DAY), int(0.2 * DAY)),
    length=st.integers(1, int(2 * DAY)),
    pauses=st.lists(st.tuples(st.floats(-2 * DAY, 0), st.floats(0, 0.5 * DAY)), max_size=3),
    cuts=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_schedule_lists_what_its_rows_written_down_would(
    meaning: Any,
    running: Any,
    bounds: Any,
    order: Any,
    hide_running: bool,
    now: float,
    begin: int,
    length: int,
    pauses: list[tuple[float, float]],
    cuts: tuple[int, int],
) -> None:
    spans = [(NOON + start, NOON + start + span) for start, span in pauses]
    schedule = make_schedule(every_seconds=1200.0, seed=7, pauses=spans)
    rows = [schedule.row(slot) for slot in range(160)]
    written = [row for row in rows if not any(a <= row.begin < b for a, b in spans)]
    knobs = Knobs(
        filter_meaning=meaning,
        running_under_end_filter=running,
        bounds=bounds,
        order=order,
        hide_running=hide_running,
    )

    def listed(instance: SimulatedInstance) -> list[str]:
        window = Window(NOON + begin, NOON + begin + length)
        found = find_listed(
            instance,
            knobs,
            window,
            now=NOON + now,
            offsite=False,
            rng=random.Random(0),
            seed=0,
        )
        page = found[cuts[0] : cuts[0] + cuts[1]]
        return [str(len(found)), *(row.id for row in page)]

    assert listed(SimulatedInstance("scheduled", schedule=schedule)) == listed(
        SimulatedInstance("written", backups=written)
    )


async def test_schedule_and_written_rows_are_listed_together() -> None:
    simulator = make_simulator(make_backup("extra", "11:59:30", "11:59:40"), order="id")
    simulator.instance(ORDERS).schedule = make_schedule()

    answer = await fetch(simulator, limit=10)

    assert answer.json()["total_count"] == len(
        simulator.backups_between(PROJECT, ORDERS, 0, NOON + 1)
    )
    assert ids(answer) == sorted(ids(answer))


async def test_stopped_backups_begin_again_when_resumed() -> None:
    clock = Clock()
    simulator = build_cloud(1, 288, clock=clock)
    instance_id = next(iter(simulator.projects[DEMO_PROJECT_ID].instances))

    def begun_in_last_hour() -> int:
        now = clock.now
        found = simulator.backups_between(DEMO_PROJECT_ID, instance_id, now - DAY, now)
        return sum(backup.begin > now - HOUR for backup in found)

    counts = [begun_in_last_hour()]
    simulator.stop_backups(instance_id)
    simulator.stop_backups(instance_id)
    clock.now += HOUR
    counts.append(begun_in_last_hour())
    simulator.resume_backups(instance_id)
    clock.now += HOUR
    counts.append(begun_in_last_hour())

    assert counts == [12, 0, 12]


# Tokens and signatures


async def test_login_gives_a_token_that_opens_its_project_alone() -> None:
    simulator = make_simulator(make_backup("a", "10:00", "10:04"))

    answer = await log_in(simulator, query="?nocatalog=true")
    headers = {"X-Auth-Token": answer.headers["x-subject-token"]}

    assert answer.status_code == 201
    token = answer.json()["token"]
    assert token["expires_at"] == "2023-07-29T12:00:00.000000Z"
    assert token["project"]["id"] == PROJECT
    assert "catalog" not in token
    assert ids(await fetch(simulator, headers=headers)) == ["a"]
    statuses = {
        project: (await fetch(simulator, f"/v3/{project}/instances", headers)).json()["error_code"]
        for project in (OTHER_PROJECT, FAR_PROJECT)
    }
    assert statuses == {OTHER_PROJECT: "APIGW.0301", FAR_PROJECT: "APIGW.0307"}


async def test_login_with_a_wrong_password_is_refused_in_iams_form() -> None:
    answer = await log_in(make_simulator(), "wrong")

    assert answer.status_code == 401
    assert answer.json() == {
        "error": {
            "code": 401,
            "message": "The username or password is wrong.",
            "title": "Unauthorized",
        }
    }


@pytest.mark.parametrize("status", [401, 404])
async def test_login_to_an_unknown_project_is_refused_as_the_knob_says(status: int) -> None:
    simulator = make_simulator(unknown_project_status=status)

    answer = await log_in(simulator, project_id="nowhere")

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, status)


async def test_login_finds_a_project_by_its_name() -> None:
    simulator = make_simulator()
    user = {"name": "reader", "password": "right", "domain": {"name": "my-account"}}
    auth: dict[str, Any] = {
        "identity": {"methods": ["password"], "password": {"user": user}},
        "scope": {"project": {"name": "eu-west-101"}},
    }
    async with connect(simulator) as client:
        found = await client.post("/v3/auth/tokens", json={"auth": auth})
        auth["scope"]["project"]["name"] = "nowhere"
        lost = await client.post("/v3/auth/tokens", json={"auth": auth})

    assert found.json()["token"]["project"]["id"] == FAR_PROJECT
    assert lost.status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"auth": {}}',
        b'{"auth": {"identity": {"methods": ["token"]}}}',
        b'{"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "u", '
        b'"password": 1, "domain": {"name": "d"}}}}, "scope": {"project": {"id": "p"}}}}',
    ],
)
async def test_malformed_login_is_a_bad_request(body: bytes) -> None:
    async with connect(make_simulator()) as client:
        answer = await client.post("/v3/auth/tokens", content=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)


async def test_five_failed_logins_lock_the_user_for_a_quarter_of_an_hour() -> None:
    clock = Clock()
    simulator = make_simulator(clock=clock)

    tries = [(await log_in(simulator, "wrong")).status_code for _ in range(5)]
    assert simulator.is_locked("my-account/reader")
    tries.append((await log_in(simulator)).status_code)
    clock.now += 899
    tries.append((await log_in(simulator)).status_code)
    clock.now += 1
    tries.append((await log_in(simulator)).status_code)

    assert tries == [401] * 7 + [201]


async def test_successful_login_forgets_the_failures_before_it() -> None:
    simulator = make_simulator()

    tries = []
    for password in ["wrong"] * 4 + ["right"] + ["wrong"] * 4 + ["right"]:
        tries.append((await log_in(simulator, password)).status_code)

    assert tries == [401] * 4 + [201] + [401] * 4 + [201]


@pytest.mark.parametrize("headers", [{}, {"X-Auth-Token": "guessed"}])
async def test_call_without_a_known_token_is_refused_in_the_gateways_form(
    headers: dict[str, str],
) -> None:
    answer = await fetch(make_simulator(), headers=headers)

    assert answer.status_code == 401
    assert answer.json()["error_code"] == "APIGW.0301"
    assert set(answer.json()) == {"error_code", "error_msg", "request_id"}


async def test_token_ends_with_its_time_or_when_it_is_revoked() -> None:
    clock = Clock()
    simulator = make_simulator(clock=clock, token_lifetime_seconds=600.0)
    codes = []
    headers = {"X-Auth-Token": (await log_in(simulator)).headers["x-subject-token"]}

    for _ in range(2):
        codes.append((await fetch(simulator, headers=headers)).json().get("error_code"))
        clock.now += 600
    headers = {"X-Auth-Token": (await log_in(simulator)).headers["x-subject-token"]}
    simulator.revoke_tokens(OTHER_PROJECT)
    codes.append((await fetch(simulator, headers=headers)).json().get("error_code"))
    simulator.revoke_tokens(PROJECT)
    codes.append((await fetch(simulator, headers=headers)).json().get("error_code"))
    codes.append((await fetch(simulator)).json().get("error_code"))  # the static one

    assert codes == [None, "APIGW.0307", None, "APIGW.0301", "APIGW.0301"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_signature_is_that_of_the_vendors_signer(vector: dict[str, Any]) -> None:
    path, _, query = vector["request_uri"].partition("?")
    headers = {name.lower(): value for name, value in vector["sent_headers"].items()}
    body = vector.get("body", "").encode()
    names = vector["canonical_request"].rsplit("\n", 2)[1].split(";")

    canonical = build_canonical_request(
        IncomingRequest(vector["method"], path, query, headers, body), names
    )

    assert canonical == vector["canonical_request"]
    signature = compute_signature(canonical, headers["x-sdk-date"], vector["sk"])
    assert vector["authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize("date", ["20230728T120000Z", "20230728T114500Z", "20230728T121500Z"])
async def test_signature_of_the_vendor_opens_the_project(date: str) -> None:
    assert (await fetch(make_simulator(), headers=sign(date=date))).status_code == 200


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        (sign(secret="SKwrong"), "verify aksk signature fail"),
        (sign(access="AKUNKNOWN"), "not known"),
        (sign(date="20230728T114459Z"), "too far from our clock"),
        (sign(date="20230728T121501Z"), "too far from our clock"),
        (sign(path=f"{BACKUPS}x"), "verify aksk signature fail"),
        (sign(project_id=OTHER_PROJECT), "does not name the project"),
        ({**sign(), "X-Sdk-Date": "2023-07-28T12:00:00Z"}, "X-Sdk-Date is malformed"),
        ({**sign(), "Authorization": "SDK-HMAC-SHA256 Access=AKEXAMPLE"}, "malformed"),
        ({**sign(), "X-Security-Token": "unsigned"}, "not signed or not sent: x-security-token"),
        ({**sign(project_id=None), "X-Project-Id": PROJECT}, "not sent: x-project-id"),
        (
            {
                **sign(),
                "Authorization": sign()["Authorization"].replace(
                    "host;x-project-id;x-sdk-date", "x-sdk-date;host;x-project-id"
                ),
            },
            "not sorted",
        ),
        (
            {
                **sign(),
                "Authorization": sign()["Authorization"].replace("host;x-project-id;", ""),
            },
            "not signed or not sent: host, x-project-id",
        ),
    ],
)
async def test_doubtful_signature_is_refused(headers: dict[str, str], problem: str) -> None:
    answer = await fetch(make_simulator(), headers=headers)

    assert (answer.status_code, answer.json()["error_code"]) == (401, "APIGW.0301")
    assert problem in answer.json()["error_msg"]


@pytest.mark.parametrize(("required", "status"), [(True, 401), (False, 200)])
async def test_project_header_is_needed_with_a_signature_if_the_knob_says_so(
    required: bool, status: int
) -> None:
    simulator = make_simulator(require_project_header=required)

    assert (await fetch(simulator, headers=sign(project_id=None))).status_code == status


async def test_key_does_not_open_a_foreign_project() -> None:
    path = f"/v3/{OTHER_PROJECT}/instances"

    answer = await fetch(make_simulator(), path, sign(path=path, project_id=None))

    assert (answer.status_code, answer.json()["error_code"]) == (403, "DBS.200010")


@pytest.mark.parametrize("echo", [True, False])
async def test_refused_signature_echoes_the_request_if_the_knob_says_so(echo: bool) -> None:
    simulator = make_simulator(echo_refused_signature=echo)
    headers = sign(secret="SKwrong", security_token="a-security-token")

    message = (await fetch(simulator, headers=headers)).json()["error_msg"]

    assert ("x-security-token:a-security-token" in message) == echo
    assert (headers["Authorization"] in message) == echo


async def test_five_failed_signatures_lock_the_key_for_five_minutes() -> None:
    clock = Clock()
    simulator = make_simulator(clock=clock)

    for _ in range(5):
        await fetch(simulator, headers=sign(secret="SKwrong"))
    locked = await fetch(simulator, headers=sign())
    clock.now += 300

    assert "locked" in locked.json()["error_msg"]
    assert (await fetch(simulator, headers=sign())).status_code == 200


async def test_projects_are_listed_by_name_to_a_key_and_to_a_token() -> None:
    simulator = make_simulator()
    signed = await fetch(simulator, "/v3/projects", sign(path="/v3/projects", project_id=None))
    named = await fetch(simulator, "/v3/projects", name="cn-north-4")
    elsewhere = await fetch(simulator, "/v3/projects", name="eu-west-101")
    refused = await fetch(simulator, "/v3/projects", {"X-Auth-Token": "guessed"})

    assert [project["id"] for project in signed.json()["projects"]] == [PROJECT]
    assert [project["name"] for project in named.json()["projects"]] == ["cn-north-4"]
    assert elsewhere.json()["projects"] == []
    assert refused.json()["error"]["code"] == 401


async def test_identity_api_names_its_versions() -> None:
    simulator = make_simulator()

    assert (await fetch(simulator, "/v3")).json()["version"]["id"] == "v3.6"
    assert (await fetch(simulator, "/")).status_code == 300


# The metadata service


async def ask_for_key(simulator: Simulator) -> dict[str, str]:
    async with connect(simulator) as client:
        token = await client.put(
            "/meta-data/latest/api/token", headers={"X-Metadata-Token-Ttl-Seconds": "21600"}
        )
        answer = await client.get(
            "/openstack/latest/securitykey", headers={"X-Metadata-Token": token.text}
        )
    credential: dict[str, str] = answer.json()["credential"]
    return credential


def sign_with(key: dict[str, str], **more: Any) -> dict[str, str]:
    return sign(access=key["access"], secret=key["secret"], **more)


async def test_agency_key_with_its_security_token_opens_the_project() -> None:
    simulator = make_simulator()
    key = await ask_for_key(simulator)

    right = await fetch(simulator, headers=sign_with(key, security_token=key["securitytoken"]))
    wrong = await fetch(simulator, headers=sign_with(key, security_token="another"))
    without = await fetch(simulator, headers=sign_with(key))

    assert [right.status_code, wrong.status_code, without.status_code] == [200, 401, 401]


async def test_agency_key_changes_ten_minutes_before_its_end() -> None:
    start = NOON - 600  # a multiple of 50 minutes: a key's first second
    clock = Clock(start)
    simulator = make_simulator(clock=clock, max_clock_skew_seconds=math.inf)
    first = await ask_for_key(simulator)
    accepted = []

    clock.now = start + 2_999
    assert await ask_for_key(simulator) == first
    clock.now = start + 3_000
    assert (await ask_for_key(simulator))["access"] != first["access"]
    for age in (3_000, 3_599, 3_600):
        clock.now = start + age
        headers = sign_with(first, security_token=first["securitytoken"])
        accepted.append((await fetch(simulator, headers=headers)).status_code)

    assert first["expires_at"] == "2023-07-28T12:50:00.000000Z"
    assert accepted == [200, 200, 401]


async def test_agency_key_needs_the_metadata_token_where_there_is_one() -> None:
    key = "/openstack/latest/securitykey"

    assert (await fetch(make_simulator(), key)).status_code == 401
    for status in (404, 405, 503):
        simulator = make_simulator(metadata_token_status=status)
        async with connect(simulator) as client:
            assert (await client.put("/meta-data/latest/api/token")).status_code == status
        assert (await fetch(simulator, key)).status_code == 200


async def test_metadata_token_needs_a_lifetime() -> None:
    async with connect(make_simulator()) as client:
        answer = await client.put("/meta-data/latest/api/token")

    assert answer.status_code == 400


async def test_server_without_an_agency_has_no_key() -> None:
    simulator = make_simulator(metadata_token_status=404)
    for project in simulator.projects.values():
        project.agency = False

    answer = await fetch(simulator, "/openstack/latest/securitykey")

    assert answer.status_code == 401
    assert "Please configure Cloud Service Agency first" in answer.text


# Instances


def make_fleet(**knobs: Any) -> Simulator:
    simulator = make_simulator(**knobs)
    instances = simulator.projects[PROJECT].instances
    for name, tags, hidden in (
        ("orders-eu", {"env": "prod", "team": "a"}, False),
        ("test-orders", {"env": "test"}, False),
        ("secret", {}, True),
    ):
        id_ = f"{len(instances):032x}in07"
        instances[id_] = SimulatedInstance(id_, name, tags=tags, hidden_from_discovery=hidden)
    return simulator


@pytest.mark.parametrize("version", ["v3", "v3.1"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["orders", "orders-eu", "test-orders"]),
        ({"limit": "2"}, ["orders", "orders-eu"]),
        ({"offset": "2", "limit": "2"}, ["test-orders"]),
        ({"name": "orders"}, ["orders"]),
        ({"name": "*orders-"}, ["orders-eu"]),
        ({"tags": "env=prod"}, ["orders", "orders-eu"]),
        ({"tags": "env=prod,team=a"}, ["orders-eu"]),
        ({"id": ORDERS}, ["orders"]),
    ],
)
async def test_instances_are_listed_by_page_name_and_tags(
    version: str, query: dict[str, str], expected: list[str]
) -> None:
    answer = await fetch(make_fleet(), f"/{version}/{PROJECT}/instances", TOKEN, **query)

    assert [instance["name"] for instance in answer.json()["instances"]] == expected


async def test_instance_has_the_documented_fields() -> None:
    answer = await fetch(make_simulator(), f"/v3.1/{PROJECT}/instances")

    instance = answer.json()["instances"][0]
    expected = {
        "id": ORDERS,
        "name": "orders",
        "status": "normal",
        "type": "Cluster",
        "region": "cn-north-4",
        "enterprise_project_id": "0",
        "tags": [{"key": "env", "value": "prod"}],
        "backup_strategy": {"start_time": "16:00-17:00", "keep_days": "7"},
    }
    assert {name: instance[name] for name in expected} == expected
    assert answer.json()["total_count"] == 1


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "101"}, {"tags": "prod"}])
async def test_instance_listing_checks_its_parameters(query: dict[str, str]) -> None:
    simulator = make_fleet(parameter_error_form="gateway")

    answer = await fetch(simulator, f"/v3/{PROJECT}/instances", TOKEN, **query)

    assert (answer.status_code, answer.json()["error_code"]) == (400, "APIGW.0201")


async def test_newer_instance_api_may_not_exist() -> None:
    simulator = make_simulator(v31_available=False)

    newer = await fetch(simulator, f"/v3.1/{PROJECT}/instances")
    older = await fetch(simulator, f"/v3/{PROJECT}/instances")

    assert (newer.status_code, newer.json()["error_code"]) == (404, "APIGW.0101")
    assert older.status_code == 200


# Limits and faults


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [("none", None), ("seconds", "300"), ("date", "Fri, 28 Jul 2023 12:05:00 GMT")],
)
async def test_requests_over_the_limit_are_throttled_until_the_window_has_passed(
    retry_after: Any, expected: str | None
) -> None:
    clock = Clock()
    limit = RateLimit(2, 300.0, retry_after)
    simulator = make_simulator(clock=clock, rate_limit=limit)

    statuses = [(await fetch(simulator)).status_code for _ in range(2)]
    throttled = await fetch(simulator)
    clock.now += 300
    statuses.append((await fetch(simulator)).status_code)

    assert statuses == [200, 200, 200]
    assert (throttled.status_code, throttled.json()["error_code"]) == (429, "APIGW.0308")
    assert "policy user over ratelimit,limit:2,time:5 minute" in throttled.json()["error_msg"]
    assert throttled.headers.get("retry-after") == expected


async def test_latency_and_delays_are_awaited_by_the_given_sleep() -> None:
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)

    project = SimulatedProject(PROJECT, tokens={"a-static-token"})
    knobs = Knobs(latency_seconds=0.25)
    simulator = Simulator([project], clock=Clock(), knobs=knobs, sleep=sleep)
    slow = Fault(body=b"0123456789", delay_seconds=3.0, chunk_bytes=4, chunk_pause_seconds=1.0)
    simulator.add_fault(slow)

    answer = await fetch(simulator)

    assert answer.content == b"0123456789"
    assert naps == [0.25, 3.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("fault", "status", "expected"),
    [
        (Fault(status=503, form="gateway"), 503, {"error_code": "APIGW.0613"}),
        (Fault(status=500), 500, {"error_code": "DBS.200412"}),
        (Fault(status=409, code="DBS.1", message="busy"), 409, {"error_msg": "busy"}),
        (Fault(status=403, form="iam", code="IAM.0003"), 403, {"error_code": "IAM.0003"}),
    ],
)
async def test_error_comes_in_the_asked_form(
    fault: Fault, status: int, expected: dict[str, str]
) -> None:
    simulator = make_simulator()
    simulator.add_fault(fault)

    answer = await fetch(simulator, headers={})

    assert answer.status_code == status
    assert expected.items() <= answer.json().items()
    assert (await fetch(simulator)).status_code == 200  # once only


async def test_error_page_of_a_proxy_is_html() -> None:
    simulator = make_simulator()
    simulator.add_fault(Fault(status=502, form="html", message="Bad Gateway"))

    answer = await fetch(simulator)

    assert answer.headers["content-type"].startswith("text/html")
    assert "<h1>Bad Gateway</h1>" in answer.text


async def test_redirect_carries_its_location_and_no_body() -> None:
    simulator = make_simulator()
    simulator.add_fault(
        Fault(status=302, form="empty", headers={"Location": "https://evil.example/"})
    )

    answer = await fetch(simulator)

    assert (answer.status_code, answer.content) == (302, b"")
    assert answer.headers["location"] == "https://evil.example/"


async def test_leaking_error_echoes_the_secrets_of_the_request() -> None:
    simulator = make_simulator()
    simulator.add_fault(Fault(status=401, form="gateway", message="failed: ", leak=True))

    assert "x-auth-token:a-static-token" in (await fetch(simulator)).json()["error_msg"]


async def test_faults_wait_for_their_operation_and_instance() -> None:
    simulator = make_fleet()
    simulator.add_fault(Fault(status=500), "list_instances")
    simulator.add_fault(Fault(status=503), "list_backups", ORDERS, times=2)

    async def status(path: str) -> int:
        return (await fetch(simulator, path)).status_code

    other = BACKUPS.replace(ORDERS, f"{1:032x}in07")
    listed = [await status(path) for path in (other, BACKUPS, BACKUPS, BACKUPS)]

    assert listed == [200, 503, 503, 200]
    assert await status(f"/v3/{PROJECT}/instances") == 500


async def test_fault_without_an_end_stays_until_cleared() -> None:
    simulator = make_simulator()
    simulator.add_fault(Fault(status=503), times=None)

    statuses = [(await fetch(simulator)).status_code for _ in range(3)]
    simulator.clear_faults()

    assert statuses == [503] * 3
    assert (await fetch(simulator)).status_code == 200


async def test_fault_script_sees_the_request_before_it_decides() -> None:
    simulator = make_simulator()
    simulator.fault_script = lambda request: (
        Fault(status=503) if request.query.get("offset") == "50" else None
    )

    statuses = [(await fetch(simulator, offset=offset)).status_code for offset in (0, 50, 100)]

    assert statuses == [200, 503, 200]


@pytest.mark.parametrize(
    ("spoiler", "expected"),
    [
        ("unreadable_time", '"end_time": "yesterday"'),
        ("nan_size", '"size": NaN'),
        ("infinite_size", '"size": 1e999'),
        ("negative_size", '"size": -1.0'),
        ("null_id", '"id": null'),
        ("list_row", '"backups": [["a", "list"], {'),
        ("null_row", '"backups": [null, {'),
    ],
)
async def test_first_row_is_spoiled_as_named(spoiler: str, expected: str) -> None:
    rows = (make_backup("a", "10:00", "10:04"), make_backup("b", "10:05", "10:09"))
    simulator = make_simulator(*rows)
    simulator.add_fault(Fault(rows=spoiler))

    assert expected in (await fetch(simulator)).text


async def test_rows_can_repeat_with_other_values() -> None:
    simulator = make_simulator(make_backup("a", "10:00", "10:04"))
    simulator.add_fault(Fault(rows="repeated_changed"))

    first, again = (await fetch(simulator)).json()["backups"]

    assert first["id"] == again["id"]
    assert (first["size"], again["size"]) == (0.109375, 1.0)


@pytest.mark.parametrize("name", sorted(ROW_SPOILERS))
def test_spoilers_leave_an_empty_listing_a_listing(name: str) -> None:
    assert isinstance(ROW_SPOILERS[name]([]), list)


async def test_whole_answer_and_its_headers_can_be_altered() -> None:
    simulator = make_simulator()
    simulator.add_fault(
        Fault(
            alter=lambda document: [document],
            headers={"X-Cache": "hit"},
            content_type="application/xml",
        )
    )

    answer = await fetch(simulator)

    assert answer.json() == [{"backups": [], "total_count": 0}]
    assert answer.headers["x-cache"] == "hit"
    assert answer.headers["content-type"] == "application/xml"


async def test_huge_deep_and_compressed_bodies() -> None:
    simulator = make_simulator()
    for fault in (
        Fault(filler_bytes=200_000),
        Fault(nesting=3),
        Fault(gzip_bomb_bytes=3_000_000),
    ):
        simulator.add_fault(fault)

    huge, deep = await fetch(simulator), await fetch(simulator)
    async with connect(simulator) as client, client.stream("GET", BACKUPS) as bomb:
        packed = b"".join([chunk async for chunk in bomb.aiter_raw()])

    assert len(huge.json()["filler"]) == 200_000
    assert deep.json() == [[[]]]
    assert len(packed) < 10_000
    assert len(json.loads(gzip.decompress(packed))["filler"]) == 3_000_000


async def test_cut_answer_ends_in_a_dropped_connection() -> None:
    simulator = make_simulator()
    simulator.add_fault(Fault(cut_after_bytes=5))

    with pytest.raises(DroppedConnectionError, match="cut off after 5 of"):
        await fetch(simulator)


async def test_dropped_connection_reaches_a_client_over_the_network() -> None:
    simulator = make_simulator()
    simulator.add_fault(Fault(cut_after_bytes=5))

    async with serve(simulator) as address, httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{address}{BACKUPS}", headers=TOKEN)


async def test_held_answer_comes_when_it_is_let_go() -> None:
    simulator = make_simulator()
    gate = asyncio.Event()
    simulator.add_fault(Fault(hold=gate))
    pending = asyncio.create_task(fetch(simulator))
    while not simulator.requests:
        await asyncio.sleep(0)

    assert not pending.done()
    gate.set()
    assert (await pending).status_code == 200


async def test_hanging_request_never_answers_a_client_that_waits() -> None:
    simulator = make_simulator()
    simulator.add_fault(Fault(hang=True))
    pending = asyncio.create_task(fetch(simulator))
    for _ in range(50):
        await asyncio.sleep(0)

    assert not pending.done()
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending


async def test_hanging_request_ends_when_the_client_leaves() -> None:
    simulator = make_simulator()
    simulator.add_fault(Fault(hang=True))

    async with serve(simulator) as address, httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(f"{address}{BACKUPS}", headers=TOKEN, timeout=0.05)


def test_misspelt_faults_and_knobs_are_refused() -> None:
    with pytest.raises(ValueError, match="form 'gatway': one of gateway"):
        Fault(form="gatway")  # type: ignore[arg-type]  # the mistake to catch
    with pytest.raises(ValueError, match="rows 'nan': one of"):
        Fault(rows="nan")
    with pytest.raises(ValueError, match="knob order: 'up' is none of"):
        Knobs(order="up")  # type: ignore[arg-type]  # the mistake to catch


async def test_requests_are_recorded_with_what_became_of_them() -> None:
    simulator = make_simulator()
    await log_in(simulator, "wrong")
    await fetch(simulator, limit=20)

    seen = [(r.operation, r.project_id, r.instance_id, r.status) for r in simulator.requests]

    assert seen == [("login", PROJECT, "", 401), ("list_backups", PROJECT, ORDERS, 200)]
    assert [r.query for r in simulator.requests_of("list_backups", ORDERS)] == [{"limit": "20"}]
    assert simulator.request_counts == {"login": 1, "list_backups": 1}


# The demo, and the process of its own


def latest_end(simulator: Simulator, instance_id: str, now: float) -> float:
    found = simulator.backups_between(DEMO_PROJECT_ID, instance_id, 0, now, now)
    return max(backup.end for backup in found if backup.end is not None and backup.end <= now)


def count(simulator: Simulator, instance_id: str, hours: float) -> int:
    found = simulator.backups_between(DEMO_PROJECT_ID, instance_id, NOON - hours * HOUR, NOON)
    return len(found)


def test_demo_shows_a_healthy_a_busy_a_stale_and_an_empty_instance() -> None:
    simulator = build_demo(Clock())

    assert 287 <= count(simulator, DEMO_HEALTHY.id, 24) <= 289
    assert 2015 <= count(simulator, DEMO_BUSY.id, 7 * 24) <= 2017
    assert count(simulator, DEMO_BUSY.id, 8 * 24) > 2290
    assert NOON - latest_end(simulator, DEMO_HEALTHY.id, NOON) < 10 * 60
    assert 0 <= NOON - latest_end(simulator, DEMO_STALE.id, NOON) - 2.9 * HOUR < 0.25 * HOUR
    assert count(simulator, DEMO_EMPTY.id, 10_000) == 0
    assert {len(i) for i in simulator.projects[DEMO_PROJECT_ID].instances} == {36}


def test_demo_has_a_hole_of_four_hours_and_backups_on_both_sides() -> None:
    simulator = build_demo(Clock())

    begins = [
        backup.begin
        for backup in simulator.backups_between(DEMO_PROJECT_ID, DEMO_HOLE.id, NOON - DAY, NOON)
    ]
    gaps = sorted(after - before for before, after in itertools.pairwise(begins))

    assert 4 * HOUR <= gaps[-1] < 4.2 * HOUR
    assert gaps[-2] < 6 * 60


def test_demo_goes_on_with_the_clock_and_repeats_itself_exactly() -> None:
    clock = Clock()
    simulator = build_demo(clock)
    before = latest_end(simulator, DEMO_HEALTHY.id, clock.now)
    clock.now += HOUR

    assert clock.now - latest_end(simulator, DEMO_HEALTHY.id, clock.now) < 10 * 60
    assert latest_end(build_demo(Clock()), DEMO_HEALTHY.id, NOON) == before


def test_demo_sizes_follow_the_day() -> None:
    simulator = build_demo(Clock())

    def megabytes(begin: str, end: str) -> float:
        window = (at(begin), at(end))
        found = simulator.backups_between(DEMO_PROJECT_ID, DEMO_BUSY.id, *window)
        return sum(backup.size or 0.0 for backup in found) / 1024

    afternoon = megabytes("05:00", "09:00")  # 13:00 to 17:00 in the cloud's zone
    evening = megabytes("07:59", "11:59") - megabytes("07:59", "09:00")
    assert afternoon > evening > 0


async def test_demo_has_an_instance_that_always_fails() -> None:
    simulator = build_demo(Clock())
    simulator.projects[DEMO_PROJECT_ID].tokens.add("a-static-token")
    path = f"/v3/{DEMO_PROJECT_ID}/instances/{DEMO_FAILING.id}/incremental-backups"

    answers = [await fetch(simulator, path) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [500, 500]
    assert answers[0].json()["error_code"] == "DBS.200412"
    assert (await fetch(simulator, path, {})).status_code == 401


def test_cloud_of_any_size_has_about_the_backups_asked_for() -> None:
    simulator = build_cloud(3, 500, clock=Clock())

    instances = simulator.projects[DEMO_PROJECT_ID].instances
    assert len(instances) == 3
    assert {len(id_) for id_ in instances} == {36}
    assert all(499 <= count(simulator, id_, 100) <= 501 for id_ in instances)


def test_cloud_makes_backups_as_often_as_asked() -> None:
    clock = Clock()
    simulator = build_cloud(1, 500, every_seconds=2, clock=clock)
    instance_id = next(iter(simulator.projects[DEMO_PROJECT_ID].instances))
    clock.now += 3 * HOUR

    found = simulator.backups_between(DEMO_PROJECT_ID, instance_id, clock.now - 60, clock.now)

    ends = [backup.end for backup in found if backup.end is not None and backup.end <= clock.now]
    assert 29 <= len(ends) <= 31
    assert {later - earlier for earlier, later in itertools.pairwise(ends)} <= {1, 2, 3}


def test_command_line_builds_the_cloud_it_describes() -> None:
    small = build_simulator(parse_arguments(["--instances", "2", "--latency", "0.05"]))
    demo = build_simulator(parse_arguments(["--demo", "--rate-limit", "9"]))

    assert len(small.projects[DEMO_PROJECT_ID].instances) == 2
    assert small.knobs.latency_seconds == 0.05
    assert DEMO_BUSY.id in demo.projects[DEMO_PROJECT_ID].instances
    assert demo.knobs.rate_limit == RateLimit(9, 1.0)


@pytest.fixture
async def process() -> AsyncIterator[str]:
    """The address of a simulator in a process of its own."""
    arguments = ["--instances", "2", "--backups-per-instance", "20", "--control"]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "exporter.simulator", *arguments), stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    yield (await program.stdout.readline()).decode().strip()
    program.terminate()
    await program.wait()


async def test_process_prints_its_address_and_is_controlled_over_http(process: str) -> None:
    async with httpx.AsyncClient(base_url=process, trust_env=False) as client:
        discovered = await client.get("/v3")
        stopped = await client.post(
            "/_simulator/stop-backups", json={"instance_id": f"{1:032x}in07"}
        )
        seen = await client.get("/_simulator/requests")

    assert (discovered.status_code, stopped.status_code) == (200, 204)
    assert seen.json()["counts"] == {"discovery": 1}


# Control


def make_controlled() -> Simulator:
    simulator = build_cloud(1, 20, clock=Clock(), control=True)
    simulator.projects[DEMO_PROJECT_ID].tokens.add("a-static-token")
    return simulator


CONTROLLED = f"{0:032x}in07"
CONTROLLED_BACKUPS = f"/v3/{DEMO_PROJECT_ID}/instances/{CONTROLLED}/incremental-backups"


async def command(simulator: Simulator, name: str, body: object = None) -> httpx.Response:
    async with connect(simulator) as client:
        return await client.post(f"/_simulator/{name}", json=body)


async def test_control_changes_knobs_and_names_what_is_wrong_with_them() -> None:
    simulator = make_controlled()
    limit = {"limit": 1, "seconds": 60}

    await command(simulator, "knobs", {"rate_limit": limit, "page_limit_allowed": [5]})
    refused = await command(simulator, "knobs", {"order": "up"})
    unknown = await command(simulator, "knobs", {"colour": "red"})

    assert simulator.knobs.rate_limit == RateLimit(1, 60)
    assert simulator.knobs.page_limit_allowed == (5,)
    assert (refused.status_code, unknown.status_code) == (400, 400)
    assert "knob order" in refused.json()["problem"]


async def test_control_scripts_faults_and_clears_them() -> None:
    simulator = make_controlled()
    fault = {"status": 503, "form": "gateway"}

    await command(simulator, "faults", {"fault": fault, "operation": "list_backups", "times": None})
    spoiled = await fetch(simulator, CONTROLLED_BACKUPS)
    await command(simulator, "faults", [])
    restored = await fetch(simulator, CONTROLLED_BACKUPS)

    assert (spoiled.status_code, restored.status_code) == (503, 200)
    for wrong in ({}, {"fault": {"form": "x"}}, {"fault": {}, "operation": "x"}, [1], {"fault": 1}):
        assert (await command(simulator, "faults", wrong)).status_code == 400


async def test_control_stops_and_resumes_backups() -> None:
    simulator = make_controlled()
    schedule = simulator.instance(CONTROLLED).schedule
    assert schedule is not None

    await command(simulator, "stop-backups", {"instance_id": CONTROLLED})
    assert schedule.pauses == [(NOON, math.inf)]
    await command(simulator, "resume-backups", {"instance_id": CONTROLLED})
    assert schedule.pauses == [(NOON, NOON)]
    assert (await command(simulator, "stop-backups", {"instance_id": "x"})).status_code == 400


async def test_control_revokes_tokens() -> None:
    simulator = make_controlled()
    await command(simulator, "revoke-tokens")

    assert (await fetch(simulator, CONTROLLED_BACKUPS)).status_code == 401


async def test_control_is_not_there_unless_it_is_enabled() -> None:
    assert (await command(make_simulator(), "knobs", {})).status_code == 404


def test_instance_without_a_schedule_cannot_be_stopped() -> None:
    with pytest.raises(KeyError, match="has no schedule"):
        make_simulator().stop_backups(ORDERS)


# A stranger


def test_simulator_imports_nothing_of_the_exporter() -> None:
    allowed = {"exporter.simulator", "starlette", "uvicorn"} | sys.stdlib_module_names
    package = Path(exporter.simulator.__file__).parent
    imported = {
        name
        for path in package.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    foreign = {
        name
        for name in imported
        if not name.startswith("exporter.simulator") and name.split(".")[0] not in allowed
    }
    assert foreign == set()
