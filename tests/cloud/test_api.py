import asyncio
import gzip
import json
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.cloud.api import LIST_BACKUPS, LIST_INSTANCES, ProjectClient
from exporter.config.schema import ApiConfig
from exporter.credentials.http_auth import CloudAuth, SigningAuth, TokenAuth
from exporter.credentials.login import LOGIN, fetch_token
from exporter.credentials.refusals import Refusals
from exporter.credentials.sources import FixedSource, Keys, Token
from exporter.errors import (
    ApiError,
    AuthError,
    BadResponseError,
    DeadlineError,
    RateLimitedError,
    Reason,
    RefusedError,
    UnavailableError,
)
from exporter.models import Instance, Page
from exporter.reporting.redaction import SecretRegistry
from exporter.transport.exchange import MAX_RESPONSE_BYTES
from exporter.transport.limits import Query
from exporter.transport.wire import Wire, connect
from tests.support.certificates import Authority
from tests.support.virtual_time import NOON, Clock

PROJECT = "97b026aa9cc4417888c14c84a1ad9860"
INSTANCE = Instance(PROJECT, "61a4ea66210545909d74a05c27a7179ein07")
TOKEN = "MIIToken" + "x" * 60
EMPTY = b'{"backups": [], "total_count": 0}'
NOTHING = Page([], 0)
Answer = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


class Api:
    """A project's client on a network that is a function, and what it did."""

    def __init__(self, answer: Answer, *, auth: CloudAuth | None = None, **config: Any) -> None:
        self.requests: list[httpx.Request] = []
        self.sent_at: list[float] = []
        self.tokens: list[str | None] = []
        self.observed: list[tuple[str, float]] = []
        self.query = Query()
        self._answer = answer
        self.clock = Clock()
        self.wire = connect(
            ApiConfig(**config),
            transport=httpx.MockTransport(self._handle),
            observe=lambda operation, seconds: self.observed.append((operation, seconds)),
            clock=self.clock,
            jitter=lambda low, high: high,
        )
        self.client = ProjectClient(
            self.wire,
            project_id=PROJECT,
            endpoint="https://gaussdb.example:8443",
            auth=auth or token_auth(),
        )

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.tokens.append(request.headers.get("X-Auth-Token"))
        self.sent_at.append(asyncio.get_running_loop().time())
        answer = self._answer(request)
        return answer if isinstance(answer, httpx.Response) else await answer

    async def list_backups(self, instance: Instance = INSTANCE, **more: Any) -> Page:
        asked = {"begin": NOON - 86_400, "end": NOON, "offset": 0, "query": self.query, **more}
        return await self.client.fetch_backups(instance, **asked)

    async def fail(self) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await self.list_backups()
        return caught.value

    @property
    def errors(self) -> dict[Reason, int]:
        return {reason: count for reason, count in self.query.meter.errors.items() if count}


def token_auth(load: Callable[[], str] = lambda: TOKEN) -> TokenAuth:
    return TokenAuth(
        FixedSource(
            lambda: Token(load()), lambda token: token.value, Refusals("t"), project_id=PROJECT
        )
    )


def signing_auth(clock: Clock) -> SigningAuth:
    source = FixedSource(
        lambda: Keys("AKEXAMPLE", "secret"),
        lambda keys: keys.secret_key,
        Refusals("key"),
        project_id=PROJECT,
    )
    return SigningAuth(source, project_id=PROJECT, clock=clock)


def answers(*given: httpx.Response | Exception) -> Answer:
    """One after the other; the last one for ever."""
    left = list(given)

    def answer(request: httpx.Request) -> httpx.Response:
        item = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(item, Exception):
            raise item
        return httpx.Response(item.status_code, headers=item.headers, content=item.content)

    return answer


def ok(content: bytes = EMPTY, **headers: str) -> httpx.Response:
    return httpx.Response(200, content=content, headers=headers)


