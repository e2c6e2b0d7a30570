"""Keys in the spellings of the metadata service, the pod's agent, STS and the older IAM."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.credentials.temporary_keys import parse_temporary_keys
from exporter.credentials.values import Keys
from exporter.errors import BadResponseError
from tests.support.searches import extent

KEYS = Keys(
    access_key="HSTEXAMPLE0123456789",
    secret_key="made-up-secret",
    security_token="ggpj-made-up-token",
    expires_at=1_578_128_665.701,  # 2020-01-04T09:04:25.701Z
)


def make_body(container: str = "credential", **changes: Any) -> bytes:
    credential: dict[str, Any] = {
        "access": "HSTEXAMPLE0123456789",
        "secret": "made-up-secret",
        "securitytoken": "ggpj-made-up-token",
        "expires_at": "2020-01-04T09:04:25.701000Z",
    }
    credential |= changes
    left = {name: value for name, value in credential.items() if value is not ...}
    return json.dumps({container: left}).encode()


def in_spelling(container: str, *names: str) -> bytes:
    values = ("HSTEXAMPLE0123456789", "made-up-secret", "ggpj-made-up-token")
    end = "2020-01-04T09:04:25.701Z"
    return json.dumps({container: dict(zip(names, (*values, end), strict=True))}).encode()


@pytest.mark.parametrize(
    "body",
    [
        make_body(),
        in_spelling("credential", "access", "secret", "securitytoken", "expires_at"),
        in_spelling(
            "credentials", "access_key_id", "secret_access_key", "security_token", "expiration"
        ),
        in_spelling("credentials", "accessKeyId", "secretAccessKey", "securityToken", "expiration"),
    ],
)
def test_each_spelling_is_read_with_its_end_in_epoch_seconds(body: bytes) -> None:
    assert parse_temporary_keys(body) == KEYS


def test_fields_that_we_do_not_know_are_ignored() -> None:
    assert parse_temporary_keys(make_body(region="cn-north-4")) == KEYS


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"<html>proxy</html>", "not temporary keys but an HTML page"),
        (b"", "not temporary keys but nothing"),
        (b"AK=made SK=up", "not temporary keys but something else"),
        (b'{"credential": {"access": "\xff"}}', "not temporary keys"),
        (b"{}", "there is no `credential` in the answer"),
        (b'{"credential": null}', "there is no `credential` in the answer"),
        (make_body(access=...), "the answer tells no access key"),
        (make_body(secret=..., expires_at=...), "the answer tells no secret, end"),
        (make_body(secret=17), "Expected `str | null`, got `int` - at `$.credential.secret`"),
        (make_body(secret=""), "$.credential.secret"),
        (make_body(access="AK\r\nX-Evil: 1"), "$.credential.access"),
        (make_body(securitytoken="ends in a line break\n"), "$.credential.securitytoken"),
        (make_body(expires_at="soon"), "$.credential.expires_at"),
        (make_body(expires_at="2020-01-04T09:04:25"), "$.credential.expires_at"),
        (make_body("credentials", secret="two words"), "$.credentials.secret"),
        (b"[" * 100_000, "not temporary keys"),
    ],
)
def test_keys_that_make_no_sense_are_refused_by_field(body: bytes, problem: str) -> None:
    with pytest.raises(BadResponseError) as caught:
        parse_temporary_keys(body)
    assert problem in caught.value.message


def test_an_answer_of_another_form_is_not_shown() -> None:
    with pytest.raises(BadResponseError) as caught:
        parse_temporary_keys(b"access=made secret=up")
    assert "made" not in caught.value.message


def test_refused_keys_do_not_appear_in_the_error() -> None:
    with pytest.raises(BadResponseError) as caught:
        parse_temporary_keys(make_body(secret="made up with spaces", expires_at=None))
    assert "made" not in caught.value.message


@settings(max_examples=extent(200), deadline=None)
@given(st.one_of(st.binary(max_size=60), st.recursive(st.none() | st.text(), st.lists)))
def test_no_body_raises_anything_but_a_bad_response(content: Any) -> None:
    body = content if isinstance(content, bytes) else json.dumps({"credential": content}).encode()
    with pytest.raises(BadResponseError):
        parse_temporary_keys(body)
