"""The program from the outside: flags, exit codes, what goes to which stream."""

import asyncio
import fcntl
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.cli import main
from exporter.config.schema import ApiConfig
from exporter.demo import build_demo_config
from exporter.simulator import (
    DEMO_BUSY,
    DEMO_EMPTY,
    DEMO_FAILING,
    DEMO_HEALTHY,
    DEMO_HOLE,
    DEMO_INSTANCES,
    DEMO_PROJECT_ID,
    DEMO_STALE,
    DemoInstance,
    Fault,
    Simulator,
    build_demo,
    serve,
)
from tests.config.test_problems import MISTAKES, read_problems
from tests.support.demo_project import demo_config
from tests.support.factories import (
    BACKUP_GAUGES,
    REASONS,
    Samples,
    parse_samples,
    running_exporter,
    samples,
)
from tests.support.programs import answers, eventually, free_port, get
from tests.support.virtual_time import DAY, HOUR, NOON, Clock

MINIMAL = "projects: [{id: p1, region: cn-north-4, instances: [i1]}]\n"


@pytest.fixture
def minimal(tmp_path: Path) -> str:
    """The path of a configuration that is right."""
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL)
    return str(path)


@pytest.mark.parametrize(
    "address", ["nonsense", "host", "1.2.3.4", ":99999", ":-1", ":http", "::1:80", "[::1]", ""]
)
def test_an_address_that_cannot_be_listened_on_is_2_and_one_line(
    capsys: pytest.CaptureFixture[str], minimal: str, address: str
) -> None:
    options = ["--config.file", minimal, "--log.level=error"]
    assert main([*options, f"--web.listen-address={address}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line for line in err.splitlines() if line.startswith("--web.listen-address: ")] == (
        err.splitlines()
    )
    assert len(err.splitlines()) == 1


# --config.check -------------------------------------------------------------------------------


def test_a_right_configuration_is_said_to_be_ok(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "projects:\n"
        "  - {id: p1, region: cn-north-4, instances: [i1, i2]}\n"
        "  - {id: p2, region: cn-north-4, instances: [i1]}\n"
        "  - {id: p3, region: cn-north-4, discovery: {}}\n"
    )
    assert main(["--config.file", str(path), "--config.check"]) == 0
    assert capsys.readouterr().out == "config OK: 3 projects, 3 instances\n"


def test_the_count_is_written_the_same_way_for_one(
    capsys: pytest.CaptureFixture[str], minimal: str
) -> None:
    assert main(["--config.file", minimal, "--config.check"]) == 0
    assert capsys.readouterr().out == "config OK: 1 projects, 1 instances\n"


def test_every_problem_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config.file", str(MISTAKES / "several.yaml"), "--config.check"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.removeprefix(f"{MISTAKES}/") for line in err.splitlines()] == (
        read_problems("several")
    )


def test_a_check_needs_no_secret_to_be_there_and_says_which_is_not(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "projects: [{id: p1, region: cn-north-4, instances: [i1],"
        " auth: {type: token, token_file: secrets/token}}]\n"
    )
    assert main(["--config.file", str(path), "--config.check"]) == 0
    out, err = capsys.readouterr()
    assert out == "config OK: 1 projects, 1 instances\n"
    assert err == (
        f"{path}:1:78: warning: projects[0].auth.token_file: {tmp_path}/secrets/token: there is no"
        f" such file, nor a folder {tmp_path}/secrets\n"
    )


def test_a_check_says_which_way_each_project_takes_and_what_is_missing_for_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "projects:\n"
        "  - {id: p1, region: cn-north-4, instances: [i1], auth: {type: env}}\n"
        "  - {id: p2, region: cn-north-4, instances: [i1], auth: {type: pod-identity}}\n"
    )
    monkeypatch.setenv("HUAWEICLOUD_SDK_AK", "AKEXAMPLE")
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "hunter2")
    monkeypatch.setenv("HC_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/v1/credentials")
    assert main(["--config.file", str(path), "--config.check"]) == 0
    out, err = capsys.readouterr()
    assert out == (
        "config OK: 2 projects, 2 instances\n"
        "project p1 logs in with the access key AKEX… of the environment\n"
    )
    assert err == (
        f"{path}:3:51: warning: projects[1].auth: type pod-identity:"
        " HC_CONTAINER_AUTHORIZATION_TOKEN_FILE is not set in the environment\n"
    )


