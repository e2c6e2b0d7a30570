import asyncio
import re
from itertools import pairwise

import httpx
import pytest
import structlog

from exporter.credentials.http_auth import SigningAuth, TokenAuth
from exporter.credentials.metadata import fetch_metadata_keys
from exporter.credentials.refusals import Refusals
from exporter.credentials.sources import RenewedSource
from exporter.credentials.values import Keys, Token
from exporter.errors import (
    ApiError,
    AuthError,
    BadResponseError,
    LoginError,
    RateLimitedError,
    Reason,
    UnavailableError,
)
from exporter.simulator import SimulatedProject, Simulator
from tests.credentials.doubles import PROJECT, Cloud, Connect, Login, make_source
from tests.support.virtual_time import DAY, HOUR, NOON, Clock

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


async def test_a_request_that_alone_is_refused_shuts_the_others_out_once(
    clock: Clock, connect: Connect
) -> None:
    """Nobody was let in since: the token may be dead. Later others show that it is not."""
    cloud, login = Cloud(tokens={"t1", "t2", "t3"}), Login(clock)
    client = connect(cloud, TokenAuth(make_source(login, clock)))
    assert await client.get() == 200
    cloud.refused_paths = {"/odd"}
    assert await client.get("/odd") == 401
    with pytest.raises(AuthError):
        await client.get()
    await clock.advance(60)
    for _ in range(20):
        outcomes = await asyncio.gather(client.get("/odd"), *(client.get() for _ in range(5)))
        assert outcomes == [401] + [200] * 5
        await clock.advance(60)
    assert login.given <= 4


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
    assert client.cloud.seen[-1] == "t1"  # it serves until the other is there
    await clock.advance(1)
    await client.get()
    assert login.given == 2
    assert client.cloud.seen[-1] == "t2"


async def test_a_renewal_that_hangs_keeps_nobody_waiting_while_the_token_is_good(
    clock: Clock, connect: Connect
) -> None:
    login = Login(clock, lives=HOUR)
    client = connect(Cloud(tokens={"t1", "t2"}), TokenAuth(make_source(login, clock)))
    await client.get()
    login.hold = asyncio.Event()
    await clock.advance(0.8 * HOUR)
    for _ in range(5):
        asked_at = clock()
        assert await client.get_many(10) == [200] * 10
        assert clock() - asked_at < 0.2
        await clock.advance(60)
    assert (len(login.asked), client.cloud.seen[-1]) == (2, "t1")
    login.hold.set()
    await clock.advance(1)
    assert await client.get() == 200
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
    await clock.advance(1)
    assert len(login.asked) == 2
    assert await client.get() == 200
    assert len(login.asked) == 2  # IAM is given a pause
    assert auth.token_expires_at == expires_at
    await clock.advance(1_000)
    with pytest.raises(LoginError, match="no answer") as caught:
        await client.get()
    assert caught.value.reason is Reason.TIMEOUT
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
        UnavailableError("cannot connect", reason=Reason.NETWORK),
        UnavailableError("HTTP 503", reason=Reason.SERVER, status=503),
        RateLimitedError("HTTP 429", status=429),
        BadResponseError("not a token but an HTML page"),
    ],
    ids=lambda error: error.reason,
)
async def test_trouble_of_iam_is_no_refusal_and_tried_again_soon(
    clock: Clock, connect: Connect, error: ApiError
) -> None:
    login = Login(clock)
    login.error = error
    client = connect(Cloud(tokens={"t1"}), TokenAuth(make_source(login, clock)))
    tried: list[float] = []
    for _ in range(300):
        before = len(login.asked)
        with pytest.raises(LoginError) as caught:
            await client.get()
        assert caught.value.reason is error.reason
        if len(login.asked) > before:
            tried.append(clock())
        else:
            assert re.search(r"\(tried again in [0-9]+s|1m\)$", caught.value.message)
        await clock.advance(1)
    steps = [b - a for a, b in pairwise(tried)]
    assert all(
        wait <= step < wait + 2
        for step, wait in zip(steps, [5, 10, 20, 40, 60, 60, 60], strict=False)
    )
    login.error = None
    await clock.advance(60)
    assert await client.get() == 200


async def test_trouble_of_one_projects_iam_keeps_no_other_project_of_the_account_out(
    clock: Clock, connect: Connect
) -> None:
    down, up, refusals = Login(clock), Login(clock), Refusals("an account")
    down.error = UnavailableError("cannot connect", reason=Reason.NETWORK)
    clients = [
        connect(
            Cloud(tokens={"t1"}),
            TokenAuth(make_source(login, clock, refusals=refusals, project_id=f"project-{n}")),
        )
        for n, login in enumerate([down, up])
    ]
    outcomes = await asyncio.gather(*(c.get() for c in clients), return_exceptions=True)
    assert isinstance(outcomes[0], LoginError)
    assert outcomes[1] == 200


async def test_logins_that_hang_let_the_next_project_of_the_account_log_in(
    clock: Clock, connect: Connect
) -> None:
    """The first time they have a moment each; after that they are known to be silent."""
    refusals = Refusals("an account")
    clients, logins = [], []
    for number in range(6):
        login = Login(clock)
        if number < 5:
            login.hold = asyncio.Event()
        logins.append(login)
        source = make_source(login, clock, refusals=refusals, project_id=f"project-{number}")
        clients.append(connect(Cloud(tokens={"t1", "t2"}), TokenAuth(source)))
    tasks = [asyncio.create_task(client.get()) for client in clients]
    begun = clock()
    assert await tasks[-1] == 200
    assert clock() - begun < 9
    for login in logins[:5]:
        assert login.hold is not None
        login.hold.set()
    assert await asyncio.gather(*tasks) == [200] * 6


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


# Keys of the server's agency -------------------------------------------------------------------


def make_agency(
    simulator: Simulator, clock: Clock
) -> tuple[SigningAuth, list[Keys], httpx.AsyncClient]:
    """Auth with the keys that the simulator's metadata service gives."""
    metadata = httpx.AsyncClient(transport=httpx.ASGITransport(simulator))
    fetched: list[Keys] = []

    async def fetch(_: str) -> Keys:
        keys = await fetch_metadata_keys(metadata)
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
        await clock.advance(0)
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
    await clock.advance(0)
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
