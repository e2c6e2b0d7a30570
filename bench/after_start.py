"""What is known how soon after a start: default limits, a clock that jumps instead of waiting.

The exporter's own code runs on an event loop of virtual time (tests/support/virtual_time.py), its
requests are answered in place after the latency: limits, deadlines and turns are those of the
program, and an hour of them takes a minute or two.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import httpx
import structlog

from bench.cloud import PROJECT_ID, Answers, instance_id
from exporter.assembly import Exporter
from exporter.config.load import parse_config
from exporter.exposition.metrics import OwnMetrics
from exporter.models import Snapshot
from exporter.reporting.redaction import SecretRegistry
from tests.support.virtual_time import NOON, Clock, VirtualTimeLoop

# As Prometheus' scrape_timeout of 30 s leaves them, once a minute.
SCRAPE_SECONDS = 29.5
INTERVAL_SECONDS = 60.0
TOLD_AFTER = (1, 2, 4, 8)
# Where the gateway refuses, not all may ever be known.
_MOST_SCRAPES, _MOST_THROTTLED = 400, 30


@dataclass(frozen=True, slots=True)
class Start:
    """What to start: so many instances, whose gateway lets so many requests a second through."""

    instances: int
    window: str
    rate_limit: int = 50
    gateway_limit: int = 0  # 0: all of them

    @property
    def name(self) -> str:
        limit = f"throttled to {self.gateway_limit}/s" if self.gateway_limit else "after a start"
        return f"{limit}, rate_limit {self.rate_limit}"


QUICK = (Start(100, "24h"),)
FULL = (
    Start(500, "24h"),
    Start(500, "7d"),
    Start(1_000, "24h"),
    Start(1_000, "7d"),
    Start(1_000, "24h", gateway_limit=20),
)


@dataclass(frozen=True, slots=True)
class Known:
    """The shares of instances after one scrape, and the requests until then."""

    latest: float
    count: float
    requests: int
    seconds: float


class Cloud(httpx.AsyncBaseTransport):
    """The prepared answers, in place and in the loop's time."""

    def __init__(self, latency_seconds: float, gateway_limit: int) -> None:
        self._answers = Answers(NOON)
        self._latency_seconds = latency_seconds
        self._gateway_limit = gateway_limit
        self._second, self._in_second = -1, 0
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        refused = self._is_over_limit()
        await asyncio.sleep(self._latency_seconds)
        if refused:
            return httpx.Response(429, json={"error_code": "APIGW.0308", "error_msg": "too many"})
        target = request.url.raw_path.decode("ascii")
        answer = self._answers.answer(f"{request.method} {target} HTTP/1.1\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode("ascii").split("\r\n")
        headers = [tuple(line.split(": ", 1)) for line in lines[1:]]
        return httpx.Response(
            int(lines[0].split()[1]),
            headers=[(name, value) for name, value in headers],
            content=body,
        )

    def _is_over_limit(self) -> bool:
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        return 0 < self._gateway_limit < self._in_second


def build_config(start: Start) -> str:
    instances = "\n".join(f"      - {instance_id(number)}" for number in range(start.instances))
    return f"""\
defaults: {{lookback: {start.window}}}
api: {{rate_limit: {start.rate_limit}}}
projects:
  - id: {PROJECT_ID}
    region: cn-north-4
    endpoint: http://cloud.example
    iam_endpoint: http://cloud.example
    auth: {{type: token, token: bench}}
    instances:
{instances}
"""


async def _run(start: Start, latency_seconds: float) -> list[Known]:
    clock = Clock()
    cloud = Cloud(latency_seconds, start.gateway_limit)
    config = parse_config(build_config(start))
    exporter = Exporter(
        lambda: config,
        own=OwnMetrics(clock=clock),
        registry=SecretRegistry(),
        transport=lambda: cloud,
        clock=clock,
    )
    await exporter.reload()
    known: list[Known] = []
    try:
        loop = asyncio.get_running_loop()
        while len(known) < (_MOST_THROTTLED if start.gateway_limit else _MOST_SCRAPES):
            begun = loop.time()
            snapshot = await exporter.scraper.scrape(SCRAPE_SECONDS)
            known.append(_know(snapshot, cloud.requests, loop.time()))
            if known[-1].count == 1.0 and len(known) >= max(TOLD_AFTER):
                break
            await asyncio.sleep(begun + INTERVAL_SECONDS - loop.time())
    finally:
        await exporter.aclose()
    return known


def _know(snapshot: Snapshot, requests: int, seconds: float) -> Known:
    readings = [result.reading for result in snapshot.results]
    total = len(readings)
    return Known(
        latest=sum(r is not None and r.latest_end is not None for r in readings) / total,
        count=sum(r is not None and r.count is not None for r in readings) / total,
        requests=requests,
        seconds=seconds,
    )


def run(start: Start, latency_seconds: float) -> list[Known]:
    """What was known after each scrape, until all of it was."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_run(start, latency_seconds))


HEADINGS = (
    "state",
    "instances",
    "window",
    *(f"latest / count known after {number}" for number in TOLD_AFTER),
    "least latest later",
    "all counts after s",
    "requests",
    "s / (requests / rate)",
)


def tell(start: Start, known: Sequence[Known]) -> list[str]:
    """The row of one start."""
    rate = start.gateway_limit or start.rate_limit
    done = next((one for one in known if one.count == 1.0), None)
    return [
        start.name,
        f"{start.instances:,}",
        start.window,
        *(f"{known[n - 1].latest:.1%} / {known[n - 1].count:.1%}" for n in TOLD_AFTER),
        f"{min(one.latest for one in known):.1%}",
        f"{done.seconds:,.0f}" if done else "not all",
        f"{(done or known[-1]).requests:,}",
        f"{done.seconds / (done.requests / rate):.2f}" if done else "",
    ]


def render(rows: Iterable[Sequence[str]]) -> str:
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure(latency_seconds: float, starts: Sequence[Start]) -> str:
    """All of them, as a table."""
    return render(tell(start, run(start, latency_seconds)) for start in starts)
