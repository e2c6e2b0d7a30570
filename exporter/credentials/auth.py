"""Who we are to the cloud: tokens and signatures as `httpx.Auth`; and no account gets locked.

A `Source` gives the current token or keys and renews them. What was refused is not tried again
before a back-off, unless the secret has changed since: five failed logins lock an account.
"""

import asyncio
import os
import re
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import httpx
import structlog

from exporter.config.durations import format_duration
from exporter.credentials.signing import sign
from exporter.errors import ApiError, AuthError, Reason
from exporter.reporting.redaction import SecretRegistry

log = structlog.get_logger(__name__)

_BACKOFF_SECONDS = 60.0
_BACKOFF_CAP_SECONDS = 900.0
# After a login that failed for another reason than a refusal: the network, IAM's own trouble.
_FAULT_SECONDS = 5.0
_FAULT_CAP_SECONDS = 60.0
# Longer than a scrape interval, so that a project that was refused less often gets its turn.
_COURTESY_SECONDS = 75.0
_ASKED_SECONDS = 600.0
_REMEMBERED = 1_000
# What a gateway may answer without having looked at the signature.
_SAID_BEFORE_A_LOOK = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)
_HEADER_TEXT = re.compile(r"[!-~]+")


class SecretSource:
    """A secret from the configuration, or from a file that is read again when it changes."""

    def __init__(
        self,
        registry: SecretRegistry,
        owner: str,
        *,
        value: str | None = None,
        file: Path | None = None,
    ) -> None:
        self._registry = registry
        self._owner = owner
        self._value = value
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        if value is not None:
            registry.update(owner, [value])

    def read(self) -> str:
        """The secret; AuthError where its file cannot be read."""
        if self._file is not None:
            self._read_file(self._file)
        assert self._value is not None
        return self._value

    def _read_file(self, file: Path) -> None:
        try:
            status = file.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return
            value = file.read_text(encoding="utf-8-sig").strip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            what = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
            raise AuthError(
                f"cannot read the secret in {file}: {what}",
                reason=Reason.AUTH,
                hint="check the path and the permissions of the file",
            ) from exc
        if not value:
            raise AuthError(
                f"the secret in {file} is empty",
                reason=Reason.AUTH,
                hint="write the secret into the file; no reload is needed",
            )
        self._registry.update(self._owner, [value])
        self._value, self._seen = value, seen


@dataclass(slots=True)
class _BackOff:
    """Refusals in a row."""

    until: float = float("-inf")
    refused: int = 0
    faults: int = 0
    error: AuthError | None = None


