import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.credentials.metadata import (
    TemporaryKeys,
    create_metadata_client,
    fetch_temporary_keys,
    parse_security_key,
)
from exporter.errors import AuthError, Reason

KEYS = TemporaryKeys(
    access_key="HSTEXAMPLE0123456789",
    secret_key="made-up-secret",
    security_token="ggpj-made-up-token",
    expires_at=1_578_128_665.701,  # 2020-01-04T09:04:25.701Z
)


def make_body(**changes: Any) -> bytes:
    credential: dict[str, Any] = {
        "access": "HSTEXAMPLE0123456789",
        "secret": "made-up-secret",
        "securitytoken": "ggpj-made-up-token",
        "expires_at": "2020-01-04T09:04:25.701000Z",
    }
    credential |= changes
    return json.dumps(
        {"credential": {name: value for name, value in credential.items() if value is not ...}}
    ).encode()


class MetadataService:
    """Answers the two requests as told, and records what came."""

    def __init__(
        self,
        session: Callable[[], httpx.Response] = lambda: httpx.Response(200, text="session-1\n"),
        keys: Callable[[], httpx.Response] = lambda: httpx.Response(200, content=make_body()),
    ) -> None:
        self.session = session
        self.keys = keys
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answers = {
            ("PUT", "/meta-data/latest/api/token"): self.session,
            ("GET", "/openstack/latest/securitykey"): self.keys,
        }
        return answers[request.method, request.url.path]()


async def fetch_from(service: MetadataService, **options: str) -> TemporaryKeys:
    # A client that would follow redirects, if it were not told otherwise.
    transport = httpx.MockTransport(service)
    async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
        return await fetch_temporary_keys(client, **options)


def test_keys_are_read_with_their_end_in_epoch_seconds() -> None:
    assert parse_security_key(make_body()) == KEYS


def test_representation_shows_neither_secret_nor_token() -> None:
    assert "made-up" not in repr(KEYS)


def test_fields_that_we_do_not_know_are_ignored() -> None:
    assert parse_security_key(make_body(region="cn-north-4")) == KEYS


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"<html>proxy</html>", "malformed"),
        (b"", "truncated"),
        (b"\xff", "malformed"),
        (b'{"credential": {"access": "\xff"}}', "UTF-8"),
        (b"{}", "missing required field `credential`"),
        (make_body(access=...), "missing required field `access`"),
        (make_body(secret=17), "Expected `str`, got `int` - at `$.credential.secret`"),
        (make_body(secret=""), "$.credential.secret"),
        (make_body(access="AK\r\nX-Evil: 1"), "$.credential.access"),
        (make_body(securitytoken="ends in a line break\n"), "$.credential.securitytoken"),
        (make_body(expires_at="soon"), "$.credential.expires_at"),
        (make_body(expires_at="2020-01-04T09:04:25"), "$.credential.expires_at"),
    ],
)
def test_keys_that_make_no_sense_are_refused_by_field(body: bytes, problem: str) -> None:
    with pytest.raises(AuthError) as caught:
        parse_security_key(body)
    assert problem in caught.value.message


def test_refused_keys_do_not_appear_in_the_error() -> None:
    with pytest.raises(AuthError) as caught:
        parse_security_key(make_body(secret="made up with spaces", expires_at=None))
    assert "made" not in caught.value.message


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.recursive(st.none() | st.text(), st.lists)))
def test_no_body_raises_anything_but_an_auth_error(content: Any) -> None:
    body = content if isinstance(content, bytes) else json.dumps({"credential": content}).encode()
    with pytest.raises(AuthError):
        parse_security_key(body)


async def test_keys_are_fetched_within_a_session() -> None:
    service = MetadataService()
    assert await fetch_from(service) == KEYS
    put, get = service.requests
    assert str(put.url) == "http://169.254.169.254/meta-data/latest/api/token"
    assert put.headers["X-Metadata-Token-Ttl-Seconds"] == "21600"
    assert str(get.url) == "http://169.254.169.254/openstack/latest/securitykey"
    assert get.headers["X-Metadata-Token"] == "session-1"


async def test_each_request_has_three_seconds_for_each_step() -> None:
    service = MetadataService()
    await fetch_from(service)
    for request in service.requests:
        assert request.extensions["timeout"] == dict.fromkeys(
            ("connect", "read", "write", "pool"), 3.0
        )


async def test_another_endpoint_may_be_named() -> None:
    service = MetadataService()
    await fetch_from(service, endpoint="http://127.0.0.1:8080/")
    assert str(service.requests[1].url) == "http://127.0.0.1:8080/openstack/latest/securitykey"


@pytest.mark.parametrize("status", [404, 405, 503])
async def test_service_without_sessions_is_asked_without_one(status: int) -> None:
    service = MetadataService(session=lambda: httpx.Response(status))
    assert await fetch_from(service) == KEYS
    assert "X-Metadata-Token" not in service.requests[1].headers


@pytest.mark.parametrize("status", [302, 401, 403, 500])
async def test_refused_session_ends_the_attempt(status: int) -> None:
    elsewhere = {"Location": "http://169.254.169.254/openstack/latest/securitykey"}
    service = MetadataService(session=lambda: httpx.Response(status, headers=elsewhere))
    with pytest.raises(AuthError, match=f"status {status}") as caught:
        await fetch_from(service)
    assert caught.value.status == status
    assert len(service.requests) == 1


@pytest.mark.parametrize("body", [b"", b"two words", b"a\r\nX-Evil: 1", b"\xff\xfe"])
async def test_session_token_that_could_break_a_header_is_refused(body: bytes) -> None:
    service = MetadataService(session=lambda: httpx.Response(200, content=body))
    with pytest.raises(AuthError, match="session token"):
        await fetch_from(service)


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(404),
        httpx.Response(401, text='{"error": "Please configure Cloud Service Agency first."}'),
    ],
)
async def test_server_without_an_agency_is_told_to_bind_one(response: httpx.Response) -> None:
    with pytest.raises(AuthError, match="no keys for this server") as caught:
        await fetch_from(MetadataService(keys=lambda: response))
    assert "Bind an agency" in caught.value.hint
    assert caught.value.reason is Reason.AUTH


async def test_redirect_is_not_followed() -> None:
    elsewhere = {"Location": "http://evil.example/openstack/latest/securitykey"}
    service = MetadataService(keys=lambda: httpx.Response(307, headers=elsewhere))
    with pytest.raises(AuthError, match="status 307"):
        await fetch_from(service)
    assert len(service.requests) == 2


async def test_endless_answer_is_cut_off() -> None:
    read: list[int] = []

    async def endless() -> Any:
        while len(read) < 1_000:
            read.append(1)
            yield b"x" * 1_024

    service = MetadataService(keys=lambda: httpx.Response(200, content=endless()))
    with pytest.raises(AuthError, match="more than 65536 bytes"):
        await fetch_from(service)
    assert len(read) == 65


@pytest.mark.parametrize("error", [httpx.ConnectTimeout, httpx.ConnectError, httpx.ReadError])
async def test_missing_service_hints_that_this_is_no_cloud_server(
    error: type[httpx.TransportError],
) -> None:
    def fail() -> httpx.Response:
        raise error("no route to host")

    with pytest.raises(AuthError, match=f"does not answer \\({error.__name__}\\)") as caught:
        await fetch_from(MetadataService(session=fail))
    assert "cloud server" in caught.value.hint
    assert caught.value.status is None


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = b"session-1" if head.startswith(b"PUT /meta-data") else make_body()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with create_metadata_client() as client:
            assert await fetch_temporary_keys(client, endpoint) == KEYS
