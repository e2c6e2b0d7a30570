"""Tokens and signatures as `httpx.Auth`."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Generator
from typing import NoReturn

import httpx

from exporter.credentials.signing import sign
from exporter.credentials.sources import Source
from exporter.credentials.values import Keys, Token
from exporter.errors import ApiError, AuthError, Reason

# What a gateway may answer without having looked at the signature.
_SAID_BEFORE_A_LOOK = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)
_HEADER_TEXT = re.compile(r"[!-~]+")


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
            request.headers["Host"],
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
