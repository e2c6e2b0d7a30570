"""`python -m tests.soak`: thousands of scrapes of a cloud that fails; nothing may grow.

The simulator is a process of its own, the exporter with its server is this one; both speak over
loopback sockets, with TLS and a network between them whose NAT forgets silent connections, whose
addresses move and whose authority is renewed. After a warm-up that has met everything, memory, open
files, tasks and threads are counted while nothing runs, and again at the end. Exit code 1 if one of
them has grown beyond its bound.
"""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import io
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from cryptography import x509

from exporter.assembly import Exporter
from exporter.config.schema import Config
from exporter.demo import demo_project
from exporter.exposition.metrics import OwnMetrics
from exporter.reporting import logs
from exporter.reporting.redaction import SecretRegistry
from exporter.simulator import (
    DEMO_PASSWORD,
    DEMO_PROJECT_ID,
    Fault,
    Knobs,
    RateLimit,
    RecordedRequest,
    Simulator,
    build_cloud,
)
from exporter.simulator import serve as serve_simulator
from exporter.web.app import create_app
from exporter.web.listener import bind
from exporter.web.server import serve
from tests.support.certificates import Authority
from tests.support.relay import Relay, address_of_now

INSTANCES = 20
BACKUPS = 400
SCRAPES_AT_ONCE = 2  # a pair of Prometheus servers
SCRAPE_TIMEOUT = 1.0
# Longer than any time-out of the exporter, and than its idle connections and those to it last.
QUIET_SECONDS = 33.0
CLOUD = "cloud.soak"  # a name that moves

# What may be more at the end than after the warm-up.
RSS_BOUND_MIB = 12.0
SOCKETS_BOUND = 5
TASKS_BOUND = 2
THREADS_BOUND = 2

# The cloud's process ---------------------------------------------------------------------------

_FAULTS: list[Fault] = [
    *(Fault(status=status) for status in (400, 403, 404, 409, 500, 502, 503, 504)),
    Fault(status=401, form="gateway", leak=True),
    Fault(status=429, form="gateway", headers={"Retry-After": "1"}),
    Fault(status=502, form="html"),
    Fault(status=302, headers={"Location": "http://127.0.0.1:9/"}),
    Fault(hang=True),
    Fault(delay_seconds=0.4),
    Fault(chunk_bytes=200, chunk_pause_seconds=0.05),
    Fault(cut_after_bytes=0),
    Fault(cut_after_bytes=100),
    Fault(body=b"\x00garbage"),
    Fault(body=b'{"backups": ['),
    Fault(nesting=50_000),
    Fault(filler_bytes=11 * 1024 * 1024),
    Fault(gzip_bomb_bytes=50 * 1024 * 1024),
    Fault(rows="unreadable_time"),
    Fault(rows="negative_size"),
    Fault(rows="repeated_changed"),
]


async def run_cloud(seed: int, share: float, folder: Path) -> None:
    """Serve until the parent process goes; spoil about this share of the answers.

    `folder` has the certificate to show, and gets what the network has done at the end.
    """
    simulator = build_cloud(INSTANCES, BACKUPS, knobs=Knobs(rate_limit=RateLimit(3_000, 1.0)))
    rng = random.Random(seed)

    def spoil(request: RecordedRequest) -> Fault | None:
        _change_something(simulator, rng)
        return rng.choice(_FAULTS) if rng.random() < share else None

    simulator.fault_script = spoil
    async with serve_simulator(simulator, log_level="critical") as address:
        relay = Relay(folder, int(address.rpartition(":")[2]), rng)
        async with relay.serve() as port:
            print(f"https://{CLOUD}:{port}", flush=True)
            while await asyncio.to_thread(sys.stdin.readline):  # a line asks what was seen
                print(_describe(relay.seen), flush=True)


def _change_something(simulator: Simulator, rng: random.Random) -> None:
    chance = rng.random()
    if chance < 0.001:
        simulator.revoke_tokens()
    elif chance < 0.003:
        (project,) = simulator.projects.values()
        instance = rng.choice(list(project.instances.values()))
        instance.hidden_from_discovery = not instance.hidden_from_discovery


# The exporter's process ------------------------------------------------------------------------


