import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import structlog

from exporter.credentials.http_auth import SigningAuth, TokenAuth
from exporter.credentials.metadata import fetch_temporary_keys
from exporter.credentials.refusals import Refusals
from exporter.credentials.sources import (
    FixedSource,
    Keys,
    RenewedSource,
    SecretSource,
    Token,
    keys_from_environment,
)
from exporter.errors import ApiError, AuthError, RateLimitedError, Reason, UnavailableError
from exporter.reporting.redaction import SecretRegistry
from exporter.simulator import SimulatedProject, Simulator
from tests.support.virtual_time import DAY, HOUR, NOON, Clock

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
        self.let_in: set[str] | None = None  # the cloud's tokens: a new one is added, alone

    async def __call__(self, password: str) -> Token:
        self.asked.append(password)
        await asyncio.sleep(0.5)
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
) -> FixedSource[Token]:
    return FixedSource(
        lambda: Token(load()),
        lambda token: token.value,
        refusals or Refusals("a token"),
        project_id=PROJECT,
    )


def make_signing(
    clock: Clock,
    load: Callable[[], Keys] = lambda: Keys("AK1", "secret-1"),
    *,
    explain: Callable[[httpx.Response], ApiError] | None = None,
) -> SigningAuth:
    source = FixedSource(load, lambda keys: keys.secret_key, Refusals("a key"), project_id=PROJECT)
    return SigningAuth(source, project_id=PROJECT, clock=clock, explain=explain)


class Client:
    """Sends a request as the exporter does: through an auth flow, to a cloud."""

    def __init__(self, cloud: Cloud, auth: httpx.Auth) -> None:
        self.cloud = cloud
        self._auth = auth
        self._http = httpx.AsyncClient(transport=httpx.MockTransport(cloud))

    async def get(self) -> int:
        return (await self._http.get(URL, auth=self._auth)).status_code

    async def get_many(self, count: int) -> list[int | BaseException]:
        return await asyncio.gather(*(self.get() for _ in range(count)), return_exceptions=True)

    async def aclose(self) -> None:
        await self._http.aclose()


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[Cloud, httpx.Auth], Client]]:
    clients: list[Client] = []

    def open_client(cloud: Cloud, auth: httpx.Auth) -> Client:
        clients.append(Client(cloud, auth))
        return clients[-1]

    yield open_client
    for client in clients:
        await client.aclose()


Connect = Callable[[Cloud, httpx.Auth], Client]

# Tokens by password ----------------------------------------------------------------------------


async def test_many_requests_need_one_login(clock: Clock, connect: Connect) -> None:
    login = Login(clock)
    client = connect(Cloud(tokens={"t1"}), TokenAuth(make_source(login, clock)))
    assert await client.get_many(50) == [200] * 50
    assert login.asked == ["right"]


async def test_a_login_outlives_whoever_waits_for_it(clock: Clock, connect: Connect) -> None:
    login = Login(clock)
    client = connect(Cloud(tokens={"t1"}), TokenAuth(make_source(login, clock)))
    first = asyncio.create_task(client.get())
    await asyncio.sleep(0.1)
    second = asyncio.create_task(client.get())
    await asyncio.sleep(0.1)
    first.cancel()
    assert await second == 200
    assert login.asked == ["right"]


async def test_token_is_renewed_once_when_requests_fail_together(
    clock: Clock, connect: Connect
) -> None:
    cloud, login = Cloud(), Login(clock)
    login.let_in = cloud.tokens
    client = connect(cloud, TokenAuth(make_source(login, clock)))
    assert await client.get() == 200
    cloud.tokens.clear()  # the password was changed, or the token revoked
    assert await client.get_many(20) == [200] * 20
    assert login.given == 2
    assert cloud.seen == ["t1"] + ["t1"] * 20 + ["t2"] * 20


async def test_a_request_refused_late_takes_the_token_that_another_has_renewed(
    clock: Clock, connect: Connect
) -> None:
    cloud, login = Cloud(), Login(clock)
    login.let_in = cloud.tokens
    client = connect(cloud, TokenAuth(make_source(login, clock)))
    await client.get()
    cloud.hold = asyncio.Event()
    late = asyncio.create_task(client.get())
    await asyncio.sleep(1)
    hold, cloud.hold = cloud.hold, None
    cloud.tokens.clear()
    assert await client.get() == 200
    hold.set()
    assert await late == 200
    assert login.given == 2


