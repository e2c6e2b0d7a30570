"""The cloud's API: backups and instances of a project, and the login, with retries."""

import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import structlog

from exporter.cloud.answers import (
    LOCKED_HINT,
    InstancePage,
    error_of,
    format_time,
    parse_instance_page,
    parse_page,
    parse_token,
)
from exporter.config.schema import ApiConfig
from exporter.credentials.auth import CloudAuth, SigningAuth, Token
from exporter.credentials.signing import build_query
from exporter.errors import (
    ApiError,
    AuthError,
    RateLimitedError,
    Reason,
    RefusedError,
    UnavailableError,
)
from exporter.models import Instance, Page
from exporter.reporting.redaction import SecretRegistry
from exporter.transport.connections import ExactTransport
from exporter.transport.exchange import LimitedTransport, Observe
from exporter.transport.limits import Gate, Jitter, Lane, Query, retry_seconds

log = structlog.get_logger(__name__)

LIST_BACKUPS = "list_backups"
LIST_INSTANCES = "list_instances"
LOGIN = "login"

_RETRIED_STATUSES = frozenset({429, 502, 503, 504})

# The body of a GET; that it is given spares httpx a second copy of the headers.
_NOTHING = httpx.ByteStream(b"")


@dataclass(frozen=True, slots=True)
class Wire:
    """What all projects' clients share: one pool of connections, one gate, one way to wait."""

    transport: LimitedTransport
    gate: Gate
    config: ApiConfig
    clock: Callable[[], float]
    jitter: Jitter

    async def send(self, request: httpx.Request, auth: httpx.Auth | None = None) -> httpx.Response:
        """The answer to a request, repeated as `auth` wants. Raises ApiError.

        As httpx's own client does it, less what no answer of this API needs (redirects, cookies,
        hooks, a body read in pieces): that takes longer than all the rest of a request.
        """
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
    inner = transport if transport is not None else _open_connections(config)
    limited = LimitedTransport(inner, timeout=config.timeout, observe=observe, clock=clock)
    return Wire(limited, Gate(config.max_connections), config, clock, jitter)


def ssl_context(config: ApiConfig) -> ssl.SSLContext:
    """The trust of the system, and of `api.ca_file` where it is given. OSError, ssl.SSLError."""
    context = ssl.create_default_context()
    if config.ca_file is not None:
        context.load_verify_locations(cafile=config.ca_file)
        # Python 3.13 asks for key identifiers, which many private authorities leave out. The
        # chain, the dates and the name are verified all the same.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _open_connections(config: ApiConfig) -> ExactTransport:
    return ExactTransport(
        ssl_context=ssl_context(config),
        proxy_url=config.proxy_url.get_secret_value() if config.proxy_url is not None else None,
        # Long enough for an idle connection to be of use to the next scrape.
        keepalive_seconds=90.0,
    )


class ProjectClient:
    """One project's API: its endpoint, its credentials, its lane."""

    def __init__(
        self,
        wire: Wire,
        *,
        project_id: str,
        endpoint: str,
        auth: CloudAuth,
    ) -> None:
        self._wire = wire
        self._project_id = project_id
        self._endpoint = endpoint
        self.auth = auth
        self.lane = Lane(wire.gate, rate_limit=wire.config.rate_limit, jitter=wire.jitter)
        # What is sent beside the authentication; a compressed answer would cost more than it saves.
        self._headers = {
            "Host": httpx.URL(endpoint).netloc.decode("ascii"),
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "X-Language": "en-us",
        }

    async def fetch_backups(
        self, instance: Instance, *, begin: float, end: float, offset: int, query: Query
    ) -> Page:
        """One page of 50 of the backups between two times, as the API understands them."""
        parameters = [
            ("begin_time", format_time(begin)),
            ("end_time", format_time(end)),
            ("limit", "50"),
            ("offset", str(offset)),
        ]
        if instance.offsite:
            parameters.append(("display_offsite_backup", "true"))
        path = f"/v3/{self._project_id}/instances/{instance.id}/incremental-backups"
        return parse_page(await self._get(LIST_BACKUPS, path, parameters, query))

    async def fetch_instances(self, *, version: str, offset: int, query: Query) -> InstancePage:
        """One page of 100 of the project's instances, by the API of `version` (v3.1 or v3)."""
        path = f"/{version}/{self._project_id}/instances"
        parameters = [("limit", "100"), ("offset", str(offset))]
        return parse_instance_page(await self._get(LIST_INSTANCES, path, parameters, query))

    async def _get(
        self, operation: str, path: str, parameters: list[tuple[str, str]], query: Query
    ) -> bytes:
        """The body of a 200, retried as the configuration says. Raises ApiError, DeadlineError."""
        url = f"{self._endpoint}{path}?{build_query(parameters)}"
        extensions = {"query": query, "lane": self.lane, "operation": operation}
        attempt = 0
        while True:
            try:
                request = httpx.Request(
                    "GET", url, headers=self._headers, stream=_NOTHING, extensions=extensions
                )
                response = await self._wire.send(request, self.auth)
                if response.status_code == 200:
                    return response.content
                raise error_of(
                    response, now=self._wire.clock(), signed=isinstance(self.auth, SigningAuth)
                )
            except (UnavailableError, RateLimitedError) as exc:
                # What keeps a retry from being sent is no second failure.
                exc.counted = exc.counted or attempt > 0
                if attempt >= self._wire.config.retries or not _is_retried(exc):
                    raise
                if isinstance(exc, RateLimitedError):
                    # The lane keeps the project silent: nothing to wait for here.
                    if not query.has_time_for(exc.retry_after or 0.0):
                        raise
                    wait = 0.0
                else:
                    wait = retry_seconds(attempt, exc.retry_after, jitter=self._wire.jitter)
                if not query.has_time_for(wait):
                    raise
                log.debug(
                    "request retried",
                    operation=operation,
                    attempt=attempt + 1,
                    wait_seconds=round(wait, 3),
                    error=exc.message,
                )
                if wait:
                    await query.sleep(wait)
                attempt += 1


def _is_retried(error: ApiError) -> bool:
    """429, 502, 503, 504 and whatever kept an answer from coming; nothing that was not sent."""
    if error.status is None:
        return error.counted
    return error.status in _RETRIED_STATUSES


# Login -----------------------------------------------------------------------------------------


async def fetch_token(
    wire: Wire,
    *,
    iam_endpoint: str,
    domain: str,
    username: str,
    password: str,
    project_id: str,
    registry: SecretRegistry,
) -> Token:
    """A token for one project (KeystoneCreateUserTokenByPassword). Raises ApiError.

    AuthError where IAM refuses the login, another ApiError where it cannot answer.
    """
    body = {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {
                    "user": {"name": username, "password": password, "domain": {"name": domain}}
                },
            },
            "scope": {"project": {"id": project_id}},
        }
    }
    response = await wire.send(
        httpx.Request(
            "POST",
            f"{iam_endpoint}/v3/auth/tokens?nocatalog=true",
            json=body,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            extensions={"query": Query(), "operation": LOGIN},
        )
    )
    if response.status_code == 201:
        token = parse_token(response)
        registry.update(f"the token of project {project_id}", [token.value])
        return token
    error = error_of(response, now=wire.clock())
    message = f"login of {username} at {iam_endpoint}: {error.message}"
    if isinstance(error, AuthError | RefusedError):
        hint = (
            error.hint
            if error.hint == LOCKED_HINT
            else "check domain (the account's name), username, password and the project's id"
        )
        raise AuthError(message, reason=Reason.AUTH, hint=hint, status=error.status) from error
    error.message = message
    raise error
