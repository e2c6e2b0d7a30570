"""What a request must be, byte for byte, to be answered by the application."""

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from exporter.web.client_limits import ClientLimits
from exporter.web.request_head import RefusedError, is_host
from tests.support.front import (
    Front,
    Held,
    hello,
    is_closed,
    read_response,
    request,
    respond,
    serving,
)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
HELD_CHUNKED = CHUNKED.replace(b" / ", b" /held ")


async def statuses(front: Front, said: bytes, count: int = 1) -> list[int]:
    """Those of the first answers to what is said."""
    reader, writer = await front.connect()
    writer.write(said)
    return [(await read_response(reader))[0] for _ in range(count)]


async def ends_with(front: Front, said: bytes, *expected: int) -> None:
    """The answers to what is said have these statuses, and the connection ends with the last."""
    reader, writer = await front.connect()
    writer.write(said)
    answers = [await read_response(reader) for _ in expected]
    assert [status for status, _, _ in answers] == list(expected)
    assert answers[-1][1]["connection"] == "close"
    assert await is_closed(reader)


# Host (RFC 9112, 3.2)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"Host: exporter.example", 200),
        (b"Host: exporter.example:10042", 200),
        (b"HOST:127.0.0.1", 200),
        (b"Host: [2001:db8::1]:10042", 200),
        (b"Host: a_b-c.d:", 200),
        (b"Host: %41.example", 200),
        (b"X-Other: x", 400),
        (b"Host: a\r\nHost: a", 400),
        (b"Host: a\r\nHost: b", 400),
        (b"Host:", 400),
        (b"Host: a b", 400),
        (b"Host: a,b", 200),  # a comma may be in a name, a space may not
        (b"Host: a, b", 400),
        (b"Host: a/b", 400),
        (b"Host: user@a", 400),
        (b"Host: a:b", 400),
        (b"Host: a:65536", 400),
        (b"Host: 2001:db8::1", 400),
        (b"Host: [2001:db8::1", 400),
        (b"Host: [1.2.3.4]", 400),
        (b"Host: %4", 400),
        (b"Host: \xc3\xa4", 400),
        (b"Host: <script>", 400),
        (b"Host: http://a", 400),
        (b"Host: a#b?c", 400),
    ],
)
async def test_a_request_has_exactly_one_valid_host(lines: bytes, status: int) -> None:
    async with serving() as front:
        assert await statuses(front, b"GET / HTTP/1.1\r\n" + lines + b"\r\n\r\n") == [status]


async def test_http_1_0_needs_no_host_but_no_wrong_one_either() -> None:
    async with serving() as front:
        assert await statuses(front, b"GET / HTTP/1.0\r\n\r\n") == [200]
        assert await statuses(front, b"GET / HTTP/1.0\r\nHost: a/b\r\n\r\n") == [400]


async def test_the_host_of_the_target_itself_goes_before_the_header() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            seen.append((dict(scope["headers"])[b"host"], scope["path"], scope["query_string"]))
        await respond(send, b"")

    async with serving(app) as front:
        for target in ("http://other:80/sd?a=b", "HTTP://other", "https://other?c"):
            said = f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            assert await statuses(front, said) == [200]
        assert await statuses(front, b"GET http://a/b@c HTTP/1.1\r\nHost: x\r\n\r\n") == [200]
        assert await statuses(front, b"GET http:///x HTTP/1.1\r\nHost: x\r\n\r\n") == [400]
        assert await statuses(front, b"GET http://u@h/ HTTP/1.1\r\nHost: x\r\n\r\n") == [400]
    assert seen[:3] == [
        (b"other:80", "/sd", b"a=b"),
        (b"other", "/", b""),
        (b"other", "/", b"c"),
    ]


def test_ports_end_where_there_are_no_more() -> None:
    assert is_host(b"a:65535")
    assert not is_host(b"a:65536")
    assert not is_host(b"a:000080")


# What this server does not speak


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"FETCH / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"\x16\x03\x01 TLS to a plain port", 400),
        (b"hello\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: the-best\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
            501,
        ),
    ],
)
async def test_what_is_not_spoken_here_is_refused_and_the_connection_ends(
    said: bytes, status: int
) -> None:
    async with serving() as front:
        await ends_with(front, said, status)


async def test_an_upgrade_is_not_taken_up_and_what_follows_is_answered() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with serving() as front:
        assert await statuses(front, upgrade + GET + upgrade, 3) == [200] * 3


# Too much