def gateway_error(status: int, code: str = "", message: str = "", **headers: str) -> httpx.Response:
    body = {"error_msg": message, "error_code": code, "request_id": "8d0f3a"}
    return httpx.Response(status, json=body, headers=headers)


class Stream(httpx.AsyncByteStream):
    """A body in pieces; tells how many were taken, and whether it was closed."""

    def __init__(self, pieces: Iterable[bytes], *, every: float = 0.0) -> None:
        self._pieces = iter(pieces)
        self._every = every
        self.taken = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if self._every:
                await asyncio.sleep(self._every)
            self.taken += len(piece)
            yield piece

    async def aclose(self) -> None:
        self.closed = True


# The request -----------------------------------------------------------------------------------


async def test_the_listing_is_asked_for_as_documented(clock: Clock) -> None:
    api = Api(answers(ok()))
    await api.list_backups(begin=NOON - 86_400.5, end=NOON + 60, offset=98)
    (request,) = api.requests
    assert request.method == "GET"
    assert str(request.url) == (
        f"https://gaussdb.example:8443/v3/{PROJECT}/instances/"
        "61a4ea66210545909d74a05c27a7179ein07/incremental-backups"
        "?begin_time=2023-07-27T11%3A59%3A59%2B0000&end_time=2023-07-28T12%3A01%3A00%2B0000"
        "&limit=50&offset=98"
    )
    assert dict(request.headers) == {
        "host": "gaussdb.example:8443",
        "accept": "application/json",
        "accept-encoding": "identity",
        "x-language": "en-us",
        "x-auth-token": TOKEN,
    }
    assert request.content == b""


async def test_backups_of_other_regions_are_asked_for_where_wanted(clock: Clock) -> None:
    api = Api(answers(ok()))
    await api.list_backups(Instance(PROJECT, "db", offsite=True))
    assert api.requests[0].url.query.startswith(b"begin_time=")
    assert b"display_offsite_backup=true" in api.requests[0].url.query


async def test_instances_are_asked_for_a_hundred_at_a_time(clock: Clock) -> None:
    api = Api(answers(ok(b'{"instances": [], "total_count": 0}')))
    page = await api.client.fetch_instances(version="v3.1", offset=200, query=api.query)
    assert page.instances == []
    assert str(api.requests[0].url) == (
        f"https://gaussdb.example:8443/v3.1/{PROJECT}/instances?limit=100&offset=200"
    )


async def test_a_signed_request_sends_the_query_that_was_signed(clock: Clock) -> None:
    api = Api(answers(ok()), auth=signing_auth(clock))
    await api.list_backups()
    (request,) = api.requests
    assert b"%2B0000" in request.url.query
    assert request.headers["Authorization"].startswith("SDK-HMAC-SHA256 Access=AKEXAMPLE,")
    assert "X-Auth-Token" not in request.headers


async def test_every_request_is_counted_and_timed(clock: Clock) -> None:
    api = Api(answers(ok()))
    await api.list_backups()
    await api.client.lane.acquire(Query())
    assert api.query.meter.requests == 1
    assert [operation for operation, _ in api.observed] == [LIST_BACKUPS]
    assert api.errors == {}


# Statuses --------------------------------------------------------------------------------------

REASONS = {
    200: None,
    201: "bad_response",
    204: "bad_response",
    301: "bad_response",
    302: "bad_response",
    304: "bad_response",
    307: "bad_response",
    400: "bad_request",
    401: "auth",
    402: "bad_request",
    403: "forbidden",
    404: "not_found",
    405: "bad_request",
    408: "timeout",
    409: "server",
    413: "bad_request",
    422: "bad_request",
    429: "throttled",
    500: "server",
    501: "server",
    502: "server",
    503: "server",
    504: "server",
    599: "server",
}


