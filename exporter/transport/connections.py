"""The connections to the cloud: httpx over aiohttp, with each request sent exactly as it is.

httpx-aiohttp would do, but has aiohttp take every URL apart and put it together anew. That costs
as much as sending it, and changes a query that was signed
(https://github.com/aio-libs/aiohttp/issues/1725).
"""

import base64
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

from exporter.errors import BadResponseError
from exporter.transport.persistent import IDLE_SECONDS, Connector, Request, Response, send_once


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy that all requests take."""

    address: str  # without user and password: for people
    authorization: str | None = field(repr=False)
    secret: str = field(repr=False)  # the password, or a user that stands for both

    @classmethod
    def of(cls, url: str) -> "Proxy":
        """User and password go out as UTF-8 (RFC 7617, 2.1): aiohttp's own way is Latin-1."""
        parsed = URL(url)
        authorization = None
        if parsed.user is not None or parsed.password is not None:
            pair = f"{parsed.user or ''}:{parsed.password or ''}"
            authorization = f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
        secret = parsed.password or parsed.user or ""
        return cls(str(parsed.origin()), authorization, secret)


_MAX_HEADER_BYTES = 64 * 1024


class _Body(httpx.AsyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, response: Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self._response.content.readany():
            yield piece

    async def aclose(self) -> None:
        self._response.release()


class ExactTransport(httpx.AsyncBaseTransport):
    """No redirects, no cookies, no decoding, no time-outs: the bounds are those of who asks.

    Raises httpx.HTTPError, aiohttp.ClientError and OSError.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext,
        proxy: Proxy | None,
        keepalive_seconds: float = IDLE_SECONDS,
        most_open: int = 50,
    ) -> None:
        self._proxy = proxy

        def open_session() -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                connector=Connector(
                    ssl_context=ssl_context, idle_seconds=keepalive_seconds, most_open=most_open
                ),
                request_class=Request,
                response_class=Response,
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=(send_once,),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                # A token with many roles comes in a header of more than aiohttp's 8 KB.
                max_field_size=_MAX_HEADER_BYTES,
                proxy=proxy.address if proxy is not None else None,
            )

        self._open_session = open_session
        self._session: aiohttp.ClientSession | None = None  # it needs a running loop

    def _discard(self, response: Response, *, look_up_again: bool = False) -> None:
        """Never use its connection again, nor perhaps the address that it leads to."""
        assert response.conversation is not None
        response.conversation.end()
        if look_up_again:
            self._look_up_again(response.url)

    def _look_up_again(self, url: URL) -> None:
        """Whoever was asked for it does not answer as it should: the name may have moved."""
        if self._session is None:
            return
        assert isinstance(self._session.connector, Connector)
        asked = URL(self._proxy.address) if self._proxy is not None else url
        self._session.connector.look_up_again(asked.host or "", asked.port or 0)

    def unresolved(self, request: httpx.Request) -> str:
        """The name that the request waits for, where the DNS has not answered yet."""
        if self._session is None:
            return ""
        assert isinstance(self._session.connector, Connector)
        name = URL(self._proxy.address).host if self._proxy is not None else request.url.host
        return name if name and self._session.connector.names.is_resolving(name) else ""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._session is None:
            self._session = self._open_session()
        headers = CIMultiDict(
            (name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw
        )
        proxy_headers = None
        if self._proxy is not None and self._proxy.authorization is not None:
            allowed = {"Proxy-Authorization": self._proxy.authorization}
            if request.url.scheme == "https":
                proxy_headers = allowed  # of CONNECT alone
            else:
                headers.update(allowed)
        url = URL(str(request.url), encoded=True)
        try:
            response = await self._session.request(
                request.method,
                url,
                headers=headers,
                data=None if request.method == "GET" else await request.aread() or None,
                allow_redirects=False,
                proxy_headers=proxy_headers,
            )
        except (aiohttp.ClientError, OSError):
            self._look_up_again(url)
            raise
        assert isinstance(response, Response)
        assert response.conversation is not None
        if response.conversation.repeats(response.headers.get("X-Request-Id", "")):
            response.close()
            response.conversation.end()
            raise BadResponseError(
                "the answer is that of the request before: it has the same X-Request-Id",
                hint="a proxy or gateway on the way mixes answers up; the connection was closed",
            )
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(response),
            request=request,
            extensions={"discard": partial(self._discard, response)},
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
