"""The connections to the cloud, on real sockets of this machine."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from exporter.cloud.api import LIST_BACKUPS
from exporter.config.schema import ApiConfig
from exporter.errors import ApiError, BadResponseError, Reason, UnavailableError
from exporter.transport.bodies import MAX_RESPONSE_BYTES
from exporter.transport.connections import ExactTransport, Proxy
from exporter.transport.query import Query
from exporter.transport.wire import connect, host_of, url_of

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[str, list[asyncio.StreamWriter]]]:
    """A server that gives one answer to every request; its address and its connections."""
    connections: list[asyncio.StreamWriter] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections


async def send(address: str, times: int = 1, **config: Any) -> httpx.Response:
    """The last answer, by way of everything that a request of the program goes through."""
    wire = connect(ApiConfig(**{"timeout": "5s", **config}))
    try:
        for _ in range(times):
            extensions = {"query": Query(), "operation": LIST_BACKUPS}
            response = await wire.send(httpx.Request("GET", address, extensions=extensions))
    finally:
        await wire.aclose()
    return response


async def test_requests_one_after_the_other_share_a_connection() -> None:
    async with answering(OK) as (address, connections):
        response = await send(address, times=3)

    assert (response.status_code, response.content) == (200, b"{}")
    assert len(connections) == 1


async def test_redirect_is_an_answer_and_not_followed() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with answering(moved) as (address, connections):
        response = await send(address)

    assert response.status_code == 302
    assert len(connections) == 1


async def test_token_of_sixteen_kilobytes_is_read_from_its_header() -> None:
    token = "t" * 16_384
    answer = OK.replace(b"\r\n\r\n", f"\r\nX-Subject-Token: {token}\r\n\r\n".encode())
    async with answering(answer) as (address, _):
        response = await send(address)

    assert response.headers["x-subject-token"] == token


async def test_cookie_of_an_answer_is_not_sent_back() -> None:
    sent: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            sent.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        await send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", times=2)

    assert len(sent) == 2
    assert b"cookie" not in sent[1].lower()


async def test_endless_body_is_a_bad_response_and_its_connection_is_closed() -> None:
    size = MAX_RESPONSE_BYTES + 1
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (10 * size, b"x" * size)
    async with answering(endless) as (address, connections):
        with pytest.raises(BadResponseError, match="over 10 MiB"):
            await send(address)
        await connections[0].wait_closed()


async def test_answer_that_is_no_http_is_a_bad_response() -> None:
    async with answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n") as (address, _):
        with pytest.raises(BadResponseError, match="not an HTTP answer"):
            await send(address)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"],
    ids=["no answer", "half an answer"],
)
async def test_connection_that_ends_too_early_is_an_error_of_the_network(answer: bytes) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        error = await failure(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    assert error.reason is Reason.NETWORK
    assert error.counted


async def failure(address: str) -> ApiError:
    with pytest.raises(UnavailableError) as raised:
        await send(address)
    return raised.value


async def test_nobody_listening_is_an_error_of_the_network_that_says_where() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    error = await failure(f"http://127.0.0.1:{port}")

    assert error.reason is Reason.NETWORK
    assert f"127.0.0.1:{port}" in error.message
    assert "refused" in error.message
    assert "port" in error.hint


async def test_request_goes_through_the_proxy_with_its_password() -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        transport = ExactTransport(
            ssl_context=ssl.create_default_context(),
            proxy=Proxy.of(f"http://me:secret@127.0.0.1:{port}"),
            keepalive_seconds=1.0,
        )
        async with httpx.AsyncClient(transport=transport) as client:
            response = await client.get("http://db.example/v3/p/instances?limit=50")

    assert response.status_code == 200
    assert asked[0].startswith(b"GET http://db.example/v3/p/instances?limit=50 HTTP/1.1\r\n")
    assert b"\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n" in asked[0]  # me:secret


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://db.example./v3", "db.example"),
        ("https://db.example.:8443/v3", "db.example:8443"),
        ("https://db.example:443/v3", "db.example"),
        ("http://[::1]:80/v3", "[::1]"),
        ("http://[::1]:8080/v3", "[::1]:8080"),
    ],
)
def test_the_dot_that_ends_an_absolute_name_is_no_part_of_host(url: str, host: str) -> None:
    assert host_of(httpx.URL(url)) == host


async def test_host_goes_out_without_the_dot_that_the_dns_is_asked_with() -> None:
    """By way of a proxy, since no name of this machine's own ends in a dot."""
    heads: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await send("http://db.example.:8080/v3", proxy_url=f"http://127.0.0.1:{port}")

    assert heads[0].startswith(b"GET http://db.example.:8080/v3 HTTP/1.1\r\n")
    assert heads[0].lower().count(b"\r\nhost: ") == 1
    assert b"\r\nHost: db.example:8080\r\n" in heads[0]


@pytest.mark.parametrize("endpoint", ["https://db.example", "http://[::1]:8080", "http://a.:81"])
@pytest.mark.parametrize("query", ["begin_time=2026-11-26T12%3A00%3A00%2B0000&limit=50", "a=~", ""])
def test_a_url_of_quoted_parts_is_the_one_that_httpx_makes_of_its_text(
    endpoint: str, query: str
) -> None:
    path = "/v3/97b0/instances/61a4-b_c/incremental-backups"
    text = f"{endpoint}{path}?{query}" if query else f"{endpoint}{path}"
    url, parsed = url_of(httpx.URL(endpoint), path, query), httpx.URL(text)
    assert url == parsed
    assert str(url) == text
    assert (url.raw_path, url.netloc, url.query) == (parsed.raw_path, parsed.netloc, parsed.query)
