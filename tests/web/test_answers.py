"""What answers may hold together while their clients take their time."""

import asyncio

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from exporter.web.answers import PIECE_BYTES, AnswerBudget
from exporter.web.client_limits import ClientLimits
from tests.support.front import Front, read_response, request, respond, serving

MEGABYTE = 1024 * 1024


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Client:
    def __init__(self, *, reads: bool = False) -> None:
        self.gone = False
        self.reads = reads

    def abort(self) -> None:
        self.gone = True

    def is_gone(self) -> bool:
        return self.gone

    def has_room(self) -> bool:
        return self.reads


def test_answers_begin_while_the_others_hold_less_than_the_limit() -> None:
    budget, client = AnswerBudget(10, Time()), Client()
    first = budget.begin(4, client)
    assert first is not None
    assert budget.begin(400, client) is not None  # one may be larger than all of it
    assert budget.begin(1, client) is None
    assert not client.gone


def test_an_answer_that_ends_makes_room_once() -> None:
    budget, client = AnswerBudget(10, Time()), Client()
    first = budget.begin(10, client)
    assert first is not None
    budget.end(first)
    budget.end(first)
    assert budget.begin(10, client) is not None
    assert budget.begin(1, client) is None


def test_the_answer_that_has_stood_still_for_longest_makes_room() -> None:
    time = Time()
    budget, stalled, reading = AnswerBudget(10, time), Client(), Client()
    first, second = budget.begin(5, stalled), budget.begin(5, reading)
    assert first is not None
    assert second is not None
    time.now += 10.0
    budget.move(second)
    assert budget.begin(5, Client()) is not None
    assert (stalled.gone, reading.gone) == (True, False)
    assert budget.begin(5, Client()) is None  # both others move on


def test_who_reads_is_not_cut_off_where_the_server_itself_is_held_up() -> None:
    time = Time()
    budget, reading, stalled = AnswerBudget(10, time), Client(reads=True), Client()
    assert budget.begin(5, reading) is not None
    assert budget.begin(5, stalled) is not None
    time.now += 10.0
    assert budget.begin(5, Client(reads=True)) is not None
    assert (reading.gone, stalled.gone) == (False, True)
    time.now += 10.0
    assert budget.begin(5, Client()) is None


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await respond(send, b"ok" if scope["path"] == "/-/healthy" else bytes(MEGABYTE))


async def stop_reading(front: Front) -> asyncio.StreamReader:
    """A client that asks and does not read more than the beginning."""
    reader, writer = await front.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readexactly(1)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    return reader


FULL = ClientLimits(answers_bytes=1)


async def test_beyond_what_answers_may_hold_there_is_503_and_health_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exporter.web.answers._STALLED_SECONDS", 3600.0)
    with capture_logs() as logs:
        async with serving(large, limits=FULL) as front:
            await stop_reading(front)
            for _ in range(3):
                status, headers, body = await front.get()
                assert (status, headers["retry-after"]) == (503, "1")
                assert body == b"Too many answers under way\n"
            assert (await front.get(path="/-/healthy"))[0] == 200
    assert [e["event"] for e in logs].count("answers refused, too many are under way") == 1


async def test_who_reads_is_not_shut_out_by_those_who_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exporter.web.answers._STALLED_SECONDS", 0.0)
    async with serving(large, limits=FULL) as front:
        for _ in range(20):
            await stop_reading(front)
        while True:  # until the server has noticed that they do not read
            status, _, body = await front.get()
            if status == 200:
                break
            assert status == 503
    assert len(body) == MEGABYTE


async def test_an_answer_that_was_read_holds_nothing_any_more() -> None:
    async with serving(large, limits=FULL) as front:
        connection = await front.connect()
        for _ in range(5):
            assert (await request(*connection))[0] == 200


async def test_an_answer_whose_client_has_gone_holds_nothing_any_more() -> None:
    async with serving(large, limits=FULL) as front:
        for _ in range(5):
            reader, writer = await front.connect()
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readexactly(1)
            writer.transport.abort()
            while True:  # until the server has noticed
                status = (await front.get())[0]
                if status == 200:
                    break
                assert status == 503


async def test_a_head_request_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.web.answers._STALLED_SECONDS", 3600.0)
    async with serving(large, limits=FULL) as front:
        await stop_reading(front)
        reader, writer = await front.connect()
        writer.write(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES]
)
async def test_an_answer_of_any_size_arrives_whole(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, body)

    async with serving(app) as front:
        connection = await front.connect()
        assert (await request(*connection))[2] == body
        assert (await request(*connection))[2] == body


async def test_an_answer_in_parts_arrives_whole() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for part in (b"a" * 40_000, b"", b"b" * 40_000):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})

    async with serving(app) as front, httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{front.port}/")
    assert answer.content == b"a" * 40_000 + b"b" * 40_000


async def test_a_slow_reader_gets_all_of_it_while_others_are_answered() -> None:
    async with serving(large) as front:
        reader, writer = await front.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        left = MEGABYTE
        while left:
            left -= len(await reader.readexactly(min(left, 100_000)))
            assert (await front.get(path="/-/healthy"))[0] == 200
        writer.write(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_response(reader))[2] == b"ok"