SMALL = ClientLimits(
    target_bytes=1024, head_bytes=1024, header_lines=20, body_bytes=1024, pipelined_requests=16
)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /" + b"x" * 2000, 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 2000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 4000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"x" * 4000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20 + b"\r\n", 431),
        (b"\r\n" * 2000, 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n", 413),
        (
            HELD_CHUNKED + b"7d0\r\n" + b"x" * 2000,
            413,
        ),
        (
            HELD_CHUNKED + b"1;" + b"x" * 8000,
            413,
        ),
        (
            HELD_CHUNKED + b"0\r\n" + b"X-Trailer: x\r\n" * 20,
            431,
        ),
        (
            HELD_CHUNKED + b"0\r\nX-Trailer: " + b"x" * 8000,
            413,
        ),
    ],
)
async def test_what_is_too_large_is_refused_by_its_part_and_the_connection_ends(
    said: bytes, status: int
) -> None:
    async with serving(Held(), limits=SMALL) as front:
        await ends_with(front, said, status)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (400, b"HTTP/1.1 400 Bad Request"),
        (413, b"HTTP/1.1 413 Content Too Large"),
        (414, b"HTTP/1.1 414 URI Too Long"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_rfc_9110(status: int, line: bytes) -> None:
    assert RefusedError(status, "No.").response().startswith(line + b"\r\n")


async def test_a_refused_client_that_goes_on_sending_still_gets_its_answer() -> None:
    async with serving(limits=SMALL) as front:
        reader, writer = await front.connect()
        for _ in range(100):
            writer.write(b"GET /" + b"x" * 10_000)
        assert (await read_response(reader))[0] == 414
        for _ in range(100):
            writer.write(b"x" * 10_000)
        await writer.drain()
        assert await is_closed(reader)


async def test_an_oversized_body_behind_an_answer_ends_the_connection() -> None:
    async with serving(limits=SMALL) as front:
        reader, writer = await front.connect()
        writer.write(CHUNKED)
        assert (await read_response(reader))[0] == 200
        writer.write(b"7d0\r\n" + b"x" * 2000)
        assert await is_closed(reader)


async def test_trailers_are_read_over_and_a_request_after_them_is_answered() -> None:
    chunked = CHUNKED + b"2\r\nhi\r\n0\r\nHost: y\r\nX-Trailer: z\r\n\r\n"
    async with serving() as front:
        assert await statuses(front, chunked + GET + chunked, 3) == [200] * 3


# One behind the other


async def test_a_refused_request_is_answered_after_those_before_it() -> None:
    app = Held()
    async with serving(app) as front:
        reader, writer = await front.connect()
        writer.write(GET.replace(b" / ", b" /held ") + GET + b"GET / HTTP/1.1\r\n\r\n" + GET)
        await app.arrived.wait()
        app.let_go.set()
        assert [(await read_response(reader))[0] for _ in range(3)] == [200, 200, 400]
        assert await is_closed(reader)


async def test_a_refused_body_behind_others_is_answered_in_its_turn() -> None:
    app = Held()
    body = CHUNKED + b"7d0\r\n" + b"x" * 2000
    async with serving(app, limits=SMALL) as front:
        reader, writer = await front.connect()
        writer.write(GET.replace(b" / ", b" /held ") + GET + body)
        await app.arrived.wait()
        app.let_go.set()
        assert [(await read_response(reader))[0] for _ in range(3)] == [200, 200, 413]
        assert await is_closed(reader)


async def test_requests_beyond_what_may_wait_are_left_to_be_asked_again() -> None:
    app = Held()
    async with serving(app, limits=SMALL) as front:
        reader, writer = await front.connect()
        writer.write(GET.replace(b" / ", b" /held ") + GET * 30)
        await app.arrived.wait()
        app.let_go.set()
        answers = [await read_response(reader) for _ in range(17)]
        assert {status for status, _, _ in answers} == {200}
        assert [a[1].get("connection") for a in answers] == [None] * 16 + ["close"]
        assert await is_closed(reader)


# Expect: 100-continue (RFC 9110, 10.1.1)


async def test_after_an_answer_without_100_continue_the_connection_ends() -> None:
    said = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    async with serving() as front:
        await ends_with(front, said, 200)


async def test_who_reads_the_body_tells_the_client_to_go_on() -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send, (await receive())["body"])

    async with serving(echo) as front:
        reader, writer = await front.connect()
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-Continue\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await read_response(reader))[2] == b"body"


async def test_http_1_0_expects_nothing() -> None:
    async with serving() as front:
        assert await statuses(front, b"GET / HTTP/1.0\r\nExpect: miracles\r\n\r\n") == [200]


async def test_hundreds_of_requests_one_after_the_other_are_answered() -> None:
    async with serving(hello, limits=SMALL) as front:
        connection = await front.connect()
        for _ in range(300):
            assert (await request(*connection, "X-Some: " + "x" * 500))[0] == 200


async def test_a_request_that_comes_byte_by_byte_is_answered() -> None:
    said = CHUNKED + b"1;a=b\r\nx\r\n0\r\nT: v\r\n\r\n"
    async with serving(limits=SMALL) as front:
        reader, writer = await front.connect()
        for byte in said + GET:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert [(await read_response(reader))[0] for _ in range(2)] == [200, 200]
