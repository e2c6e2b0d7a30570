"""Tokens and signatures as `httpx.Auth`."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from typing import Generic, NoReturn, TypeAlias

import httpx

from exporter.credentials.signing import sign
from exporter.credentials.sources import Source
from exporter.credentials.trust import KEYS_LAST_SECONDS, Trust
from exporter.credentials.values import Keys, T, Token
from exporter.errors import ApiError, AuthError, Reason

# What a gateway may answer without having looked at who asks.
_SAID_BEFORE_A_LOOK = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)
_SUSPECTS_REMEMBERED = 100
# Where the clock has moved by so much since, a refusal says nothing about the key.
_MISTIMED_SECONDS = 60.0


class _RenewingAuth(httpx.Auth, Generic[T]):
    """What the two ways of telling who we are have in common.

    After a 401, what was shown is renewed once and the request repeated once; one request at a
    time does that. What is refused even then, the source backs off.
    """

    def __init__(
        self,
        source: Source[T],
        *,
        shown: str,
        trust: Trust,
        explain: Callable[[httpx.Response], ApiError] | None,
    ) -> None:
        self.source = source
        self._shown = shown  # what a request shows, for people
        self._trust = trust
        self._explain = explain
        # Requests that were refused, by path: if others are let in, it is their own trouble.
        self._suspects: dict[str, float] = {}

    @property
    def token_expires_at(self) -> float | None:
        return None

    def _show(self, request: httpx.Request, value: T) -> None:
        """Put into the request what tells who we are."""
        raise NotImplementedError

    def _was_mistimed(self, request: httpx.Request, response: httpx.Response) -> bool:
        """Whether it was refused for a time that the answer has shown to be wrong."""
        return False

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        refused: T | None = None
        while True:
            value = await self.source.current()
            if self._trust.holds(value):
                sent_at = _now()
                self._show(request, value)
                request.extensions["is_still_good"] = partial(self._trust.holds, value)
                response = yield request
                if self._was_mistimed(request, response):
                    self._show(request, value)
                    response = yield request
                if not response.extensions.get("was_sent", True):
                    continue
                if response.status_code != httpx.codes.UNAUTHORIZED:
                    self._learn(request, response, value, sent_at)
                    return
                if refused is not None or self._is_own_trouble(request):
                    return
                refused = value
                self._trust.doubt()
            if request.url.path in self._suspects:
                await asyncio.sleep(0)  # whoever is ready goes first: it may be let in
            async with self._trust.turn(value):
                # Those who waited here use what the first of them has learned.
                value = await self._next_value(refused)
                if self._trust.holds(value):
                    continue
                request.extensions.pop("is_still_good", None)
                sent_at = _now()
                self._show(request, value)
                response = yield request
                if self._was_mistimed(request, response):
                    self._show(request, value)
                    response = yield request
                if response.status_code == httpx.codes.UNAUTHORIZED and refused is None:
                    self._trust.doubt()
                    try:
                        renewed = await self.source.renew(value)
                    except ApiError:
                        self._learn(request, response, value, sent_at)
                        raise
                    if renewed != value:
                        value, sent_at = renewed, _now()
                        self._show(request, value)
                        response = yield request
                self._learn(request, response, value, sent_at)
                return

    async def _next_value(self, refused: T | None) -> T:
        return await (self.source.current() if refused is None else self.source.renew(refused))

    def _learn(
        self, request: httpx.Request, response: httpx.Response, value: T, sent_at: float
    ) -> None:
        status = response.status_code
        if status == httpx.codes.UNAUTHORIZED:
            self._suspect(request)
            self._trust.doubt()
            self.source.refused(value, self._refusal(response))
        elif status < httpx.codes.INTERNAL_SERVER_ERROR and status not in _SAID_BEFORE_A_LOOK:
            self._suspects.pop(request.url.path, None)
            self._trust.accept(value, sent_at)
            self.source.accepted(value)
        else:
            self._trust.hear(value)

    def _suspect(self, request: httpx.Request) -> None:
        self._suspects[request.url.path] = _now()
        if len(self._suspects) > _SUSPECTS_REMEMBERED:
            del self._suspects[next(iter(self._suspects))]

    def _is_own_trouble(self, request: httpx.Request) -> bool:
        """Whether this request was refused before, and others have been let in since."""
        refused_at = self._suspects.get(request.url.path)
        return refused_at is not None and self._trust.was_accepted_since(refused_at)

    def _refusal(self, response: httpx.Response) -> AuthError:
        """What all requests fail with while this one's refusal is backed off."""
        refusal = AuthError(
            f"the cloud refused {self._shown}",
            reason=Reason.AUTH,
            hint="check the credentials, and that region and endpoint are the project's own",
        )
        if self._explain is None:
            return refusal
        told = self._explain(response)
        return AuthError(
            f"{refusal.message}: {told.message}",
            reason=Reason.AUTH,
            hint=told.hint or refusal.hint,
            **told.facts,
        )

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, NoReturn]:
        raise RuntimeError("this program is asynchronous")


class TokenAuth(_RenewingAuth[Token]):
    """`X-Auth-Token`."""

    def __init__(
        self,
        source: Source[Token],
        *,
        shown: str = "the token",
        explain: Callable[[httpx.Response], ApiError] | None = None,
    ) -> None:
        super().__init__(source, shown=shown, trust=Trust(), explain=explain)

    @property
    def token_expires_at(self) -> float | None:
        return self.source.expires_at

    def _show(self, request: httpx.Request, value: Token) -> None:
        request.headers["X-Auth-Token"] = _header_text("the token", value.value)


class SigningAuth(_RenewingAuth[Keys]):
    """SDK-HMAC-SHA256. The trust in a key is shared by all projects that sign with it."""

    def __init__(
        self,
        source: Source[Keys],
        *,
        shown: str = "the signature",
        project_id: str | None,
        clock: Callable[[], float],
        explain: Callable[[httpx.Response], ApiError] | None = None,
    ) -> None:
        trust = Trust(KEYS_LAST_SECONDS, within=source.account)
        super().__init__(source, shown=shown, trust=trust, explain=explain)
        self._project_id = project_id
        self._clock = clock

    def _show(self, request: httpx.Request, value: Keys) -> None:
        now = self._clock()
        request.extensions["signed_at"] = now, _now()
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        signed = sign(
            request.method,
            request.headers["Host"],
            path,
            query,
            access_key=_header_text("the access key", value.access_key),
            secret_key=value.secret_key,
            security_token=value.security_token
            and _header_text("the security token", value.security_token),
            project_id=self._project_id,
            now=now,
            body=b"" if request.method == "GET" else request.content,
        )
        request.headers.update(signed.headers)

    def _was_mistimed(self, request: httpx.Request, response: httpx.Response) -> bool:
        signed_at, shown_at = request.extensions["signed_at"]
        moved = self._clock() - signed_at - (_now() - shown_at)
        return (
            response.status_code == httpx.codes.UNAUTHORIZED
            and response.extensions.get("was_sent", True)
            and abs(moved) > _MISTIMED_SECONDS
        )


# A project's way of telling who we are.
CloudAuth: TypeAlias = TokenAuth | SigningAuth


def _header_text(what: str, value: str) -> str:
    """`value` if it can stand in a header; AuthError else."""
    if not (value.isascii() and value.isprintable() and value and " " not in value):
        raise AuthError(
            f"{what} holds characters that cannot be sent",
            reason=Reason.AUTH,
            hint="it must be one word of plain ASCII: look at the file or the variable it is from",
        )
    return value


def _now() -> float:
    return asyncio.get_running_loop().time()