@pytest.mark.parametrize(("status", "reason"), REASONS.items())
async def test_each_status_has_its_reason(clock: Clock, status: int, reason: str | None) -> None:
    api = Api(answers(httpx.Response(status, content=EMPTY)), retries=0)
    if reason is None:
        await api.list_backups()
        return
    error = await api.fail()
    assert error.reason == reason
    assert error.status == status
    assert error.counted
    assert api.errors == {Reason(reason): 1}
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthError),
        (429, RateLimitedError),
        (403, RefusedError),
        (404, RefusedError),
        (400, RefusedError),
        (408, UnavailableError),
        (500, UnavailableError),
        (302, BadResponseError),
    ],
)
async def test_each_status_has_its_kind_of_error(
    clock: Clock, status: int, kind: type[ApiError]
) -> None:
    assert type(await Api(answers(httpx.Response(status)), retries=0).fail()) is kind


async def test_a_redirect_is_told_and_not_followed(clock: Clock) -> None:
    api = Api(answers(httpx.Response(302, headers={"Location": "https://elsewhere.example/"})))
    error = await api.fail()
    assert error.message == "HTTP 302: a redirect, which is not followed"
    assert len(api.requests) == 1


# What an error tells ---------------------------------------------------------------------------


async def test_the_error_says_what_the_cloud_said(clock: Clock) -> None:
    error = await Api(answers(gateway_error(403, "APIGW.0302", "no right"))).fail()
    assert error.message == "HTTP 403: APIGW.0302 no right"
    assert (error.status, error.error_code, error.request_id) == (403, "APIGW.0302", "8d0f3a")


async def test_the_request_id_may_come_in_a_header(clock: Clock) -> None:
    answer = httpx.Response(500, headers={"X-Request-Id": "from-header"})
    assert (await Api(answers(answer), retries=0).fail()).request_id == "from-header"


async def test_a_proxys_page_is_not_shown(clock: Clock) -> None:
    page = httpx.Response(502, html="<html><h1>Bad Gateway</h1></html>")
    assert (await Api(answers(page), retries=0).fail()).message == "HTTP 502"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_an_echoed_request_leaks_no_secret(clock: Clock, status: int) -> None:
    """Users report that the message of a signature failure holds the request's headers."""
    signature = "4f" * 32
    echo = (
        "verify aksk signature fail, canonicalRequest:GET|/v3/p/instances/|"
        f"|x-auth-token:{TOKEN}|authorization:SDK-HMAC-SHA256 Access=HSTABCDEFGHIJKLMNOPQ, "
        f"SignedHeaders=host;x-sdk-date, Signature={signature}|x-security-token:{'g' * 120}|"
    )
    error = await Api(answers(gateway_error(status, "APIGW.0301", echo)), retries=0).fail()
    shown = f"{error} {error.message} {error.hint} {error.error_code} {error.request_id}"
    for secret in (TOKEN, "HSTABCDEFGHIJKLMNOPQ", signature, "g" * 120):
        assert secret not in shown
    assert "APIGW.0301" in shown


async def test_a_secret_in_the_code_or_the_request_id_is_hidden_too(clock: Clock) -> None:
    body = {"error_code": f"X-Auth-Token: {TOKEN}", "request_id": f"X-Auth-Token: {TOKEN}"}
    error = await Api(answers(httpx.Response(400, json=body))).fail()
    assert TOKEN not in f"{error.message} {error.error_code} {error.request_id}"


# Hints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "message", "hint"),
    [
        (401, "APIGW.0307", "The token must be updated.", "another region"),
        (401, "APIG.0307", "The token must be updated.", "another region"),
        (401, "APIGW.0301", "Incorrect IAM authentication.", "check the credentials"),
        (401, "APIGW.0301", "The user is locked.", "locked after failed logins"),
        (403, "", "AK access failed to reach the limit, forbidden: locked out", "is locked"),
        (403, "DBS.200010", "Forbidden", "gaussdbformysql:backup:list"),
        (404, "DBS.201028", "The instance does not exist.", "check the instance's id"),
        (400, "DBS.280404", "Invalid instance id", "check the instance's id"),
        (400, "DBS.200001", "Parameter error.", ""),
        (429, "APIGW.0308", "too many", "api.rate_limit"),
        (500, "DBS.200412", "failed", "cloud's own trouble"),
        (409, "DBS.200011", "The table is locked.", ""),
        (401, "", "Your clock is blocked by a deadlock", "check the credentials"),
    ],
)
async def test_the_hint_tells_what_to_do(
    clock: Clock, status: int, code: str, message: str, hint: str
) -> None:
    error = await Api(answers(gateway_error(status, code, message)), retries=0).fail()
    assert hint in error.hint
    assert bool(error.hint) is bool(hint)


