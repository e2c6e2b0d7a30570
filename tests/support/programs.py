"""Real programs for the end-to-end tests: started on loopback, waited for, and stopped."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def free_port() -> int:
    """For a program that cannot be asked which one it took.

    Out of those that the kernel gives to no connection, and that no other worker of pytest-xdist
    hands out: it is still free when the program gets to it.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + worker % 8 * 1_500
    for port in random.sample(range(first, first + 1_500), k=1_500):
        with socket.socket() as listening, contextlib.suppress(OSError):
            listening.bind(("127.0.0.1", port))
            return port
    pytest.fail(f"no port is free from {first} on")


def require(program: str) -> str:
    """The path of a program; its absence fails the test where CI should have installed it."""
    path = shutil.which(program)
    if path is None:
        pytest.fail(f"{program} is not installed: .ci/run says how")
    return path


def eventually(check: Callable[[], T | None], *, seconds: float = 60.0, what: str = "") -> T:
    """The first result of `check` that is not None; a failure of the test if there is none."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = check()
        if result is not None:
            return result
        time.sleep(0.2)
    pytest.fail(f"not within {seconds:g} s: {what or check}")


def get(url: str, **headers: str) -> str:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        body: bytes = response.read()
        return body.decode()


def post(url: str, document: object) -> None:
    """A document as JSON; an answer other than 2xx is an error."""
    request = urllib.request.Request(
        url, json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30):
        pass


def answers(url: str) -> bool | None:
    """True once the URL answers, None before: for `eventually`."""
    try:
        get(url)
    except (urllib.error.URLError, OSError):
        return None
    return True


@contextlib.contextmanager
def running(*command: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A program, its output in `log`; stopped by SIGTERM at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until_ready(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    """Waits for `/-/ready`; a program that has ended by then fails the test with its output."""
    eventually(
        lambda: (
            answers(f"{address}/-/ready")
            if process.poll() is None
            else pytest.fail(log.read_text()[-3_000:])
        ),
        what=f"{address}/-/ready",
    )


@contextlib.contextmanager
def running_simulator(folder: Path, *arguments: str) -> Iterator[str]:
    """The simulator in a process of its own, with its control endpoints; gives its address."""
    log = folder / "simulator.log"
    command = (sys.executable, "-u", "-m", "exporter.simulator", "--port", "0", "--control")
    with running(*command, *arguments, log=log) as process:
        yield eventually(
            lambda: _first_line(log) if process.poll() is None else pytest.fail(log.read_text()),
            what="the simulator's address",
        )


def _first_line(log: Path) -> str | None:
    text = log.read_text()
    return text.splitlines()[0] if "\n" in text else None


@contextlib.contextmanager
def running_exporter(folder: Path, config: str, *arguments: str) -> Iterator[str]:
    """The exporter in a process of its own; gives its address."""
    path = folder / "config.yaml"
    path.write_text(config)
    command = (sys.executable, "-m", "exporter")
    with _listening(*command, *arguments, config=path, log=folder / "exporter.log") as address:
        yield address


@contextlib.contextmanager
def running_prometheus(folder: Path, config: str, program: str = "prometheus") -> Iterator[str]:
    """A real Prometheus with a configuration; gives its address."""
    path = folder / "prometheus.yml"
    path.write_text(config)
    with _listening(
        require(program),
        f"--storage.tsdb.path={folder / 'tsdb'}",
        "--web.enable-lifecycle",
        config=path,
        log=folder / "prometheus.log",
    ) as address:
        yield address


@contextlib.contextmanager
def running_alertmanager(folder: Path, config: str) -> Iterator[str]:
    """A real Alertmanager, alone, with a configuration; gives its address."""
    path = folder / "alertmanager.yml"
    path.write_text(config)
    with _listening(
        # Debian's name, else that of its makers
        shutil.which("prometheus-alertmanager") or require("alertmanager"),
        f"--storage.path={folder / 'alertmanager'}",
        "--cluster.listen-address=",
        config=path,
        log=folder / "alertmanager.log",
    ) as address:
        yield address


@contextlib.contextmanager
def _listening(*command: str, config: Path, log: Path) -> Iterator[str]:
    """A program that takes the flags of Prometheus' family, once it is ready; gives its address."""
    port = free_port()
    flags = (f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}")
    with running(*command, *flags, log=log) as process:
        address = f"http://127.0.0.1:{port}"
        until_ready(process, address, log)
        yield address


def query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """The result of an instant query, by Prometheus' own HTTP API."""
    parameters = urllib.parse.urlencode({"query": expression})
    answer = json.loads(get(f"{prometheus}/api/v1/query?{parameters}"))
    assert answer["status"] == "success", answer
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


class QuietHandler(BaseHTTPRequestHandler):
    """The output belongs to pytest."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on loopback in a thread of this process; its `host:port`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