async def test_a_request_is_repeated_once_and_no_more(clock: Clock, connect: Connect) -> None:
    cloud, login = Cloud(), Login(clock)  # no token is ever let in
    client = connect(cloud, TokenAuth(make_source(login, clock)))
    assert await client.get() == 401
    assert cloud.seen == ["t1", "t2"]


async def test_tokens_that_never_serve_are_not_asked_for_again_and_again(
    clock: Clock, connect: Connect
) -> None:
    """As when endpoint and iam_endpoint are of different regions."""
    cloud, login = Cloud(), Login(clock)
    client = connect(cloud, TokenAuth(make_source(login, clock)))
    await client.get()
    for outcome in await client.get_many(100):
        assert isinstance(outcome, AuthError)
    assert (login.given, len(cloud.seen)) == (2, 2)
    await clock.advance(61)
    assert await client.get() == 401
    assert login.given <= 4


async def test_a_request_that_alone_is_refused_does_not_shut_out_the_others(
    clock: Clock, connect: Connect
) -> None:
    cloud, login = Cloud(tokens={"t1", "t2", "t3"}), Login(clock)
    client = connect(cloud, TokenAuth(make_source(login, clock)))
    assert await client.get() == 200
    cloud.statuses = [401, 401]
    assert await client.get() == 401
    assert await client.get() == 200


async def test_a_403_does_not_renew_the_token(clock: Clock, connect: Connect) -> None:
    cloud, login = Cloud(tokens={"t1"}), Login(clock)
    cloud.statuses = [403]
    client = connect(cloud, TokenAuth(make_source(login, clock)))
    assert await client.get() == 403
    assert await client.get() == 200
    assert login.given == 1


@pytest.mark.parametrize(
    ("lives", "renewed_after"),
    [(DAY, DAY - 1_800), (4 * HOUR, 3.5 * HOUR), (HOUR, 0.75 * HOUR), (60.0, 45.0)],
)
async def test_a_token_is_renewed_before_its_end(
    clock: Clock, connect: Connect, lives: float, renewed_after: float
) -> None:
    """Half an hour before, or for the last quarter of a short life."""
    login = Login(clock, lives=lives)
    source = make_source(login, clock)
    client = connect(Cloud(tokens={"t1", "t2"}), TokenAuth(source))
    await client.get()
    begun = clock() - 0.05  # the login's end
    await clock.advance(begun + renewed_after - clock() - 1)
    await client.get()
    assert login.given == 1
    await clock.advance(2)
    await client.get()
    assert login.given == 2
    assert client.cloud.seen[-1] == "t2"


async def test_a_token_that_comes_with_its_end_behind_it_is_used_for_a_minute(
    clock: Clock, connect: Connect
) -> None:
    """This machine's clock is ahead, and no reason for a login before each request."""
    login = Login(clock, lives=-HOUR)
    client = connect(Cloud(tokens={"t1", "t2"}), TokenAuth(make_source(login, clock)))
    for _ in range(5):
        assert await client.get() == 200
        await clock.advance(10)
    assert login.given == 1
    await clock.advance(20)
    assert await client.get() == 200
    assert login.given == 2


async def test_a_token_without_an_end_is_kept(clock: Clock, connect: Connect) -> None:
    login = Login(clock)
    login.lives = None
    source = make_source(login, clock)
    auth = TokenAuth(source)
    client = connect(Cloud(tokens={"t1"}), auth)
    await client.get()
    await clock.advance(30 * DAY)
    await client.get()
    assert login.given == 1
    assert auth.token_expires_at is None


