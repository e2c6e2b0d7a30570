import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import bcrypt
import httpx
import pytest
from starlette.types import Receive, Scope, Send

from exporter.web.listener import bind
from exporter.web.live_config import LoadedWebConfig
from exporter.web.server import serve
from tests.support.certificates import Authority
from tests.support.programs import free_port
from tests.support.prometheus import Release

pytestmark = pytest.mark.e2e

EXPOSITION = b"# TYPE answer gauge\nanswer 42\n"


async def metrics(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    headers = [
        (b"content-type", b"text/plain; version=0.0.4"),
        (b"content-length", str(len(EXPOSITION)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": EXPOSITION})


@contextlib.asynccontextmanager
async def prometheus(
    program: str, folder: Path, scrape_config: str
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the HTTP API of a real Prometheus with one scrape configuration."""
    config = folder / "prometheus.yml"
    config.write_text(f"scrape_configs:\n{scrape_config}")
    port = free_port()
    with (folder / "prometheus.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=output,
            stderr=output,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


async def query(client: httpx.AsyncClient, expression: str) -> list[float]:
    """The values, once there are any."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(httpx.TransportError):
                response = await client.get("/api/v1/query", params={"query": expression})
                if response.status_code == 200 and (result := response.json()["data"]["result"]):
                    return [float(series["value"][1]) for series in result]
            await asyncio.sleep(0.2)


async def test_prometheus_scrapes_over_tls_with_client_certificate_and_password(
    release: Release, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")
    client = authority.issue("prometheus", client=True)
    password_hash = bcrypt.hashpw(b"right", bcrypt.gensalt(10)).decode()
    web_config = tmp_path / "web.yml"
    web_config.write_text(
        "tls_server_config:\n"
        "  cert_file: server.crt\n"
        "  key_file: server.key\n"
        "  client_ca_file: test-CA.crt\n"
        "  client_auth_type: RequireAndVerifyClientCert\n"
        "  min_version: TLS13\n"
        f"basic_auth_users:\n  prometheus: {password_hash}\n"
    )
    sockets = bind(("127.0.0.1", 0))
    port = sockets[0].getsockname()[1]
    server = asyncio.create_task(
        serve(
            metrics,
            sockets=sockets,
            web_config=LoadedWebConfig(web_config),
            on_reload=None,
            stopping=lambda: None,
        )
    )
    scrape_config = f"""
  - job_name: front
    scrape_interval: 1s
    scheme: https
    basic_auth: {{username: prometheus, password: right}}
    tls_config:
      ca_file: {authority.cert_file}
      cert_file: {client.cert_file}
      key_file: {client.key_file}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
  - job_name: wrong-password
    scrape_interval: 1s
    scheme: https
    basic_auth: {{username: prometheus, password: wrong}}
    tls_config:
      ca_file: {authority.cert_file}
      cert_file: {client.cert_file}
      key_file: {client.key_file}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
    try:
        async with prometheus(release.prometheus, tmp_path, scrape_config) as client_of_prometheus:
            assert await query(client_of_prometheus, 'up{job="front"} == 1') == [1]
            assert await query(client_of_prometheus, "answer") == [42]
            assert await query(client_of_prometheus, 'up{job="wrong-password"} == 0') == [0]
    finally:
        server.cancel()
        await asyncio.wait([server])
