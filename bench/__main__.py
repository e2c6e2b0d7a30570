"""`python -m bench`: measure the exporter, the vendor's SDK, and a bare loop; print one table."""

import argparse
import gzip
import http.client
import mmap
import os
import platform
import re
import struct
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import after_start
from bench.cloud import (
    BACKUP_SECONDS,
    FULL_BACKUPS,
    PROJECT_ID,
    PROJECT_INSTANCES,
    instance_id,
)
from bench.processes import (
    cpu_seconds,
    peak_rss_bytes,
    run_subject,
    started_cloud,
    started_exporter,
)
from bench.report import Row, Sample, render_table

DAY = 86_400
WINDOWS = {"24h": DAY, "7d": 7 * DAY}
# The time between two scrapes, as the exporter's clock sees it: a fifth of the instances has a new
# backup each time.
SCRAPE_INTERVAL_SECONDS = 60
# What an increment asks for: an hour and what is new since.
INCREMENT_SECONDS = 3_900
# As Prometheus 2.42 asks.
SCRAPE_HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0,"
    "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/2.42.0",
    "X-Prometheus-Scrape-Timeout-Seconds": "3600",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration of the exporter to measure."""

    instances: int
    window: str
    scrapes: int
    resync: bool = False
    signed: bool = False
    restores: bool = False

    @property
    def subject(self) -> str:
        if self.restores:
            return "exporter, restores"
        return "exporter, AK/SK" if self.signed else "exporter"

    @property
    def state(self) -> str:
        return "steady, resync 6h" if self.resync else "steady"


QUICK = (Case(100, "24h", 5), Case(1_000, "24h", 5), Case(1_000, "24h", 5, restores=True))
FULL = (
    Case(100, "24h", 20),
    Case(100, "7d", 20),
    Case(1_000, "24h", 10),
    Case(1_000, "7d", 10),
    Case(1_000, "7d", 10, resync=True),
    Case(1_000, "24h", 10, signed=True),
    Case(1_000, "24h", 10, restores=True),
    Case(1_000, "7d", 10, restores=True),
    Case(10_000, "24h", 5),
    Case(10_000, "7d", 5),
)


def build_config(case: Case, address: str, connections: int) -> str:
    """The exporter's configuration; JSON is YAML too, but this one is for people to read."""
    auth = (
        "{type: aksk, access_key: BENCHACCESSKEY000000, secret_key: BenchSecretKey}"
        if case.signed
        else "{type: password, domain: bench, username: bench, password: BenchPassword}"
    )
    instances = "\n".join(f"      - {instance_id(number)}" for number in range(case.instances))
    restores = ", restore_window: true, full_backups: true" if case.restores else ""
    return f"""\
defaults: {{lookback: {case.window}{restores}}}
api:
  max_connections: {connections}
  rate_limit: 0
  resync_interval: {"6h" if case.resync else "732d"}
scrape: {{timeout: 1h}}
projects:
  - id: {PROJECT_ID}
    region: cn-north-4
    endpoint: {address}
    iam_endpoint: {address}
    auth: {auth}
    instances:
{instances}
"""


class Clock:
    """How far the exporter's clock is ahead, in memory that it shares."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._shared = mmap.mmap(opened.fileno(), 8)

    def move(self, seconds: float) -> None:
        ahead = struct.unpack("d", self._shared[:])[0]
        self._shared[:] = struct.pack("d", ahead + seconds)


def fetch_listings(address: str) -> int:
    """How many listings the cloud has answered: its own count, not the exporter's."""
    with urllib.request.urlopen(f"{address}/listings") as response:
        return int(response.read())


def scrape(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3600)
    connection.request("GET", "/metrics", headers=SCRAPE_HEADERS)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 200, body
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    return body


def wait_until_quiet(address: str) -> None:
    """Until nothing goes on behind the scrape any longer."""
    before = -1
    while (now := fetch_listings(address)) != before:
        before = now
        time.sleep(0.5)


def measured_scrape(address: str, port: int, pid: int, case: Case) -> tuple[Sample, bytes]:
    """Its time is that of the answer, its requests and its CPU with what went on behind it."""
    listings, cpu, started = fetch_listings(address), cpu_seconds(pid), time.perf_counter()
    body = scrape(port)
    wall = time.perf_counter() - started
    if case.restores:
        wait_until_quiet(address)
    cpu = cpu_seconds(pid) - cpu
    return Sample(fetch_listings(address) - listings, wall, cpu), body


