"""Connections that a server closes or resets without an answer, over real sockets."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import pytest

from exporter.assembly import Exporter
from exporter.exposition.metrics import OwnMetrics
from exporter.reporting.redaction import SecretRegistry
from tests.support.certificates import Authority
from tests.support.factories import ORDERS, fetch_metrics, make_config, make_project_settings

EMPTY_LISTING = b'{"backups": [], "total_count": 0}'


@dataclass
class Breaker:
    """A server that loses the connection of the first `losses` requests."""

    losses: int
    reset: bool
    endpoint: str = ""
    paths: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.paths.append(head.split()[1].decode())
                if len(self.paths) <= self.losses:
                    if self.reset:
                        no_wait = struct.pack("ii", 1, 0)
                        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, no_wait)
                    return
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(EMPTY_LISTING)
                writer.write(answer + EMPTY_LISTING)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def breaking_cloud(*, losses: int, reset: bool = False) -> AsyncIterator[Breaker]:
    breaker = Breaker(losses, reset)
    server = await asyncio.start_server(breaker.serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        breaker.endpoint = f"http://127.0.0.1:{port}"
        yield breaker


@asynccontextmanager
async def exporter_of(cloud: Breaker, *, retries: int, **api: Any) -> AsyncIterator[Exporter]:
    """On the network's own transport, without a wait before a retry."""
    project = make_project_settings(ORDERS, endpoint=cloud.endpoint)
    config = make_config(projects=[project], api={"retries": retries, **api})
    exporter = Exporter(
        lambda: config, own=OwnMetrics(), registry=SecretRegistry(), jitter=lambda low, high: 0.0
    )
    await exporter.reload()
    try:
        yield exporter
    finally:
        await exporter.aclose()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("retries", [0, 2])
async def test_each_request_whose_connection_is_lost_is_counted_and_no_more_are_sent(
    retries: int, reset: bool
) -> None:
    async with (
        breaking_cloud(losses=100, reset=reset) as cloud,
        exporter_of(cloud, retries=retries) as exporter,
    ):
        published = (await fetch_metrics(exporter)).samples
    assert len(cloud.paths) == 1 + retries
    assert published.of("scrape_api_requests") == 1 + retries
    assert published.errors() == {"network": 1 + retries}


async def test_a_connection_lost_once_is_mended_by_a_retry_that_is_told() -> None:
    async with breaking_cloud(losses=1) as cloud, exporter_of(cloud, retries=2) as exporter:
        published = (await fetch_metrics(exporter)).samples
    assert published.of("scrape_success") == 1
    assert published.of("scrape_api_requests") == len(cloud.paths)
    assert published.errors() == {"network": 1}


# A renewed authority --------------------------------------------------------------------------


async def test_a_ca_file_that_was_renewed_is_read_at_a_reload(tmp_path: Path) -> None:
    """The configuration names the same file; what it holds is part of it."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    issued = new.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(old.cert_file.read_bytes())
    breaker = Breaker(losses=0, reset=False)
    async with await asyncio.start_server(breaker.serve, "127.0.0.1", 0, ssl=context) as server:
        breaker.endpoint = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with exporter_of(breaker, retries=0, ca_file=str(trusted)) as exporter:
            before = (await fetch_metrics(exporter)).samples
            scraper = exporter.scraper
            await exporter.reload()  # nothing has changed
            trusted.write_bytes(new.cert_file.read_bytes())
            await exporter.reload()
            after = (await fetch_metrics(exporter)).samples
            assert exporter.scraper is not scraper
    assert before.errors() == {"network": 1}
    assert before.of("scrape_success") == 0
    assert after.of("scrape_success") == 1
