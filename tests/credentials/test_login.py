"""A log-in as it is documented, and what its failures say."""

import asyncio
import json

import httpx
import pytest

from exporter.credentials.exchange import LOGIN
from exporter.credentials.login import fetch_token
from exporter.credentials.values import Token
from exporter.errors import (
    ApiError,
    AuthError,
    BadResponseError,
    LoginError,
    Reason,
    RefusedError,
    UnavailableError,
)
from exporter.reporting.redaction import SecretRegistry
from tests.support.cloud_api import PROJECT, Answer, Api, answers
from tests.support.virtual_time import Clock

GIVEN = {"token": {"expires_at": "2020-01-04T09:05:22.701000Z"}}


def login_answer(
    body: object = GIVEN, *, token: str = "the-token", status: int = 201
) -> httpx.Response:
    headers = {"X-Subject-Token": token} if token else {}
    return httpx.Response(status, json=body, headers=headers)


async def log_in(
    answer: Answer, registry: SecretRegistry | None = None
) -> tuple[Token, list[httpx.Request], list[str]]:
    api = Api(answer)
    token = await fetch_token(
        api.wire,
        iam_endpoint="https://iam.example",
        domain="my-account",
        username="backup-reader",
        password='pass"word',
        project_id=PROJECT,
        registry=registry or SecretRegistry(),
    )
    return token, api.requests, [operation for operation, _ in api.observed]


async def test_a_login_is_asked_for_as_documented(clock: Clock) -> None:
    token, (request,), operations = await log_in(answers(login_answer()))
    assert request.method == "POST"
    assert str(request.url) == "https://iam.example/v3/auth/tokens?nocatalog=true"
    assert request.headers["Content-Type"] == "application/json"
    assert "X-Auth-Token" not in request.headers
    assert json.loads(request.content) == {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {
                    "user": {
                        "name": "backup-reader",
                        "password": 'pass"word',
                        "domain": {"name": "my-account"},
                    }
                },
            },
            "scope": {"project": {"id": PROJECT}},
        }
    }
    assert token == Token("the-token", 1_578_128_722.701)
    assert operations == [LOGIN]


async def test_a_token_is_made_known_to_those_who_hide_it(clock: Clock) -> None:
    registry = SecretRegistry()
    await log_in(answers(login_answer(token="a-token-of-iam")), registry)
    assert registry.redact("it is a-token-of-iam") == "it is [redacted]"


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (401, {"error": {"code": 401, "message": "wrong user or password."}}, "check domain"),
        (401, {"error": {"code": 401, "message": "Your account is locked."}}, "locked after"),
        (403, {"error_code": "IAM.0002", "error_msg": "no access"}, "check domain"),
        (400, {"error_code": "IAM.0011", "error_msg": "Request body is invalid."}, "check domain"),
        (404, {"error": {"code": 404, "message": "no such project"}}, "the project's id"),
    ],
)
async def test_a_refused_login_is_an_auth_error_that_says_what_to_check(
    clock: Clock, status: int, body: object, hint: str
) -> None:
    with pytest.raises(AuthError) as caught:
        await log_in(answers(login_answer(body, token="", status=status)))
    error = caught.value
    assert error.reason is Reason.AUTH
    assert error.status == status
    assert error.message.startswith(
        f"login of backup-reader at https://iam.example: HTTP {status}: "
    )
    assert hint in error.hint
    assert 'pass"word' not in f"{error} {error.hint}"
    assert not error.counted  # it counts for each instance that it keeps from being queried


async def test_a_clock_that_is_off_does_not_explain_a_wrong_password(clock: Clock) -> None:
    body = {"error": {"code": 401, "message": "wrong user or password."}}
    answer = httpx.Response(401, json=body, headers={"Date": "Fri, 28 Jul 2023 18:00:00 GMT"})
    with pytest.raises(AuthError) as caught:
        await log_in(answers(answer))
    assert "check domain" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "text", "kind", "reason", "message"),
    [
        (500, "", UnavailableError, Reason.SERVER, "HTTP 500"),
        (503, "", UnavailableError, Reason.SERVER, "HTTP 503, tried 3 times"),
        (429, "", LoginError, Reason.THROTTLED, "HTTP 429"),
        (201, "{}", BadResponseError, Reason.BAD_RESPONSE, "not a token that says when it ends"),
        (201, "<html>", BadResponseError, Reason.BAD_RESPONSE, "but an HTML page"),
        (302, "", BadResponseError, Reason.BAD_RESPONSE, "a redirect"),
        (404, "<html>", RefusedError, Reason.BAD_RESPONSE, "not an answer of this API"),
    ],
)
async def test_trouble_of_iam_is_no_refusal(
    clock: Clock, status: int, text: str, kind: type[ApiError], reason: Reason, message: str
) -> None:
    with pytest.raises(kind) as caught:
        await log_in(answers(httpx.Response(status, text=text)))
    assert caught.value.message.startswith("login of backup-reader at https://iam.example: ")
    assert message in str(caught.value)
    assert caught.value.reason is reason


async def test_a_login_is_tried_again_as_other_requests_are(clock: Clock) -> None:
    token, requests, _ = await log_in(answers(httpx.Response(503), login_answer()))
    assert len(requests) == 2
    assert token.value == "the-token"


async def test_a_login_has_one_time_out_for_the_whole(clock: Clock) -> None:
    """Three tries of ten seconds, whatever IAM says about when to come again."""

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(9)
        return httpx.Response(503, headers={"Retry-After": "1"})

    started = clock()
    with pytest.raises(UnavailableError):
        await log_in(answer)
    assert clock() - started <= 30
