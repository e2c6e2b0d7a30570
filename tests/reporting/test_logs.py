"""The log as an operator reads it: one line an event, in one form, free of secrets."""

import asyncio
import io
import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from unittest import mock

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from exporter.reporting.logs import logging_to
from exporter.reporting.redaction import SecretRegistry
from exporter.simulator import Fault
from exporter.web.tls_transport import TlsTransport
from tests.support.factories import (
    BILLING,
    ORDERS,
    PASSWORD,
    PROJECT,
    fetch_metrics,
    make_backup,
    make_config,
    make_instance,
    make_simulator,
    running_exporter,
)
from tests.support.faults import StreamingTransport
from tests.support.virtual_time import Clock

Form = Literal["logfmt", "json"]

log = structlog.get_logger("exporter.test")


class Log(io.StringIO):
    """What was written, line by line."""

    @property
    def lines(self) -> list[str]:
        return self.getvalue().split("\n")[:-1]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of the JSON form."""
        return [json.loads(line) for line in self.lines]

    def named(self, message: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["msg"] == message]


@contextmanager
def logging_into(
    form: Form = "json", level: str = "info", registry: SecretRegistry | None = None
) -> Iterator[Log]:
    """Logging set up as the program does it; read the log after the block."""
    written = Log()
    with logging_to(written, level=level, log_format=form, registry=registry or SecretRegistry()):
        yield written


def parse_logfmt(line: str) -> dict[str, str]:
    """A reader of our own for `key=value key="value with \\"escapes\\""`."""
    found = {}
    for match in re.finditer(
        r'(?P<key>[^\s="]+)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>\S*))', line
    ):
        value = match["bare"]
        if value is None:
            value = re.sub(
                r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), match["quoted"]
            )
        found[match["key"]] = value
    return found


# Form -----------------------------------------------------------------------------------------


def test_logfmt_begins_with_time_level_and_message() -> None:
    with logging_into("logfmt") as written:
        log.warning("instance failing", reason="server", attempts=3, cut_off=True)
    assert re.fullmatch(
        r'ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z level=warning msg="instance failing"'
        r" reason=server attempts=3 cut_off=true",
        written.lines[0],
    )
    assert len(written.lines) == 1


def test_json_has_the_same_facts_in_their_own_types() -> None:
    with logging_into("json") as written:
        log.warning("instance failing", reason="server", attempts=3, cut_off=True, ratio=0.5)
    (event,) = written.events
    del event["ts"]
    assert event == {
        "level": "warning",
        "msg": "instance failing",
        "reason": "server",
        "attempts": 3,
        "cut_off": True,
        "ratio": 0.5,
    }


def test_times_are_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    with logging_into("json") as written:
        log.info("now")
    stamp = written.events[0]["ts"]
    assert stamp.endswith("Z")
    assert abs(datetime.fromisoformat(stamp) - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.parametrize("form", ["logfmt", "json"])
@given(value=st.text(max_size=60))
def test_any_text_in_a_field_stays_on_its_line(form: Form, value: str) -> None:
    with logging_into(form) as written:
        log.info("event", value=value, after="x")
    assert len(written.lines) == 1
    line = written.lines[0]
    assert "\r" not in line
    assert line.startswith(("ts=", "{"))


@pytest.mark.parametrize(
    "value", ["two words", 'a "quoted" one', "a=b", "back\\slash", "ümläut", ""]
)
def test_logfmt_can_be_read_back(value: str) -> None:
    with logging_into("logfmt") as written:
        log.info("an event", value=value)
    assert parse_logfmt(written.lines[0])["value"] == value


@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.parametrize("logger", [log, logging.getLogger("aiohttp")])
def test_an_exception_is_on_the_line_of_its_event(form: Form, logger: Any) -> None:
    """Once lost: the thread that writes looked for the exception of its own."""
    with logging_into(form) as written:
        try:
            raise RuntimeError("one\ntwo")
        except RuntimeError:
            logger.exception("query broke")
    (line,) = written.lines
    read = json.loads(line) if form == "json" else parse_logfmt(line)
    assert read["msg"] == "query broke"
    assert read["exception"].startswith("Traceback (most recent call last):\n")
    assert read["exception"].endswith("RuntimeError: one\ntwo")


def test_events_are_dated_when_they_happen_not_when_they_are_written() -> None:
    with logging_into("json") as written:
        for _ in range(50):
            log.info("ours")
            logging.getLogger("aiohttp").warning("theirs")
    stamps = [event["ts"] for event in written.events]
    assert stamps == sorted(stamps)


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_libraries_warnings_come_in_the_same_form(form: Form) -> None:
    with logging_into(form) as written:
        logging.getLogger("aiohttp.client").warning("no %s for %d s", "answer", 5)
    (line,) = written.lines
    read = json.loads(line) if form == "json" else parse_logfmt(line)
    assert (read["level"], read["msg"]) == ("warning", "no answer for 5 s")


# Levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warn", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_a_level_shows_itself_and_what_is_worse(level: str, shown: list[str]) -> None:
    with logging_into("json", level) as written:
        log.debug("event")
        log.info("event")
        log.warning("event")
        log.error("event")
    assert [event["level"] for event in written.events] == shown


async def test_httpx_does_not_log_every_request() -> None:
    """It logs each URL at INFO, and with it what a query holds."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200))
    with logging_into("json", "debug") as written:
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get("https://gaussdb.example/?secret=hunter2")
        logging.getLogger("httpx").warning("but this")
        logging.getLogger("asyncio").info("not this")
    assert [event["msg"] for event in written.events] == ["but this"]


