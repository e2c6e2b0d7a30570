import asyncio
from pathlib import Path

import httpx
import pytest
import structlog

from exporter.credentials.http_auth import TokenAuth
from exporter.credentials.secret import SecretSource
from exporter.credentials.values import Keys
from exporter.errors import ApiError, AuthError, Reason
from exporter.reporting.redaction import SecretRegistry
from tests.credentials.doubles import PROJECT, URL, Cloud, Connect, make_signing, make_token_source
from tests.support.virtual_time import Clock

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
    token, cloud = ["old"], Cloud(tokens={"new"})
    client = connect(cloud, TokenAuth(make_token_source(lambda: token[0])))
    asked = asyncio.create_task(client.get())
    await asyncio.sleep(0.01)
    token[0] = "new"
    assert await asked == 200
    assert cloud.seen == ["old", "new"]


async def test_a_refused_token_is_shown_once_in_each_step_of_the_back_off(
    clock: Clock, connect: Connect
) -> None:
    cloud = Cloud()
    client = connect(cloud, TokenAuth(make_token_source(lambda: "expired")))
    with structlog.testing.capture_logs() as logs:
        outcomes = await client.get_many(50)
    assert outcomes[0] == 401
    assert all(isinstance(outcome, AuthError) for outcome in outcomes[1:])
    assert [entry["next_try_seconds"] for entry in logs] == [60]
    assert len(cloud.seen) == 1
    await clock.advance(60)
    assert await client.get() == 401
    await clock.advance(119)
    with pytest.raises(AuthError, match="tried again in 1s"):
        await client.get()
    assert len(cloud.seen) == 2


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
