import calendar
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from exporter.credentials.signing import SignedRequest, build_query, sign
from tests.support.paths import TESTDATA
from tests.support.searches import extent

VECTORS = json.loads((TESTDATA / "signing_vectors.json").read_text())
SET_BY_SIGN = {"x-sdk-date", "host", "x-project-id", "x-security-token", "authorization"}
SIGNED_ON_THE_WIRE = {"user-agent", "content-type"}  # the SDK signs these two of what it sends


def sign_vector(vector: Mapping[str, Any]) -> SignedRequest:
    """Ask `sign` for what the vector's request is, from its raw parts."""
    captured = "input_headers" not in vector
    headers = dict(vector["sent_headers"] if captured else vector["input_headers"])
    now = calendar.timegm(time.strptime(headers["X-Sdk-Date"], "%Y%m%dT%H%M%SZ"))
    if captured:
        raw_query = vector["request_uri"].partition("?")[2]
        pairs = [part.partition("=") for part in raw_query.split("&")]
        query = [(unquote(name), unquote(value)) for name, _, value in pairs]
        extra = {k: v for k, v in headers.items() if k.lower() in SIGNED_ON_THE_WIRE}
    else:
        query = [(name, value) for name, value in vector["query"]]
        extra = {k: v for k, v in headers.items() if k.lower() not in SET_BY_SIGN}
    return sign(
        vector["method"],
        vector["host"],
        vector["path"],
        query,
        access_key=vector["ak"],
        secret_key=vector["sk"],
        security_token=headers.get("X-Security-Token"),
        project_id=headers.get("X-Project-Id"),
        headers=extra,
        body=vector.get("body", "").encode(),
        now=now,
    )


def sign_get(query: str | Sequence[tuple[str, str]] = (), **options: Any) -> SignedRequest:
    defaults: dict[str, Any] = {
        "access_key": "AKEXAMPLE0123456789Q",
        "secret_key": "made-up",
        "now": 0.0,
    }
    return sign("GET", "db.example", "/v3/p/instances", query, **(defaults | options))


def test_all_published_vectors_are_there() -> None:
    assert len(VECTORS) == 7


@pytest.mark.parametrize("vector", VECTORS, ids=[v["name"] for v in VECTORS])
def test_signature_and_target_equal_the_vendors(vector: Mapping[str, Any]) -> None:
    signed = sign_vector(vector)
    assert signed.headers["Authorization"] == vector["authorization"]
    assert signed.target == vector["request_uri"]
    for name in signed.headers:
        assert signed.headers[name] == vector["sent_headers"][name]


def test_query_is_sorted_and_escaped_as_the_gateway_wants_it() -> None:
    pairs = [("offset", "0"), ("end_time", "2022-07-08T12:41:14+0800"), ("name", "*a b~é/")]
    assert build_query(pairs) == (
        "end_time=2022-07-08T12%3A41%3A14%2B0800&name=%2Aa%20b~%C3%A9%2F&offset=0"
    )


def test_no_query_leaves_the_path_alone_as_target() -> None:
    assert sign_get().target == "/v3/p/instances"


def test_built_query_is_signed_like_its_pairs() -> None:
    pairs = [("limit", "50"), ("begin_time", "2022-07-07T12:41:14+0800")]
    assert sign_get("begin_time=2022-07-07T12%3A41%3A14%2B0800&limit=50") == sign_get(pairs)


def test_time_is_written_in_utc() -> None:
    assert sign_get(now=1_657_168_874.9).headers["X-Sdk-Date"] == "20220707T044114Z"


def test_only_the_credentials_that_exist_become_headers() -> None:
    assert list(sign_get().headers) == ["X-Sdk-Date", "Host", "Authorization"]


def test_old_signature_is_not_signed_into_the_new_one() -> None:
    assert sign_get(headers={"authorization": "old"}) == sign_get()


def test_secret_key_and_token_change_the_signature_and_the_key_is_not_sent() -> None:
    one, other = sign_get(secret_key="made-up-1"), sign_get(secret_key="made-up-2")
    assert one.headers["Authorization"] != other.headers["Authorization"]
    assert "made-up" not in str(one)


# yarl, under aiohttp, decodes and re-encodes each URL that it is given as text.
QUERY_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


def test_yarl_rewrites_a_query_unless_it_is_told_that_it_is_encoded() -> None:
    """Should this fail, yarl has changed: `ExactTransport` may hand URLs over as text."""
    text = "http://db.example/?begin_time=2022-07-07T12%3A41%3A14%2B0800"
    assert URL(text).raw_query_string == "begin_time=2022-07-07T12:41:14%2B0800"
    assert URL(text, encoded=True).raw_query_string == "begin_time=2022-07-07T12%3A41%3A14%2B0800"


@settings(max_examples=extent(300), deadline=None)
@given(st.lists(st.tuples(QUERY_TEXT, QUERY_TEXT), max_size=4))
def test_every_query_survives_httpx_and_yarl(pairs: list[tuple[str, str]]) -> None:
    query = build_query(pairs)
    handed_over = str(httpx.URL(f"http://db.example/?{query}"))
    assert handed_over == f"http://db.example/?{query}"
    assert URL(handed_over, encoded=True).raw_query_string == query