async def test_the_old_token_serves_to_its_end_when_iam_is_down(
    clock: Clock, connect: Connect
) -> None:
    login = Login(clock, lives=DAY)
    auth = TokenAuth(make_source(login, clock))
    client = connect(Cloud(tokens={"t1", "t2"}), auth)
    await client.get()
    expires_at = auth.token_expires_at
    assert expires_at == NOON + 0.5 + DAY
    login.error = UnavailableError("no answer within 10 s", reason=Reason.TIMEOUT)
    await clock.advance(DAY - 1_000)
    assert await client.get() == 200
    assert len(login.asked) == 2
    assert await client.get() == 200
    assert len(login.asked) == 2  # IAM is given a pause
    assert auth.token_expires_at == expires_at
    await clock.advance(1_000)
    with pytest.raises(AuthError, match="no answer"):
        await client.get()
    login.error = None
    await clock.advance(60)
    assert await client.get() == 200
    assert client.cloud.seen[-1] == "t2"


async def test_the_end_of_the_token_is_told(clock: Clock, connect: Connect) -> None:
    login = Login(clock)
    auth = TokenAuth(make_source(login, clock))
    assert auth.token_expires_at is None
    await connect(Cloud(tokens={"t1"}), auth).get()
    assert auth.token_expires_at == NOON + 0.5 + DAY


# Refused logins --------------------------------------------------------------------------------


async def test_a_refused_login_is_not_tried_again_before_the_back_off(
    clock: Clock, connect: Connect
) -> None:
    cloud, login = Cloud(), Login(clock, right="another")
    client = connect(cloud, TokenAuth(make_source(login, clock)))
    tried: list[float] = []
    for _ in range(4 * 60 * 4):
        before = len(login.asked)
        for outcome in await client.get_many(5):
            assert isinstance(outcome, AuthError)
            assert outcome.reason is Reason.AUTH
            assert outcome.hint == "check the password"
        if len(login.asked) > before:
            tried.append(clock())
        await clock.advance(15)
    steps = [b - a for a, b in pairwise(tried)]
    # One minute, doubling up to fifteen; seen in the steps of the scrapes.
    assert all(
        wait <= step < wait + 20
        for step, wait in zip(steps, [60, 120, 240, 480] + [900] * 20, strict=False)
    )
    assert len(steps) > 15
    assert cloud.seen == []


async def test_the_message_tells_when_a_login_is_tried_again(
    clock: Clock, connect: Connect
) -> None:
    client = connect(Cloud(), TokenAuth(make_source(Login(clock, right="another"), clock)))
    with pytest.raises(AuthError, match=r"^wrong user or password$"):
        await client.get()
    await clock.advance(10)
    with pytest.raises(AuthError, match=r"^wrong user or password \(tried again in 50s\)$"):
        await client.get()


async def test_a_secret_that_changed_is_tried_at_once(clock: Clock, connect: Connect) -> None:
    password = ["wrong"]
    login = Login(clock)
    client = connect(
        Cloud(tokens={"t1"}), TokenAuth(make_source(login, clock, secret=lambda: password[0]))
    )
    for _ in range(3):
        with pytest.raises(AuthError):
            await client.get()
    password[0] = "right"
    assert await client.get() == 200
    assert login.asked == ["wrong", "right"]


async def test_a_secret_that_changed_back_is_still_backed_off(
    clock: Clock, connect: Connect
) -> None:
    password = ["wrong"]
    login = Login(clock)
    source = make_source(login, clock, secret=lambda: password[0])
    client = connect(Cloud(), TokenAuth(source))
    for secret in ["wrong", "worse", "wrong", "worse", "wrong"]:
        password[0] = secret
        with pytest.raises(AuthError):
            await client.get()
    assert login.asked == ["wrong", "worse"]


async def test_projects_of_one_account_share_the_back_off(clock: Clock, connect: Connect) -> None:
    login, refusals = Login(clock, right="another"), Refusals("an account")
    clients = [
        connect(
            Cloud(),
            TokenAuth(make_source(login, clock, refusals=refusals, project_id=f"project-{n}")),
        )
        for n in range(5)
    ]
    outcomes = await asyncio.gather(*(c.get() for c in clients), return_exceptions=True)
    assert all(isinstance(outcome, AuthError) for outcome in outcomes)
    assert login.asked == ["right"]


