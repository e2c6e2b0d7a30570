"""Requests are throttled, delayed, spoiled and recorded, only as the simulator is told to."""

import asyncio
import gzip
import json
from typing import Any

import httpx
import pytest

from exporter.simulator import (
    ROW_SPOILERS,
    DroppedConnectionError,
    Fault,
    Knobs,
    RateLimit,
    SimulatedProject,
    Simulator,
    serve,
)
from tests.support.simulated_cloud import (
    BACKUPS,
    ORDERS,
    PROJECT,
    TOKEN,
    Clock,
    connect,
    fetch,
    log_in,
    make_backup,
    make_fleet,
    make_simulator,
)


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
