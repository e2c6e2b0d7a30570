"""What is said of an answer that is not the one asked for: the cause, and what to do."""

import json
import logging
from typing import Any

import httpx
import pytest
import structlog

from exporter.errors import ApiError, BadResponseError, Reason
from exporter.models import Failure
from exporter.transport.exchange import LimitedTransport
from exporter.transport.failures import describe_body, error_of, not_json
from exporter.transport.query import Query
from tests.support.virtual_time import NOON

NGINX_404 = b"<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>nginx</body></html>"


def error(status: int, body: bytes | dict[str, Any] = b"", **headers: str) -> ApiError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = httpx.Request(
        "GET", "https://db.example:8443/v3/p/x?limit=50", extensions={"operation": "list_backups"}
    )
    response = httpx.Response(status, content=content, headers=headers, request=request)
    return error_of(response, now=NOON)


def test_an_error_carries_what_a_support_ticket_needs() -> None:
    body = {"error_code": "DBS.200010", "error_msg": "no right", "request_id": "8d0f3a"}
    failed = error(403, body)
    failed.tried = 3
    failure = Failure.of(failed)
    assert failure.message == "HTTP 403: DBS.200010 no right, tried 3 times"
    assert (
        failure.evidence == "list_backups at db.example:8443: HTTP 403, DBS.200010, request 8d0f3a"
    )
    assert failure.facts == {
        "operation": "list_backups",
        "host": "db.example:8443",
        "status": 403,
        "error_code": "DBS.200010",
        "request_id": "8d0f3a",
        "tried": 3,
    }


def test_evidence_names_only_what_there_is() -> None:
    assert Failure(Reason.DEADLINE, "too late").evidence == ""
    assert Failure(Reason.DEADLINE, "too late").facts == {}
    failure = Failure(Reason.NETWORK, "refused", operation="login", host="iam.example")
    assert failure.evidence == "login at iam.example"


@pytest.mark.parametrize(
    "body",
    [
        NGINX_404,
        b"",
        {"error_code": "APIGW.0101", "error_msg": "The API does not exist", "request_id": "r"},
        {"error_code": "APIG.0101", "error_msg": "The API does not exist", "request_id": "r"},
    ],
    ids=["a page", "nothing", "the gateway", "the older gateway"],
)
def test_a_404_of_a_wrong_address_points_to_the_endpoint(body: bytes | dict[str, Any]) -> None:
    failed = error(404, body)
    assert failed.reason is Reason.NOT_FOUND
    assert failed.foreign
    assert "right address" in failed.hint
    assert "instance's id" not in failed.hint


def test_a_404_of_the_service_points_to_the_instance() -> None:
    failed = error(404, {"error_code": "DBS.201028", "error_msg": "no such instance"})
    assert not failed.foreign
    assert "instance's id" in failed.hint


def test_a_page_is_told_as_a_page_with_its_title() -> None:
    assert error(404, NGINX_404).message == (
        'HTTP 404: an HTML page ("404 Not Found"), not an answer of this API'
    )


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("The token has expired.", "the token has expired: write a new one"),
        ("The token must be updated.", "the token has expired, or another region gave it"),
    ],
)
def test_an_expired_token_is_told_as_expired(message: str, said: str) -> None:
    failed = error(401, {"error_code": "APIGW.0307", "error_msg": message})
    assert failed.reason is Reason.AUTH
    assert failed.hint.startswith(said)
    assert "check region" not in failed.hint


def test_a_signature_that_has_expired_is_not_told_as_a_token() -> None:
    body = {"error_code": "APIGW.0301", "error_msg": "the signature expired: X-Sdk-Date"}
    response = httpx.Response(401, json=body)
    hint = error_of(response, now=NOON, signed=True).hint
    assert hint == "the time that was signed is too far from the cloud's: set this machine's clock"


def test_a_redirect_says_where_to_without_its_query() -> None:
    failed = error(302, Location="https://login.example/portal?ticket=abcdef#top")
    assert failed.reason is Reason.BAD_RESPONSE
    assert failed.message == (
        "HTTP 302: a redirect to https://login.example/portal, which is not followed"
    )
    assert "endpoint" in failed.hint


