"""What is said of a request that got no answer: what happened, at which address, what to do.

Over real sockets of this machine: the words come from what the system, TLS and aiohttp raise.
"""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from exporter.cloud.api import LIST_BACKUPS
from exporter.config.schema import ApiConfig
from exporter.errors import ApiError, Reason
from exporter.transport.query import Query
from exporter.transport.wire import connect
from tests.support.certificates import Authority

CONFUSED_TLS = b"\x15\x03\x01\x00\x02\x02\x46"  # an alert: protocol version


@asynccontextmanager
async def serving(
    answer: bytes | None, context: ssl.SSLContext | None = None, *, reset: bool = False
) -> AsyncIterator[int]:
    """A server's port; it answers whatever comes and hangs up. None: it never answers."""
    ended = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if answer is None:
                await ended.wait()
                return
            await reader.read(4096)
            if reset:
                no_wait = struct.pack("ii", 1, 0)
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_wait)
            writer.write(answer)
        except OSError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context) as server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            ended.set()


async def ask(url: str, **config: Any) -> ApiError:
    """How a request to `url` fails, by way of all that a request of the program goes through."""
    wire = connect(ApiConfig(**{"timeout": "10s", **config}))
    query = Query()
    try:
        with pytest.raises(ApiError) as caught:
            await wire.send(
                httpx.Request("GET", url, extensions={"query": query, "operation": LIST_BACKUPS})
            )
    finally:
        await wire.aclose()
    error = caught.value
    assert error.counted
    assert {reason for reason, count in query.meter.errors.items() if count} == {error.reason}
    assert error.operation == LIST_BACKUPS
    assert error.host == httpx.URL(url).netloc.decode()
    return error


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


# TLS -------------------------------------------------------------------------------------------


@asynccontextmanager
async def tls_server(folder: Path, **certificate: Any) -> AsyncIterator[tuple[int, Authority]]:
    authority = Authority(folder)
    issued = authority.issue("server", **certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", context) as port:
        yield port, authority


@pytest.mark.parametrize(
    ("certificate", "said", "hint"),
    [
        (
            {"sans": (x509.DNSName("db.example"),)},
            "is for another name: IP address mismatch, certificate is not valid for '127.0.0.1'",
            "right endpoint",
        ),
        ({"ends_hours": -0.5}, "is out of date: certificate has expired", "renew it"),
        ({"starts_hours": 1.0}, "is not valid yet: certificate is not yet valid", "clock"),
    ],
    ids=["another name", "expired", "not yet valid"],
)
async def test_a_certificate_that_is_trusted_and_yet_wrong_does_not_point_to_ca_file(
    tmp_path: Path, certificate: dict[str, Any], said: str, hint: str
) -> None:
    async with tls_server(tmp_path, **certificate) as (port, authority):
        error = await ask(f"https://127.0.0.1:{port}/", ca_file=str(authority.cert_file))
    assert error.reason is Reason.NETWORK
    assert error.message == f"the certificate of 127.0.0.1:{port} {said}"
    assert hint in error.hint
    assert "ca_file" not in error.hint


async def test_a_certificate_of_an_unknown_authority_points_to_ca_file(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as (port, _):
        error = await ask(f"https://127.0.0.1:{port}/")
    assert error.message == (
        f"the certificate of 127.0.0.1:{port} is not trusted: "
        "unable to get local issuer certificate"
    )
    assert "api.ca_file" in error.hint


async def test_https_to_a_port_of_plain_http_is_told_as_just_that() -> None:
    async with serving(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as port:
        error = await ask(f"https://127.0.0.1:{port}/")
    assert error.reason is Reason.NETWORK
    assert error.message == (
        f"127.0.0.1:{port} does not speak TLS: https was sent to a port of plain http"
    )
    assert "http://" in error.hint


async def test_plain_http_to_a_port_of_tls_is_told_as_just_that() -> None:
    async with serving(CONFUSED_TLS) as port:
        error = await ask(f"http://127.0.0.1:{port}/")
    assert error.reason is Reason.BAD_RESPONSE
    assert error.message == f"127.0.0.1:{port} answers plain http with TLS"
    assert error.hint == "write https:// in the endpoint"


async def test_no_version_of_tls_in_common_is_told() -> None:
    async with serving(CONFUSED_TLS) as port:
        error = await ask(f"https://127.0.0.1:{port}/")
    assert error.message.startswith(
        f"127.0.0.1:{port} and this program have no version of TLS in common"
    )


# Names and addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said", "hint"),
    [
        (
            "https://gaussdb.invalid/",
            "the DNS knows no address of the name gaussdb.invalid",
            "spelling",
        ),
        ("http://127.0.0.1:{closed}/", "127.0.0.1:{closed} refused the connection", "port"),
    ],
)
async def test_an_address_where_nobody_is_says_which(url: str, said: str, hint: str) -> None:
    port = closed_port()
    error = await ask(url.format(closed=port))
    assert error.reason is Reason.NETWORK
    assert error.message.startswith(said.format(closed=port))
    assert hint in error.hint
    assert "ca_file" not in error.hint


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_connection_that_is_reset_says_by_whom(scheme: str) -> None:
    async with serving(b"", reset=True) as port:
        error = await ask(f"{scheme}://127.0.0.1:{port}/")
    assert error.reason is Reason.NETWORK
    assert error.message == f"127.0.0.1:{port} reset the connection"
    assert "firewall" in error.hint


async def test_a_handshake_that_is_cut_says_by_whom() -> None:
    async with serving(b"") as port:
        error = await ask(f"https://127.0.0.1:{port}/")
    assert error.reason is Reason.NETWORK
    assert error.message == (
        f"127.0.0.1:{port} closed the connection in the middle of the TLS handshake"
    )
    assert "firewall" in error.hint


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed the connection without an answer"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
            "closed the connection in the middle of its answer",
        ),
    ],
    ids=["none", "half"],
)
async def test_a_connection_that_ends_too_early_says_by_whom(answer: bytes, said: str) -> None:
    async with serving(answer) as port:
        error = await ask(f"http://127.0.0.1:{port}/")
    assert error.reason is Reason.NETWORK
    assert error.message == f"127.0.0.1:{port} {said}"