async def test_no_request_goes_out_with_a_dead_token_while_logins_back_off(
    clock: Clock, connect: Connect
) -> None:
    """The token was revoked, and the password changed: neither is of any use."""
    cloud, login = Cloud(tokens={"t1"}), Login(clock)
    auth = TokenAuth(make_source(login, clock))
    client = connect(cloud, auth)
    await client.get()
    cloud.tokens.clear()
    login.right = "another"
    with pytest.raises(AuthError):
        await client.get()
    sent = len(cloud.seen)
    for outcome in await client.get_many(20):
        assert isinstance(outcome, AuthError)
    assert len(cloud.seen) == sent
    assert auth.token_expires_at is None


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("no answer within 10 s", reason=Reason.TIMEOUT),
        UnavailableError("HTTP 503", reason=Reason.SERVER, status=503),
        RateLimitedError("HTTP 429", status=429),
        AuthError("cannot read the metadata", reason=Reason.AUTH),
    ],
)
async def test_trouble_of_iam_is_tried_again_soon(
    clock: Clock, connect: Connect, error: ApiError
) -> None:
    login = Login(clock)
    login.error = error
    client = connect(Cloud(tokens={"t1"}), TokenAuth(make_source(login, clock)))
    tried: list[float] = []
    for _ in range(300):
        before = len(login.asked)
        with pytest.raises(AuthError) as caught:
            await client.get()
        assert caught.value.reason is Reason.AUTH
        if len(login.asked) > before:
            tried.append(clock())
        await clock.advance(1)
    steps = [b - a for a, b in pairwise(tried)]
    assert all(
        wait <= step < wait + 2
        for step, wait in zip(steps, [5, 10, 20, 40, 60, 60, 60], strict=False)
    )
    login.error = None
    await clock.advance(60)
    assert await client.get() == 200


async def test_a_login_that_breaks_is_no_endless_login(clock: Clock, connect: Connect) -> None:
    """A mistake of ours: it surfaces, and the next request may try."""

    async def broken(password: str) -> Token:
        raise KeyError("oops")

    client = connect(Cloud(), TokenAuth(make_source(broken, clock)))
    for _ in range(2):
        with pytest.raises(KeyError):
            await client.get()


async def test_closing_ends_a_login_under_way(clock: Clock, connect: Connect) -> None:
    login = Login(clock)
    source = make_source(login, clock)
    client = connect(Cloud(), TokenAuth(source))
    waiting = asyncio.create_task(client.get())
    await asyncio.sleep(0.1)
    await source.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(asyncio.all_tasks()) == 1
    await source.aclose()


async def test_a_refused_login_is_logged_once_and_without_the_secret(
    clock: Clock, connect: Connect
) -> None:
    client = connect(Cloud(), TokenAuth(make_source(Login(clock, right="another"), clock)))
    with structlog.testing.capture_logs() as logs:
        await client.get_many(10)
    assert logs == [
        {
            "event": "login failed",
            "log_level": "warning",
            "who": "an account",
            "project": PROJECT,
            "error": "wrong user or password",
            "hint": "check the password",
            "next_try_seconds": 60,
        }
    ]


# Tokens from the configuration -----------------------------------------------------------------