@pytest.mark.parametrize(
    ("date", "hint"),
    [
        ("Fri, 28 Jul 2023 11:40:00 GMT", "the clock of this machine is 20 minutes ahead: set it"),
        ("Fri, 28 Jul 2023 14:00:00 GMT", "clock of this machine is 120 minutes behind: set it"),
        ("Fri, 28 Jul 2023 11:50:00 GMT", "check the credentials"),
        ("yesterday", "check the credentials"),
        ("Fri, 28 Jul 99999 11:50:00 GMT", "check the credentials"),
        (None, "check the credentials"),
    ],
)
async def test_a_clock_that_is_off_is_told_where_a_signature_is_refused(
    clock: Clock, date: str | None, hint: str
) -> None:
    headers = {"Date": date} if date is not None else {}
    api = Api(answers(gateway_error(401, **headers)), auth=signing_auth(clock))
    assert hint in (await api.fail()).hint


async def test_a_clock_that_is_off_does_not_explain_a_refused_token(clock: Clock) -> None:
    api = Api(answers(gateway_error(401, Date="Fri, 28 Jul 2023 18:00:00 GMT")))
    assert "clock" not in (await api.fail()).hint


# Retries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_failing_server_is_tried_again_with_back_off(clock: Clock, status: int) -> None:
    api = Api(answers(httpx.Response(status), httpx.Response(status), ok()))
    await api.list_backups()
    assert api.sent_at == [0.0, 0.5, 1.5]
    assert api.errors == {Reason.SERVER: 2}
    assert api.query.meter.requests == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500, 501, 302, 204])
async def test_what_another_try_would_not_help_is_not_tried_again(
    clock: Clock, status: int
) -> None:
    api = Api(answers(httpx.Response(status), ok()))
    await api.fail()
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("closed"),
        OSError("no route"),
    ],
)
async def test_a_broken_connection_is_tried_again(clock: Clock, failure: Exception) -> None:
    api = Api(answers(failure, ok()))
    await api.list_backups()
    assert api.errors == {Reason.NETWORK: 1}
    assert api.sent_at == [0.0, 0.5]


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_there_are_so_many_retries_and_no_more(clock: Clock, retries: int) -> None:
    api = Api(answers(httpx.ConnectError("refused")), retries=retries)
    error = await api.fail()
    assert error.reason is Reason.NETWORK
    assert error.hint
    assert len(api.requests) == 1 + retries
    assert api.errors == {Reason.NETWORK: 1 + retries}


async def test_an_announced_time_is_waited_for(clock: Clock) -> None:
    api = Api(answers(httpx.Response(503, headers={"Retry-After": "7"}), ok()))
    await api.list_backups()
    assert api.sent_at == [0.0, 7.0]


async def test_an_announced_date_is_waited_for(clock: Clock) -> None:
    date = {"Retry-After": "Fri, 28 Jul 2023 12:00:30 GMT"}
    api = Api(answers(httpx.Response(503, headers=date), ok()))
    await api.list_backups()
    assert api.sent_at == [0.0, 30.0]


async def test_a_retry_that_would_come_after_the_deadline_is_not_waited_for(clock: Clock) -> None:
    api = Api(answers(httpx.Response(503, headers={"Retry-After": "7"}), ok()))
    api.query.deadline = 7.0
    error = await api.fail()
    assert error.reason is Reason.SERVER
    assert asyncio.get_running_loop().time() == 0