class Refusals:
    """The memory of what was refused. One for each account or access key, shared by projects.

    Each secret has its own back-off: one that changed is tried at once, and where two projects
    name different secrets, the right one does not clear the wrong one. A refusal holds for all
    projects with the same secret, but not where it is known to be the project's own trouble.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._back_offs: dict[tuple[str, str], _BackOff] = {}  # by secret, and "" or a project
        self._accepted: dict[str, set[str]] = {}  # the projects a secret has served, by secret
        self._refused_to: Counter[tuple[str, str]] = Counter()  # by secret and project
        self._asked: dict[tuple[str, str], float] = {}  # when last, by the same
        self.login = asyncio.Lock()
        self.probe = asyncio.Lock()

    def check(self, secret: str, project: str) -> None:
        """AuthError while the back-off lasts."""
        now = asyncio.get_running_loop().time()
        self._asked[secret, project] = now
        for scope in ("", project):
            back_off = self._back_offs.get((secret, scope))
            if back_off is None or back_off.error is None:
                continue
            wait = back_off.until - now
            if not scope:
                wait += self._courtesy(secret, project, now)
            if wait > 0:
                raise AuthError(
                    f"{back_off.error.message}"
                    f" (tried again in {format_duration(max(1, round(wait)))})",
                    reason=Reason.AUTH,
                    hint=back_off.error.hint,
                )

    def _courtesy(self, secret: str, project: str, now: float) -> float:
        """How much longer a project waits that was refused more often than another that waits:
        the trouble may be its own, and then the other ends the back-off."""
        fewest = min(
            self._refused_to[key]
            for key, asked in self._asked.items()
            if key[0] == secret and now - asked < _ASKED_SECONDS
        )
        return _COURTESY_SECONDS if self._refused_to[secret, project] > fewest else 0.0

    def accept(self, secret: str, project: str) -> None:
        for scope in ("", project):
            self._back_offs.pop((secret, scope), None)
        self._refused_to.pop((secret, project), None)
        self._accepted.setdefault(secret, set()).add(project)

    def refuse(
        self, secret: str, project: str, error: AuthError, *, fault: bool = False, own: bool = False
    ) -> None:
        """Back off: `fault` for a login that failed without having been refused, `own` for a
        refusal that says nothing about the secret."""
        served = self._accepted.get(secret, set())
        if own or (served and project not in served):
            scope = project
        else:
            # What has served this project does no more.
            scope = ""
            if not fault:
                self._accepted.pop(secret, None)
        back_off = self._back_offs.setdefault((secret, scope), _BackOff())
        if back_off.until > asyncio.get_running_loop().time():
            return  # one of several that were refused together
        self._forget_the_oldest()
        if fault:
            wait = min(_FAULT_CAP_SECONDS, _FAULT_SECONDS * 2.0**back_off.faults)
            back_off.faults = min(back_off.faults + 1, 16)
        else:
            wait = min(_BACKOFF_CAP_SECONDS, _BACKOFF_SECONDS * 2.0**back_off.refused)
            back_off.refused = min(back_off.refused + 1, 16)
            self._refused_to[secret, project] += 1
        back_off.error = error
        back_off.until = asyncio.get_running_loop().time() + wait
        log.warning(
            "login failed",
            who=self._what,
            project=project,
            error=error.message,
            hint=error.hint,
            next_try_seconds=round(wait),
        )

    def _forget_the_oldest(self) -> None:
        memories: list[dict[Any, Any]] = [self._back_offs, self._accepted, self._refused_to]
        for memory in (*memories, self._asked):
            while len(memory) > _REMEMBERED:
                del memory[next(iter(memory))]


@dataclass(frozen=True, slots=True)
class Token:
    """An IAM token, scoped to one project. `expires_at` is None where nothing tells it."""

    value: str = field(repr=False)
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key, permanent or temporary."""

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None


class Expiring(Protocol):
    @property
    def expires_at(self) -> float | None: ...


T = TypeVar("T", bound=Expiring)


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


class FixedSource(Generic[T]):
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
                else now + _BACKOFF_SECONDS
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


class CloudAuth(httpx.Auth):
    """What the two ways of telling who we are have in common."""

    source: Source[Token] | Source[Keys]

    def __init__(self, explain: Callable[[httpx.Response], ApiError] | None = None) -> None:
        self._explain = explain

    def _refusal(self, what: str, response: httpx.Response) -> AuthError:
        """What all requests fail with while this one's refusal is backed off."""
        message, hint = f"the cloud refused {what}", ""
        if self._explain is not None:
            told = self._explain(response)
            message, hint = f"{message}: {told.message}", told.hint
        return AuthError(
            message,
            reason=Reason.AUTH,
            hint=hint
            or "check the credentials, and that region and endpoint are the project's own",
        )

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, NoReturn]:
        raise RuntimeError("this program is asynchronous")

    @property
    def token_expires_at(self) -> float | None:
        return None


def _header_text(what: str, value: str) -> str:
    """`value` if it can stand in a header; AuthError else."""
    if not _HEADER_TEXT.fullmatch(value):
        raise AuthError(
            f"{what} holds characters that cannot be sent",
            reason=Reason.AUTH,
            hint="it must be one word of plain ASCII: look at the file or the variable it is from",
        )
    return value


