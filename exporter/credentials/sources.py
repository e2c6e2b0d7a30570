"""Where tokens and keys come from, and how they are renewed.

A `Source` gives the current token or keys and renews them. What was refused is not tried again
before a back-off, unless the secret has changed since: five failed logins lock an account.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, Protocol

import httpx
import structlog

from exporter.config.durations import format_duration
from exporter.credentials.refusals import NotAskedError, Refusals
from exporter.credentials.trust import Trust
from exporter.credentials.values import Keys, T, Token
from exporter.errors import ApiError, AuthError, LoginError
from exporter.transport.backoff import doubled

log = structlog.get_logger(__name__)

_ODD_CLOCK_SECONDS = 60.0
# After a login that nobody has refused: the network, or IAM's own trouble.
_FAULT_SECONDS = 5.0
_FAULT_CAP_SECONDS = 60.0
_RETRY_AFTER_CAP_SECONDS = 900.0


class Source(Protocol[T]):
    """Where a token or keys come from."""

    @property
    def expires_at(self) -> float | None:
        """When what is held ends; None where unknown or nothing is held."""

    async def current(self) -> T:
        """What to use now. ApiError while nothing can be had."""

    async def renew(self, stale: T) -> T:
        """What to use instead of `stale`, which was refused."""

    def accepted(self, value: T) -> None:
        """The cloud has taken `value`."""

    def refused(self, value: T, error: AuthError) -> None:
        """The cloud has refused `value`, and nothing newer is to be had."""

    @property
    def who(self) -> str:
        """Whose it is, for people."""

    @property
    def account(self) -> Trust:
        """The trust in an access key, shared by all that sign with it."""

    def secret(self) -> str:
        """What refusals are remembered by: another one is tried at once. AuthError if missing."""

    def forget(self) -> None:
        """Look anew at what the secret is read from."""

    async def aclose(self) -> None: ...


class StaticSource(Generic[T]):
    """A token or keys that the configuration, a file or the environment holds.

    Read for each request, and never asked for: only people renew them.
    """

    def __init__(
        self,
        load: Callable[[], T],
        fingerprint: Callable[[T], str],
        refusals_of: Callable[[T | None], Refusals],
        *,
        project_id: str,
        who: str,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        """`refusals_of` is the memory of whose they are; None where they cannot be read.
        `forget` makes the next `load` look anew, where it spares itself a file's reading."""
        self._load = load
        self._fingerprint = fingerprint
        self._refusals_of = refusals_of
        self._project_id = project_id
        self.who = who
        self.forget = forget

    def secret(self) -> str:
        return self._fingerprint(self._load())

    @property
    def expires_at(self) -> float | None:
        return None

    async def current(self) -> T:
        value = self._load()
        try:
            self._check(value)
        except AuthError:
            value = self._load_anew()
            self._check(value)
        return value

    async def renew(self, stale: T) -> T:
        value = self._load_anew()
        self._check(value)
        return value

    def _load_anew(self) -> T:
        self.forget()
        return self._load()

    def _check(self, value: T) -> None:
        self._refusals_of(value).check(self._fingerprint(value), self._project_id)

    def accepted(self, value: T) -> None:
        self._refusals_of(value).accept(self._fingerprint(value), self._project_id)

    def refused(self, value: T, error: AuthError) -> None:
        refusals = self._refusals_of(value)
        refusals.refuse(self._fingerprint(value), self._project_id, error, who=self.who)

    @property
    def account(self) -> Trust:
        try:
            value = self._load()
        except AuthError:
            value = None  # told when it is needed: it may be there by then
        return self._refusals_of(value).trust

    async def aclose(self) -> None:
        return None


