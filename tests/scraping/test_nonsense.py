"""Answers that make no sense, and listings that move while they are read."""

from typing import Any

import pytest

from exporter.simulator import ROW_SPOILERS, Fault, RecordedRequest
from tests.support.clouds import (
    assert_failed,
    backup_requests,
    make_one,
)
from tests.support.factories import (
    fill,
    make_backup,
    make_instance,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.faults import StreamingTransport
from tests.support.virtual_time import Clock

MIB = 1024 * 1024

# Data that makes no sense ----------------------------------------------------------------------

HARMLESS_SPOILERS = {"null_size", "missing_size", "repeated", "repeated_changed"}


@pytest.mark.parametrize("spoiler", sorted(ROW_SPOILERS.keys() - HARMLESS_SPOILERS))
async def test_a_row_that_makes_no_sense_fails_the_query(clock: Clock, spoiler: str) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(rows=spoiler))
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
        assert_failed(published, "bad_response")
        assert published.errors() == {"bad_response": 1}
        assert (await samples(exporter)).of("incremental_backups") == 2


@pytest.mark.parametrize("spoiler", ["null_size", "missing_size"])
async def test_a_size_that_is_not_there_is_zero(clock: Clock, spoiler: str) -> None:
    simulator = make_one(clock=clock, order="end_desc")
    simulator.add_fault(Fault(rows=spoiler))
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups") == 2
    assert published.of("incremental_backups_size_kilobytes") == 512.0
    assert published.of("incremental_backup_latest_size_bytes") == 0


async def test_rows_that_come_twice_count_once(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(rows="repeated"), times=None)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups") == 2
    assert published.of("incremental_backups_size_kilobytes") == 1536.0


async def test_a_row_that_comes_with_different_values_is_asked_for_again(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    async with running_exporter(simulator) as exporter:
        await samples(exporter)
        simulator.requests.clear()
        simulator.add_fault(Fault(rows="repeated_changed"))
        published = await samples(exporter)
    assert published.of("incremental_backups_size_kilobytes") == 1536.0
    assert published.of("incremental_backups_listing_complete") == 1
    assert len(backup_requests(simulator)) == 2


async def test_a_row_that_keeps_coming_with_different_values_fails_the_query(
    clock: Clock,
) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(rows="repeated_changed"), times=None)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")


async def test_a_row_that_runs_and_has_ended_on_one_page_fails_the_query(clock: Clock) -> None:
    simulator = make_simulator(
        make_instance(make_backup(age_hours=0.01, running=True)), clock=clock
    )
    simulator.add_fault(Fault(rows="repeated_changed"), times=None)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(body=b""),
        Fault(body=b"\x00\xff\xfe{]"),
        Fault(body=b'{"backups": [], "total_count": 0'),
        Fault(body=b'{"backups": [], "total_count": 0} trailing'),
        Fault(body=b"[]"),
        Fault(body=b"null"),
        Fault(body=b"7"),
        Fault(body=b"{}"),
        Fault(body=b'{"backups": {}, "total_count": 0}'),
        Fault(body=b'{"backups": null, "total_count": 3}'),
        Fault(body=b'{"backups": "none", "total_count": 0}'),
        Fault(body=b'{"backups": [], "total_count": -1}'),
        Fault(body=b'{"backups": [], "total_count": "0"}'),
        Fault(body=b'{"backups": [], "total_count": 1e400}'),
        Fault(body=b'{"backups": [], "total_count": 0.5}'),
        Fault(body=b'{"backups": [], "total_count": true}'),
        Fault(body=b'{"backups": [{"id": "\xff"}], "total_count": 1}'),
        Fault(nesting=100),
        Fault(nesting=200_000),
        Fault(body=b'{"backups": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        Fault(body=b'{"deep": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}"),
        Fault(status=200, form="html"),
        Fault(body=b"<html>sign in</html>", content_type="text/html"),
        Fault(headers={"Content-Encoding": "gzip"}),
        Fault(headers={"Content-Encoding": "br"}),
        Fault(body=b"\x1f\x8b\x08\x00not", headers={"Content-Encoding": "gzip"}),
    ],
    ids=lambda fault: repr(fault.body[:40] if fault.body is not None else fault)[:60],
)
async def test_an_answer_that_is_no_listing_fails_the_query(clock: Clock, fault: Fault) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(fault, times=None)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")
    assert len(backup_requests(simulator)) == 1


async def test_a_body_over_the_bound_is_not_read_to_its_end(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(filler_bytes=14 * MIB), times=None)
    transport = StreamingTransport(simulator)
    async with running_exporter(simulator, transport=transport) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")
    (exchange,) = transport.exchanges
    assert 10 * MIB <= exchange.bytes_read <= 10 * MIB + 128 * 1024


