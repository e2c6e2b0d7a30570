"""Requests, statuses, retries and time-outs of a project's client."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.cloud.api import (
    LIST_BACKUPS,
    LIST_FULL_BACKUPS,
    SHOW_RESTORE_TIME,
    ProjectClient,
)
from exporter.config.schema import ApiConfig
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
from exporter.transport.query import Query
from exporter.transport.wire import Wire, connect
from tests.support.certificates import Authority
from tests.support.cloud_api import (
    EMPTY,
    INSTANCE,
    NOTHING,
    PROJECT,
    TOKEN,
    Api,
    Stream,
    answers,
    gateway_error,
    ok,
    signing_auth,
    token_auth,
)
from tests.support.virtual_time import NOON, Clock


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


async def test_the_restore_window_is_asked_for_without_any_time(clock: Clock) -> None:
    api = Api(answers(ok(b'{"restore_times": []}')))
    assert await api.client.fetch_restore_times(INSTANCE, query=api.query) == []
    assert str(api.requests[0].url) == (
        f"https://gaussdb.example:8443/v3/{PROJECT}/instances/{INSTANCE.id}/restore-time"
    )
    assert [operation for operation, _ in api.observed] == [SHOW_RESTORE_TIME]


@pytest.mark.parametrize(
    ("instance_id", "asked"), [("", ""), ("db-1", "instance_id=db-1&")], ids=["project", "instance"]
)
async def test_full_backups_are_asked_for_a_hundred_at_a_time(
    clock: Clock, instance_id: str, asked: str
) -> None:
    api = Api(answers(ok()))
    page = await api.client.fetch_full_backups(instance_id=instance_id, offset=99, query=api.query)
    assert (list(page.rows), page.total_count) == ([], 0)
    assert str(api.requests[0].url) == (
        f"https://gaussdb.example:8443/v3/{PROJECT}/backups?{asked}limit=100&offset=99"
    )
    assert [operation for operation, _ in api.observed] == [LIST_FULL_BACKUPS]


async def test_a_signature_needs_no_query(clock: Clock) -> None:
    api = Api(answers(ok(b'{"restore_times": []}')), auth=signing_auth(clock))
    await api.client.fetch_restore_times(INSTANCE, query=api.query)
    assert api.requests[0].headers["Authorization"].startswith("SDK-HMAC-SHA256 Access=AKEXAMPLE,")
    assert "?" not in str(api.requests[0].url)


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
    await api.client.limiter.acquire(Query())
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
    assert (
        error.message == "HTTP 302: a redirect to https://elsewhere.example/, which is not followed"
    )
    assert len(api.requests) == 1


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
    token = [TOKEN]

    def answer(request: httpx.Request) -> httpx.Response:
        token[0] = "another-token"
        return httpx.Response(401) if request.headers["X-Auth-Token"] == TOKEN else ok()

    api = Api(answer, auth=token_auth(lambda: token[0]), retries=0)
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
    assert error.message == "the answer of gaussdb.example:8443 did not end within 10 s"
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
    assert api.wire.pool.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert api.wire.pool.in_flight == 0
    assert api.errors == {}


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
        with pytest.raises(UnavailableError, match=r"did not end within 0.05 s") as caught:
            await fetch(client)
        assert caught.value.reason is Reason.TIMEOUT
        assert wire.pool.in_flight == 0


async def test_a_certificate_of_an_unknown_authority_is_told(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    async with (
        serving(answer_ok, context) as port,
        real_client(f"https://127.0.0.1:{port}") as (client, _),
    ):
        with pytest.raises(UnavailableError, match=r"certificate of .* is not trusted") as caught:
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
