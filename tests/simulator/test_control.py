"""The simulator as a process of its own, changed from outside."""

import asyncio
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest

from exporter.simulator import (
    DEMO_BUSY,
    DEMO_PROJECT_ID,
    RateLimit,
    Simulator,
    build_cloud,
)
from exporter.simulator.__main__ import build_simulator, parse_arguments
from tests.support.simulated_cloud import NOON, ORDERS, Clock, connect, fetch, make_simulator


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


async def test_control_makes_full_backups_by_hand() -> None:
    simulator = make_controlled()
    since = len(simulator.full_backups(DEMO_PROJECT_ID, CONTROLLED, NOON))

    await command(simulator, "full-backups", {"instance_id": CONTROLLED, "status": "FAILED"})
    await command(simulator, "full-backups", {"instance_id": CONTROLLED})

    written = simulator.instance(CONTROLLED).full_backups
    assert [(full.status, full.backup_type, full.end) for full in written] == [
        ("FAILED", "manual", NOON),
        ("COMPLETED", "manual", NOON),
    ]
    assert len({full.id for full in simulator.full_backups(DEMO_PROJECT_ID, CONTROLLED, NOON)}) == (
        since + 2
    )
    odd = {"instance_id": CONTROLLED, "status": "ODD"}
    wrong: Sequence[object] = ({}, {"instance_id": "x"}, odd, [])
    for asked in wrong:
        assert (await command(simulator, "full-backups", asked)).status_code == 400


async def test_control_answers_in_the_words_of_a_fault() -> None:
    simulator = make_controlled()
    fault = {"body": '{"restore_times": []}'}
    await command(
        simulator, "faults", {"fault": fault, "operation": "show_restore_time", "times": None}
    )
    path = f"/v3/{DEMO_PROJECT_ID}/instances/{CONTROLLED}/restore-time"
    assert (await fetch(simulator, path)).json() == {"restore_times": []}


async def test_control_revokes_tokens() -> None:
    simulator = make_controlled()
    await command(simulator, "revoke-tokens")

    assert (await fetch(simulator, CONTROLLED_BACKUPS)).status_code == 401


async def test_control_is_not_there_unless_it_is_enabled() -> None:
    assert (await command(make_simulator(), "knobs", {})).status_code == 404


def test_instance_without_a_schedule_cannot_be_stopped() -> None:
    with pytest.raises(KeyError, match="has no schedule"):
        make_simulator().stop_backups(ORDERS)
