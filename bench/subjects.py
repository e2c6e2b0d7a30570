"""What is measured, each in a process of its own: `python -m bench.subjects exporter|loop|sdk`.

The exporter is the program itself with nothing replaced but its clock, which the benchmark moves
on between scrapes. The others print what they took as JSON.
"""

import argparse
import asyncio
import functools
import json
import mmap
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp
import uvloop
from yarl import URL

from bench.cloud import PROJECT_ID, TOKEN, instance_id
from bench.processes import peak_rss_bytes

ACCESS_KEY, SECRET_KEY = "BENCHACCESSKEY000000", "BenchSecretKey0000000000000000000000000"
PAGE_ROWS = 50


def run_exporter(clock_file: Path, arguments: Sequence[str]) -> int:
    from exporter import cli
    from exporter.command import running

    with clock_file.open("r+b") as file:
        ahead_seconds = memoryview(mmap.mmap(file.fileno(), 8)).cast("d")

    def clock() -> float:
        return time.time() + ahead_seconds[0]

    running.Exporter = functools.partial(running.Exporter, clock=clock)  # type: ignore[attr-defined,assignment]
    return cli.main(arguments)


def build_query(begin: float, end: float, offset: int) -> str:
    times = (time.strftime("%Y-%m-%dT%H%%3A%M%%3A%S%%2B0000", time.gmtime(t)) for t in (begin, end))
    return "begin_time={}&end_time={}&limit={}&offset={}".format(*times, PAGE_ROWS, offset)


def build_urls(address: str, instances: int, span_seconds: float) -> Iterator[URL]:
    """One page of each instance; all pages of the span where that takes more than one."""
    now = time.time()
    pages = max(1, -(-int(span_seconds // 300) // PAGE_ROWS))
    for number in range(instances):
        for page in range(pages):
            query = build_query(now - span_seconds, now, page * PAGE_ROWS)
            path = f"/v3/{PROJECT_ID}/instances/{instance_id(number)}/incremental-backups"
            yield URL(f"{address}{path}?{query}", encoded=True)


async def run_loop(address: str, instances: int, span_seconds: float, connections: int) -> float:
    """The same GETs, bodies read and thrown away. Returns the seconds it took."""
    headers = {"X-Auth-Token": TOKEN, "Accept": "application/json", "X-Language": "en-us"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        urls = build_urls(address, instances, span_seconds)

        async def work() -> None:
            for url in urls:
                async with session.get(url) as response:
                    await response.read()

        started = time.perf_counter()
        await asyncio.gather(*[work() for _ in range(connections)])
        return time.perf_counter() - started


def run_sdk(address: str, instances: int, window_seconds: float) -> float:
    """The vendor's SDK in a loop: each instance, each page. Returns the seconds it took."""
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkgaussdb.v3 import GaussDBClient, ShowGaussMySqlIncrementalBackupListRequest

    client = (
        GaussDBClient.new_builder()
        .with_credentials(BasicCredentials(ACCESS_KEY, SECRET_KEY, PROJECT_ID))
        .with_endpoint(address)
        .build()
    )
    started = time.perf_counter()
    for number in range(instances):
        now = time.time()
        begin, end = (
            time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(t))
            for t in (now - window_seconds, now)
        )
        ends: list[str] = []
        size = 0.0
        while True:
            page = client.show_gauss_my_sql_incremental_backup_list(
                ShowGaussMySqlIncrementalBackupListRequest(
                    instance_id=instance_id(number),
                    offset=str(len(ends)),
                    limit=str(PAGE_ROWS),
                    begin_time=begin,
                    end_time=end,
                )
            )
            ends += [row.end_time for row in page.backups]
            size += sum(row.size for row in page.backups)
            if not page.backups or len(ends) >= page.total_count:
                break
        assert max(ends)
        assert size
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.subjects")
    subject = parser.add_subparsers(dest="subject", required=True)
    exporter = subject.add_parser("exporter")
    exporter.add_argument("clock_file", type=Path)
    exporter.add_argument("arguments", nargs=argparse.REMAINDER)
    for name in ("loop", "sdk"):
        other = subject.add_parser(name)
        other.add_argument("address")
        other.add_argument("instances", type=int)
        other.add_argument("seconds", type=float)
        other.add_argument("--connections", type=int, default=50)
    options = parser.parse_args()
    if options.subject == "exporter":
        return run_exporter(options.clock_file, options.arguments)
    # Once unmeasured: imports, first connections.
    cpu_started = 0.0
    wall = 0.0
    for instances in (min(2, options.instances), options.instances):
        cpu_started = time.process_time()
        if options.subject == "loop":
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                wall = runner.run(
                    run_loop(options.address, instances, options.seconds, options.connections)
                )
        else:
            wall = run_sdk(options.address, instances, options.seconds)
    cpu = time.process_time() - cpu_started
    json.dump({"wall_seconds": wall, "cpu_seconds": cpu, "rss_bytes": peak_rss_bytes()}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