async def test_waiting_for_a_retry_ends_with_the_query(clock: Clock) -> None:
    api = Api(answers(httpx.Response(503), ok()))
    task = asyncio.create_task(api.list_backups())
    await asyncio.sleep(0.1)
    api.query.expire()
    with pytest.raises(DeadlineError):
        await task
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("headers", "message", "silence"),
    [
        ({"Retry-After": "20"}, "", 20.0),
        ({}, "policy user over ratelimit,limit:200,time:5 minute", 1.0),
        ({"Retry-After": "Fri, 28 Jul 2023 12:00:45 GMT"}, "time:5 minute", 45.0),
        ({}, "slow down", 1.0),
    ],
)
async def test_throttling_silences_the_project_for_the_announced_time(
    clock: Clock, headers: dict[str, str], message: str, silence: float
) -> None:
    api = Api(answers(gateway_error(429, "APIGW.0308", message, **headers), ok()))
    await asyncio.gather(api.list_backups(), api.list_backups())
    assert api.sent_at[-1] == silence
    assert api.errors == {Reason.THROTTLED: 1}


async def test_throttling_that_outlasts_the_deadline_fails_at_once(clock: Clock) -> None:
    api = Api(answers(gateway_error(429, **{"Retry-After": "300"}), ok()))
    api.query.deadline = 30.0
    error = await api.fail()
    assert isinstance(error, RateLimitedError)
    assert error.retry_after == 300
    other = await api.fail()
    assert "not asked" in other.message
    assert asyncio.get_running_loop().time() == 0
    assert len(api.requests) == 1
    assert api.errors == {Reason.THROTTLED: 1}


async def test_a_throttling_message_in_any_charset_is_read(clock: Clock) -> None:
    answer = httpx.Response(
        429, content=b"time:5 minute \xff", headers={"Content-Type": "text/plain; charset=base64"}
    )
    api = Api(answers(answer), retries=0)
    silences = [(await api.fail()).retry_after for _ in range(10)]
    assert silences[-2:] == [256, 300]  # without its hint they end at a minute


async def test_a_renewed_token_is_tried_within_the_same_attempt(clock: Clock) -> None:
    tokens = iter([TOKEN, "another-token"])
    api = Api(answers(httpx.Response(401), ok()), auth=token_auth(lambda: next(tokens)), retries=0)
    await api.list_backups()
    assert api.tokens == [TOKEN, "another-token"]
    assert api.errors == {Reason.AUTH: 1}


# Time-outs -------------------------------------------------------------------------------------


async def test_the_time_out_runs_from_connect_to_the_last_byte(clock: Clock) -> None:
    """Nine seconds to the head, then a byte a second: neither alone is too long."""
    stream = Stream([b"x"] * 60, every=1.0)

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(9)
        return httpx.Response(200, stream=stream)

    api = Api(answer, retries=0)
    error = await api.fail()
    assert asyncio.get_running_loop().time() == 10
    assert error.reason is Reason.TIMEOUT
    assert error.message == "no answer within 10 s"
    assert "api.timeout" in error.hint
    assert api.errors == {Reason.TIMEOUT: 1}
    assert stream.closed


async def test_a_request_that_hangs_is_tried_again(clock: Clock) -> None:
    hanging = [True]

    async def answer(request: httpx.Request) -> httpx.Response:
        if hanging.pop() if hanging else False:
            await asyncio.sleep(1e6)
        return ok()

    api = Api(answer, timeout="3s")
    await api.list_backups()
    assert api.sent_at == [0.0, 3.5]
    assert api.errors == {Reason.TIMEOUT: 1}


async def test_a_cancelled_request_gives_its_slot_back_and_counts_no_error(clock: Clock) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(1e6)
        raise AssertionError

    api = Api(answer)
    task = asyncio.create_task(api.list_backups())
    await asyncio.sleep(1)
    assert api.wire.gate.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert api.wire.gate.in_flight == 0
    assert api.errors == {}