def check(body: bytes, case: Case, *, restores: bool = False) -> None:
    """Speed is worth nothing where the numbers are wrong: each instance has its whole window, and
    what can be restored."""
    text = gzip.decompress(body).decode()
    expected = WINDOWS[case.window] // BACKUP_SECONDS
    for name, allowed in (
        ("gaussdb_mysql_scrape_success", {1.0}),
        ("gaussdb_mysql_incremental_backups_listing_complete", {1.0}),
        ("gaussdb_mysql_incremental_backups", {expected, expected + 1.0}),
        ("gaussdb_mysql_incremental_backup_max_interval_seconds", {float(BACKUP_SECONDS)}),
        *(
            (
                ("gaussdb_mysql_restorable_ranges", {1.0}),
                ('gaussdb_mysql_full_backups{backup_type="auto"', {float(FULL_BACKUPS)}),
            )
            if restores
            else ()
        ),
    ):
        pattern = rf"^{re.escape(name)}[{{,][^}}]*\}} (\S+)$"
        values = [float(value) for value in re.findall(pattern, text, re.M)]
        if len(values) != case.instances or not allowed.issuperset(values):
            raise SystemExit(
                f"wrong numbers: {len(values)} of {name}, {sorted(set(values) - allowed)[:9]}"
            )


def longest_stall(port: int) -> float:
    """How long the health page takes at most while a scrape runs: the event loop's lag."""
    scraping = threading.Thread(target=scrape, args=(port,))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    longest = 0.0
    scraping.start()
    while scraping.is_alive():
        started = time.perf_counter()
        connection.request("GET", "/-/healthy")
        connection.getresponse().read()
        longest = max(longest, time.perf_counter() - started)
        time.sleep(0.005)
    scraping.join()
    return longest


def measure_exporter(
    case: Case, address: str, *, latency_seconds: float, connections: int
) -> Iterator[Row]:
    """Its first scrape, and the steady state after it."""
    with tempfile.TemporaryDirectory() as folder:
        config_file = Path(folder, "config.yaml")
        config_file.write_text(build_config(case, address, connections))
        clock_file = Path(folder, "clock")
        clock = Clock(clock_file)

        def row(state: str, samples: Sequence[Sample], stall: float | None = None) -> Row:
            return Row(
                case.subject,
                state,
                case.instances,
                case.window,
                samples,
                connections,
                latency_seconds,
                peak_rss_bytes(pid),
                stall,
            )

        with started_exporter(config_file, clock_file) as (port, pid):
            cold, body = measured_scrape(address, port, pid, case)
            check(body, case)
            yield row("cold", [cold])
            samples = []
            for i in range(case.scrapes + 1):
                clock.move(SCRAPE_INTERVAL_SECONDS)
                sample, body = measured_scrape(address, port, pid, case)
                check(body, case, restores=case.restores)
                if i > 0:  # the first pays for what only the first pays for
                    samples.append(sample)
            peak = row(case.state, samples)
            clock.move(SCRAPE_INTERVAL_SECONDS)
            yield row(case.state, peak.samples, longest_stall(port))


def measure_other(
    name: str,
    address: str,
    instances: int,
    window: str,
    *,
    seconds: float,
    state: str,
    latency_seconds: float,
    connections: int,
) -> Row:
    listings = fetch_listings(address)
    took = run_subject(name, address, instances, seconds)
    # Two instances were asked before, unmeasured.
    requests = round((fetch_listings(address) - listings) * instances / (instances + 2))
    return Row(
        {"loop": "bare aiohttp loop", "sdk": "vendor's SDK in a loop"}[name],
        state,
        instances,
        window,
        [Sample(requests, took["wall_seconds"], took["cpu_seconds"])],
        connections,
        latency_seconds,
        int(took["rss_bytes"]),
    )


def measure_all(options: argparse.Namespace) -> Iterator[Row]:
    latency, connections = options.latency, options.connections
    with started_cloud(latency) as (address, cloud_pid):
        for name, instances, window, seconds, state in (
            ("loop", 1_000, "", INCREMENT_SECONDS, "steady"),
            *(() if options.quick else (("loop", 1_000, "7d", 8 * DAY, "cold"),)),
            ("sdk", 3 if options.quick else 10, "24h", DAY, "each time"),
            ("sdk", 3 if options.quick else 10, "7d", 7 * DAY, "each time"),
        ):
            if name in options.only:
                yield measure_other(
                    name,
                    address,
                    instances,
                    window,
                    seconds=seconds,
                    state=state,
                    latency_seconds=latency,
                    connections=connections if name == "loop" else 1,
                )
        if "exporter" in options.only:
            for case in options.cases or (QUICK if options.quick else FULL):
                yield from measure_exporter(
                    case, address, latency_seconds=latency, connections=connections
                )
        listings = fetch_listings(address)
        print(
            f"The cloud's process took {cpu_seconds(cloud_pid) / listings * 1e6:.0f} µs of CPU"
            f" a listing ({listings:,} listings).",
            file=sys.stderr,
        )


