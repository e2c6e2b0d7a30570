"""What an error of the cloud tells, and what to do about it."""

import httpx
import pytest

from exporter.errors import ApiError, Reason
from tests.support.cloud_api import (
    INSTANCE,
    TOKEN,
    Api,
    answers,
    gateway_error,
    signing_auth,
)
from tests.support.virtual_time import Clock


async def test_the_error_says_what_the_cloud_said(clock: Clock) -> None:
    error = await Api(answers(gateway_error(403, "APIGW.0302", "no right"))).fail()
    assert error.message == "HTTP 403: APIGW.0302 no right"
    assert (error.status, error.error_code, error.request_id) == (403, "APIGW.0302", "8d0f3a")


async def test_the_request_id_may_come_in_a_header(clock: Clock) -> None:
    answer = httpx.Response(500, headers={"X-Request-Id": "from-header"})
    assert (await Api(answers(answer), retries=0).fail()).request_id == "from-header"


async def test_of_a_proxys_page_only_the_title_is_shown(clock: Clock) -> None:
    html = "<html><head><title>502 Bad Gateway</title></head><h1>me:secret</h1></html>"
    error = await Api(answers(httpx.Response(502, html=html)), retries=0).fail()
    assert error.message == 'HTTP 502: an HTML page ("502 Bad Gateway"), not an answer of this API'


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_an_echoed_request_leaks_no_secret(clock: Clock, status: int) -> None:
    """Users report that the message of a signature failure holds the request's headers."""
    signature = "4f" * 32
    echo = (
        "verify aksk signature fail, canonicalRequest:GET|/v3/p/instances/|"
        f"|x-auth-token:{TOKEN}|authorization:SDK-HMAC-SHA256 Access=HSTABCDEFGHIJKLMNOPQ, "
        f"SignedHeaders=host;x-sdk-date, Signature={signature}|x-security-token:{'g' * 120}|"
    )
    error = await Api(answers(gateway_error(status, "APIGW.0301", echo)), retries=0).fail()
    shown = f"{error} {error.message} {error.hint} {error.error_code} {error.request_id}"
    for secret in (TOKEN, "HSTABCDEFGHIJKLMNOPQ", signature, "g" * 120):
        assert secret not in shown
    assert "APIGW.0301" in shown


async def test_a_secret_in_the_code_or_the_request_id_is_hidden_too(clock: Clock) -> None:
    body = {"error_code": f"X-Auth-Token: {TOKEN}", "request_id": f"X-Auth-Token: {TOKEN}"}
    error = await Api(answers(httpx.Response(400, json=body))).fail()
    assert TOKEN not in f"{error.message} {error.error_code} {error.request_id}"


# Hints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "message", "hint"),
    [
        (401, "APIGW.0307", "The token must be updated.", "another region"),
        (401, "APIG.0307", "The token must be updated.", "another region"),
        (401, "APIGW.0301", "Incorrect IAM authentication.", "check the credentials"),
        (401, "APIGW.0301", "The user is locked.", "locked after failed logins"),
        (403, "", "AK access failed to reach the limit, forbidden: locked out", "is locked"),
        (403, "DBS.200010", "Forbidden", "gaussdbformysql:backup:list"),
        (404, "DBS.201028", "The instance does not exist.", "check the instance's id"),
        (400, "DBS.280404", "Invalid instance id", "check the instance's id"),
        (400, "DBS.200001", "Parameter error.", ""),
        (429, "APIGW.0308", "too many", "api.rate_limit"),
        (500, "DBS.200412", "failed", "cloud's own trouble"),
        (409, "DBS.200011", "The table is locked.", ""),
        (401, "", "Your clock is blocked by a deadlock", "check the credentials"),
    ],
)
async def test_the_hint_tells_what_to_do(
    clock: Clock, status: int, code: str, message: str, hint: str
) -> None:
    error = await Api(answers(gateway_error(status, code, message)), retries=0).fail()
    assert hint in error.hint
    assert bool(error.hint) is bool(hint)


CUSTOM = "or gaussdb:backup:list and gaussdb:instance:list in a custom policy"


@pytest.mark.parametrize(
    ("operation", "hint"),
    [
        (
            "list_backups",
            f"grant the user gaussdbformysql:backup:list in an identity policy, {CUSTOM}, in this"
            " project; an instance that does not exist may be answered so too",
        ),
        (
            "list_instances",
            "grant the user gaussdbformysql:instance:list in an identity policy, or"
            " gaussdb:instance:list in a custom policy, in this project",
        ),
        (
            "show_restore_time",
            "grant the user gaussdbformysql:backup:getRestoreTime in an identity policy,"
            f" {CUSTOM}, in this project (or set restore_window: false); an instance that does not"
            " exist may be answered so too",
        ),
        (
            "list_full_backups",
            f"grant the user gaussdbformysql:backup:list in an identity policy, {CUSTOM}, in this"
            " project (or set full_backups: false)",
        ),
    ],
)
async def test_a_missing_permission_is_named_in_both_grammars(
    clock: Clock, operation: str, hint: str
) -> None:
    """They do not mix: an action of the other grammar grants nothing."""
    with pytest.raises(ApiError) as caught:
        await ask(Api(answers(gateway_error(403, "DBS.200010", "Forbidden"))), operation)
    assert (caught.value.reason, caught.value.hint) == (Reason.FORBIDDEN, hint)


@pytest.mark.parametrize(
    ("operation", "setting"),
    [("show_restore_time", "restore_window"), ("list_full_backups", "full_backups")],
)
async def test_a_cloud_without_the_call_is_told_as_one(
    clock: Clock, operation: str, setting: str
) -> None:
    with pytest.raises(ApiError) as caught:
        await ask(Api(answers(gateway_error(404, "APIGW.0101", "no such API"))), operation)
    assert caught.value.reason is Reason.NOT_FOUND
    assert caught.value.hint == (
        f"this cloud does not have the call: set {setting}: false in the project"
    )


async def ask(api: Api, operation: str) -> object:
    client, query = api.client, api.query
    if operation == "list_instances":
        return await client.fetch_instances(version="v3", offset=0, query=query)
    if operation == "show_restore_time":
        return await client.fetch_restore_times(INSTANCE, query=query)
    if operation == "list_full_backups":
        return await client.fetch_full_backups(instance_id="", offset=0, query=query)
    return await api.list_backups()


@pytest.mark.parametrize(
    ("date", "hint"),
    [
        ("Fri, 28 Jul 2023 11:40:00 GMT", "the clock of this machine is 20 minutes ahead: set it"),
        ("Fri, 28 Jul 2023 14:00:00 GMT", "clock of this machine is 120 minutes behind: set it"),
        ("Fri, 28 Jul 2023 11:50:00 GMT", "check the credentials"),
        ("yesterday", "check the credentials"),
        ("Fri, 28 Jul 99999 11:50:00 GMT", "check the credentials"),
        (None, "check the credentials"),
    ],
)
async def test_a_clock_that_is_off_is_told_where_a_signature_is_refused(
    clock: Clock, date: str | None, hint: str
) -> None:
    headers = {"Date": date} if date is not None else {}
    api = Api(answers(gateway_error(401, **headers)), auth=signing_auth(clock))
    assert hint in (await api.fail()).hint


async def test_a_clock_that_is_off_does_not_explain_a_refused_token(clock: Clock) -> None:
    api = Api(answers(gateway_error(401, Date="Fri, 28 Jul 2023 18:00:00 GMT")))
    assert "clock" not in (await api.fail()).hint