# Bodies ----------------------------------------------------------------------------------------


async def test_a_body_in_pieces_is_put_together(clock: Clock) -> None:
    stream = Stream([EMPTY[:7], EMPTY[7:]])
    api = Api(lambda request: httpx.Response(200, stream=stream))
    assert await api.list_backups() == NOTHING
    assert stream.closed


async def test_a_huge_body_is_noticed_while_it_is_read(clock: Clock) -> None:
    stream = Stream(b" " * 65_536 for _ in range(10**6))
    api = Api(lambda request: httpx.Response(200, stream=stream))
    error = await api.fail()
    assert error.reason is Reason.BAD_RESPONSE
    assert error.message == "the body is over 10 MiB"
    assert MAX_RESPONSE_BYTES < stream.taken <= MAX_RESPONSE_BYTES + 65_536
    assert stream.closed
    assert len(api.requests) == 1
    assert api.errors == {Reason.BAD_RESPONSE: 1}


async def test_a_body_of_just_10_mib_is_read(clock: Clock) -> None:
    body = EMPTY + b" " * (10 * 1024 * 1024 - len(EMPTY))
    assert await Api(answers(ok(body))).list_backups() == NOTHING
    assert (await Api(answers(ok(body + b" "))).fail()).reason is Reason.BAD_RESPONSE


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
        ("", bytes),
    ],
)
async def test_a_body_that_is_compressed_unasked_is_read(
    clock: Clock, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    packed = compress(EMPTY)

    def answer(request: httpx.Request) -> httpx.Response:
        stream = Stream([packed[:5], packed[5:]])
        return httpx.Response(200, headers={"Content-Encoding": encoding}, stream=stream)

    assert await Api(answer).list_backups() == NOTHING


async def test_a_compressed_error_is_read_too(clock: Clock) -> None:
    body = gzip.compress(b'{"error_code": "DBS.200001", "error_msg": "bad"}')

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {"Content-Encoding": "gzip"}
        return httpx.Response(400, headers=headers, stream=Stream([body]))

    assert (await Api(answer).fail()).message == "HTTP 400: DBS.200001 bad"


def bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(b" " * 2**20) for _ in range(megabytes)]
    return b"".join([*parts, packer.flush()])


@pytest.mark.parametrize("pieces", [1, 50])
async def test_a_bomb_does_not_go_off(clock: Clock, pieces: int) -> None:
    packed = bomb(200)
    size = -(-len(packed) // pieces)
    stream = Stream(packed[start : start + size] for start in range(0, len(packed), size))

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=stream)

    error = await Api(answer).fail()
    assert error.message == "the body is over 10 MiB"
    assert stream.taken <= len(packed) // pieces * max(1, pieces // 15) + size


async def test_what_follows_a_compressed_body_is_bounded_as_well(clock: Clock) -> None:
    packed = gzip.compress(EMPTY)
    stream = Stream(packed if n == 0 else b"\0" * 65_536 for n in range(10**6))

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=stream)

    assert (await Api(answer).fail()).message == "the body is over 10 MiB"
    assert stream.taken <= MAX_RESPONSE_BYTES + 2 * 65_536


@pytest.mark.parametrize(
    ("encoding", "body", "message"),
    [
        ("gzip", gzip.compress(EMPTY, mtime=0)[:-9], "ends too early"),
        ("gzip", b"", "ends too early"),
        ("gzip", EMPTY, "is damaged"),
        ("deflate", b"\x00\x01", "is damaged"),
        ("br", EMPTY, "not asked for: br"),
        ("zstd", EMPTY, "not asked for: zstd"),
        ("gzip, gzip", EMPTY, "not asked for: gzip, gzip"),
    ],
)
async def test_a_body_that_cannot_be_unpacked_makes_no_sense(
    clock: Clock, encoding: str, body: bytes, message: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, headers={"Content-Encoding": encoding}, stream=Stream([body] if body else [])
        )

    error = await Api(answer).fail()
    assert error.reason is Reason.BAD_RESPONSE
    assert message in error.message