async def test_a_token_file_is_read_again_when_it_changes(
    clock: Clock, connect: Connect, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    secret = SecretSource(SecretRegistry(), "the token", file=file)
    cloud = Cloud(tokens={"first"})
    client = connect(cloud, TokenAuth(make_token_source(secret.read)))
    assert await client.get() == 200
    cloud.tokens = {"second"}
    file.write_text("second\r\n")
    assert await client.get() == 200
    assert cloud.seen == ["first", "second"]


async def test_a_token_that_changes_while_it_is_refused_is_tried_at_once(
    clock: Clock, connect: Connect
) -> None:
    tokens = iter(["old", "new"])
    cloud = Cloud(tokens={"new"})
    client = connect(cloud, TokenAuth(make_token_source(lambda: next(tokens))))
    assert await client.get() == 200
    assert cloud.seen == ["old", "new"]


async def test_a_refused_token_backs_off_a_minute_however_many_were_refused(
    clock: Clock, connect: Connect
) -> None:
    cloud = Cloud()
    client = connect(cloud, TokenAuth(make_token_source(lambda: "expired")))
    with structlog.testing.capture_logs() as logs:
        assert await client.get_many(50) == [401] * 50
    assert [entry["next_try_seconds"] for entry in logs] == [60]
    for outcome in await client.get_many(50):
        assert isinstance(outcome, AuthError)
    assert len(cloud.seen) == 50
    await clock.advance(60)
    assert await client.get() == 401
    await clock.advance(119)
    with pytest.raises(AuthError, match="tried again in 1s"):
        await client.get()


async def test_what_the_cloud_said_is_told_as_long_as_nobody_asks_again(
    clock: Clock, connect: Connect
) -> None:
    def explain(response: httpx.Response) -> ApiError:
        told = f"HTTP {response.status_code}: APIGW.0307"
        return AuthError(told, reason=Reason.AUTH, hint="check the region")

    for auth in (
        TokenAuth(make_token_source(lambda: "expired"), explain=explain),
        make_signing(clock, explain=explain),
    ):
        client = connect(Cloud(), auth)
        assert await client.get() == 401
        with pytest.raises(
            AuthError, match=r"HTTP 401: APIGW.0307 \(tried again in 1m\)"
        ) as caught:
            await client.get()
        assert caught.value.hint == "check the region"


async def test_a_fixed_token_has_no_known_end(clock: Clock) -> None:
    source = make_token_source(lambda: "t")
    assert TokenAuth(source).token_expires_at is None
    await source.aclose()


@pytest.mark.parametrize("token", ["with space", "two\nlines", "schlüssel", "\ufeffbom", "nul\0"])
async def test_a_token_that_no_header_can_carry_is_told(
    clock: Clock, connect: Connect, token: str
) -> None:
    cloud = Cloud(tokens={token})
    client = connect(cloud, TokenAuth(make_token_source(lambda: token)))
    with pytest.raises(AuthError, match=r"^the token holds characters that cannot be sent$"):
        await client.get()
    assert cloud.seen == []


# Signatures ------------------------------------------------------------------------------------


async def test_a_request_is_signed_for_its_project(clock: Clock) -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200)

    auth = make_signing(clock, lambda: Keys("AK1", "secret-1", "temporary"))
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), auth=auth) as client:
        await client.get(URL)
    (request,) = requests
    assert request.headers["X-Sdk-Date"] == "20230728T120000Z"
    assert request.headers["X-Project-Id"] == PROJECT
    assert request.headers["X-Security-Token"] == "temporary"
    assert request.headers["Host"] == "gaussdb.example"
    assert request.headers["Authorization"].startswith(
        "SDK-HMAC-SHA256 Access=AK1,"
        " SignedHeaders=host;x-project-id;x-sdk-date;x-security-token, Signature="
    )
    assert auth.token_expires_at is None


async def test_the_first_request_goes_alone_and_then_all_together(
    clock: Clock, connect: Connect
) -> None:
    cloud = Cloud(keys={"AK1"})
    client = connect(cloud, make_signing(clock))
    started = clock()
    assert await client.get_many(50) == [200] * 50
    assert cloud.most_in_flight == 49
    assert clock() - started == pytest.approx(0.1)  # two answers' time, not fifty
    cloud.most_in_flight = 0
    await client.get_many(50)
    assert cloud.most_in_flight == 50


async def test_a_wrong_key_is_shown_once_to_the_cloud(clock: Clock, connect: Connect) -> None:
    cloud = Cloud()
    client = connect(cloud, make_signing(clock))
    outcomes = await client.get_many(50)
    assert outcomes.count(401) == 1
    assert sum(isinstance(outcome, AuthError) for outcome in outcomes) == 49
    assert cloud.seen == ["AK1"]
    await clock.advance(59)
    for outcome in await client.get_many(5):
        assert isinstance(outcome, AuthError)
    await clock.advance(2)
    await client.get_many(5)
    assert cloud.seen == ["AK1"] * 2
    await clock.advance(118)
    await client.get_many(5)
    assert cloud.seen == ["AK1"] * 2  # the second back-off is twice as long


