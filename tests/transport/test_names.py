"""Names to addresses: one that hangs keeps nobody waiting but those who ask for it."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from exporter.cloud.api import LIST_BACKUPS
from exporter.config.schema import ApiConfig
from exporter.errors import ApiError, Reason
from exporter.transport.names import NameResolver
from exporter.transport.query import Query
from exporter.transport.wire import Wire, connect

REAL = socket.getaddrinfo


class Dns:
    """The system's resolver; it hangs for names that begin so, until the end of the test."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, *more: Any, **named: Any) -> Any:
        self.asked.append(host)
        if host.startswith("hang"):
            self.ended.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return REAL("127.0.0.1" if host.endswith(".example") else host, port, *more, **named)


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dns]:
    fake = Dns()
    monkeypatch.setattr(socket, "getaddrinfo", fake)
    yield fake
    fake.ended.set()


async def ask(wire: Wire, address: str) -> httpx.Response:
    extensions = {"query": Query(), "operation": LIST_BACKUPS}
    return await wire.send(httpx.Request("GET", address, extensions=extensions))


async def test_fifty_names_that_hang_keep_a_healthy_one_not_waiting(dns: Dns) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    wire = connect(ApiConfig(timeout="30s"))
    hanging = [asyncio.ensure_future(ask(wire, f"http://hang{n}.example/")) for n in range(50)]
    try:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with asyncio.timeout(5):
                response = await ask(wire, f"http://db.example:{port}/")
        assert response.status_code == 200
        assert not any(task.done() for task in hanging)
    finally:
        dns.ended.set()
        failed = await asyncio.gather(*hanging, return_exceptions=True)
        await wire.aclose()
    assert {type(error).__name__ for error in failed} == {"UnavailableError"}


async def test_a_dns_that_does_not_answer_is_named_and_not_the_endpoint(dns: Dns) -> None:
    wire = connect(ApiConfig(timeout="50ms"))
    try:
        with pytest.raises(ApiError) as caught:
            await ask(wire, "https://hanging.example/")
    finally:
        await wire.aclose()
    assert caught.value.reason is Reason.TIMEOUT
    assert caught.value.message == (
        "the DNS did not answer for the name hanging.example within 0.05 s"
    )
    assert "resolv.conf" in caught.value.hint


async def test_a_name_that_is_being_looked_up_is_not_looked_up_once_more(dns: Dns) -> None:
    resolver = NameResolver()
    tasks = [asyncio.ensure_future(resolver.resolve("hang.example", 443)) for _ in range(20)]
    while not dns.asked:
        await asyncio.sleep(0)
    assert resolver.is_resolving("hang.example")
    tasks[0].cancel()  # who gives up takes nothing from the others
    dns.ended.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert {type(result) for result in results[1:]} == {socket.gaierror}
    assert dns.asked == ["hang.example"]
    assert not resolver.is_resolving("hang.example")


async def test_addresses_are_found_as_the_system_finds_them() -> None:
    resolver = NameResolver()
    found = await resolver.resolve("127.0.0.1", 8443, socket.AF_UNSPEC)
    assert [(each["hostname"], each["host"], each["port"]) for each in found] == [
        ("127.0.0.1", "127.0.0.1", 8443)
    ]
    await resolver.close()


@pytest.mark.parametrize("name", ["no..such", "x" * 70 + ".example"])
async def test_what_is_no_name_is_a_name_that_does_not_exist(name: str) -> None:
    with pytest.raises(socket.gaierror):
        await NameResolver().resolve(name, 443)
