"""Slow clients, many clients, and clients that ask for too much."""

import asyncio
import contextlib
import errno
import os
import resource
import socket

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from exporter.web.client_limits import ClientLimits
from tests.support.front import (
    Held,
    connections_of,
    connects,
    is_closed,
    read_response,
    request,
    respond,
    serving,
)

# Whoever waits is overdue at once; a whole request in one piece never waits.
AT_ONCE = 0.0
FULL = "all connections are being answered"


async def test_hundreds_of_idle_and_half_said_connections_do_not_stop_a_scrape() -> None:
    async with serving(limits=ClientLimits(connections=100)) as front:
        for number in range(300):
            _, writer = await front.connect()
            writer.write([b"", b"GET /metrics HT", b"GET / HTTP/1.1\r\nHost: x\r\n"][number % 3])
        status, _, body = await front.get()
    assert (status, body) == (200, b"hello")


async def test_at_the_ceiling_the_connection_that_waits_longest_makes_room() -> None:
    app = Held()
    async with serving(app, limits=ClientLimits(connections=3)) as front:
        busy = asyncio.create_task(front.get(path="/held"))
        await app.arrived.wait()
        oldest = await front.connect()
        await request(*oldest)
        newer = await front.connect()
        await request(*newer)
        newest = await front.connect()
        await request(*newest)
        assert await is_closed(oldest[0])
        assert (await request(*newer))[0] == 200
        app.let_go.set()
        assert (await busy)[2] == b"done"


async def test_over_the_ceiling_the_next_ones_wait_while_all_others_are_answered() -> None:
    """They were refused, though a place is free as soon as one of those has its answer."""
    app = Held()
    with capture_logs() as logs:
        async with serving(app, limits=ClientLimits(connections=1)) as front:
            busy = asyncio.create_task(front.get(path="/held"))
            await app.arrived.wait()
            late = [asyncio.create_task(front.get()) for _ in range(3)]
            while FULL not in [entry["event"] for entry in logs]:
                await asyncio.sleep(0)
            app.let_go.set()
            assert (await busy)[2] == b"done"
            assert [status for status, _, _ in await asyncio.gather(*late)] == [200] * 3
    assert [entry["event"] for entry in logs].count(FULL) == 1


async def test_a_server_that_stops_lets_go_of_who_waits_for_a_place() -> None:
    app = Held()
    with capture_logs() as logs:
        async with serving(app, limits=ClientLimits(connections=1)) as front:
            busy = asyncio.create_task(front.get(path="/held"))
            await app.arrived.wait()
            reader, _ = await front.connect()
            while FULL not in [entry["event"] for entry in logs]:
                await asyncio.sleep(0)
            app.let_go.set()
            await busy
    assert await is_closed(reader)


async def test_where_all_are_busy_an_answer_that_nobody_reads_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exporter.web.acceptor._STALLED_SECONDS", 0.0)
    async with serving(large, limits=ClientLimits(connections=1)) as front:
        reader, writer = await front.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        while True:  # until the server has noticed that nobody reads
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                assert (await front.get())[0] == 200
                break
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await is_closed(reader)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
    ],
)
async def test_a_request_that_does_not_end_in_time_is_closed(said: bytes) -> None:
    async with serving(Held(), limits=ClientLimits(request_seconds=AT_ONCE)) as front:
        reader, writer = await front.connect()
        writer.write(said)
        assert await is_closed(reader)


async def test_a_second_request_that_does_not_end_in_time_is_closed_too() -> None:
    async with serving(limits=ClientLimits(request_seconds=AT_ONCE)) as front:
        reader, writer = await front.connect()
        # In one piece, or the connection might be overdue before it begins.
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT")
        await read_response(reader)
        writer.write(b"TP/1.1\r\n")
        assert await is_closed(reader)


async def test_a_body_that_trickles_after_the_answer_is_cut_off() -> None:
    async with serving(limits=ClientLimits(request_seconds=AT_ONCE)) as front:
        reader, writer = await front.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
        await read_response(reader)
        assert await is_closed(reader)


