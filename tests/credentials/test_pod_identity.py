import json

import httpx
import pytest

from exporter.credentials.pod_agent import fetch_pod_keys
from exporter.credentials.pod_identity import (
    TOKEN_FILE_VARIABLE,
    URI_VARIABLE,
    find_pod_identity,
)
from exporter.credentials.values import Keys
from exporter.errors import ApiError, AuthError, BadResponseError, Reason, UnavailableError

URI = "http://169.254.170.23/v1/credentials"
CREDENTIAL = {
    "access": "HSTEXAMPLE",
    "secret": "made-up-secret",
    "securitytoken": "made-up-token",
    "expires_at": "2020-01-04T09:04:25.701000Z",
}


@pytest.mark.parametrize(
    "uri",
    [
        URI,
        "http://127.0.0.1:9999/v1/credentials",
        "http://localhost/v1/credentials",
        "http://[::1]:80/x",
        "http://[fe80::1]/x",
        "http://10.0.0.7:8080/x",
        "https://agent.example/v1/credentials",
    ],
)
def test_the_agent_may_be_on_this_machine_or_network_or_behind_tls(uri: str) -> None:
    found = find_pod_identity({URI_VARIABLE: uri, TOKEN_FILE_VARIABLE: "/a/token"})
    assert (found.uri, str(found.token_file)) == (uri, "/a/token")


@pytest.mark.parametrize(
    "uri",
    [
        "http://agent.example/v1/credentials",
        "http://8.8.8.8/",
        "http://user:secret@127.0.0.1/",
        "https://user@agent.example/",
        "ftp://127.0.0.1/",
        "127.0.0.1/v1",
        "http://127.0.0.1:99999/",
        "http://127.1/",
        "http://[::1/",
        "https://",
    ],
)
def test_the_pods_token_is_sent_nowhere_else(uri: str) -> None:
    with pytest.raises(AuthError, match="does not name a service of this machine") as caught:
        find_pod_identity({URI_VARIABLE: uri, TOKEN_FILE_VARIABLE: "/a/token"})
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, f"{URI_VARIABLE} and {TOKEN_FILE_VARIABLE} are not set in the environment"),
        ({URI_VARIABLE: URI}, f"{TOKEN_FILE_VARIABLE} is not set in the environment"),
        ({TOKEN_FILE_VARIABLE: "/t", URI_VARIABLE: " "}, f"{URI_VARIABLE} is not set in the"),
    ],
)
def test_what_is_missing_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(AuthError, match=message) as caught:
        find_pod_identity(environment)
    assert "pod of CCE" in caught.value.hint


async def fetch(answer: httpx.Response | Exception) -> tuple[Keys, httpx.Request]:
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as client:
        keys = await fetch_pod_keys(client, URI, "the-token")
    return keys, requests[0]


async def test_the_agent_is_asked_as_the_sdk_asks_it() -> None:
    keys, request = await fetch(httpx.Response(200, json={"credential": CREDENTIAL}))
    assert keys == Keys("HSTEXAMPLE", "made-up-secret", "made-up-token", 1_578_128_665.701)
    assert (request.method, str(request.url)) == ("POST", URI)
    assert request.headers["Authorization"] == "the-token"
    assert json.loads(request.content) == {}


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (httpx.Response(401, text="the-token is no good"), AuthError, Reason.AUTH),
        (httpx.Response(403), AuthError, Reason.AUTH),
        (httpx.Response(404), AuthError, Reason.AUTH),
        (httpx.Response(400), AuthError, Reason.AUTH),
        (httpx.Response(503), UnavailableError, Reason.SERVER),
        (httpx.Response(302, headers={"Location": "http://x"}), BadResponseError, "bad_response"),
        (httpx.Response(200, text="the-token"), BadResponseError, Reason.BAD_RESPONSE),
        (httpx.ConnectError("refused"), UnavailableError, Reason.NETWORK),
    ],
)
async def test_each_failure_of_the_agent_has_its_reason_and_never_the_token(
    answer: httpx.Response | Exception, kind: type[ApiError], reason: str
) -> None:
    with pytest.raises(kind) as caught:
        await fetch(answer)
    assert caught.value.reason == reason
    assert caught.value.hint
    assert "the-token" not in f"{caught.value} {caught.value.hint}"