async def test_silence_says_of_whom_and_for_how_long() -> None:
    async with serving(None) as port:
        error = await ask(f"http://127.0.0.1:{port}/", timeout="50ms")
    assert error.reason is Reason.TIMEOUT
    assert error.message == f"no answer from 127.0.0.1:{port} within 0.05 s"
    assert error.hint.startswith("firewall, proxy, security group?")


# Proxies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason", "hint"),
    [
        (407, Reason.NETWORK, "user and password in api.proxy_url"),
        (403, Reason.NETWORK, "must allow CONNECT to db.example"),
        (429, Reason.THROTTLED, "limits how often"),
        (502, Reason.NETWORK, "does not reach db.example"),
        (503, Reason.NETWORK, "does not reach db.example"),
        (504, Reason.NETWORK, "does not reach db.example"),
    ],
)
async def test_a_proxy_that_refuses_connect_is_named_without_its_password(
    status: int, reason: Reason, hint: str
) -> None:
    answer = f"HTTP/1.1 {status} No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n".encode()
    async with serving(answer) as port:
        error = await ask("https://db.example/", proxy_url=f"http://me:pw-secret@127.0.0.1:{port}")
    assert error.reason is reason
    assert error.status == status
    assert error.message == (
        f"the proxy http://127.0.0.1:{port} answered CONNECT to db.example with HTTP {status} No"
    )
    assert hint in error.hint
    assert error.retry_after == (7 if status in (429, 503) else None)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed the connection when asked for db.example"),
        (b"SSH-2.0-OpenSSH\r\n", "answered CONNECT to db.example with something else than HTTP"),
    ],
)
async def test_what_is_no_proxy_is_told_as_the_proxys_fault(answer: bytes, said: str) -> None:
    async with serving(answer) as port:
        error = await ask("https://db.example/", proxy_url=f"http://127.0.0.1:{port}")
    assert error.reason is Reason.NETWORK
    assert error.message == f"the proxy http://127.0.0.1:{port} {said}"
    assert "api.proxy_url" in error.hint


async def test_a_tunnel_that_leads_nowhere_is_told_with_the_proxy() -> None:
    async with serving(b"HTTP/1.1 200 Connection established\r\n\r\n") as port:
        error = await ask("https://db.example/", proxy_url=f"http://127.0.0.1:{port}")
    assert error.reason is Reason.NETWORK
    assert error.message.startswith(
        f"db.example by way of the proxy http://127.0.0.1:{port} closed the connection"
    )


async def test_a_proxy_that_cannot_be_reached_is_not_the_clouds_fault() -> None:
    port = closed_port()
    error = await ask("https://db.example/", proxy_url=f"http://127.0.0.1:{port}")
    assert error.message == (
        f"the proxy cannot be reached: http://127.0.0.1:{port} refused the connection"
    )
    assert "api.proxy_url" in error.hint


async def test_the_name_of_a_proxy_that_does_not_exist_is_told_as_the_proxys() -> None:
    error = await ask("https://db.example/", proxy_url="http://proxy.invalid:3128")
    assert error.message.startswith("the DNS knows no address of the proxy's name proxy.invalid")
    assert "api.proxy_url" in error.hint


@pytest.mark.parametrize(
    ("address", "whom"),
    [
        ("127.0.0.1", "db.example by way of the proxy http://127.0.0.1:{port}"),
        ("hanging.example", "the DNS for the proxy's name hanging.example"),
    ],
)
async def test_while_nobody_answers_it_is_told_who_should(
    address: str, whom: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a scrape says whose deadline comes before the time-out."""
    look_up, end = socket.getaddrinfo, threading.Event()

    def hang(host: str, *more: Any, **named: Any) -> Any:
        if host == "hanging.example":
            end.wait()
        return look_up("127.0.0.1", *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    async with serving(None) as port:
        wire = connect(ApiConfig(proxy_url=f"http://{address}:{port}"))
        query = Query()
        extensions = {"query": query, "operation": LIST_BACKUPS}
        request = httpx.Request("GET", "https://db.example/", extensions=extensions)
        asking = asyncio.create_task(wire.send(request))
        try:
            async with asyncio.timeout(5):
                while not query.asking or query.whom() != whom.format(port=port):
                    await asyncio.sleep(0)
        finally:
            end.set()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await wire.aclose()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxys_password_goes_out_as_utf8(scheme: str) -> None:
    heads: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        wire = connect(ApiConfig(proxy_url=f"http://me:gehe%E2%82%AC@127.0.0.1:{port}"))
        extensions = {"query": Query(), "operation": LIST_BACKUPS}
        request = httpx.Request("GET", f"{scheme}://db.example/", extensions=extensions)
        try:
            if scheme == "https":
                with pytest.raises(ApiError):
                    await wire.send(request)
            else:
                await wire.send(request)
        finally:
            await wire.aclose()
    assert len(heads) == 1
    # base64 of "me:gehe€" in UTF-8
    assert b"\r\nProxy-Authorization: Basic bWU6Z2VoZeKCrA==\r\n" in heads[0]