class TokenAuth(CloudAuth):
    """`X-Auth-Token`; on a 401 the token is renewed once and the request repeated once."""

    def __init__(
        self,
        source: Source[Token],
        *,
        explain: Callable[[httpx.Response], ApiError] | None = None,
    ) -> None:
        super().__init__(explain)
        self.source: Source[Token] = source

    @property
    def token_expires_at(self) -> float | None:
        return self.source.expires_at

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        token = await self.source.current()
        request.headers["X-Auth-Token"] = _header_text("the token", token.value)
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            renewed = await self.source.renew(token)
            if renewed.value != token.value:
                token = renewed
                request.headers["X-Auth-Token"] = _header_text("the token", token.value)
                response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self.source.refused(token, self._refusal("the token", response))
        elif response.is_success:
            self.source.accepted(token)


class SigningAuth(CloudAuth):
    """SDK-HMAC-SHA256. Until a key was accepted once, its requests go one at a time:
    more than five refused signatures lock it."""

    def __init__(
        self,
        source: Source[Keys],
        *,
        project_id: str,
        clock: Callable[[], float],
        explain: Callable[[httpx.Response], ApiError] | None = None,
    ) -> None:
        super().__init__(explain)
        self.source: Source[Keys] = source
        self._project_id = project_id
        self._clock = clock
        self._proven: Keys | None = None
        # One waits for each project: a cloud that hangs does not keep the other projects out.
        self._turn = asyncio.Lock()

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        for _ in range(2):
            keys = await self.source.current()
            if not self._is_proven(keys):
                async with self._turn, self.source.probe:
                    # Those who waited here use what the first of them has learned.
                    keys = await self.source.current()
                    if not self._is_proven(keys):
                        self._sign(request, keys)
                        response = yield request
                        if response.status_code == httpx.codes.UNAUTHORIZED:
                            renewed = await self.source.renew(keys)
                            if renewed != keys:
                                keys = renewed
                                self._sign(request, keys)
                                response = yield request
                        self._learn(keys, response)
                        return
            self._sign(request, keys)
            response = yield request
            if response.status_code != httpx.codes.UNAUTHORIZED:
                return
            if self._is_proven(keys):
                self._proven = None  # one request at a time again, to find out

    def _learn(self, keys: Keys, response: httpx.Response) -> None:
        status = response.status_code
        if status == httpx.codes.UNAUTHORIZED:
            self.source.refused(keys, self._refusal("the signature", response))
        elif status < httpx.codes.INTERNAL_SERVER_ERROR and status not in _SAID_BEFORE_A_LOOK:
            self._proven = keys
            self.source.accepted(keys)

    def _is_proven(self, keys: Keys) -> bool:
        return keys == self._proven

    def _sign(self, request: httpx.Request, keys: Keys) -> None:
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        signed = sign(
            request.method,
            request.url.netloc.decode("ascii"),
            path,
            query,
            access_key=_header_text("the access key", keys.access_key),
            secret_key=keys.secret_key,
            security_token=keys.security_token
            and _header_text("the security token", keys.security_token),
            project_id=self._project_id,
            now=self._clock(),
        )
        request.headers.update(signed.headers)


def keys_from_environment(environment: Mapping[str, str] | None = None) -> Keys:
    """The keys that the vendor's SDK takes from the environment; AuthError where there are none."""
    environment = os.environ if environment is None else environment
    access_key = environment.get("HUAWEICLOUD_SDK_AK", "")
    secret_key = environment.get("HUAWEICLOUD_SDK_SK", "")
    if not access_key or not secret_key:
        raise AuthError(
            "HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK are not set in the environment",
            reason=Reason.AUTH,
            hint="set both, or give the project an auth section with another type",
        )
    return Keys(access_key, secret_key, environment.get("HUAWEICLOUD_SDK_SECURITY_TOKEN") or None)