class RenewedSource(Generic[T]):
    """A token or keys that are asked for, kept, and renewed before their end.

    One request for them at a time, whoever needs them, and one for an account, whatever project
    needs it. It outlives those who wait for it, and nobody waits while what is held still serves.
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
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        """Renewed `margin_seconds` before the end, but not before `used_share` of what was left.

        `secret` is what `fetch` shows of who we are; `forget` makes it look anew.
        """
        self._fetch = fetch
        self.secret = secret
        self.forget = forget
        self._clock = clock
        self._refusals = refusals
        self._project_id = project_id
        self._margin_seconds = margin_seconds
        self._used_share = used_share
        self._held: T | None = None
        self._held_by = ""  # the secret that it was given for
        self._renew_at = float("inf")
        self._asked_with = ""
        self._fault: LoginError | None = None
        self._faults = 0
        self._asks_again_at = float("-inf")  # in the loop's time
        self._task: asyncio.Task[T] | None = None

    @property
    def expires_at(self) -> float | None:
        return self._held.expires_at if self._held is not None else None

    async def current(self) -> T:
        held = self._held
        if held is None or self._refusals.is_dead(held):
            self._held = None
            return await self._ask()
        now = self._clock()
        if now >= self._renew_at:
            if held.expires_at is not None and now >= held.expires_at:
                return await self._ask()
            self._renew_behind()
        return held

    async def renew(self, stale: T) -> T:
        if self._held is not None and self._held != stale:
            return self._held
        self._held = None  # of no use any more, even if no other is to be had
        return await self._ask()

    def _renew_behind(self) -> None:
        """Ask for what comes next, while what is held still serves."""
        try:
            self._begin()
        except ApiError:
            return  # told already; it is asked for again when the back-off is over

    async def _ask(self) -> T:
        return await asyncio.shield(self._begin())

    def _begin(self) -> "asyncio.Task[T]":
        """The request that is under way, or a new one. Raises ApiError while none may be sent."""
        if self._task is None:
            secret = self._check_secret()
            self._task = asyncio.create_task(self._run(secret))
            self._task.add_done_callback(_retrieve)
        return self._task

    def _check_secret(self) -> str:
        secret = self.secret()
        try:
            self._refusals.check(secret, self._project_id)
        except AuthError:
            self.forget()
            secret = self.secret()
            self._refusals.check(secret, self._project_id)
        if self._fault is not None:
            wait = self._asks_again_at - asyncio.get_running_loop().time()
            if wait > 0 and secret == self._asked_with:
                raise _again(self._fault, wait)
        return secret

    async def _run(self, secret: str) -> T:
        try:
            doubted = partial(self._refusals.is_doubted, secret)
            async with self._refusals.logins.take(self, is_doubted=doubted) as begin:
                begin()
                # Another project may have been refused in the meantime.
                self._refusals.check(secret, self._project_id)
                self._asked_with = secret
                value = await self._log_in(secret)
        finally:
            self._task = None
        now = self._clock()
        self._refusals.revive(value)
        self._held, self._held_by = value, secret
        self._renew_at = self._when_to_renew(value, now)
        log.info("login succeeded", expires_in_seconds=round((value.expires_at or now) - now))
        return value

    async def _log_in(self, secret: str) -> T:
        try:
            value = await self._fetch(secret)
        except NotAskedError:
            raise
        except AuthError as exc:
            # Without a status nobody has refused it: a file is missing.
            if exc.status is not None:
                # What is not a 401 is about the project, not the secret.
                own = exc.status != httpx.codes.UNAUTHORIZED
                self._refusals.refuse(secret, self._project_id, exc, own=own)
            raise
        except ApiError as exc:
            raise self._note_fault(exc) from exc
        self._fault, self._faults = None, 0
        return value

    def _note_fault(self, error: ApiError) -> LoginError:
        """No answer to the login, or none that makes sense: it is tried again soon."""
        self._fault = LoginError.of(error)
        self._faults += 1
        wait = doubled(_FAULT_SECONDS, self._faults, cap=_FAULT_CAP_SECONDS)
        wait = max(wait, min(error.retry_after or 0.0, _RETRY_AFTER_CAP_SECONDS))
        self._asks_again_at = asyncio.get_running_loop().time() + wait
        log.warning(
            "login failed",
            who=self._refusals.what,
            project=self._project_id,
            error=error.message,
            hint=error.hint,
            next_try_seconds=round(wait),
        )
        return self._fault

    def _when_to_renew(self, value: T, now: float) -> float:
        if value.expires_at is None:
            return float("inf")
        left = value.expires_at - now
        if left <= 0:
            # Its end lies behind it: the clocks disagree, and not every request needs a login.
            return now + _ODD_CLOCK_SECONDS
        return max(value.expires_at - self._margin_seconds, now + left * self._used_share)

    def accepted(self, value: T) -> None:
        self._refusals.revive(value)
        self._refusals.accept(self._held_by, self._project_id)

    def refused(self, value: T, error: AuthError) -> None:
        if self._held != value:
            return  # another request has renewed it
        self._held = None
        self._refusals.bury(value)
        # A token that is refused tells nothing of the password that it was given for.
        own = isinstance(value, Token)
        self._refusals.refuse(self._held_by, self._project_id, error, own=own)

    @property
    def who(self) -> str:
        return self._refusals.what

    @property
    def account(self) -> Trust:
        return self._refusals.trust

    async def aclose(self) -> None:
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class AssumedSource(RenewedSource[Keys]):
    """Keys of an agency, asked for with the keys of another source."""

    def __init__(
        self,
        base: Source[Keys],
        fetch: Callable[[], Awaitable[Keys]],
        **more: Any,
    ) -> None:
        """`fetch` signs with what `base` gives; the rest is as of any source that renews."""
        super().__init__(lambda _: fetch(), secret=base.secret, forget=base.forget, **more)
        self._base = base

    async def aclose(self) -> None:
        await super().aclose()
        await self._base.aclose()


def _again(error: LoginError, wait: float) -> LoginError:
    again = LoginError.of(error)
    again.message += f" (tried again in {format_duration(max(1, round(wait)))})"
    return again


def _retrieve(task: "asyncio.Task[T]") -> None:
    """Take a failure that nobody waited for: it has been told already."""
    if not task.cancelled():
        task.exception()