def test_all_that_was_logged_is_written_when_the_block_ends() -> None:
    with logging_into() as written:
        for number in range(2_000):
            log.info("event", number=number)
    assert [event["number"] for event in written.events] == list(range(2_000))


class StalledLog(Log):
    """Nobody reads what is written until the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def write(self, text: str) -> int:
        assert self.goes_on.wait(60)
        return super().write(text)


def test_of_what_nobody_reads_only_so_much_is_kept_and_the_rest_is_counted() -> None:
    written = StalledLog()
    with logging_to(written, level="info", log_format="json", registry=SecretRegistry()):
        for number in range(15_000):
            log.info("event", number=number)
        written.goes_on.set()
        while len(written.lines) < 10_000:
            time.sleep(0.001)
        log.info("later")
    kept = len(written.named("event"))
    assert 10_000 <= kept <= 10_001  # one was being written
    lost, later = written.events[-2:]
    assert (lost["msg"], lost["level"]) == ("log lines were lost, nobody read them", "warning")
    assert lost["lines"] == 15_000 - kept
    assert later["msg"] == "later"


def test_logging_is_given_back() -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with logging_into():
        assert root.handlers != before[0]
    assert (root.handlers, root.level) == before


# Secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_known_secrets_are_masked_wherever_they_are(form: Form) -> None:
    registry = SecretRegistry()
    registry.update("password", ["correct horse battery"])
    with logging_into(form, registry=registry) as written:
        log.info("login", error="refused correct horse battery", parts=["correct horse battery"])
        log.warning("it is correct horse battery")
        logging.getLogger("aiohttp").error("sent %s", "correct horse battery")
        try:
            raise RuntimeError("with correct horse battery")
        except RuntimeError:
            log.exception("broke")
    assert len(written.lines) == 4
    assert "correct horse battery" not in written.getvalue()
    assert written.getvalue().count("[redacted]") >= 5


def test_unknown_secrets_are_masked_by_their_names() -> None:
    with logging_into() as written:
        log.info("event", password="hunter2", token="hunter2", headers={"X-Auth-Token": "hunter2"})
        log.info("event", error="request had X-Auth-Token: hunter2hunter2hunter2")
    assert "hunter2" not in written.getvalue()


async def test_what_the_api_echoes_is_not_logged(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    simulator.add_fault(Fault(status=403, leak=True, message="refused: "), times=None)
    registry = SecretRegistry()
    config = make_config(ORDERS, auth="aksk")
    with logging_into("json", "debug", registry) as written:
        async with running_exporter(simulator, config, registry=registry) as exporter:
            await fetch_metrics(exporter)
    (failing,) = written.named("instance failing")
    assert "refused" in failing["error"]
    assert "Signature=" not in written.getvalue() or "[redacted]" in failing["error"]
    assert not re.search(r"[0-9a-f]{64}", written.getvalue())  # a signature


def test_a_library_that_meets_a_closed_connection_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its traceback says nothing that anybody could act upon; other errors of it are told."""
    library = logging.getLogger("asyncio")
    monkeypatch.setattr(library, "handlers", [])  # of the tests, which take every error for one
    with logging_into() as written:
        for text in ("unable to perform operation on <TCPTransport>; the handler is closed", "odd"):
            try:
                raise RuntimeError(text)
            except RuntimeError as exc:
                library.error("Fatal error on SSL protocol", exc_info=exc)
    (told,) = written.named("Fatal error on SSL protocol")
    assert "RuntimeError: odd" in told["exception"]


