"""A cloud that costs next to nothing: every answer is prepared, and held back for the latency.

Each instance makes a backup every five minutes without end, so the number of rows in any window
is known beforehand, and new ones appear as the clock of who asks moves on. A process of its own,
`python -m bench.cloud`: it prints its address and serves until its standard input ends.
"""

import argparse
import asyncio
import functools
import itertools
import math
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import cast
from urllib.parse import unquote_to_bytes

import uvloop

BACKUP_SECONDS = 300
# Instances do not make their backups at the same moment: ten groups, half a minute apart.
PHASES = 10
PHASE_SECONDS = BACKUP_SECONDS // PHASES
# Rows are prepared for the longest window that is measured, and for a clock that runs ahead.
PREPARED_BEFORE_SECONDS = 10 * 86_400
PREPARED_AFTER_SECONDS = 86_400

# What the project's listing of full backups holds: a week, and the one before it.
PROJECT_INSTANCES = 1_000
FULL_BACKUPS = 8

ZONE = timezone(timedelta(hours=8))  # as in the example of the API's documentation
PROJECT_ID = "97b026aa9cc4417888c14c84a1ad9860"
TOKEN = "MIIF" * 500  # about as long as a real one; nobody looks at it


def instance_id(number: int) -> str:
    """36 characters that end in `in07`, as the vendor's do."""
    return f"{number:032x}in07"


def phase_of(instance: str) -> int:
    return int(instance[:-4], 16) % PHASES


def first_and_last(phase: int, begin: float, end: float) -> tuple[int, int]:
    """The numbers of the backups of a phase that ended between two times."""
    shift = phase * PHASE_SECONDS
    return math.ceil((begin - shift) / BACKUP_SECONDS), math.floor((end - shift) / BACKUP_SECONDS)


def build_row(phase: int, number: int) -> bytes:
    end = number * BACKUP_SECONDS + phase * PHASE_SECONDS
    begin_time, end_time = (
        datetime.fromtimestamp(seconds, ZONE).strftime("%Y-%m-%dT%H:%M:%S%z")
        for seconds in (end - 20, end)
    )
    size = (number * 7919 + phase) % 1_000_000 / 64
    # It is a row of all instances of its phase, so it names none.
    return (
        f'{{"id":"{number:031x}{phase}br07","name":"GaussDBforMySQL--{number:017d}",'
        f'"begin_time":"{begin_time}","end_time":"{end_time}","size":{size},'
        f'"backup_type":"Log"}}'
    ).encode()


def build_ranges(now: float) -> bytes:
    """A week that ended a minute before the cloud was started."""
    end = int(now) - 60
    start = end - 7 * 86_400
    pair = f'{{"start_time":{start}000,"end_time":{end}000}}'
    return f'{{"restore_times":[{pair}]}}'.encode()


def build_full_row(instance: int, number: int, now: float) -> bytes:
    """The full backup of an instance that ended so many days ago, give or take an hour."""
    end = datetime.fromtimestamp(int(now) - number * 86_400 - 3_600 - instance, ZONE)
    begin = end - timedelta(seconds=390)
    form = "%Y-%m-%dT%H:%M:%S%z"
    return (
        f'{{"id":"{number:08x}{instance:024x}br07","name":"full-{number}",'
        f'"begin_time":"{begin:{form}}","end_time":"{end:{form}}","status":"COMPLETED",'
        f'"take_up_time":6,"type":"auto","size":2803.25,"datastore":{{"type":"gaussdb-mysql",'
        f'"version":"8.0"}},"instance_id":"{instance_id(instance)}","instance_name":"i{instance}",'
        f'"backup_level":"0","description":null}}'
    ).encode()