async def test_a_key_that_changed_is_tried_at_once(clock: Clock, connect: Connect) -> None:
    keys = [Keys("AK1", "wrong")]
    cloud = Cloud(keys={"AK2"})
    client = connect(cloud, make_signing(clock, lambda: keys[0]))
    await client.get_many(5)
    keys[0] = Keys("AK2", "right")
    assert await client.get_many(5) == [200] * 5


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
async def test_what_says_nothing_about_the_key_does_not_prove_it(
    clock: Clock, connect: Connect, status: int
) -> None:
    cloud = Cloud()
    cloud.statuses = [status]
    client = connect(cloud, make_signing(clock))
    assert await client.get() == status
    await client.get_many(20)
    assert len(cloud.seen) == 2


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_a_request_refused_for_another_reason_proves_the_key(
    clock: Clock, connect: Connect, status: int
) -> None:
    cloud = Cloud(keys={"AK1"})
    cloud.statuses = [status]
    client = connect(cloud, make_signing(clock))
    assert await client.get() == status
    await client.get_many(20)
    assert cloud.most_in_flight == 20


async def test_a_key_that_is_withdrawn_is_shown_once_more_and_then_backed_off(
    clock: Clock, connect: Connect
) -> None:
    cloud = Cloud(keys={"AK1"})
    client = connect(cloud, make_signing(clock))
    assert await client.get() == 200
    cloud.keys.clear()
    outcomes = await client.get_many(10)
    assert 401 in outcomes
    assert len(cloud.seen) == 1 + 10 + 1  # those on their way, and one to be sure
    for outcome in await client.get_many(10):
        assert isinstance(outcome, AuthError)
    assert len(cloud.seen) == 12


async def test_a_refusal_that_is_gone_at_once_shuts_nobody_out(
    clock: Clock, connect: Connect
) -> None:
    cloud = Cloud(keys={"AK1"})
    client = connect(cloud, make_signing(clock))
    assert await client.get() == 200
    cloud.statuses = [401, 401, 401]
    assert await client.get_many(10) == [200] * 10
    assert await client.get_many(10) == [200] * 10


async def test_one_request_that_alone_is_refused_gives_up_after_its_second_try(
    clock: Clock, connect: Connect
) -> None:
    """Meanwhile another request has proven the key."""
    cloud = Cloud(keys={"AK1"})
    client = connect(cloud, make_signing(clock))
    assert await client.get() == 200
    first = asyncio.create_task(client.get())
    second = asyncio.create_task(client.get())
    cloud.statuses = [401, 401, 200, 401]
    assert sorted([await first, await second]) == [200, 401]
    assert await client.get() == 200


async def test_a_connection_that_breaks_lets_the_next_request_prove_the_key(clock: Clock) -> None:
    broken = [True]

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.1)
        if broken:
            broken.pop()
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    auth = make_signing(clock)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), auth=auth) as client:
        outcomes = await asyncio.gather(
            *(client.get(URL) for _ in range(3)), return_exceptions=True
        )
    assert isinstance(outcomes[0], httpx.ConnectError)
    assert [o.status_code for o in outcomes[1:] if isinstance(o, httpx.Response)] == [200, 200]


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (Keys("AK 1", "secret"), "access key"),
        (Keys("AKÄ", "secret"), "access key"),
        (Keys("AK1", "secret", "two\nlines"), "security token"),
    ],
)
async def test_keys_that_no_header_can_carry_are_told(
    clock: Clock, connect: Connect, keys: Keys, what: str
) -> None:
    client = connect(Cloud(), make_signing(clock, lambda: keys))
    with pytest.raises(AuthError, match=f"the {what} holds characters"):
        await client.get()


def test_no_auth_works_without_the_event_loop(clock: Clock) -> None:
    with pytest.raises(RuntimeError, match="asynchronous"):
        make_signing(clock).sync_auth_flow(httpx.Request("GET", URL))


# Keys of the server's agency -------------------------------------------------------------------