class Names:
    """The system's resolver as it knows the cloud: it moves, and now and then it hangs."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._real = socket.getaddrinfo
        socket.getaddrinfo = self  # type: ignore[assignment]

    def __call__(self, host: str, *more: Any, **named: Any) -> Any:
        if host == CLOUD:
            if self._rng.random() < 0.02:
                time.sleep(2.0)  # a thread of its own waits
            host = address_of_now()
        return self._real(host, *more, **named)


class Trust:
    """The authority that signs the cloud's certificate, and a newer one whenever it is renewed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = folder / "ca.pem"
        self._numbers = iter(range(10**9))
        self.renew()

    def renew(self) -> None:
        """The files of the cloud and of the exporter; a reload reads the latter."""
        authority = Authority(self.folder, f"CA {next(self._numbers)}")
        authority.issue("server", sans=(x509.DNSName(CLOUD),))
        (self.folder / "renewed").touch()
        self.ca_file.write_bytes(authority.cert_file.read_bytes())
        authority.cert_file.unlink()


def make_config(address: str, ca_file: Path, *, resync_seconds: int) -> Config:
    return Config.model_validate(
        {
            "api": {
                "timeout": "500ms",
                "ca_file": str(ca_file),
                "max_connections": 20,
                "rate_limit": 0,
                "resync_interval": f"{resync_seconds}s",
            },
            "scrape": {"timeout": f"{SCRAPE_TIMEOUT:.0f}s", "timeout_offset": "100ms"},
            "projects": [
                {
                    **demo_project(address),
                    "discovery": {"enabled": True, "refresh_interval": "2s"},
                }
            ],
        }
    )


@dataclass(frozen=True, slots=True)
class Count:
    """What the process holds while nothing runs."""

    rss_mib: float
    sockets: int
    files: int
    tasks: int
    threads: int

    def __str__(self) -> str:
        return (
            f"memory {self.rss_mib:7.1f} MiB, {self.sockets} sockets, {self.files} open files,"
            f" {self.tasks} tasks, {self.threads} threads"
        )


def count_all() -> Count:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what is free is given back, where glibc can
    with open("/proc/self/statm", encoding="ascii") as statm:
        pages = int(statm.read().split()[1])
    files = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            files.append(os.readlink(f"/proc/self/fd/{name}"))
    return Count(
        rss_mib=pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024,
        sockets=sum(name.startswith("socket:") for name in files),
        files=len(files),
        tasks=len(asyncio.all_tasks()),
        threads=threading.active_count(),
    )


@dataclass(slots=True)
class Soak:
    """The scrapes and whatever else people and programs ask an exporter."""

    exporter: Exporter
    address: str
    trust: Trust
    rng: random.Random
    seen: Counter[str] = field(default_factory=Counter)
    scrapes: int = 0

    async def run(self, scrapes: int) -> None:
        until = self.scrapes + scrapes

        async def work(session: aiohttp.ClientSession) -> None:
            while self.scrapes < until:
                self.scrapes += 1
                await self._scrape(session)
                await self._something_else(session)

        async with aiohttp.ClientSession(self.address) as session, asyncio.TaskGroup() as group:
            for _ in range(SCRAPES_AT_ONCE):
                group.create_task(work(session))

    async def _scrape(self, session: aiohttp.ClientSession) -> None:
        patience = self.rng.choice([0.05, 0.3]) if self.rng.random() < 0.05 else 60.0
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": str(self.rng.choice([0.3, 0.6, 1]))}
        try:
            async with (
                asyncio.timeout(patience),
                session.get("/metrics", headers=headers) as response,
            ):
                text = await response.text()
        except TimeoutError:
            self.seen["hung up"] += 1
            return
        self.seen[f"status {response.status}"] += 1
        for line in text.splitlines():
            if line.startswith("gaussdb_mysql_scrape_success"):
                self.seen["succeeded" if line.endswith(" 1.0") else "failed"] += 1
        assert DEMO_PASSWORD not in text

    async def _something_else(self, session: aiohttp.ClientSession) -> None:
        chance = self.rng.random()
        if chance < 0.003:
            self.trust.renew()
            await self.exporter.reload()
            self.seen["renewed authorities"] += 1
        elif chance < 0.01:
            await self.exporter.reload()
            self.seen["reloads"] += 1
        elif chance < 0.05:
            path = self.rng.choice(
                ["/", "/sd", "/-/ready", f"/probe?project={DEMO_PROJECT_ID}&instance={0:032x}in07"]
            )
            async with session.get(path) as response:
                await response.read()
            self.seen["other pages"] += 1
        elif chance < 0.07:
            await self._read_slowly()

    async def _read_slowly(self) -> None:
        """A client that takes its time, or does not read at all, and hangs up in the middle."""
        host, port = self.address.removeprefix("http://").split(":")
        with socket.socket() as raw:
            raw.setblocking(False)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(raw, (host, int(port)))
            await loop.sock_sendall(raw, b"GET /metrics HTTP/1.1\r\nHost: exporter\r\n\r\n")
            for _ in range(self.rng.choice([0, 3, 10])):
                await asyncio.sleep(0.1)
                await loop.sock_recv(raw, 512)
        self.seen["slow readers"] += 1


