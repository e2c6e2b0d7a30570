"""A property test that attacks the front at the level of bytes.

Clients without good manners are drawn: heads, bodies, chunks and trailers that are right, wrong,
cut off, far too long or nonsense, one behind the other, slowly, by many at once; readers that do
not read; ends of every kind. Whatever they do,

- scrapes beside them, plain, with a password and over TLS, are answered in time, and right,
- the process never holds more memory than it is allowed to, nor a descriptor when they have gone,
- it works and logs no more than so many clients are worth,
- what they get is HTTP to the last byte, and no exception reaches the log.

`make fuzz` tries as many attacks as FUZZ_EXAMPLES says.
"""

import asyncio
import base64
import contextlib
import gc
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from tests.support.searches import extent, search

PLAIN, PASSWORDS, TLS = range(3)
WITHIN_TLS = 3  # the same port as TLS, and the attack behind a handshake
# Of a client; the server's own limits (tests/support/attacked.py) are shorter, but for the last.
ATTACK_SECONDS = 0.6
SCRAPE_SECONDS = 10.0
# Who has waited so long for a processor may have been cut off with reason.
HELD_UP_SECONDS = 0.1
MOST_SAID_BYTES = 2_000_000
# 4 MiB of answers and one more, what two of them take while they are rendered, and what 40
# connections may hold: what grows without end passes it by far.
MOST_GROWTH_BYTES = 96 * 1024 * 1024
MOST_WORK_SECONDS = 3.0
MOST_LOGGED_BYTES_A_CLIENT = 1_000


# The server -----------------------------------------------------------------------------------


class Attacked:
    """The exporter in its process, seen from outside."""

    def __init__(self, process: "subprocess.Popen[bytes]", ports: list[int], log: Path) -> None:
        self.process = process
        self.ports = ports
        self.log = log
        self.descriptors = self.memory = 0

    def count_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def count_memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)  # the most that it has ever had
        assert match
        return int(match[1]) * 1024

    def count_work_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def count_waiting_seconds(self) -> float:
        """How long the threads of both processes have waited for a processor."""
        delays = 0
        for process in ("self", self.process.pid):
            for task in Path(f"/proc/{process}/task").iterdir():
                with contextlib.suppress(OSError):  # it has just ended
                    delays += int((task / "schedstat").read_text().split()[1])
        return delays / 1e9


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("attacked")
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "tests.support.attacked", str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ports: list[int] = []
        while len(ports) < 3:
            line = process.stdout.readline()
            assert line, log.read_text()
            if line.strip().isdigit():
                ports.append(int(line))
        server = Attacked(process, ports, log)
        for _ in range(3):  # what is made once is there
            scrape_all(server, seconds=120.0)
        server.descriptors, server.memory = server.count_descriptors(), server.count_memory()
        yield server
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


RIGHT = base64.b64encode(b"alice:right").decode()
TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname = False
TRUSTING.verify_mode = ssl.CERT_NONE


def scrape(attacked: Attacked, port: int, *, seconds: float = SCRAPE_SECONDS) -> None:
    """What Prometheus does; it must succeed."""
    request = (
        f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {RIGHT}\r\n"
        "Connection: close\r\n\r\n"
    )
    answer = bytearray()
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", attacked.ports[port])
        connection = stack.enter_context(socket.create_connection(address, seconds))
        if port == TLS:
            connection = stack.enter_context(TRUSTING.wrap_socket(connection))
        connection.sendall(request.encode())
        while data := connection.recv(1024 * 1024):
            answer += data
    took = time.monotonic() - begun
    assert took < seconds, f"a scrape took {took:.1f} s"
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), answer[:300]
    length = re.search(rb"content-length: (\d+)", head)
    assert length
    assert len(body) == int(length[1])
    assert body.count(b"gaussdb_mysql_scrape_success{") == 150


def scrape_all(attacked: Attacked, *, seconds: float = SCRAPE_SECONDS) -> None:
    """Each way in; again where the machine had no time for one side or the other."""
    for port in (PLAIN, PASSWORDS, TLS):
        for tries_left in reversed(range(20)):
            waited = attacked.count_waiting_seconds()
            try:
                scrape(attacked, port, seconds=seconds)
                break
            except (AssertionError, OSError):
                waited = attacked.count_waiting_seconds() - waited
                if waited < HELD_UP_SECONDS or not tries_left:
                    raise


# The attacks that are drawn -------------------------------------------------------------------

NONSENSE = st.binary(max_size=64)
LENGTHS = st.sampled_from([0, 1, 100, 8_000, 40_000, 70_000, 300_000])


def long(byte: bytes, before: bytes = b"", after: bytes = b"") -> st.SearchStrategy[bytes]:
    return LENGTHS.map(lambda length: before + byte * length + after)


METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"PUT", b"CONNECT", b"BREW", b""])
TARGETS = st.one_of(
    st.sampled_from(
        [
            *(b"/metrics", b"/", b"/sd", b"/-/healthy", b"/-/ready", b"/-/reload", b"/nowhere"),
            *(b"/metrics?collect[]=exporter", b"/probe?project=a&instance=b", b"/metrics/", b"*"),
            *(b"/runbooks/GaussDBMySQLBackupStale", b"http://x/metrics", b"//x", b"/%00%ff", b""),
        ]
    ),
    long(b"a", b"/"),
    NONSENSE,
)
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""])
HEADERS = st.one_of(
    st.sampled_from(
        [
            *(b"Host: x", b"Host: x", b"Host: a b", b"Host:"),
            *(b"Connection: close", b"Connection: keep-alive"),
            b"Connection: upgrade\r\nUpgrade: h2c",
            *(b"Expect: 100-continue", b"Expect: x"),
            *(b"Content-Length: 5", b"Content-Length: " + b"9" * 20, b"Content-Length: x"),
            *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"),
            *(b"Accept-Encoding: gzip", b"Accept: ;;,q=q", b" folded: x"),
            b"Accept: application/openmetrics-text;version=1.0.0",
            *(b"Authorization: Basic " + RIGHT.encode(), b"Authorization: Basic !"),
            b"Origin: http://evil",
            b"X-Prometheus-Scrape-Timeout-Seconds: 1",
            b"X-Prometheus-Scrape-Timeout-Seconds: nan",
        ]
    ),
    st.binary(min_size=4, max_size=8).map(
        lambda password: b"Authorization: Basic " + base64.b64encode(b"alice:" + password)
    ),
    long(b"v", b"X-Long: "),
    long(b"n"),
    st.sampled_from([1, 50, 200, 5_000]).map(lambda count: b"\r\n".join([b"a: b"] * count)),
    NONSENSE,
)
CHUNKS = st.one_of(
    st.sampled_from(
        [b"5\r\nhello\r\n", b"0\r\n", b"5;a=b\r\nhello\r\n", b"fffffffff\r\n", b"5\r\nhell"]
    ),
    long(b"e", b"5;", b"\r\nhello\r\n"),
    LENGTHS.map(lambda length: b"%x\r\n" % length + b"c" * length + b"\r\n"),
    st.sampled_from([1, 1_000, 30_000]).map(lambda count: b"1\r\nx\r\n" * count),
    NONSENSE,
)
TRAILERS = st.one_of(
    st.just(b""),
    st.sampled_from([1, 200, 5_000]).map(lambda count: b"X-Trailer: value\r\n" * count),
    long(b"t", b"X-Trailer: ", b"\r\n"),
    NONSENSE,
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    line = b" ".join((draw(METHODS), draw(TARGETS), draw(VERSIONS)))
    head = b"\r\n".join([line, *draw(st.lists(HEADERS, max_size=5))])
    body = draw(
        st.one_of(
            st.just(b""),
            NONSENSE,
            st.tuples(st.lists(CHUNKS, max_size=4), TRAILERS).map(
                lambda parts: b"".join(parts[0]) + b"0\r\n" + parts[1] + b"\r\n"
            ),
        )
    )
    return head + b"\r\n\r\n" + body


GOOD = st.sampled_from(
    [
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %b\r\n\r\n" % RIGHT.encode(),
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\n",
    ]
)


def say_hello() -> bytes:
    """How TLS begins."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="x")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


HELLOS = st.builds(
    lambda hello, at, put: hello[:at] + put + hello[at + len(put) :],
    st.just(say_hello()),
    st.integers(0, 600),
    st.one_of(st.just(b""), NONSENSE),
)


@st.composite
def said(draw: st.DrawFn) -> bytes:
    """What a client says in one piece."""
    text = b"".join(draw(st.lists(st.one_of(GOOD, requests(), HELLOS), min_size=1, max_size=4)))
    if draw(st.integers(0, 3)) == 0:  # cut off
        text = text[: draw(st.integers(0, len(text)))]
    if draw(st.integers(0, 5)) == 0:  # spoiled
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(NONSENSE) + text[at:]
    return (text * draw(st.sampled_from([1, 1, 1, 2, 40])))[:MOST_SAID_BYTES]


@dataclass(frozen=True)
class Say:
    data: bytes
    pieces: int = 1

    def __repr__(self) -> str:
        shown = repr(self.data) if len(self.data) < 400 else f"{self.data[:400]!r}... "
        return f"Say({shown} {len(self.data)} bytes, {self.pieces})"


@dataclass(frozen=True)
class Read:
    count: int


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class End:
    how: str


ENDS = st.sampled_from(["read to the end", "close", "reset", "half-close", "stay"]).map(End)
STEPS = st.one_of(
    st.builds(Say, said(), st.sampled_from([1, 1, 2, 30])),
    st.builds(Say, said(), st.just(1)),
    st.builds(Read, st.sampled_from([1, 100, 100_000])),
    st.builds(Wait, st.sampled_from([0.0, 0.01, 0.1, 0.3])),
)


@dataclass(frozen=True)
class Client:
    """One that does these steps; `crowd` of them do at once."""

    port: int
    steps: tuple[Say | Read | Wait, ...]
    end: End
    crowd: int
    reads: bool


CLIENTS = st.builds(
    Client,
    st.sampled_from([PLAIN, PLAIN, PASSWORDS, TLS, WITHIN_TLS]),
    st.lists(STEPS, max_size=6).map(tuple),
    ENDS,
    st.sampled_from([1, 1, 1, 5, 30]),
    st.booleans(),
)


# Attacking ------------------------------------------------------------------------------------


class Attack:
    """What one client does, and what it gets."""

    def __init__(self, client: Client, ports: Sequence[int]) -> None:
        self._client = client
        self._port = ports[min(client.port, TLS)]
        self._tls = TRUSTING if client.port == WITHIN_TLS else None
        self.got = bytearray()

    async def run(self) -> None:
        with contextlib.suppress(OSError):  # a time-out is one too
            async with asyncio.timeout(ATTACK_SECONDS):
                await self._attack()

    def check(self) -> None:
        if self._client.port != TLS:
            steps = self._client.steps
            heads = any(b"HEAD" in step.data for step in steps if isinstance(step, Say))
            assert_is_http(bytes(self.got), may_be_heads_alone=heads)

    async def _attack(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)
        reading = asyncio.create_task(self._read_all(reader)) if self._client.reads else None
        try:
            for step in self._client.steps:
                await self._do(step, reader, writer)
            how = self._client.end.how
            if how == "half-close" and writer.can_write_eof():
                writer.write_eof()
            if how in ("half-close", "read to the end"):
                await (reading or self._read_all(reader))
            elif how == "stay":
                await asyncio.sleep(ATTACK_SECONDS)
            elif how == "close":
                writer.close()
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            if self._client.end.how != "close":
                writer.transport.abort()

    async def _do(
        self, step: Say | Read | Wait, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        match step:
            case Say(data, pieces):
                size = max(1, -(-len(data) // pieces))
                for begin in range(0, len(data), size):
                    writer.write(data[begin : begin + size])
                    await writer.drain()
                    await asyncio.sleep(0.001 if pieces > 1 else 0)
            case Read(count) if not self._client.reads:
                self.got += await reader.read(count)
            case Wait(seconds):
                await asyncio.sleep(seconds)

    async def _read_all(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            self.got += data


_HEAD = re.compile(
    rb"HTTP/1\.1 (?P<status>\d{3}) [^\r\n]+\r\n(?P<headers>(?:[!-9;-~]+: [^\r\n]*\r\n)*)\r\n"
)


def assert_is_http(got: bytes, *, may_be_heads_alone: bool) -> None:
    """Whole answers one behind the other, but for the last, which may be cut off."""
    while got:
        head = _HEAD.match(got)
        if head is None:
            assert b"\r\n\r\n" not in got, got[:200]
            assert b"HTTP/1.1 ".startswith(got[:9]) or got.startswith(b"HTTP/1.1 "), got[:200]
            return
        length = re.search(rb"content-length: (\d+)\r\n", head["headers"], re.IGNORECASE)
        assert length or head["status"] in (b"100", b"204", b"307"), got[:200]
        got = got[head.end() :]
        is_bare = may_be_heads_alone and (not got or got.startswith(b"HTTP/1.1 "))
        if length and not is_bare:
            got = got[int(length[1]) :]


async def attack(attacked: Attacked, clients: list[Client]) -> list[Attack]:
    attacks = [Attack(client, attacked.ports) for client in clients for _ in range(client.crowd)]
    async with asyncio.TaskGroup() as group:
        for each in attacks:
            group.create_task(each.run())
        await asyncio.sleep(0.05)
        # In a thread: the attackers' turns of the loop do not hold it up.
        await asyncio.to_thread(scrape_all, attacked)
    return attacks


def wait_for_descriptors(attacked: Attacked) -> None:
    until = time.monotonic() + 20.0
    while attacked.count_descriptors() > attacked.descriptors:
        assert time.monotonic() < until, "descriptors stay open though all clients have gone"
        time.sleep(0.02)


# Attackers that are cut off in the middle of connecting leave a socket behind, here.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")  # much is said
@search(
    extent(10),
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.large_base_example,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
@given(st.lists(CLIENTS, min_size=1, max_size=8))
def test_whatever_clients_do_a_scrape_is_answered_and_nothing_is_held(
    attacked: Attacked, clients: list[Client]
) -> None:
    begin, worked = attacked.log.stat().st_size, attacked.count_work_seconds()
    attacks = asyncio.run(attack(attacked, clients))
    for each in attacks:
        each.check()
    wait_for_descriptors(attacked)
    grown = attacked.count_memory() - attacked.memory
    assert grown < MOST_GROWTH_BYTES, f"{grown / 1024 / 1024:.0f} MiB more than at the start"
    assert attacked.process.poll() is None
    worked = attacked.count_work_seconds() - worked
    assert worked < MOST_WORK_SECONDS, f"{worked:.1f} s of work"
    log = attacked.log.read_bytes()[begin:].decode(errors="replace")
    assert len(log) < MOST_LOGGED_BYTES_A_CLIENT * (len(attacks) + 20), log[-3000:]
    assert "Traceback" not in log, log[-3000:]
    # What the clients got is held by rings of few objects: collected by itself once in GBs.
    del attacks, each
    gc.collect()
