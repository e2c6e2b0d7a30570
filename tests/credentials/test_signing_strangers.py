"""Our signer against the vendor's, and what arrives on a real socket."""

import asyncio
import calendar
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import quote, unquote

import aiohttp
import httpx
import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.credentials.signing import build_query, sign
from exporter.transport.connections import ExactTransport
from tests.support.searches import extent

ACCESS_KEY = "AKEXAMPLE0123456789Q"
SECRET_KEY = "SKexample0123456789abcdefghijklmnopqrstuv"
WINDOW = [
    ("offset", "100"),
    ("limit", "50"),
    ("begin_time", "2022-07-07T12:41:14+0800"),
    ("end_time", "2022-07-08T12:41:14+0800"),
    ("name", "*prod db~é/&=?@;,%2B"),
]


def sign_by_vendor(
    method: str,
    host: str,
    path: str,
    query: Sequence[tuple[str, str]],
    headers: Mapping[str, str],
    body: bytes = b"",
) -> tuple[str, str]:
    """The vendor's Authorization header and request URI."""
    request = SdkRequest(
        method=method,
        schema="https",
        host=host,
        resource_path=path,
        query_params=list(query),
        header_params=dict(headers),
        body=body,
    )
    signed = Signer(BasicCredentials(ACCESS_KEY, SECRET_KEY)).sign(request)
    return signed.header_params["Authorization"], signed.uri


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
PATHS = st.lists(st.one_of(TEXT, TEXT.map(quote)), max_size=5).map(lambda s: "/" + "/".join(s))
TAKEN = {"authorization", "host", "x-sdk-date", "x-sdk-content-sha256", "content-type"}
HEADER_NAMES = st.text("abcXYZ019-_", min_size=1, max_size=12).filter(
    lambda name: name.lower() not in TAKEN
)
HEADERS = st.lists(
    st.tuples(HEADER_NAMES, TEXT), max_size=4, unique_by=lambda header: header[0].lower()
).map(dict)


