"""What all requests to the cloud share: connections, and one way to send."""

import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import httpx

from exporter.config.files import read_file
from exporter.config.schema import ApiConfig
from exporter.transport.background import background_pool
from exporter.transport.backoff import Jitter
from exporter.transport.connections import ExactTransport, Proxy
from exporter.transport.descriptors import most_connections
from exporter.transport.exchange import LimitedTransport, Observe
from exporter.transport.limits import ConnectionPool

_MOST_CA_BYTES = 16 * 1024 * 1024  # all that the web knows take a quarter of one


def host_of(url: httpx.URL) -> str:
    """What the `Host` header says, and a signature signs. The dot that ends an absolute name is
    for the DNS alone: gateways and certificates do not know it."""
    netloc = url.netloc.decode("ascii")
    name, colon, port = netloc.partition(":") if not netloc.startswith("[") else (netloc, "", "")
    return f"{name.rstrip('.')}{colon}{port}"


def url_of(endpoint: httpx.URL, path: str, query: str) -> httpx.URL:
    """The URL of a path and a query that are quoted already: what is sent, and signed.

    httpx would take it apart and quote it anew, which takes as long as to send it. There is no
    public way around that; a test holds that the URL is the same.
    """
    url = httpx.URL(endpoint)
    url._uri_reference = endpoint._uri_reference._replace(path=path, query=query or None)
    return url


@dataclass(frozen=True, slots=True)
class Wire:
    """What all projects' clients share: one pool of connections, one way to wait.

    The clock is the project's own where it has one, see `by`.
    """

    transport: LimitedTransport
    pool: ConnectionPool
    background: ConnectionPool
    config: ApiConfig
    clock: Callable[[], float]
    jitter: Jitter

    def by(self, clock: Callable[[], float]) -> "Wire":
        """The same, by a project's clock, which learns from the answers."""
        return replace(self, clock=clock)

    async def send(self, request: httpx.Request, auth: httpx.Auth | None = None) -> httpx.Response:
        """The answer to a request, repeated as `auth` wants. Raises ApiError.

        As httpx's own client does it, less what no answer of this API needs (redirects, cookies,
        hooks, a body read in pieces): that takes longer than all the rest of a request.
        """
        request.headers["Host"] = host_of(request.url)
        request.extensions["clock"] = self.clock
        if auth is None:
            return await self.transport.handle_async_request(request)
        flow = auth.async_auth_flow(request)
        try:
            request = await anext(flow)
            while True:
                response = await self.transport.handle_async_request(request)
                try:
                    request = await flow.asend(response)
                except StopAsyncIteration:
                    return response
        finally:
            await flow.aclose()

    async def aclose(self) -> None:
        await self.transport.aclose()


def connect(
    config: ApiConfig,
    *,
    observe: Observe = lambda operation, seconds: None,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.time,
    jitter: Jitter = random.uniform,
) -> Wire:
    """The shared connections; `transport` takes the network's place in tests."""
    proxy = proxy_of(config)
    most = (
        config.max_connections
        if transport is not None
        else most_connections(config.max_connections)
    )
    limited = LimitedTransport(
        transport or ExactTransport(ssl_context=ssl_context(config), proxy=proxy, most_open=most),
        timeout=config.timeout,
        observe=observe,
        clock=clock,
        proxy=proxy.address if proxy is not None else "",
    )
    pool = ConnectionPool(most)
    return Wire(limited, pool, background_pool(pool), config, clock, jitter)


def proxy_of(config: ApiConfig) -> Proxy | None:
    return Proxy.of(config.proxy_url.get_secret_value()) if config.proxy_url is not None else None


def read_authorities(config: ApiConfig) -> bytes:
    """What `api.ca_file` holds now: a renewed one is another configuration. OSError."""
    return read_file(config.ca_file, _MOST_CA_BYTES) if config.ca_file is not None else b""


def ssl_context(config: ApiConfig) -> ssl.SSLContext:
    """The trust of the system, and of `api.ca_file` where it is given. OSError, ssl.SSLError."""
    context = ssl.create_default_context()
    if config.ca_file is not None:
        context.load_verify_locations(cafile=config.ca_file)
        # Python 3.13 asks for key identifiers, which many private authorities leave out. The
        # chain, the dates and the name are verified all the same.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