def test_a_check_finds_certificates_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"api: {{ca_file: absent.pem}}\n{MINIMAL}")
    assert main(["--config.file", str(path), "--config.check"]) == 2
    assert capsys.readouterr().err == (
        f"{path}:1:7: api.ca_file: {tmp_path}/absent.pem: there is no such file\n"
    )


def test_a_check_looks_at_the_web_configuration_too_and_tells_all_in_one_go(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path, web = tmp_path / "config.yaml", tmp_path / "web.yaml"
    path.write_text(f"api: {{retries: 11}}\n{MINIMAL}")
    web.write_text("basic_auth_user: {a: b}\n")
    arguments = ["--config.file", str(path), "--web.config.file", str(web), "--config.check"]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "api.retries: must be a whole number from 0 to 10" in err
    assert "basic_auth_user" in err


@pytest.mark.parametrize("mode", [["--config.check"], ["--once"], []])
def test_a_missing_configuration_is_2_and_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mode: Sequence[str]
) -> None:
    assert main(["--config.file", str(tmp_path / "absent.yaml"), *mode]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{tmp_path}/absent.yaml: there is no such file\n"


def test_the_default_configuration_is_told_to_be_the_default(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--config.check"]) == 2
    assert capsys.readouterr().err == (
        "config.yaml: there is no such file (the default; another one is named with"
        " --config.file)\n"
    )


# --once ---------------------------------------------------------------------------------------


class Cloud:
    """The demo's simulated cloud on a real loopback socket, in a thread of its own."""

    def __init__(self) -> None:
        self.simulator = build_demo()
        self.address = ""
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with serve(self.simulator) as self.address:
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> "Cloud":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud() as running:
        yield running


def write_config(folder: Path, address: str, *instances: DemoInstance) -> str:
    path = folder / "config.yaml"
    ids = [instance.id for instance in instances]
    path.write_text(demo_config(address, ids, api={"rate_limit": 0}))
    return str(path)


def is_exposition(text: str) -> bool:
    lines = text.splitlines()
    assert lines
    assert list(text_string_to_metric_families(text))
    return all(re.match(r"# (HELP|TYPE) |[a-z_]+(\{.*\})? [-+0-9.eNaInf]+$", x) for x in lines)


def test_once_is_0_where_every_instance_succeeds(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cloud: Cloud
) -> None:
    path = write_config(tmp_path, cloud.address, DEMO_HEALTHY, DEMO_EMPTY)
    assert main(["--config.file", path, "--once"]) == 0
    out, err = capsys.readouterr()
    assert is_exposition(out)
    assert parse_samples(out).by_instance("scrape_success") == {
        DEMO_HEALTHY.id: 1.0,
        DEMO_EMPTY.id: 1.0,
    }
    assert 'msg="configuration loaded"' in err
    assert all(line.startswith("ts=") for line in err.splitlines())


def test_once_is_1_where_an_instance_fails_and_publishes_the_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cloud: Cloud
) -> None:
    path = write_config(tmp_path, cloud.address, DEMO_HEALTHY, DEMO_FAILING)
    assert main(["--config.file", path, "--once"]) == 1
    out, err = capsys.readouterr()
    assert is_exposition(out)
    assert parse_samples(out).by_instance("scrape_success") == {
        DEMO_HEALTHY.id: 1.0,
        DEMO_FAILING.id: 0.0,
    }
    assert 'msg="instance failing"' in err


def test_once_on_the_demo_is_1_for_its_failing_instance(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--once", "--demo", "--log.format=json"]) == 1
    out, err = capsys.readouterr()
    assert len(parse_samples(out).by_instance("scrape_success")) == 6
    assert all(line.startswith("{") for line in err.splitlines())


def test_once_is_1_where_the_instances_cannot_be_discovered(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"projects: [{{id: p, endpoint: 'http://127.0.0.1:{free_port()}',"
        " auth: {type: token, token: t}, discovery: {}}]\n"
    )
    assert main(["--config.file", str(path), "--once"]) == 1
    assert "gaussdb_mysql_discovery_success" in capsys.readouterr().out


def test_once_is_2_where_the_configuration_is_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--config.file", str(MISTAKES / "retries_negative.yaml"), "--once"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(":2:3: api.retries: must be a whole number from 0 to 10, not -1\n")


def test_once_serves_only_its_shard(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cloud: Cloud
) -> None:
    path = write_config(tmp_path, cloud.address, *DEMO_INSTANCES)
    served: list[str] = []
    for shard in range(3):
        main(["--config.file", path, "--once", f"--shard={shard}", "--total-shards=3"])
        served += parse_samples(capsys.readouterr().out).by_instance("scrape_success")
    assert sorted(served) == sorted(instance.id for instance in DEMO_INSTANCES)


def run_program(*arguments: str, **more: object) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(  # type: ignore[call-overload,no-any-return]  # of **more
        [sys.executable, "-m", "exporter", *arguments], timeout=60, **more
    )


def test_logs_and_exposition_never_share_a_stream(tmp_path: Path, cloud: Cloud) -> None:
    path = write_config(tmp_path, cloud.address, DEMO_HEALTHY)
    done = run_program("--config.file", path, "--once", "--log.level=debug", capture_output=True)
    assert done.returncode == 0
    assert is_exposition(done.stdout.decode())
    assert all(line.startswith(b"ts=") for line in done.stderr.splitlines())
    assert b"instances," not in done.stderr  # progress is for terminals


def test_progress_is_shown_on_a_terminal_alone(tmp_path: Path, cloud: Cloud) -> None:
    path = write_config(tmp_path, cloud.address, DEMO_HEALTHY, DEMO_BUSY)
    reader, terminal = pty.openpty()
    try:
        done = run_program("--config.file", path, "--once", stdout=subprocess.PIPE, stderr=terminal)
        shown = os.read(reader, 65_536).decode()
    finally:
        os.close(terminal)
        os.close(reader)
    assert done.returncode == 0
    assert is_exposition(done.stdout.decode())
    assert "\r2 of 2 instances, " in shown


def run_on_terminal(*arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code and what stands on a terminal of 100 columns."""
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, 100))
    inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    try:
        done = run_program(
            *arguments,
            stdout=terminal,
            stderr=subprocess.DEVNULL,
            env=inherited | {"TERM": "xterm-256color"} | environment,
        )
        return done.returncode, os.read(reader, 65_536).decode().replace("\r\n", "\n")
    finally:
        os.close(terminal)
        os.close(reader)


def test_a_terminal_gets_the_table(tmp_path: Path, cloud: Cloud) -> None:
    path = write_config(tmp_path, cloud.address, DEMO_HEALTHY, DEMO_FAILING)
    code, shown = run_on_terminal("--config.file", path, "--once")
    assert code == 1
    assert "\x1b[1;33m1 of 2 instances need attention\x1b[0m\n" in shown
    code, plain = run_on_terminal("--config.file", path, "--once", NO_COLOR="1")
    assert code == 1
    assert "\x1b" not in plain
    assert plain.startswith("1 of 2 instances need attention\nscraped ")
    assert max(map(len, plain.splitlines())) <= 100


@pytest.mark.parametrize(
    ("output", "begins"),
    [
        ("auto", "# HELP gaussdb_mysql_incremental_backups "),
        ("metrics", "# HELP gaussdb_mysql_incremental_backups "),
        ("table", "1 of 2 instances need attention\nscraped "),
        ("json", '{\n  "verdict": "1 of 2 instances need attention",\n'),
    ],
)
def test_the_output_is_the_one_that_was_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cloud: Cloud, output: str, begins: str
) -> None:
    path = write_config(tmp_path, cloud.address, DEMO_HEALTHY, DEMO_FAILING)
    assert main(["--config.file", path, "--once", "--output", output]) == 1
    assert capsys.readouterr().out.startswith(begins)


def test_a_discovery_that_takes_none_of_what_it_finds_is_a_failure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cloud: Cloud
) -> None:
    path = Path(write_config(tmp_path, cloud.address))
    path.write_text(path.read_text().replace("instances: []", "discovery: {name: 'no such name'}"))
    assert main(["--config.file", str(path), "--once", "--output=table"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "discovery finds 6 instances and its filters take none of them" in said


def test_progress_counts_instances_and_pages(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cloud: Cloud,
) -> None:
    path = write_config(tmp_path, cloud.address, DEMO_HEALTHY, DEMO_FAILING)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["--config.file", path, "--once", "--log.level", "error"]) == 1
    shown = capsys.readouterr().err.split("\r")
    assert shown[0] == ""
    assert re.fullmatch(r"2 of 2 instances, \d+ pages read \n", shown[-1])
    assert all(re.match(r"[012] of 2 instances, \d+ pages read ", line) for line in shown[1:])


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize(
    ("open_output", "cause"),
    [
        (closed_pipe, "Broken pipe"),
        (lambda: os.open("/dev/full", os.O_WRONLY), "No space left on device"),
    ],
)
def test_an_output_that_cannot_be_written_is_said_without_a_traceback(
    tmp_path: Path, cloud: Cloud, open_output: Callable[[], int], cause: str
) -> None:
    if cause.startswith("No space") and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    path = write_config(tmp_path, cloud.address, DEMO_HEALTHY)
    output = open_output()
    try:
        done = run_program("--config.file", path, "--once", stdout=output, stderr=subprocess.PIPE)
    finally:
        os.close(output)
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert lines[-1].endswith(f'msg="cannot write the result" cause="{cause}"')
    assert all(line.startswith("ts=") for line in lines)


def test_a_scrape_that_is_interrupted_is_no_success(tmp_path: Path) -> None:
    with Cloud() as cloud:
        cloud.simulator.fault_script = lambda request: Fault(hang=True)
        path = write_config(tmp_path, cloud.address, DEMO_HEALTHY)
        process = subprocess.Popen(
            [sys.executable, "-m", "exporter", "--config.file", path, "--once"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        eventually(lambda: True if cloud.simulator.requests else None, what="a request")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == b""
    assert b"Traceback" not in err


# Serving --------------------------------------------------------------------------------------


def stop_when_ready(address: str, while_running: Callable[[], None]) -> threading.Thread:
    """Runs a function beside the program in this process, then stops that with SIGTERM."""

    def run() -> None:
        eventually(lambda: answers(f"{address}/-/ready"), what="a ready exporter")
        try:
            while_running()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_it_serves_until_it_is_told_to_stop(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cloud: Cloud
) -> None:
    path = write_config(tmp_path, cloud.address, DEMO_HEALTHY)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    seen: list[Samples] = []

    def use_it() -> None:
        seen.append(parse_samples(get(f"{address}/stats")))
        Path(path).write_text("projects: []")
        os.kill(os.getpid(), signal.SIGHUP)
        name = "gaussdb_mysql_exporter_config_last_reload_successful 0.0"
        eventually(lambda: name in get(f"{address}/stats") or None, what="a failed reload")

    thread = stop_when_ready(address, use_it)
    arguments = ["--web.listen-address", f"127.0.0.1:{port}", "--web.telemetry-path", "/stats"]
    assert main(["--config.file", path, *arguments]) == 0
    thread.join(30)
    assert seen[0].by_instance("scrape_success") == {DEMO_HEALTHY.id: 1.0}
    err = capsys.readouterr().err
    assert "reload failed, the old configuration stays" in err
    assert "projects: needs at least one entry" in err
    assert err.splitlines()[-1].endswith("msg=stopped")


def test_the_demo_says_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    thread = stop_when_ready(address, lambda: None)
    arguments = ["--web.listen-address", f"127.0.0.1:{port}", "--web.telemetry-path", "/m"]
    assert main(["--demo", "--log.level", "error", *arguments]) == 0
    thread.join(30)
    assert capsys.readouterr().err.splitlines() == [
        "The demo runs on a simulated cloud with six instances:",
        "  orders       healthy",
        "  billing      a week of backups, large ones; the last full one failed",
        "  shipping     stopped three hours ago",
        "  sessions     four hours without, then resumed; not restorable since",
        "  sandbox      no backup at all",
        "  legacy-crm   the API answers 500",
        f"Look at {address}/ (status page) and {address}/m. Ctrl-C ends it.",
    ]


def test_the_demo_runs_as_a_program_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "exporter", "--demo", "--web.listen-address", "127.0.0.1:0"],
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
    try:
        found = eventually(
            lambda: re.search(r"msg=listening address=(\S+)", log.read_text()),
            what="the address in the log",
        )
        address = f"http://{found[1]}"
        assert f"Look at {address}/ (status page) and {address}/metrics" in log.read_text()
        # Without a scrape from outside the page shows each instance's state.
        eventually(
            lambda: re.search(r"<h1[^>]*>4 of 6 instances need attention", get(f"{address}/")),
            what="the verdict",
        )
        scraped = parse_samples(get(f"{address}/metrics"))
        assert scraped.by_instance("scrape_success") == {
            instance.id: float(instance is not DEMO_FAILING) for instance in DEMO_INSTANCES
        }
        process.send_signal(signal.SIGHUP)
        eventually(
            lambda: log.read_text().count('msg="configuration loaded"') == 2 or None,
            what="a reload",
        )
        assert "gaussdb_mysql_exporter_config_last_reload_successful 1.0" in get(
            f"{address}/metrics"
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


# The demo's numbers ---------------------------------------------------------------------------


def expected_gauges(simulator: Simulator, demo: DemoInstance, now: float) -> dict[str, float]:
    """The backup gauges of an instance, computed from the simulated cloud's own rows."""

    def ended(begin: float) -> list[tuple[float, float]]:
        rows = simulator.backups_between(DEMO_PROJECT_ID, demo.id, begin, now, now)
        return sorted(
            (row.end, row.size or 0.0) for row in rows if row.end is not None and row.end <= now
        )

    since = now - demo.lookback_seconds
    rows = simulator.backups_between(DEMO_PROJECT_ID, demo.id, since, now, now)
    recent, ever = ended(since), ended(0.0)
    kilobytes = sum(row.size or 0.0 for row in rows)
    gauges = {
        "incremental_backups": float(len(rows)),
        "incremental_backups_size_kilobytes": kilobytes,
        "incremental_backups_size_bytes": kilobytes * 1024,
        "incremental_backups_running": float(len(rows) - len(recent)),
        "incremental_backups_listing_complete": 1.0,
    }
    if ever:
        gauges["incremental_backup_latest_end_timestamp_seconds"] = ever[-1][0]
        gauges["incremental_backup_latest_size_bytes"] = ever[-1][1] * 1024
    if recent:
        gauges["incremental_backup_oldest_end_timestamp_seconds"] = recent[0][0]
    if len(recent) > 1:
        gauges["incremental_backup_max_interval_seconds"] = max(
            later[0] - earlier[0] for earlier, later in pairwise(recent)
        )
    return gauges


async def test_the_demo_shows_every_gauge_of_every_instance_truly(clock: Clock) -> None:
    simulator = build_demo(clock)
    config = build_demo_config("http://demo.example")
    # A limit would let time pass while the billing instance's forty pages are read.
    config = config.model_copy(update={"api": ApiConfig(rate_limit=0)})
    async with running_exporter(simulator, config) as exporter:
        for pause in (0.0, 60.0, 60.0, 300.0, HOUR, 3 * HOUR, DAY, 10 * DAY):
            await clock.advance(pause)
            now, earlier = clock(), len(simulator.requests)
            found = await samples(exporter)
            assert clock() == now
            for demo in DEMO_INSTANCES:
                asked = [
                    request
                    for request in list(simulator.requests)[earlier:]
                    if request.instance_id == demo.id and request.operation == "list_backups"
                ]
                failing = demo is DEMO_FAILING
                expected = {} if failing else expected_gauges(simulator, demo, now)
                assert {
                    name: pytest.approx(value, rel=1e-12)
                    for name, value in found.backup_gauges(demo.id).items()
                } == expected, f"{demo.name} at {now - NOON}"
                assert found.of("scrape_success", demo.id) == float(not failing)
                assert found.of("scrape_duration_seconds", demo.id) == 0.0
                assert found.of("scrape_api_requests", demo.id) == len(asked)
                assert found.of("scrape_api_errors", demo.id) == float(failing)
                every = len(simulator.requests_of("list_backups", demo.id))
                # Those for restores go on behind the scrape: what they tell is tested apart.
                beside = len(simulator.requests_of("show_restore_time", demo.id))
                assert every <= (found.of("api_requests_total", demo.id) or 0) <= every + beside
                assert found.of("last_success_timestamp_seconds", demo.id) == (
                    None if failing else now
                )
                assert found.of("incremental_backup_stale_after_seconds", demo.id) == HOUR
                assert found.of("incremental_backup_lookback_seconds", demo.id) == (
                    7 * DAY if demo is DEMO_BUSY else DAY
                )
                info = {"project_name": "demo", "instance_name": demo.name, "region": "cn-north-4"}
                assert found.of("instance_info", demo.id, **info) == 1.0
                errors = {
                    reason: found.of("api_errors_total", demo.id, reason=reason)
                    for reason in REASONS
                }
                refused = errors.pop("server") or 0
                assert set(errors.values()) == {0.0}
                assert every <= refused <= every + beside if failing else refused == 0


async def test_the_demos_six_instances_differ_as_they_are_described(clock: Clock) -> None:
    simulator = build_demo(clock)
    async with running_exporter(simulator, build_demo_config("http://demo.example")) as exporter:
        found = await samples(exporter)
    latest = found.by_instance("incremental_backup_latest_end_timestamp_seconds")
    counts = found.by_instance("incremental_backups")
    holes = found.by_instance("incremental_backup_max_interval_seconds")
    assert NOON - latest[DEMO_HEALTHY.id] < 600
    assert 287 <= counts[DEMO_HEALTHY.id] <= 290
    assert 2_014 <= counts[DEMO_BUSY.id] <= 2_018
    assert 3 * HOUR - 300 <= NOON - latest[DEMO_STALE.id] < 3 * HOUR + 600
    assert 4 * HOUR - 300 < holes[DEMO_HOLE.id] < 4 * HOUR + 900
    assert holes[DEMO_HEALTHY.id] < 900
    assert counts[DEMO_EMPTY.id] == 0
    assert DEMO_EMPTY.id not in latest
    assert found.backup_gauges(DEMO_FAILING.id) == {}
    assert set(found.backup_gauges(DEMO_HEALTHY.id)) == set(BACKUP_GAUGES)


# What is loaded ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("doing", "unneeded"),
    [
        (
            "from exporter.cli import main; main(['--print-rules'])",
            "asyncio pydantic structlog yaml",
        ),
        ("import exporter.command.checking", "aiohttp httpx jinja2 starlette uvicorn uvloop"),
        ("import exporter.command.running", "bcrypt exporter.simulator jinja2 prettytable wcwidth"),
    ],
)
def test_only_what_is_needed_is_loaded(doing: str, unneeded: str) -> None:
    """`--version` took 0.8 s of CPU and 63 MB."""
    program = f"{doing}; import sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, timeout=60
    )
    assert not set(done.stdout.decode().splitlines()) & set(unneeded.split())


# Standard streams that are closed or full -------------------------------------------------------


def run_in_shell(redirections: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    program = shlex.join([sys.executable, "-m", "exporter", *arguments])
    return subprocess.run(
        ["sh", "-c", f"{program} {redirections}"], capture_output=True, timeout=60, check=False
    )


def test_once_needs_no_standard_error(tmp_path: Path, cloud: Cloud) -> None:
    """The event loop aborted the process: its own descriptors had become 0 to 2."""
    path = write_config(tmp_path, cloud.address, DEMO_HEALTHY)
    done = run_in_shell("0<&- 2>&-", "--config.file", path, "--once")
    assert done.returncode == 0
    assert is_exposition(done.stdout.decode())


def test_an_output_that_is_closed_is_said(tmp_path: Path, cloud: Cloud, minimal: str) -> None:
    path = write_config(tmp_path.parent, cloud.address, DEMO_HEALTHY)
    done = run_in_shell(">&-", "--config.file", path, "--once")
    assert done.returncode == 1
    assert done.stderr.endswith(b'msg="cannot write the result" cause="Bad file descriptor"\n')
    for arguments in (["--config.check", "--config.file", minimal], ["--version"]):
        done = run_in_shell(">&-", *arguments)
        assert done.returncode == 1
        assert done.stderr.endswith(b"cannot write to standard output: Bad file descriptor\n")
        assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_changes_no_exit_code() -> None:
    mistake = str(MISTAKES / "several.yaml")
    done = run_in_shell("2>/dev/full", "--config.check", "--config.file", mistake)
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


# A port that is taken ---------------------------------------------------------------------------


def test_a_demo_whose_port_is_taken_says_how_to_take_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--demo", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]) == 2
    assert capsys.readouterr().err == (
        f"--web.listen-address: cannot listen on 127.0.0.1:{port}: the port is taken by another"
        f" program; stop it or choose another port: make demo PORT={port + 1}, or"
        f" --web.listen-address 127.0.0.1:{port + 1}\n"
    )


# A log that nobody reads ------------------------------------------------------------------------


def test_a_log_that_nobody_reads_does_not_keep_the_program_from_ending() -> None:
    """SIGTERM ended nothing while a log driver stalled."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    program = subprocess.Popen(
        [
            *(sys.executable, "-m", "exporter", "--demo"),
            *("--log.level=debug", "--web.listen-address=127.0.0.1:0"),
        ],
        stderr=writer,
        stdout=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        said = ""
        while (listening := re.search(r"msg=listening address=(\S+) .*\n", said)) is None:
            said += os.read(reader, 1024).decode()
        for _ in range(6):  # each request of these scrapes is a line
            assert get(f"http://{listening[1]}/metrics")
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=60) == 0
    finally:
        program.kill()
        program.wait()
        os.close(reader)