def test_a_handshake_that_fails_when_nobody_waits_for_it_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where an authority is renewed, and the request has met its deadline."""
    library = logging.getLogger("asyncio")
    monkeypatch.setattr(library, "handlers", [])
    with logging_into() as written:
        for what in ("Future exception was never retrieved", "Fatal error on transport"):
            try:
                raise ssl.SSLCertVerificationError("certificate verify failed")
            except ssl.SSLError as exc:
                library.error(what, exc_info=exc)
    assert not written.named("Future exception was never retrieved")
    assert len(written.named("Fatal error on transport")) == 1


def test_a_closed_connection_that_this_program_has_used_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = logging.getLogger("asyncio")
    monkeypatch.setattr(library, "handlers", [])

    class Closed(asyncio.Transport):
        def is_closing(self) -> bool:
            raise RuntimeError("unable to perform operation on <X>; the handler is closed")

    connection = mock.Mock(raw=Closed())
    with logging_into() as written:
        try:
            TlsTransport(connection).close()
        except RuntimeError as exc:
            library.error("Exception in callback", exc_info=exc)
    (told,) = written.named("Exception in callback")
    assert "the handler is closed" in told["exception"]


# What is logged of a scrape -------------------------------------------------------------------


async def test_a_failing_instance_is_logged_once_and_its_recovery_once(clock: Clock) -> None:
    simulator = make_simulator(
        make_instance(make_backup()), make_instance(make_backup(), id=BILLING), clock=clock
    )
    config = make_config({"id": ORDERS, "name": "orders"}, BILLING)
    with logging_into() as written:
        async with running_exporter(simulator, config) as exporter:
            await fetch_metrics(exporter)
            simulator.add_fault(Fault(status=403), "list_backups", ORDERS, times=None)
            for _ in range(5):
                await clock.advance(60.0)
                await fetch_metrics(exporter)
            simulator.clear_faults()
            for _ in range(3):
                await clock.advance(60.0)
                await fetch_metrics(exporter)
    (failing,) = written.named("instance failing")
    assert failing["level"] == "warning"
    assert failing["reason"] == "forbidden"
    assert "HTTP 403" in failing["error"]
    assert "gaussdbformysql:backup:list" in failing["hint"]
    assert (failing["project"], failing["instance"]) == (PROJECT, ORDERS)
    assert failing["instance_name"] == "orders"
    (recovered,) = written.named("instance recovered")
    assert (recovered["level"], recovered["instance"]) == ("info", ORDERS)
    assert recovered["failed_seconds"] == 300
    assert not [event for event in written.events if event.get("instance") == BILLING]


async def test_another_reason_is_another_line(clock: Clock) -> None:
    simulator = make_simulator(make_instance(make_backup()), clock=clock)
    with logging_into() as written:
        async with running_exporter(simulator, make_config(api={"retries": 0})) as exporter:
            for status in (500, 500, 404, 404, 500):
                simulator.clear_faults()
                simulator.add_fault(Fault(status=status), "list_backups", times=None)
                await fetch_metrics(exporter)
                await clock.advance(60.0)
    assert [event["reason"] for event in written.named("instance failing")] == [
        "server",
        "not_found",
        "server",
    ]


async def test_a_refused_login_is_logged_with_what_to_do_and_no_secret(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    auth = {"type": "password", "domain": "my-account", "username": "u", "password": "hunter22"}
    with logging_into() as written:
        async with running_exporter(simulator, make_config(auth=auth)) as exporter:
            for _ in range(3):
                await fetch_metrics(exporter)
    (refused,) = written.named("login failed")
    assert refused["level"] == "warning"
    assert refused["hint"]
    assert refused["next_try_seconds"] == 60
    assert len(written.named("instance failing")) == 1
    assert "hunter22" not in written.getvalue()


async def test_nobody_to_reach_is_no_traceback(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    transport = StreamingTransport(
        simulator, before=lambda request: httpx.ConnectError("Name or service not known")
    )
    with logging_into("logfmt", "debug") as written:
        async with running_exporter(simulator, transport=transport) as exporter:
            await fetch_metrics(exporter)
    failing = [line for line in written.lines if "instance failing" in line]
    assert len(failing) == 1
    assert "reason=network" in failing[0]
    assert "Name or service not known" in failing[0]
    assert "Traceback" not in written.getvalue()


async def test_a_login_is_logged_without_its_token(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    with logging_into("json", "debug") as written:
        async with running_exporter(simulator, make_config(auth="password")) as exporter:
            await fetch_metrics(exporter)
    assert written.named("login succeeded")[0]["expires_in_seconds"] == 86_400
    assert PASSWORD not in written.getvalue()
    assert "MII" not in written.getvalue()  # what the simulator's tokens begin with


async def test_a_quiet_scrape_logs_nothing(clock: Clock) -> None:
    simulator = make_simulator(make_instance(make_backup()), clock=clock)
    with logging_into() as written:
        async with running_exporter(simulator) as exporter:
            for _ in range(5):
                await fetch_metrics(exporter)
                await clock.advance(60.0)
    assert [event["msg"] for event in written.events] == ["configuration loaded"]
