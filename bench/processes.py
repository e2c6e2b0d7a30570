"""The processes of the benchmark: started, watched from outside, ended."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has had, of all its threads, to the nanosecond.

    The clock of another process, clock_getcpuclockid(3): its number is made of the process id.
    """
    return time.clock_gettime(((~pid) << 3) | 2)


def peak_rss_bytes(pid: int | None = None) -> int:
    status = Path(f"/proc/{pid or os.getpid()}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@contextlib.contextmanager
def started_cloud(latency_seconds: float) -> Iterator[tuple[str, int]]:
    """The prepared cloud; gives its address and its process id."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.cloud", "--latency", str(latency_seconds)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.stdin.close()
            process.wait(10)


@contextlib.contextmanager
def started_exporter(config_file: Path, clock_file: Path) -> Iterator[tuple[int, int]]:
    """The program on a free port; gives that and its process id."""
    command = [sys.executable, "-m", "bench.subjects", "exporter", str(clock_file)]
    command += ["--config.file", str(config_file), "--web.listen-address", "127.0.0.1:0"]
    log_file = config_file.with_suffix(".log")
    with (
        log_file.open("wb") as log,
        subprocess.Popen([*command, "--log.format", "json"], cwd=ROOT, stderr=log) as process,
    ):
        try:
            yield _wait_for_port(process, log_file), process.pid
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _wait_for_port(process: "subprocess.Popen[bytes]", log_file: Path) -> int:
    for _ in range(600):
        for line in log_file.read_text().splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event.get("msg") == "listening":
                    return int(event["address"].rpartition(":")[2])
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"the exporter did not start:\n{log_file.read_text()}")


def run_subject(name: str, address: str, instances: int, seconds: float) -> dict[str, float]:
    """What one of the others took."""
    command = [sys.executable, "-m", "bench.subjects", name, address, str(instances), str(seconds)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    took: dict[str, float] = json.loads(finished.stdout)
    return took