async def test_an_answer_that_makes_no_sense_is_left_to_who_counts_it(clock: Clock) -> None:
    """The exchange itself went well: the error is not counted yet."""
    api = Api(answers(ok(b'{"instances": 5}')))
    with pytest.raises(BadResponseError) as caught:
        await api.client.fetch_instances(version="v3", offset=0, query=api.query)
    assert not caught.value.counted
    assert api.errors == {}
    assert [operation for operation, _ in api.observed] == [LIST_INSTANCES]
    assert len(api.requests) == 1


# Login -----------------------------------------------------------------------------------------

GIVEN = {"token": {"expires_at": "2020-01-04T09:05:22.701000Z"}}


def login_answer(
    body: object = GIVEN, *, token: str = "the-token", status: int = 201
) -> httpx.Response:
    headers = {"X-Subject-Token": token} if token else {}
    return httpx.Response(status, json=body, headers=headers)


async def log_in(
    answer: Answer, registry: SecretRegistry | None = None
) -> tuple[Token, list[httpx.Request], list[str]]:
    api = Api(answer)
    token = await fetch_token(
        api.wire,
        iam_endpoint="https://iam.example",
        domain="my-account",
        username="backup-reader",
        password='pass"word',
        project_id=PROJECT,
        registry=registry or SecretRegistry(),
    )
    return token, api.requests, [operation for operation, _ in api.observed]


async def test_a_login_is_asked_for_as_documented(clock: Clock) -> None:
    token, (request,), operations = await log_in(answers(login_answer()))
    assert request.method == "POST"
    assert str(request.url) == "https://iam.example/v3/auth/tokens?nocatalog=true"
    assert request.headers["Content-Type"] == "application/json"
    assert "X-Auth-Token" not in request.headers
    assert json.loads(request.content) == {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {
                    "user": {
                        "name": "backup-reader",
                        "password": 'pass"word',
                        "domain": {"name": "my-account"},
                    }
                },
            },
            "scope": {"project": {"id": PROJECT}},
        }
    }
    assert token == Token("the-token", 1_578_128_722.701)
    assert operations == [LOGIN]


async def test_a_token_is_made_known_to_those_who_hide_it(clock: Clock) -> None:
    registry = SecretRegistry()
    await log_in(answers(login_answer(token="a-token-of-iam")), registry)
    assert registry.redact("it is a-token-of-iam") == "it is [redacted]"


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (401, {"error": {"code": 401, "message": "wrong user or password."}}, "check domain"),
        (401, {"error": {"code": 401, "message": "Your account is locked."}}, "locked after"),
        (403, {"error_code": "IAM.0002", "error_msg": "no access"}, "check domain"),
        (400, {"error_code": "IAM.0011", "error_msg": "Request body is invalid."}, "check domain"),
        (404, {"error": {"code": 404, "message": "no such project"}}, "the project's id"),
    ],
)
async def test_a_refused_login_is_an_auth_error_that_says_what_to_check(
    clock: Clock, status: int, body: object, hint: str
) -> None:
    with pytest.raises(AuthError) as caught:
        await log_in(answers(login_answer(body, token="", status=status)))
    error = caught.value
    assert error.reason is Reason.AUTH
    assert error.status == status
    assert error.message.startswith(
        f"login of backup-reader at https://iam.example: HTTP {status}: "
    )
    assert hint in error.hint
    assert 'pass"word' not in f"{error} {error.hint}"
    assert not error.counted  # it counts for each instance that it keeps from being queried


