"""The cloud and its IAM, as small as credentials need them."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx

from exporter.credentials.http_auth import SigningAuth
from exporter.credentials.refusals import Refusals
from exporter.credentials.sources import RenewedSource, StaticSource
from exporter.credentials.values import Keys, Token
from exporter.errors import ApiError, AuthError, Reason
from tests.support.virtual_time import DAY, Clock

PROJECT = "97b026aa9cc4417888c14c84a1ad9860"
URL = "https://gaussdb.example/v3/p/instances/i/incremental-backups?limit=50"


class Cloud:
    """Answers requests by what they show of themselves, and records them.

    A request is let in with a token of `tokens`, or a signature by an access key of `keys`.
    """

    def __init__(self, *, tokens: set[str] | None = None, keys: set[str] | None = None) -> None:
        self.tokens = tokens or set()
        self.keys = keys or set()
        self.statuses: list[int] = []  # answers to come instead
        self.refused_paths: set[str] = set()
        self.seen: list[str] = []  # the token or the access key of each request
        self.hold: asyncio.Event | None = None
        self.in_flight = 0
        self.most_in_flight = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0.05)
            if self.hold is not None:
                await self.hold.wait()
        finally:
            self.in_flight -= 1
        token = request.headers.get("X-Auth-Token")
        signature = request.headers.get("Authorization", "")
        access_key = signature.partition("Access=")[2].partition(",")[0]
        self.seen.append(token or access_key)
        if self.statuses:
            return httpx.Response(self.statuses.pop(0))
        let_in = token in self.tokens if token is not None else access_key in self.keys
        let_in = let_in and request.url.path not in self.refused_paths
        return httpx.Response(200 if let_in else 401)


class Login:
    """IAM: gives out tokens `t1`, `t2`, ... and records the passwords that it was asked with."""

    def __init__(self, clock: Clock, *, right: str = "right", lives: float = DAY) -> None:
        self.clock = clock
        self.right = right
        self.lives: float | None = lives
        self.asked: list[str] = []
        self.given = 0
        self.error: ApiError | None = None
        self.hold: asyncio.Event | None = None
        self.let_in: set[str] | None = None  # the cloud's tokens: a new one is added, alone

    async def __call__(self, password: str) -> Token:
        self.asked.append(password)
        await asyncio.sleep(0.5)
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        if password != self.right:
            raise refusal()
        self.given += 1
        token = f"t{self.given}"
        if self.let_in is not None:
            self.let_in.clear()
            self.let_in.add(token)
        return Token(token, None if self.lives is None else self.clock() + self.lives)


def refusal(status: int = 401) -> AuthError:
    return AuthError(
        "wrong user or password", reason=Reason.AUTH, status=status, hint="check the password"
    )


def make_source(
    login: Callable[[str], Awaitable[Token]],
    clock: Clock,
    *,
    secret: Callable[[], str] = lambda: "right",
    refusals: Refusals | None = None,
    project_id: str = PROJECT,
    margin_seconds: float = 1_800.0,
) -> RenewedSource[Token]:
    return RenewedSource(
        login,
        secret=secret,
        clock=clock,
        refusals=refusals or Refusals("an account"),
        project_id=project_id,
        margin_seconds=margin_seconds,
    )


def make_token_source(
    load: Callable[[], str], refusals: Refusals | None = None
) -> StaticSource[Token]:
    memory = refusals or Refusals("a token")
    return StaticSource(
        lambda: Token(load()),
        lambda token: token.value,
        lambda _: memory,
        project_id=PROJECT,
        who=memory.what,
    )


def make_signing(
    clock: Clock,
    load: Callable[[], Keys] = lambda: Keys("AK1", "secret-1"),
    *,
    explain: Callable[[httpx.Response], ApiError] | None = None,
) -> SigningAuth:
    refusals = Refusals("a key")
    source = StaticSource(
        load, lambda keys: keys.secret_key, lambda _: refusals, project_id=PROJECT, who="a key"
    )
    return SigningAuth(source, project_id=PROJECT, clock=clock, explain=explain)


class Client:
    """Sends a request as the exporter does: through an auth flow, to a cloud."""

    def __init__(self, cloud: Cloud, auth: httpx.Auth) -> None:
        self.cloud = cloud
        self._auth = auth
        self._http = httpx.AsyncClient(transport=httpx.MockTransport(cloud))

    async def get(self, path: str = "") -> int:
        url = f"https://gaussdb.example{path}" if path else URL
        return (await self._http.get(url, auth=self._auth)).status_code

    async def get_many(self, count: int) -> list[int | BaseException]:
        return await asyncio.gather(*(self.get() for _ in range(count)), return_exceptions=True)

    async def aclose(self) -> None:
        await self._http.aclose()


Connect = Callable[[Cloud, httpx.Auth], Client]