@pytest.mark.parametrize(
    "body",
    [
        b"<html><h1>400 Bad Request</h1>The plain HTTP request was sent to HTTPS port</html>",
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"<p>You're speaking plain HTTP to an SSL-enabled server port.</p>",
    ],
    ids=["nginx", "go", "apache"],
)
def test_plain_http_to_a_port_of_https_is_told_whoever_answers(body: bytes) -> None:
    failed = error(400, body)
    assert failed.message == "HTTP 400: plain http was sent to a port of https"
    assert failed.hint == "write https:// in the endpoint"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "an empty answer"),
        (b" \n", "an empty answer"),
        (b"<!DOCTYPE html><title>Sign in &amp; go</title>", 'an HTML page ("Sign in & go")'),
        (b"\n<HTML><BODY>x", "an HTML page"),
        (b"<?xml version='1.0'?>\n<html xmlns='x'>", "an HTML page"),
        (b"upstream connect error", 'something else that begins with "upstream connect error"'),
        (b"\xff\xfe\x00", "no text at all"),
        (b"null", 'something else that begins with "null"'),
    ],
)
def test_what_is_no_json_is_described(body: bytes, said: str) -> None:
    assert describe_body(body) == said


def test_a_page_instead_of_a_listing_is_not_called_malformed_json() -> None:
    failed = not_json(NGINX_404, "a listing of backups", ValueError("JSON is malformed (byte 0)"))
    assert failed.message == 'not a listing of backups but an HTML page ("404 Not Found")'
    assert failed.foreign
    assert "proxy or portal" in failed.hint


def test_json_of_another_shape_says_where_it_differs() -> None:
    failed = not_json(b'{"backups": 5}', "a listing of backups", ValueError("at `$.backups`"))
    assert failed.message == "not a listing of backups: at `$.backups`"
    assert not failed.foreign


# The exchange ----------------------------------------------------------------------------------


class Page:
    row_count = 7


def raise_nonsense(body: bytes) -> Page:
    raise BadResponseError("it makes no sense")


async def exchange(response: httpx.Response, **extensions: Any) -> httpx.Response:
    transport = LimitedTransport(
        httpx.MockTransport(lambda request: response),
        timeout=10,
        observe=lambda operation, seconds: None,
        clock=lambda: NOON,
    )
    request = httpx.Request(
        "GET",
        "https://db.example/v3/p/instances?limit=50",
        headers={"X-Auth-Token": "a-secret-token", "Authorization": "a-secret-signature"},
        extensions={"query": Query(), "operation": "list_backups", **extensions},
    )
    return await transport.handle_async_request(request)


async def test_each_request_is_a_line_at_debug_without_its_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = httpx.Response(200, json={}, headers={"X-Request-Id": "r-1", "X-Subject-Token": "t-1"})
    with structlog.testing.capture_logs() as logs:
        await exchange(answer, parse=lambda body: Page())
    (line,) = logs
    assert line.pop("duration_seconds") >= 0
    assert line == {
        "event": "request",
        "log_level": "debug",
        "operation": "list_backups",
        "method": "GET",
        "host": "db.example",
        "path": "/v3/p/instances",
        "query": "limit=50",
        "status": 200,
        "request_id": "r-1",
        "rows": 7,
    }


async def test_an_answer_that_makes_no_sense_has_evidence_and_ends_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    ended: list[bool] = []
    answer = httpx.Response(
        200,
        json={},
        headers={"X-Request-Id": "r-1"},
        extensions={"discard": lambda look_up_again: ended.append(look_up_again)},
    )
    with structlog.testing.capture_logs() as logs:
        response = await exchange(answer, parse=raise_nonsense)
    parsed = response.extensions["parsed"]
    assert isinstance(parsed, BadResponseError)
    assert Failure.of(parsed).evidence == "list_backups at db.example: HTTP 200, request r-1"
    assert ended == [False]
    assert [line["error"] for line in logs] == ["it makes no sense"]
