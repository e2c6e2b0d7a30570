"""A server that serves, hears signals and stops."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from exporter.errors import ExporterError
from tests.support.front import (
    Held,
    connects,
    is_closed,
    request,
    respond,
    serving,
)


async def test_an_application_is_served_without_naming_the_server() -> None:
    async with serving() as front:
        status, headers, body = await front.get()
    assert (status, body) == (200, b"hello")
    assert "server" not in headers
    assert "date" in headers


async def test_listening_is_logged_with_the_port_that_was_free() -> None:
    with capture_logs() as logs:
        async with serving() as front:
            await front.get()
    assert {
        "event": "listening",
        "log_level": "info",
        "address": f"127.0.0.1:{front.port}",
        "tls": False,
        "basic_auth": False,
    } in logs


async def test_a_forwarded_address_is_not_believed() -> None:
    clients = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            clients.append(scope["client"][0])
        await respond(send, b"")

    async with serving(app) as front:
        await front.get("X-Forwarded-For: 192.0.2.1")
    assert clients == ["127.0.0.1"]


async def test_an_application_that_does_not_start_ends_the_server() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    async with serving(app) as front:
        with pytest.raises(ExporterError, match="did not start"):
            await front.task
    assert not connects("127.0.0.1", front.port)


async def test_a_server_that_is_cancelled_closes_its_sockets() -> None:
    async with serving() as front:
        reader, _ = await front.connect()
        await front.get()
        front.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await front.task
        assert await is_closed(reader)
    assert not connects("127.0.0.1", front.port)


# Stopping


async def test_sigterm_lets_running_requests_end_and_closes_idle_connections() -> None:
    app = Held()
    stopped = asyncio.Event()
    async with serving(app, stopping=stopped.set) as front:
        idle_reader, idle_writer = await front.connect()
        await request(idle_reader, idle_writer)
        running = asyncio.create_task(front.get(path="/held"))
        await app.arrived.wait()
        signal.raise_signal(signal.SIGTERM)
        await stopped.wait()
        assert await is_closed(idle_reader)
        assert not running.done()
        assert not connects("127.0.0.1", front.port)
        app.let_go.set()
        status, headers, body = await running
        assert (status, headers["connection"], body) == (200, "close", b"done")
        await front.task


async def test_requests_that_outlast_the_grace_are_answered_503() -> None:
    app = Held()
    async with serving(app, grace_seconds=0) as front:
        running = asyncio.create_task(front.get(path="/held"))
        await app.arrived.wait()
        signal.raise_signal(signal.SIGINT)
        status, _, _ = await running
        assert status == 503
        await front.task


async def test_a_second_signal_does_not_wait_for_requests() -> None:
    app = Held()
    stopped = asyncio.Event()
    async with serving(app, stopping=stopped.set, grace_seconds=3600) as front:
        running = asyncio.create_task(front.get(path="/held"))
        await app.arrived.wait()
        signal.raise_signal(signal.SIGTERM)
        await stopped.wait()
        signal.raise_signal(signal.SIGTERM)
        await front.task
        status, _, _ = await running
        assert status == 503


async def test_a_request_that_ignores_its_cancellation_does_not_keep_the_server() -> None:
    let_go = asyncio.Event()
    arrived = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            arrived.set()
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()
            await let_go.wait()

    async with serving(app, grace_seconds=0) as front:
        await front.connect()
        reader, writer = await front.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await arrived.wait()
        signal.raise_signal(signal.SIGTERM)
        await front.task
        assert await is_closed(reader)
        let_go.set()


async def test_signals_are_given_back() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    async with serving() as front:
        await front.get()
        signal.raise_signal(signal.SIGTERM)
        await front.task
    assert [signal.getsignal(number) for number in numbers] == before


async def test_sighup_reloads_and_a_reload_that_fails_stops_nothing() -> None:
    reloads = asyncio.Queue[int]()

    async def reload() -> None:
        reloads.put_nowait(1)
        if reloads.qsize() == 1:
            raise RuntimeError("no")

    with capture_logs() as logs:
        async with serving(on_reload=reload) as front:
            await front.get()
            signal.raise_signal(signal.SIGHUP)
            while reloads.qsize() < 1:
                await asyncio.sleep(0)
            signal.raise_signal(signal.SIGHUP)
            while reloads.qsize() < 2:
                await asyncio.sleep(0)
            status, _, _ = await front.get()
    assert status == 200
    assert "reload failed" in [entry["event"] for entry in logs]


async def test_sighup_without_anything_to_reload_stops_nothing() -> None:
    async with serving() as front:
        await front.get()
        signal.raise_signal(signal.SIGHUP)
        status, _, _ = await front.get()
    assert status == 200


@pytest.mark.parametrize(
    ("runner", "number"), [("asyncio.run", signal.SIGTERM), ("uvloop.run", signal.SIGINT)]
)
def test_a_process_that_is_told_to_stop_ends_with_0(runner: str, number: signal.Signals) -> None:
    program = f"""
        import asyncio, sys, uvloop
        from exporter.web.listener import bind
        from exporter.web.server import serve

        async def app(scope, receive, send):
            if scope["type"] == "http":
                await send({{"type": "http.response.start", "status": 200,
                            "headers": [(b"content-length", b"2")]}})
                await send({{"type": "http.response.body", "body": b"ok"}})

        sockets = bind(("127.0.0.1", 0))
        print(sockets[0].getsockname()[1], flush=True)
        {runner}(serve(app, sockets=sockets, web_config=None, on_reload=None,
                 stopping=lambda: print("stopping", flush=True)))
        print("stopped", flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
            process.send_signal(number)
            output = process.stdout.read()
        errors = process.stderr.read()
    # The log goes to stdout as long as nobody has set it up.
    assert output.splitlines()[-1] == "stopped"
    assert "stopping" in output.splitlines()
    assert "Traceback" not in errors
    assert process.returncode == 0