def make_agency(
    simulator: Simulator, clock: Clock
) -> tuple[SigningAuth, list[Keys], httpx.AsyncClient]:
    """Auth with the keys that the simulator's metadata service gives."""
    metadata = httpx.AsyncClient(transport=httpx.ASGITransport(simulator))
    fetched: list[Keys] = []

    async def fetch(_: str) -> Keys:
        found = await fetch_temporary_keys(metadata, "http://169.254.169.254")
        keys = Keys(found.access_key, found.secret_key, found.security_token, found.expires_at)
        fetched.append(keys)
        return keys

    source = RenewedSource(
        fetch,
        secret=lambda: "",
        clock=clock,
        refusals=Refusals("the agency"),
        project_id=PROJECT,
        margin_seconds=600.0,
    )
    return SigningAuth(source, project_id=PROJECT, clock=clock), fetched, metadata


async def test_an_agencys_keys_are_renewed_ten_minutes_before_their_end(clock: Clock) -> None:
    simulator = Simulator([SimulatedProject(PROJECT)], clock=clock)
    auth, fetched, metadata = make_agency(simulator, clock)
    async with metadata, httpx.AsyncClient(transport=httpx.ASGITransport(simulator)) as client:
        url = f"https://gaussdb.example/v3.1/{PROJECT}/instances?limit=100"
        assert (await client.get(url, auth=auth)).status_code == 200
        expires_at = fetched[0].expires_at
        assert expires_at is not None
        await clock.advance(expires_at - clock() - 601)
        assert (await client.get(url, auth=auth)).status_code == 200
        assert len(fetched) == 1
        await clock.advance(2)
        assert (await client.get(url, auth=auth)).status_code == 200
        assert len(fetched) == 2
        await clock.advance(7 * HOUR)
        assert (await client.get(url, auth=auth)).status_code == 200


@pytest.mark.parametrize(
    ("left", "renewed_after"), [(HOUR, 3_000.0), (1_200.0, 600.0), (660.0, 66.0), (300.0, 30.0)]
)
async def test_keys_that_come_late_in_their_life_are_renewed_ten_minutes_before_its_end(
    clock: Clock, left: float, renewed_after: float
) -> None:
    """Or for nine tenths of what is left, where that is less than ten minutes."""
    asked: list[float] = []

    async def fetch(_: str) -> Keys:
        asked.append(clock() - NOON)
        return Keys("TEMP", "s", "t", NOON + left)

    source = RenewedSource(
        fetch,
        secret=lambda: "",
        clock=clock,
        refusals=Refusals("the agency"),
        project_id=PROJECT,
        margin_seconds=600.0,
        used_share=0.1,
    )
    await source.current()
    await clock.advance(renewed_after - 1)
    await source.current()
    assert asked == [0.0]
    await clock.advance(2)
    await source.current()
    assert asked == [0.0, renewed_after + 1]


async def test_an_agencys_keys_are_fetched_anew_when_they_are_refused(
    clock: Clock, connect: Connect
) -> None:
    given = iter([Keys("TEMP1", "s1", "t1", NOON + DAY), Keys("TEMP2", "s2", "t2", NOON + DAY)])

    async def fetch(_: str) -> Keys:
        return next(given)

    source = RenewedSource(
        fetch,
        secret=lambda: "",
        clock=clock,
        refusals=Refusals("the agency"),
        project_id=PROJECT,
        margin_seconds=600.0,
    )
    cloud = Cloud(keys={"TEMP1"})
    client = connect(cloud, SigningAuth(source, project_id=PROJECT, clock=clock))
    assert await client.get_many(5) == [200] * 5
    cloud.keys = {"TEMP2"}
    assert await client.get_many(5) == [200] * 5
    assert cloud.seen.count("TEMP2") == 5


# Secrets ---------------------------------------------------------------------------------------


def write(file: Path, text: str, *, changed: int) -> None:
    """The file with another time of change, whatever the clock of the file system knows."""
    file.write_text(text)
    os.utime(file, ns=(changed, changed))


def test_a_secret_file_is_read_again_only_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write(file, "first", changed=1)
    secret = SecretSource(SecretRegistry(), "owner", file=file)
    assert secret.read() == "first"
    write(file, "FIRST", changed=1)  # the same size and time, in the same file
    assert secret.read() == "first"
    write(file, "second", changed=2)
    assert secret.read() == "second"