async def test_a_body_that_ends_after_the_answer_leaves_the_connection_open() -> None:
    async with serving() as front:
        reader, writer = await front.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf")
        assert (await read_response(reader))[0] == 200
        writer.write(b"half")
        assert (await request(reader, writer))[0] == 200


async def test_an_idle_connection_is_closed_when_its_time_is_over() -> None:
    async with serving(limits=ClientLimits(idle_seconds=AT_ONCE)) as front:
        reader, writer = await front.connect()
        assert (await request(reader, writer))[0] == 200
        assert await is_closed(reader)


async def test_an_idle_connection_is_kept_longer_than_prometheus_keeps_it() -> None:
    # IdleConnTimeout in prometheus/common config/http_config.go: 5 minutes
    assert ClientLimits().idle_seconds > 300
    async with serving() as front:
        connection = await front.connect()
        assert (await request(*connection))[0] == 200
        assert (await request(*connection))[0] == 200


async def test_a_request_that_runs_long_is_not_cut_off() -> None:
    app = Held()
    async with serving(
        app, limits=ClientLimits(request_seconds=AT_ONCE, idle_seconds=AT_ONCE)
    ) as front:
        other, _ = await front.connect()
        reader, writer = await front.connect()
        writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        await app.arrived.wait()
        assert await is_closed(other)  # those who are overdue have been looked for
        app.let_go.set()
        assert (await read_response(reader))[2] == b"done"


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"x" * 50_000_000)


async def test_a_large_response_arrives_whole_and_the_connection_stays_open() -> None:
    async with serving(large) as front:
        connection = await front.connect()
        assert len((await request(*connection))[2]) == 50_000_000
        assert len((await request(*connection))[2]) == 50_000_000


async def test_a_client_that_does_not_read_its_response_is_cut_off() -> None:
    async with serving(large, limits=ClientLimits(write_seconds=AT_ONCE)) as front:
        reader, writer = await front.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        other, _ = await front.connect()
        while connections_of(front.port) > 1:
            await asyncio.sleep(0.01)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await is_closed(reader)
        assert not other.at_eof()


async def test_requests_that_come_in_one_piece_are_answered_in_turn() -> None:
    async with serving() as front:
        reader, writer = await front.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        assert [(await read_response(reader))[0] for _ in range(3)] == [200] * 3


async def test_a_server_that_cannot_accept_any_more_ends_with_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(listening: socket.socket) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_accept", broken)
    async with serving() as front:
        with pytest.raises(RuntimeError, match="no more"):
            await front.task
    assert not connects("127.0.0.1", front.port)


async def test_a_client_that_leaves_before_it_is_accepted_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    sock_accept = loop.sock_accept
    failures = [ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort")]

    async def once_aborted(listening: socket.socket) -> object:
        if failures:
            raise failures.pop()
        return await sock_accept(listening)

    monkeypatch.setattr(loop, "sock_accept", once_aborted)
    with capture_logs() as logs:
        async with serving() as front:
            assert (await front.get())[0] == 200
    assert [entry["event"] for entry in logs] == ["listening"]


async def test_running_out_of_files_is_logged_and_a_scrape_still_answered() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with capture_logs() as logs:
        async with serving() as front:
            waiting = [await front.connect() for _ in range(20)]
            await front.get()
            # The client's own files are opened before, and connected after the files are out.
            client = socket.socket()
            client.setblocking(False)
            spare = os.dup(0)
            os.close(spare)
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
            try:
                with contextlib.suppress(BlockingIOError):
                    client.connect(("127.0.0.1", front.port))
                reader, writer = await asyncio.open_connection(sock=client)
                assert (await request(reader, writer))[0] == 200
                writer.close()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert await is_closed(waiting[0][0])
    assert [e["event"] for e in logs].count("connections cannot be accepted") == 1