def measure_cloud(connections: int) -> str:
    """What the prepared cloud can do at most: the same loop, without latency."""
    with started_cloud(0.0) as (address, pid):
        before, started = cpu_seconds(pid), time.perf_counter()
        took = run_subject("loop", address, 5_000, INCREMENT_SECONDS)
        cpu, total = cpu_seconds(pid) - before, time.perf_counter() - started
        listings = fetch_listings(address)
    return (
        f"Without latency the bare loop gets {5_000 / took['wall_seconds']:,.0f} answers a second"
        f" over {connections} connections, and the cloud's process has a share of"
        f" {cpu / total:.0%} of a core; {cpu / listings * 1e6:.0f} µs of it an answer, so it could"
        f" give {listings / cpu:,.0f} a second."
    )


def describe_machine() -> str:
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores ({model[1] if model else platform.machine()}), {memory:.0f} GiB,"
        f" {platform.system()} {platform.release()}, Python {platform.python_version()};"
        f" load average at the start {load}."
    )


def parse_case(text: str) -> Case:
    """`1000:7d`, `1000:7d:20` (scrapes), with `:resync`, `:aksk` or `:restores` at its end."""
    parts = text.split(":")
    flags = {part for part in parts if part in ("resync", "aksk", "restores")}
    parts = [part for part in parts if part not in flags]
    if not 2 <= len(parts) <= 3 or parts[1] not in WINDOWS:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1000:7d or 1000:24h:20:resync")
    try:
        instances, scrapes = int(parts[0]), int(parts[2]) if len(parts) == 3 else 10
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} has no whole numbers") from None
    if instances < 1 or scrapes < 1:
        raise argparse.ArgumentTypeError(f"{text!r} has a number below 1")
    if "restores" in flags and instances > PROJECT_INSTANCES:
        raise argparse.ArgumentTypeError(f"{text!r}: the full backups are of {PROJECT_INSTANCES}")
    return Case(
        instances, parts[1], scrapes, "resync" in flags, "aksk" in flags, "restores" in flags
    )


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the exporter, the vendor's SDK in a loop, and a bare loop of the same"
        " requests against a prepared cloud, and what is known how soon after a start; print"
        " tables as Markdown. All takes about 40 minutes, --quick two.",
    )
    parser.add_argument("--quick", action="store_true", help="few and small configurations")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds (default: 0.05)")
    parser.add_argument("--connections", type=int, default=50, help="default: 50")
    parser.add_argument(
        "--only",
        action="append",
        choices=("exporter", "loop", "sdk", "cloud", "start"),
        help="leave out the others; may be repeated",
    )
    parser.add_argument(
        "--case",
        dest="cases",
        action="append",
        type=parse_case,
        metavar="N:WINDOW[:SCRAPES][:resync][:aksk][:restores]",
        help="measure the exporter so, in place of the usual; may be repeated",
    )
    options = parser.parse_args(arguments)
    options.only = options.only or ["exporter", "loop", "sdk", "cloud", "start"]
    if not options.latency > 0 or options.connections < 1:
        parser.error("--latency and --connections must be above 0")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    machine = describe_machine()
    rows = []
    for row in measure_all(options):
        print(
            f"{row.subject}, {row.state}, {row.instances:,} x {row.window}:"
            f" {row.wall_seconds:.2f} s, {row.cpu_milliseconds_per_instance:.2f} ms",
            file=sys.stderr,
        )
        rows.append(row)
    print(
        f"{machine} Latency {options.latency * 1000:g} ms, {options.connections} connections"
        " (the SDK's loop: one). Medians of the samples.\n"
    )
    print(render_table(rows))
    if "cloud" in options.only:
        print(f"\n{measure_cloud(options.connections)}")
    if "start" in options.only:
        starts = after_start.QUICK if options.quick else after_start.FULL
        print(f"\n{after_start.measure(options.latency, starts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