class Answers:
    """HTTP answers, made of rows that are text already."""

    def __init__(self, now: float) -> None:
        self._rows = {
            (phase, number): build_row(phase, number)
            for phase in range(PHASES)
            for number in _prepared(phase, now)
        }
        self._ranges = build_ranges(now)
        self._full_rows = [
            build_full_row(instance, number, now)
            for number in range(FULL_BACKUPS)
            for instance in range(PROJECT_INSTANCES)
        ]
        self.listings = 0

    def answer(self, head: bytes) -> bytes:
        """The answer to a request by its head alone."""
        if (listing := _LISTING.match(head)) is not None:
            self.listings += 1
            instance, query = listing.groups()
            return self._page(instance.decode(), query)
        if _RESTORE_TIME.match(head) is not None:
            self.listings += 1
            return _build_answer(self._ranges)
        if (full := _FULL_BACKUPS.match(head)) is not None:
            self.listings += 1
            return self._full_page(full[1])
        if head.startswith(b"POST /v3/auth/tokens"):
            expires = datetime.fromtimestamp(time.time() + 30 * 86_400, UTC).isoformat()
            body = f'{{"token":{{"expires_at":"{expires}"}}}}'.encode()
            return _build_answer(body, "201 Created", f"X-Subject-Token: {TOKEN}\r\n")
        if head.startswith(b"GET /listings "):
            return _build_answer(str(self.listings).encode())
        return _build_answer(b'{"error_code":"APIGW.0101","error_msg":"no such API"}', "404 -")

    def _page(self, instance: str, query: bytes) -> bytes:
        parameters = dict(_PARAMETER.findall(query))
        phase = phase_of(instance)
        begin, end = (_parse_time(parameters[name]) for name in (b"begin_time", b"end_time"))
        first, last = first_and_last(phase, begin, end)
        newest = last - int(parameters[b"offset"])
        oldest = max(first, newest - int(parameters[b"limit"]) + 1)
        # The newest first, as a console shows them.
        rows = b",".join([self._rows[phase, i] for i in range(newest, oldest - 1, -1)])
        total = max(0, last - first + 1)
        return _build_answer(b'{"backups":[%b],"total_count":%d}' % (rows, total))

    def _full_page(self, query: bytes) -> bytes:
        parameters = dict(_PARAMETER.findall(query))
        offset, limit = (int(parameters[name]) for name in (b"offset", b"limit"))
        rows = b",".join(self._full_rows[offset : offset + limit])
        return _build_answer(b'{"backups":[%b],"total_count":%d}' % (rows, len(self._full_rows)))


_RESTORE_TIME = re.compile(rb"GET /v3/[^/]+/instances/[^/]+/restore-time ")
_FULL_BACKUPS = re.compile(rb"GET /v3/[^/]+/backups\?(\S+) ")
_LISTING = re.compile(rb"GET /v3/[^/]+/instances/([^/]+)/incremental-backups\?(\S+) ")
_PARAMETER = re.compile(rb"([^&=]+)=([^&]*)")
_request_ids = itertools.count()
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


def _prepared(phase: int, now: float) -> Iterator[int]:
    first, last = first_and_last(phase, now - PREPARED_BEFORE_SECONDS, now + PREPARED_AFTER_SECONDS)
    yield from range(first, last + 1)


@functools.lru_cache(maxsize=100_000)
def _parse_time(text: bytes) -> float:
    return datetime.fromisoformat(unquote_to_bytes(text).decode()).timestamp()


def _build_answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """With about as many headers as the cloud's gateway sends."""
    head = (
        # No Date: the clock of who asks is moved on, and must not be told that it is wrong.
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: keep-alive\r\nServer: api-gateway\r\n"
        f"X-Request-Id: {next(_request_ids):032x}\r\n"
        "Strict-Transport-Security: max-age=31536000; includeSubdomains;\r\n"
        f"X-Content-Type-Options: nosniff\r\n{headers}\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One connection: no pipelining, nothing that the clients measured here do not send."""

    def __init__(self, answers: Answers, latency_seconds: float) -> None:
        self._answers = answers
        self._latency_seconds = latency_seconds
        self._received = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = _CONTENT_LENGTH.search(head)
        if length is not None and len(body) < int(length[1]):
            return
        self._received = b""
        answer = self._answers.answer(head)
        if self._latency_seconds:
            self._loop.call_later(self._latency_seconds, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():  # the exporter may have been ended meanwhile
            self._transport.write(answer)


async def serve(latency_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    answers = Answers(time.time())
    server = await loop.create_server(
        lambda: Connection(answers, latency_seconds), "127.0.0.1", 0, backlog=2048
    )
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until whoever started this goes away
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cloud")
    parser.add_argument("--latency", type=float, default=0.05, metavar="SECONDS")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.latency))


if __name__ == "__main__":
    main()