@settings(max_examples=extent(400), deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "put", "DELETE"]),
    path=PATHS,
    query=st.lists(st.tuples(TEXT, TEXT), max_size=5),
    headers=HEADERS,
    content_type=st.sampled_from([None, "application/json", "application/json;charset=utf8"]),
    body=st.binary(max_size=50),
    project_id=st.sampled_from([None, "0483b6b16e954cb88930a360d2c4e663"]),
    security_token=st.sampled_from([None, " ggpj-example-token+/= "]),
    now=st.integers(0, 4_000_000_000),
)
def test_every_request_is_signed_as_the_vendor_signs_it(
    method: str,
    path: str,
    query: list[tuple[str, str]],
    headers: dict[str, str],
    content_type: str | None,
    body: bytes,
    project_id: str | None,
    security_token: str | None,
    now: int,
) -> None:
    extra = headers | ({"Content-Type": content_type} if content_type else {})
    ours = sign(
        method,
        "gaussdb.cn-north-4.myhuaweicloud.com",
        path,
        query,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        security_token=security_token,
        project_id=project_id,
        headers=extra,
        body=body,
        now=now,
    )
    given_headers = {"X-Sdk-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)), **extra}
    if project_id:
        given_headers["X-Project-Id"] = project_id
    if security_token:
        given_headers["X-Security-Token"] = security_token
    authorization, uri = sign_by_vendor(
        method, "gaussdb.cn-north-4.myhuaweicloud.com", path, query, given_headers, body
    )
    assert ours.headers["Authorization"] == authorization
    assert ours.target == uri


class ReceivedRequest(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]

    def is_signed_correctly(self) -> bool:
        """As a gateway finds it, with the vendor's signer, from nothing but what arrived."""
        path, _, raw_query = self.target.partition("?")
        pairs = [
            (unquote(n), unquote(v)) for n, _, v in (p.partition("=") for p in raw_query.split("&"))
        ]
        signed_names = self.headers["authorization"].partition("SignedHeaders=")[2].split(",")[0]
        signed_headers = {name: self.headers[name] for name in signed_names.split(";")}
        return (
            sign_by_vendor(self.method, self.headers["host"], path, pairs, signed_headers)[0]
            == self.headers["authorization"]
        )


@asynccontextmanager
async def recording_server() -> AsyncIterator[tuple[str, list[ReceivedRequest]]]:
    received: list[ReceivedRequest] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request_line, *header_lines = head.strip().split("\r\n")
        method, target, _ = request_line.split(" ")
        headers = dict(line.split(": ", 1) for line in header_lines)
        received.append(ReceivedRequest(method, target, {k.lower(): v for k, v in headers.items()}))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"127.0.0.1:{port}", received


async def send_signed(client: httpx.AsyncClient, host: str) -> None:
    signed = sign(
        "GET",
        host,
        "/v3/0483b6b16e954cb88930a360d2c4e663/instances",
        WINDOW,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        project_id="0483b6b16e954cb88930a360d2c4e663",
        security_token="ggpj-example-token+/=",
        now=calendar.timegm((2022, 7, 8, 5, 0, 0)),
    )
    response = await client.get(f"http://{host}{signed.target}", headers=signed.headers)
    assert response.status_code == 200


ON_THE_WIRE = (
    "/v3/0483b6b16e954cb88930a360d2c4e663/instances"
    "?begin_time=2022-07-07T12%3A41%3A14%2B0800&end_time=2022-07-08T12%3A41%3A14%2B0800&limit=50"
    "&name=%2Aprod%20db~%C3%A9%2F%26%3D%3F%40%3B%2C%252B&offset=100"
)


def make_transport() -> ExactTransport:
    return ExactTransport(
        ssl_context=ssl.create_default_context(), proxy=None, keepalive_seconds=90.0
    )


async def test_query_arrives_exactly_as_signed_through_aiohttp() -> None:
    async with (
        recording_server() as (host, received),
        httpx.AsyncClient(transport=make_transport()) as client,
    ):
        await send_signed(client, host)
    assert received[0].target == ON_THE_WIRE
    assert received[0].is_signed_correctly()


async def test_plain_query_or_none_goes_out_as_it_is() -> None:
    async with (
        recording_server() as (host, received),
        httpx.AsyncClient(transport=make_transport()) as client,
    ):
        await client.get(f"http://{host}/v3/p/instances?limit=50&offset=0")
        await client.get(f"http://{host}/v3/p/instances")
    assert [request.target for request in received] == [
        "/v3/p/instances?limit=50&offset=0",
        "/v3/p/instances",
    ]


async def test_query_arrives_exactly_as_signed_through_httpx_alone() -> None:
    async with recording_server() as (host, received), httpx.AsyncClient() as client:
        await send_signed(client, host)
    assert received[0].target == ON_THE_WIRE
    assert received[0].is_signed_correctly()


async def test_aiohttp_by_itself_sends_another_spelling_of_the_same_query() -> None:
    """Should this fail, aiohttp has changed: httpx-aiohttp may take the place of our transport."""
    async with (
        recording_server() as (host, received),
        aiohttp.ClientSession() as session,
        session.get(f"http://{host}{ON_THE_WIRE}") as response,
    ):
        assert response.status == 200
    assert received[0].target != ON_THE_WIRE
    assert "begin_time=2022-07-07T12:41:14%2B0800" in received[0].target


@pytest.mark.parametrize("change", ["limit=20", "offset=101"])
async def test_the_check_of_this_file_notices_a_changed_query(change: str) -> None:
    async with recording_server() as (host, received), httpx.AsyncClient() as client:
        await send_signed(client, host)
    name = change.partition("=")[0]
    old = {"limit": "limit=50", "offset": "offset=100"}[name]
    assert not received[0]._replace(target=ON_THE_WIRE.replace(old, change)).is_signed_correctly()


def test_token_requests_can_use_the_same_query() -> None:
    query = build_query(WINDOW)
    assert httpx.URL(f"https://db.example/v3/p?{query}").query.decode() == query
