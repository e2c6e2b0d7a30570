"""The connections to the cloud: httpx over aiohttp, with each request sent exactly as it is.

httpx-aiohttp has aiohttp take every URL apart and put it together anew. That costs as much as
sending it, and changes a query that was signed (https://github.com/aio-libs/aiohttp/issues/1725).
The method here may go when httpx-aiohttp passes a `yarl.URL(..., encoded=True)`.
"""

import ssl

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import AiohttpResponseStream
from multidict import CIMultiDict
from yarl import URL


async def send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp client middleware: leave lost connections to our own retries, which count them.

    aiohttp sends a GET again by itself, once, after one of these two errors (no setting of it is
    public); under another class the same error comes through.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        raise aiohttp.ClientConnectionError(str(exc)) from exc


_MAX_HEADER_BYTES = 64 * 1024


class ExactTransport(AiohttpTransport):
    """No redirects, no cookies, no decoding, no time-outs: the bounds are those of who asks.

    Raises httpx.HTTPError, aiohttp.ClientError and OSError.
    """

    def __init__(
        self, *, ssl_context: ssl.SSLContext, proxy_url: str | None, keepalive_seconds: float
    ) -> None:
        def open_session() -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, ssl=ssl_context, keepalive_timeout=keepalive_seconds
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=(send_once,),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                # A token with many roles comes in a header of more than aiohttp's 8 KB.
                max_field_size=_MAX_HEADER_BYTES,
                proxy=proxy_url,
            )

        # Called with the first request: a session needs a running loop.
        super().__init__(verify=ssl_context, trust_env=False, client=open_session)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        response = await self.client.request(
            request.method,
            URL(str(request.url), encoded=True),
            headers=CIMultiDict(
                (name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw
            ),
            data=await request.aread() or None,
            allow_redirects=False,
        )
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=AiohttpResponseStream(response),
            request=request,
        )