async def test_a_body_just_under_the_bound_is_read(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(
        Fault(alter=lambda document: {**document, "filler": "x" * (10 * MIB - 2_000)}), times=None
    )
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups") == 2


async def test_a_gzip_bomb_is_noticed_while_it_is_unpacked(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    bomb = Fault(gzip_bomb_bytes=150 * MIB, chunk_bytes=4_096)
    size = len(bomb.build_replacement("", "").body)
    simulator.add_fault(bomb, times=None)
    transport = StreamingTransport(simulator)
    async with running_exporter(simulator, transport=transport) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")
    (exchange,) = transport.exchanges
    assert exchange.bytes_read < size / 10


async def test_redirects_are_not_followed(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(status=307, headers={"Location": "https://elsewhere.example/"}))
    transport = StreamingTransport(simulator)
    async with running_exporter(simulator, transport=transport) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")
    assert [exchange.request.url.host for exchange in transport.exchanges] == ["gaussdb.example"]


# Listings that move, and counts that lie -------------------------------------------------------


@pytest.mark.parametrize("total_count", ["missing", "null"])
async def test_without_a_total_count_the_numbers_are_right_but_not_called_complete(
    clock: Clock, total_count: str
) -> None:
    simulator = make_simulator(
        fill(make_instance(), count=120), clock=clock, total_count=total_count
    )
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups") == 120
    assert published.of("incremental_backups_listing_complete") == 0


@pytest.mark.parametrize("total_count", ["negative", "string"])
async def test_a_total_count_that_is_no_count_fails_the_query(
    clock: Clock, total_count: str
) -> None:
    simulator = make_simulator(
        fill(make_instance(), count=120), clock=clock, total_count=total_count
    )
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")


@pytest.mark.parametrize(
    ("rows", "lie"),
    [
        (rows, lie)
        for rows in (3, 49, 50, 51, 99, 100, 120)
        for lie in (-60, -1, 1, 60, 10_000)
        if rows + lie >= 0
    ],
)
async def test_a_total_count_that_lies_is_told_and_every_row_is_counted(
    clock: Clock, rows: int, lie: int
) -> None:
    simulator = make_simulator(
        fill(make_instance(), count=rows), clock=clock, total_count="lie", total_count_lie=lie
    )
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups") == rows
    assert published.of("incremental_backups_listing_complete") == 0
    assert len(backup_requests(simulator)) <= 24


async def test_a_listing_that_shifts_while_it_is_read_is_read_again(clock: Clock) -> None:
    """A row goes and a late one comes after the first page: the count stays, the pages shift."""
    instance = fill(make_instance(), count=150)
    simulator = make_simulator(instance, clock=clock, order="end_desc")

    def shift(request: RecordedRequest) -> Fault | None:
        if len(backup_requests(simulator)) == 3:
            instance.backups.append(make_backup(age_hours=3.9, id="f" * 32 + "br07"))
            oldest = min(instance.backups, key=lambda backup: backup.begin)
            instance.backups.remove(oldest)
        return None

    simulator.fault_script = shift
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert len(backup_requests(simulator)) == 7  # what is new, and twice three pages
    assert published.of("incremental_backups") == 150
    assert published.of("incremental_backups_listing_complete") == 1


async def test_an_api_that_ignores_the_offset_ends_and_is_told(clock: Clock) -> None:
    simulator = make_simulator(fill(make_instance(), count=120), clock=clock)
    first_page: list[Any] = []

    def remember(document: Any) -> Any:
        first_page[:] = first_page or document["backups"]
        return {**document, "backups": first_page}

    simulator.add_fault(Fault(alter=remember), times=None)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups_listing_complete") in (0, None)
    assert len(backup_requests(simulator)) <= 10


async def test_an_incomplete_listing_is_tried_again_and_then_called_complete(
    clock: Clock,
) -> None:
    simulator = make_simulator(
        fill(make_instance(), count=60), clock=clock, total_count="lie", total_count_lie=1
    )
    async with running_exporter(simulator) as exporter:
        assert (await samples(exporter)).of("incremental_backups_listing_complete") == 0
        simulator.knobs = make_simulator(clock=clock).knobs
        await clock.advance(61)
        published = await samples(exporter)
    assert published.of("incremental_backups_listing_complete") == 1


async def test_sizes_that_add_up_to_no_finite_number_fail_the_query(clock: Clock) -> None:
    simulator = make_simulator(
        make_instance(*(make_backup(age_hours=hours, size=1e308) for hours in (1.0, 2.0, 3.0))),
        clock=clock,
    )
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")
