import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from exporter.credentials.local import create_local_client
from exporter.credentials.metadata import fetch_metadata_keys
from exporter.credentials.values import Keys
from exporter.errors import ApiError, AuthError, BadResponseError, Reason, UnavailableError
from tests.support.virtual_time import Clock

KEYS = Keys(
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


async def fetch_from(service: MetadataService, **options: str) -> Keys:
    # A client that would follow redirects, if it were not told otherwise.
    transport = httpx.MockTransport(service)
    async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
        return await fetch_metadata_keys(client, **options)


async def test_keys_are_fetched_within_a_session() -> None:
    service = MetadataService()
    assert await fetch_from(service) == KEYS
    put, get = service.requests
    assert str(put.url) == "http://169.254.169.254/meta-data/latest/api/token"
    assert put.headers["X-Metadata-Token-Ttl-Seconds"] == "21600"
    assert str(get.url) == "http://169.254.169.254/openstack/latest/securitykey"
    assert get.headers["X-Metadata-Token"] == "session-1"


async def test_another_endpoint_may_be_named() -> None:
    service = MetadataService()
    await fetch_from(service, endpoint="http://127.0.0.1:8080/")
    assert str(service.requests[1].url) == "http://127.0.0.1:8080/openstack/latest/securitykey"


@pytest.mark.parametrize("status", [404, 405, 503])
async def test_service_without_sessions_is_asked_without_one(status: int) -> None:
    service = MetadataService(session=lambda: httpx.Response(status))
    assert await fetch_from(service) == KEYS
    assert "X-Metadata-Token" not in service.requests[1].headers


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (302, BadResponseError, Reason.BAD_RESPONSE),
        (401, AuthError, Reason.AUTH),
        (403, AuthError, Reason.AUTH),
        (500, UnavailableError, Reason.SERVER),
    ],
)
async def test_refused_session_ends_the_attempt(
    status: int, kind: type[ApiError], reason: Reason
) -> None:
    elsewhere = {"Location": "http://169.254.169.254/openstack/latest/securitykey"}
    service = MetadataService(session=lambda: httpx.Response(status, headers=elsewhere))
    with pytest.raises(kind, match=f"HTTP {status}") as caught:
        await fetch_from(service)
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert len(service.requests) == 1


@pytest.mark.parametrize("body", [b"", b"two words", b"a\r\nX-Evil: 1", b"\xff\xfe"])
async def test_session_token_that_could_break_a_header_is_refused(body: bytes) -> None:
    service = MetadataService(session=lambda: httpx.Response(200, content=body))
    with pytest.raises(BadResponseError, match="session's token"):
        await fetch_from(service)


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(404),
        httpx.Response(401, text='{"error": "Please configure Cloud Service Agency first."}'),
    ],
)
async def test_server_without_an_agency_is_told_to_bind_one(response: httpx.Response) -> None:
    with pytest.raises(AuthError, match="there are no keys for this server") as caught:
        await fetch_from(MetadataService(keys=lambda: response))
    assert "Bind an agency" in caught.value.hint
    assert caught.value.reason is Reason.AUTH


async def test_redirect_is_not_followed() -> None:
    elsewhere = {"Location": "http://evil.example/openstack/latest/securitykey"}
    service = MetadataService(keys=lambda: httpx.Response(307, headers=elsewhere))
    with pytest.raises(BadResponseError, match="HTTP 307"):
        await fetch_from(service)
    assert len(service.requests) == 2


async def test_endless_answer_is_cut_off() -> None:
    read: list[int] = []

    async def endless() -> Any:
        while len(read) < 1_000:
            read.append(1)
            yield b"x" * 1_024

    service = MetadataService(keys=lambda: httpx.Response(200, content=endless()))
    with pytest.raises(BadResponseError, match="more than 65536 bytes"):
        await fetch_from(service)
    assert len(read) == 65


async def test_a_service_that_trickles_has_one_time_out_for_the_whole(clock: Clock) -> None:
    async def trickle() -> Any:
        for byte in make_body():
            await asyncio.sleep(1)
            yield bytes([byte])

    service = MetadataService(keys=lambda: httpx.Response(200, content=trickle()))
    begun = clock()
    with pytest.raises(UnavailableError, match="no answer within 5 s") as caught:
        await fetch_from(service)
    assert caught.value.reason is Reason.TIMEOUT
    assert clock() - begun == 5


@pytest.mark.parametrize("error", [httpx.ConnectTimeout, httpx.ConnectError, httpx.ReadError])
async def test_missing_service_hints_that_this_is_no_cloud_server(
    error: type[httpx.TransportError],
) -> None:
    def fail() -> httpx.Response:
        raise error("no route to host")

    with pytest.raises(UnavailableError, match=f"no answer \\({error.__name__}\\)") as caught:
        await fetch_from(MetadataService(session=fail))
    assert "cloud server" in caught.value.hint
    assert caught.value.reason is Reason.NETWORK


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
        async with create_local_client() as client:
            assert await fetch_metadata_keys(client, endpoint) == KEYS