async def test_a_clock_that_is_off_does_not_explain_a_wrong_password(clock: Clock) -> None:
    body = {"error": {"code": 401, "message": "wrong user or password."}}
    answer = httpx.Response(401, json=body, headers={"Date": "Fri, 28 Jul 2023 18:00:00 GMT"})
    with pytest.raises(AuthError) as caught:
        await log_in(answers(answer))
    assert "check domain" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (500, UnavailableError, Reason.SERVER),
        (503, UnavailableError, Reason.SERVER),
        (429, RateLimitedError, Reason.THROTTLED),
        (200, BadResponseError, Reason.BAD_RESPONSE),
        (302, BadResponseError, Reason.BAD_RESPONSE),
    ],
)
async def test_trouble_of_iam_is_no_refusal(
    clock: Clock, status: int, kind: type[ApiError], reason: Reason
) -> None:
    with pytest.raises(kind) as caught:
        await log_in(answers(login_answer({}, token="", status=status)))
    assert caught.value.message.startswith("login of backup-reader at https://iam.example: HTTP")
    assert caught.value.reason is reason


# On real sockets (more in test_connections.py) ------------------------------------------------


@asynccontextmanager
async def serving(
    respond: Callable[[asyncio.StreamWriter], Awaitable[None]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """A server that answers each request by a function; its port."""
    conversations: list[asyncio.Task[Any] | None] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.append(asyncio.current_task())
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await respond(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*filter(None, conversations))


@asynccontextmanager
async def real_client(endpoint: str, **config: Any) -> AsyncIterator[tuple[ProjectClient, Wire]]:
    wire = connect(ApiConfig.model_validate({"retries": 0, **config}))
    client = ProjectClient(wire, project_id=PROJECT, endpoint=endpoint, auth=token_auth())
    try:
        yield client, wire
    finally:
        await wire.aclose()


async def fetch(client: ProjectClient) -> Page:
    return await client.fetch_backups(
        INSTANCE, begin=NOON - 86_400, end=NOON, offset=0, query=Query()
    )


async def answer_ok(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(EMPTY), EMPTY))


async def test_bytes_that_stop_coming_are_a_time_out() -> None:
    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")

    async with (
        serving(respond) as port,
        real_client(f"http://127.0.0.1:{port}", timeout="50ms") as (client, wire),
    ):
        with pytest.raises(UnavailableError, match=r"no answer within 0.05 s") as caught:
            await fetch(client)
        assert caught.value.reason is Reason.TIMEOUT
        assert wire.gate.in_flight == 0


async def test_a_certificate_of_an_unknown_authority_is_told(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    async with (
        serving(answer_ok, context) as port,
        real_client(f"https://127.0.0.1:{port}") as (client, _),
    ):
        with pytest.raises(UnavailableError, match="certificate is not trusted") as caught:
            await fetch(client)
    assert caught.value.reason is Reason.NETWORK
    assert "api.ca_file" in caught.value.hint


@pytest.mark.parametrize("key_identifiers", [True, False])
async def test_the_authority_in_ca_file_is_trusted(tmp_path: Path, key_identifiers: bool) -> None:
    authority = Authority(tmp_path, key_identifiers=key_identifiers)
    issued = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    async with (
        serving(answer_ok, context) as port,
        real_client(f"https://127.0.0.1:{port}", ca_file=str(authority.cert_file)) as (client, _),
    ):
        assert await fetch(client) == NOTHING


async def test_the_query_is_on_the_wire_as_it_was_signed() -> None:
    heads: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await answer_ok(writer)
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with real_client(f"http://127.0.0.1:{port}") as (client, _):
            await fetch(client)
    line, *headers = heads[0].decode().split("\r\n")
    assert line == (
        f"GET /v3/{PROJECT}/instances/{INSTANCE.id}/incremental-backups"
        "?begin_time=2023-07-27T12%3A00%3A00%2B0000&end_time=2023-07-28T12%3A00%3A00%2B0000"
        "&limit=50&offset=0 HTTP/1.1"
    )
    names = [header.partition(":")[0].lower() for header in headers if header]
    assert sorted(names) == sorted(set(names))  # none twice
    assert f"Host: 127.0.0.1:{port}" in headers
    assert "Accept-Encoding: identity" in headers
