"""The image's health check, against servers on loopback."""

import http.server
import importlib.util
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.paths import ROOT

Serve = Callable[..., int]


@pytest.fixture(scope="module")
def healthcheck() -> ModuleType:
    path = ROOT / "docker" / "healthcheck.py"
    spec = importlib.util.spec_from_file_location("healthcheck", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    authority = Authority(tmp_path)
    issued = authority.issue("exporter.internal")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    context.load_verify_locations(authority.cert_file)
    return context


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers every request with a status; gives its port."""
    servers: list[http.server.HTTPServer] = []

    def start(status: int = 200, tls: ssl.SSLContext | None = None) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/-/healthy" else 500)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class QuietServer(http.server.HTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        server = QuietServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def command_line(folder: Path, *arguments: str) -> Path:
    """A file as /proc/1/cmdline is."""
    path = folder / "cmdline"
    words = ["python3", "/opt/exporter/bin/gaussdb-mysql-backup-exporter", *arguments]
    path.write_text("".join(f"{word}\0" for word in words), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("arguments", "host", "port"),
    [
        ([], "127.0.0.1", 10042),
        (["--web.listen-address", ":9000"], "127.0.0.1", 9000),
        (["--web.listen-address=0.0.0.0:9000"], "127.0.0.1", 9000),
        (["--web.listen-address=10.0.0.1:9000"], "10.0.0.1", 9000),
        (["--web.listen-address=[::]:9000"], "::1", 9000),
        (["--web.listen-address=[fd00::1]:9000", "--demo"], "fd00::1", 9000),
    ],
)
def test_address_is_the_one_the_exporter_was_told(
    healthcheck: ModuleType, arguments: list[str], host: str, port: int
) -> None:
    (address,) = healthcheck.flag(arguments, "--web.listen-address", healthcheck.DEFAULT_ADDRESS)

    assert healthcheck.to_host_and_port(address) == (host, port)


def test_one_of_several_addresses_that_answers_is_enough(
    healthcheck: ModuleType, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = ["--web.listen-address=127.0.0.1:1", "--web.listen-address", "nowhere"]
    alive = f"--web.listen-address=:{serve()}"
    assert healthcheck.main(command_line(tmp_path, *addresses, alive)) == 0
    assert healthcheck.main(command_line(tmp_path, *addresses)) == 1
    assert capsys.readouterr().err == "no answer from 127.0.0.1:1\nno port in 'nowhere'\n"


@pytest.mark.parametrize(("status", "code"), [(200, 0), (401, 0), (500, 1), (503, 1)])
def test_an_answer_is_healthy_unless_the_server_is_in_trouble(
    healthcheck: ModuleType, serve: Serve, tmp_path: Path, status: int, code: int
) -> None:
    port = serve(status)

    assert healthcheck.main(command_line(tmp_path, f"--web.listen-address=:{port}")) == code


@pytest.mark.parametrize("told", [True, False])
def test_tls_is_tried_whether_the_web_configuration_tells_of_it_or_not(
    healthcheck: ModuleType, serve: Serve, context: ssl.SSLContext, tmp_path: Path, told: bool
) -> None:
    port = serve(tls=context)
    web_config = tmp_path / "web.yaml"
    web_config.write_text("tls_server_config: {}\n" if told else "", encoding="utf-8")
    arguments = [f"--web.listen-address=:{port}", "--web.config.file", str(web_config)]

    assert healthcheck.main(command_line(tmp_path, *arguments)) == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_server_that_wants_to_see_a_certificate_is_healthy(
    healthcheck: ModuleType,
    serve: Serve,
    context: ssl.SSLContext,
    tmp_path: Path,
    version: ssl.TLSVersion,
) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    port = serve(tls=context)

    assert healthcheck.main(command_line(tmp_path, f"--web.listen-address=:{port}")) == 0


def test_nobody_there_is_unhealthy_and_told(
    healthcheck: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Port 1 is privileged and, on loopback, nobody's.
    assert healthcheck.main(command_line(tmp_path, "--web.listen-address", ":1")) == 1
    assert capsys.readouterr().err == "no answer from 127.0.0.1:1\n"


def test_address_without_a_port_is_unhealthy_and_told(
    healthcheck: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert healthcheck.main(command_line(tmp_path, "--web.listen-address", "nowhere")) == 1
    assert capsys.readouterr().err == "no port in 'nowhere'\n"
