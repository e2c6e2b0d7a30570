"""Where tokens and keys come from, and how they are renewed.

A `Source` gives the current token or keys and renews them. What was refused is not tried again
before a back-off, unless the secret has changed since: five failed logins lock an account.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol

import httpx
import structlog

from exporter.credentials.refusals import Refusals
from exporter.credentials.values import T, Token
from exporter.errors import ApiError, AuthError, Reason

log = structlog.get_logger(__name__)

_ODD_CLOCK_SECONDS = 60.0


class Source(Protocol[T]):
    """Where a token or keys come from."""

    @property
    def expires_at(self) -> float | None:
        """When what is held ends; None where unknown or nothing is held."""

    async def current(self) -> T:
        """What to use now. AuthError while nothing can be had."""

    async def renew(self, stale: T) -> T:
        """What to use instead of `stale`, which was refused."""

    def accepted(self, value: T) -> None:
        """The cloud has taken `value`."""

    def refused(self, value: T, error: AuthError) -> None:
        """The cloud has refused `value`, and nothing newer is to be had."""

    @property
    def probe(self) -> asyncio.Lock:
        """Held by the one request that finds out whether the cloud takes an account's keys."""

    async def aclose(self) -> None: ...


class StaticSource(Generic[T]):
    """A token or keys from the configuration or from files: read, never asked for."""

    def __init__(
        self,
        load: Callable[[], T],
        fingerprint: Callable[[T], str],
        refusals: Refusals,
        *,
        project_id: str,
    ) -> None:
        self._load = load
        self._fingerprint = fingerprint
        self._refusals = refusals
        self._project_id = project_id

    @property
    def expires_at(self) -> float | None:
        return None

    async def current(self) -> T:
        value = self._load()
        self._refusals.check(self._fingerprint(value), self._project_id)
        return value

    async def renew(self, stale: T) -> T:
        value = self._load()
        if value != stale:
            self._refusals.check(self._fingerprint(value), self._project_id)
        return value

    def accepted(self, value: T) -> None:
        self._refusals.accept(self._fingerprint(value), self._project_id)

    def refused(self, value: T, error: AuthError) -> None:
        self._refusals.refuse(self._fingerprint(value), self._project_id, error)

    @property
    def probe(self) -> asyncio.Lock:
        return self._refusals.probe

    async def aclose(self) -> None:
        return None


class RenewedSource(Generic[T]):
    """A token or keys that are asked for, kept, and renewed before their end.

    One request for them at a time, whoever needs them, and one for an account, whatever project
    needs it; it outlives those who wait for it.
    """

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[T]],
        *,
        secret: Callable[[], str],
        clock: Callable[[], float],
        refusals: Refusals,
        project_id: str,
        margin_seconds: float,
        used_share: float = 0.75,
    ) -> None:
        """Renewed `margin_seconds` before the end, but not before `used_share` of what was left."""
        self._fetch = fetch
        self._secret = secret
        self._clock = clock
        self._refusals = refusals
        self._project_id = project_id
        self._margin_seconds = margin_seconds
        self._used_share = used_share
        self._held: T | None = None
        self._renew_at = float("inf")
        self._used_secret: str | None = None
        self._ever_accepted = False
        self._task: asyncio.Task[T] | None = None

    @property
    def expires_at(self) -> float | None:
        return self._held.expires_at if self._held is not None else None

    async def current(self) -> T:
        held = self._held
        if held is None:
            return await self._ask()
        if self._clock() < self._renew_at:
            return held
        try:
            return await self._ask()
        except AuthError:
            # It still serves until its end; the next request tries again.
            if held.expires_at is not None and self._clock() < held.expires_at:
                return held
            raise

    async def renew(self, stale: T) -> T:
        if self._held is not None and self._held is not stale:
            return self._held
        self._held = None  # of no use any more, even if no other is to be had
        return await self._ask()

    async def _ask(self) -> T:
        if self._task is None:
            secret = self._secret()
            self._refusals.check(secret, self._project_id)
            self._task = asyncio.create_task(self._run(secret))
            self._task.add_done_callback(_retrieve)
        return await asyncio.shield(self._task)

    async def _run(self, secret: str) -> T:
        try:
            async with self._refusals.login:
                # Another project may have been refused in the meantime.
                self._refusals.check(secret, self._project_id)
                value = await self._log_in(secret)
        finally:
            self._task = None
        now = self._clock()
        self._held, self._used_secret = value, secret
        self._renew_at = float("inf")
        if value.expires_at is not None:
            left = value.expires_at - now
            # What comes with its end behind it tells that the clocks disagree, not that every
            # request needs a login.
            self._renew_at = (
                max(value.expires_at - self._margin_seconds, now + left * self._used_share)
                if left > 0
                else now + _ODD_CLOCK_SECONDS
            )
        log.info("login succeeded", expires_in_seconds=round((value.expires_at or now) - now))
        return value

    async def _log_in(self, secret: str) -> T:
        try:
            value = await self._fetch(secret)
        except AuthError as exc:
            # Without a status nobody has refused anything: there was no answer. And what is not
            # a 401 is about the project, not the password.
            self._refusals.refuse(
                secret,
                self._project_id,
                exc,
                fault=exc.status is None,
                own=exc.status not in (None, httpx.codes.UNAUTHORIZED),
            )
            raise
        except ApiError as exc:
            error = AuthError(exc.message, reason=Reason.AUTH, hint=exc.hint, status=exc.status)
            self._refusals.refuse(secret, self._project_id, error, fault=True)
            raise error from exc
        self._refusals.accept(secret, self._project_id)
        return value

    def accepted(self, value: T) -> None:
        self._ever_accepted = True

    def refused(self, value: T, error: AuthError) -> None:
        # Once a login has been of use, a refusal is the request's own trouble: other instances
        # must not suffer from it.
        if not self._ever_accepted and self._used_secret is not None and self._held is value:
            self._held = None
            # A token that is refused tells nothing of the password that it was given for.
            own = isinstance(value, Token)
            self._refusals.refuse(self._used_secret, self._project_id, error, own=own)

    @property
    def probe(self) -> asyncio.Lock:
        return self._refusals.probe

    async def aclose(self) -> None:
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _retrieve(task: "asyncio.Task[T]") -> None:
    """Take a failure that nobody waited for: `Refusals` has told of it."""
    if not task.cancelled():
        task.exception()