def test_a_secret_file_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    """As Kubernetes does it: another file under the same name, of the same size and time."""
    file, new = tmp_path / "secret", tmp_path / "new"
    write(file, "first", changed=1)
    secret = SecretSource(SecretRegistry(), "owner", file=file)
    assert secret.read() == "first"
    write(new, "other", changed=1)
    new.rename(file)
    assert secret.read() == "other"


def test_only_line_ends_are_cut_off_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b" pass word \r\n\n")
    assert SecretSource(SecretRegistry(), "owner", file=file).read() == " pass word "


def test_a_byte_order_mark_is_no_part_of_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xef\xbb\xbfpassword\r\n")
    assert SecretSource(SecretRegistry(), "owner", file=file).read() == "password"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the secret in .*/secret: No such file or directory"),
        (b"\xff\xfe", "cannot read the secret in .*/secret: it is not UTF-8 text"),
        (b"\n", "the secret in .*/secret is empty"),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_told(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AuthError, match=message) as caught:
        SecretSource(SecretRegistry(), "owner", file=file).read()
    assert caught.value.reason is Reason.AUTH
    assert caught.value.hint


def test_secrets_are_made_known_to_those_who_hide_them(tmp_path: Path) -> None:
    registry = SecretRegistry()
    SecretSource(registry, "one", value="hunter2-of-the-config")
    file = tmp_path / "secret"
    file.write_text("hunter2-of-the-file")
    SecretSource(registry, "two", file=file).read()
    text = registry.redact("hunter2-of-the-config and hunter2-of-the-file")
    assert text == "[redacted] and [redacted]"


def test_secrets_are_in_no_repr() -> None:
    shown = repr(Token("secret-token", 5.0)) + repr(Keys("AK1", "secret-key", "secret-token", 5.0))
    assert "secret" not in shown.replace("secret_key", "")
    assert "AK1" in shown


def test_the_environments_keys_are_those_of_the_vendors_sdk() -> None:
    both = {"HUAWEICLOUD_SDK_AK": "AK1", "HUAWEICLOUD_SDK_SK": "secret"}
    assert keys_from_environment(both) == Keys("AK1", "secret", None)
    assert keys_from_environment({**both, "HUAWEICLOUD_SDK_SECURITY_TOKEN": "t"}) == Keys(
        "AK1", "secret", "t"
    )
    assert keys_from_environment({**both, "HUAWEICLOUD_SDK_SECURITY_TOKEN": ""}) == Keys(
        "AK1", "secret", None
    )


@pytest.mark.parametrize(
    "environment",
    [{}, {"HUAWEICLOUD_SDK_AK": "AK1"}, {"HUAWEICLOUD_SDK_AK": "", "HUAWEICLOUD_SDK_SK": "s"}],
)
def test_an_environment_without_keys_is_told(environment: dict[str, str]) -> None:
    with pytest.raises(AuthError, match="HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK") as caught:
        keys_from_environment(environment)
    assert "auth section" in caught.value.hint


def test_the_programs_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_AK", "AK1")
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "secret")
    assert keys_from_environment() == Keys("AK1", "secret")


# The memory of refusals ------------------------------------------------------------------------


async def test_the_memory_of_refusals_is_bounded(clock: Clock) -> None:
    refusals = Refusals("an account")
    for number in range(3_000):
        refusals.refuse(f"secret-{number}", PROJECT, refusal())
    with pytest.raises(AuthError):
        refusals.check("secret-2999", PROJECT)
    refusals.check("secret-0", PROJECT)


async def test_a_secret_that_is_accepted_is_forgiven(clock: Clock) -> None:
    refusals = Refusals("an account")
    refusals.refuse("secret", PROJECT, refusal())
    with pytest.raises(AuthError):
        refusals.check("secret", PROJECT)
    refusals.accept("secret", PROJECT)
    refusals.check("secret", PROJECT)
    await clock.advance(1)
    refusals.refuse("secret", PROJECT, refusal())
    await clock.advance(60)
    refusals.check("secret", PROJECT)  # it counts from the start again
