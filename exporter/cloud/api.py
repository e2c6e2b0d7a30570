"""The cloud's API: backups and instances of a project, and the login, with retries."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import httpx

from exporter.cloud.answers import Asked, InstancePage, parse_instance_page, parse_page
from exporter.cloud.restore_answers import (
    FullBackupPage,
    parse_full_backups,
    parse_restore_times,
)
from exporter.credentials.http_auth import CloudAuth, SigningAuth
from exporter.credentials.signing import build_query
from exporter.errors import BadResponseError
from exporter.models import Instance, Page, TimeRange
from exporter.transport.background import BackgroundLimiter
from exporter.transport.failures import error_of
from exporter.transport.limits import RateLimiter
from exporter.transport.query import Query, Share
from exporter.transport.retries import with_retries
from exporter.transport.times import format_time
from exporter.transport.wire import Wire, host_of, url_of

T = TypeVar("T")

LIST_BACKUPS = "list_backups"
LIST_INSTANCES = "list_instances"
SHOW_RESTORE_TIME = "show_restore_time"
LIST_FULL_BACKUPS = "list_full_backups"

# The body of a GET; that it is given spares httpx a second copy of the headers.
_NOTHING = httpx.ByteStream(b"")


class ProjectClient:
    """One project's API: its endpoint, its credentials, its limiters."""

    def __init__(
        self,
        wire: Wire,
        *,
        project_id: str,
        endpoint: str,
        auth: CloudAuth,
    ) -> None:
        self._wire = wire
        self.clock = wire.clock
        self._project_id = project_id
        self._endpoint = httpx.URL(endpoint)
        self.auth = auth
        rate_limit, jitter = wire.config.rate_limit, wire.jitter
        self.limiter = RateLimiter(wire.pool, rate_limit=rate_limit, jitter=jitter)
        self.background = BackgroundLimiter(
            self.limiter, wire.background, rate_limit=rate_limit, jitter=jitter
        )
        # What is sent beside the authentication; a compressed answer would cost more than it saves.
        self._headers = httpx.Headers(
            {
                "Host": host_of(self._endpoint),
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "X-Language": "en-us",
            }
        )

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
        parse = partial(parse_page, asked=Asked(instance.id, begin, end))
        return await self._get(LIST_BACKUPS, path, parameters, query, parse)

    async def fetch_instances(self, *, version: str, offset: int, query: Query) -> InstancePage:
        """One page of 100 of the project's instances, by the API of `version` (v3.1 or v3)."""
        path = f"/{version}/{self._project_id}/instances"
        parameters = [("limit", "100"), ("offset", str(offset))]
        return await self._get(LIST_INSTANCES, path, parameters, query, parse_instance_page)

    async def fetch_restore_times(self, instance: Instance, *, query: Query) -> list[TimeRange]:
        """The ranges of moments that the instance can be restored to, all there are.

        Asked without any time: docs/decisions.md says why.
        """
        path = f"/v3/{self._project_id}/instances/{instance.id}/restore-time"

        def parse(body: bytes) -> list[TimeRange]:
            return parse_restore_times(body, now=self.clock())

        return await self._get(SHOW_RESTORE_TIME, path, [], query, parse)

    async def fetch_full_backups(
        self, *, instance_id: str, offset: int, query: Query
    ) -> FullBackupPage:
        """One page of 100 of the full backups of an instance, or of the project with `""`."""
        parameters = [("limit", "100"), ("offset", str(offset))]
        if instance_id:
            parameters.insert(0, ("instance_id", instance_id))
        path = f"/v3/{self._project_id}/backups"

        def parse(body: bytes) -> FullBackupPage:
            return parse_full_backups(body, now=self.clock(), asked=instance_id)

        return await self._get(LIST_FULL_BACKUPS, path, parameters, query, parse)

    async def _get(
        self,
        operation: str,
        path: str,
        parameters: list[tuple[str, str]],
        query: Query,
        parse: Callable[[bytes], T],
    ) -> T:
        """What `parse` makes of a 200, retried as configured. Raises ApiError, DeadlineError."""
        url = url_of(self._endpoint, path, build_query(parameters))
        extensions = {
            "query": query,
            "limiter": self.background if query.background else self.limiter,
            "operation": operation,
            "parse": parse,
        }

        async def send() -> T:
            request = httpx.Request(
                "GET", url, headers=self._headers, stream=_NOTHING, extensions=extensions
            )
            response = await self._wire.send(request, self.auth)
            if response.status_code != 200:
                raise error_of(
                    response, now=self._wire.clock(), signed=isinstance(self.auth, SigningAuth)
                )
            parsed: T | BadResponseError = response.extensions["parsed"]
            if isinstance(parsed, BadResponseError):
                raise parsed.kept()
            return parsed

        # Who did not answer last time must not hold its few connections for longer.
        retries = 0 if query.share is Share.UNANSWERED else self._wire.config.retries
        return await with_retries(send, query=query, retries=retries, jitter=self._wire.jitter)