@contextlib.asynccontextmanager
async def start_cloud(
    seed: int, share: float, folder: Path
) -> AsyncIterator[tuple[str, Callable[[], Awaitable[str]]]]:
    """The simulator in its own process; gives its address, and asks what its network has done."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.soak", "--cloud", str(folder), "--seed", str(seed)),
        *("--faults", str(share)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def ask() -> str:
        stdin.write(b"\n")
        return (await stdout.readline()).decode().strip()

    try:
        yield (await stdout.readline()).decode().strip(), ask
    finally:
        process.kill()
        await process.wait()
        process.stdin.close()


@contextlib.asynccontextmanager
async def start_server(exporter: Exporter) -> AsyncIterator[str]:
    """The exporter's own server on a free port; gives its address."""
    sockets = bind(("127.0.0.1", 0))
    host, port = sockets[0].getsockname()[:2]

    def stopping() -> None:
        exporter.stopping = True

    serving = asyncio.create_task(
        serve(
            create_app(exporter),
            sockets=sockets,
            web_config=None,
            on_reload=None,
            stopping=stopping,
            grace_seconds=2.0,
        )
    )
    try:
        yield f"http://{host}:{port}"
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await serving


async def soak(options: argparse.Namespace, registry: SecretRegistry) -> int:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trust = Trust(folder)
        Names(random.Random(options.seed))
        address, ask_cloud = await stack.enter_async_context(
            start_cloud(options.seed, options.faults, folder)
        )
        # Two configurations, one after the other: half of the reloads open new connections.
        configs = [
            make_config(address, trust.ca_file, resync_seconds=seconds) for seconds in (5, 7)
        ]
        loads = iter(range(10**9))
        exporter = Exporter(
            lambda: configs[next(loads) // 2 % 2], own=OwnMetrics(), registry=registry
        )
        await exporter.reload()
        stack.push_async_callback(exporter.aclose)
        server = await stack.enter_async_context(start_server(exporter))
        work = Soak(exporter, server, trust, random.Random(options.seed))
        started = time.monotonic()
        await work.run(options.warm_up)
        await asyncio.sleep(QUIET_SECONDS)
        before = count_all()
        print(f"after {work.scrapes:6} scrapes: {before}", flush=True)
        for _ in range(options.parts):
            await work.run(options.scrapes // options.parts)
            await asyncio.sleep(QUIET_SECONDS)
            after = count_all()
            print(f"after {work.scrapes:6} scrapes: {after}", flush=True)
        print(f"{time.monotonic() - started:.0f} s; " + _describe(work.seen))
        print(f"the network: {await ask_cloud()}")
    return judge(before, after)


def _describe(seen: Counter[str]) -> str:
    return ", ".join(f"{name}: {number}" for name, number in sorted(seen.items()))


def judge(before: Count, after: Count) -> int:
    """The exit code, and what has grown."""
    grown = [
        f"{name} grew by {more:.1f}, more than {bound}"
        for name, more, bound in (
            ("memory (MiB)", after.rss_mib - before.rss_mib, RSS_BOUND_MIB),
            ("sockets", after.sockets - before.sockets, SOCKETS_BOUND),
            ("open files", after.files - before.files, SOCKETS_BOUND),
            ("tasks", after.tasks - before.tasks, TASKS_BOUND),
            ("threads", after.threads - before.threads, THREADS_BOUND),
        )
        if more > bound
    ]
    for line in grown:
        print(line)
    print("FAILED" if grown else "OK: nothing grew")
    return 1 if grown else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--scrapes", type=int, default=5_000, help="after the warm-up")
    parser.add_argument("--warm-up", type=int, default=1_000)
    parser.add_argument("--parts", type=int, default=4, help="how often to count on the way")
    parser.add_argument("--faults", type=float, default=0.05, help="share of spoiled answers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cloud", type=Path, help="be the cloud (started by the other)")
    options = parser.parse_args()
    if options.cloud:
        uvloop.run(run_cloud(options.seed, options.faults, options.cloud))
        return 0
    registry, log = SecretRegistry(), io.StringIO()
    with logs.logging_to(log, level="error", log_format="logfmt", registry=registry):
        code = uvloop.run(soak(options, registry))
    if log.getvalue():
        print("errors were logged:", log.getvalue()[:4_000], sep="\n")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
