import json
import re
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cloud.answers import Asked, FoundInstance, parse_instance_page, parse_page
from exporter.credentials.login import parse_token
from exporter.errors import BadResponseError, Reason
from exporter.models import Backup, Page
from exporter.transport.failures import ErrorBody, error_of, parse_error_body, reason_of
from exporter.transport.times import format_time, parse_time
from tests.support.virtual_time import NOON

TOKEN = "MIIToken" + "x" * 60
NOTHING = Page([], 0)


# Errors ---------------------------------------------------------------------------------------


@given(st.integers(100, 599))
def test_every_status_has_some_reason(status: int) -> None:
    assert reason_of(status) in Reason


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"error_msg": "busy", "error_code": "APIGW.0308", "request_id": "r1"},
            ErrorBody("APIGW.0308", "busy", "r1"),
        ),
        ({"error_code": "DBS.280404", "error_msg": "bad id"}, ErrorBody("DBS.280404", "bad id")),
        (
            {"error": {"code": 401, "message": "wrong password", "title": "Unauthorized"}},
            ErrorBody("", "wrong password"),  # a status, no code
        ),
        ({"error_code": "IAM.0011", "error_msg": "no"}, ErrorBody("IAM.0011", "no")),
        ({"error": "text"}, ErrorBody()),
        ({"error_msg": ["a", "list"], "error_code": None}, ErrorBody()),
        ([1, 2], ErrorBody()),
        (None, ErrorBody()),
        ("text", ErrorBody()),
    ],
)
def test_error_bodies_of_all_forms_are_understood(body: object, expected: ErrorBody) -> None:
    assert parse_error_body(json.dumps(body).encode()) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><h1>502 Bad Gateway</h1></html>",
        b"\xff\xfe\x00",
        b"[" * 60_000,
        b'{"error_msg": "' + b"x" * 100_000 + b'"}',
        b'{"error_msg": "\xff"}',
    ],
)
def test_what_is_no_error_body_is_no_message(body: bytes) -> None:
    assert parse_error_body(body) == ErrorBody()


@given(st.binary(max_size=300))
def test_an_error_body_never_breaks(body: bytes) -> None:
    assert isinstance(parse_error_body(body), ErrorBody)


def test_a_long_message_is_cut() -> None:
    told = parse_error_body(json.dumps({"error_msg": "x" * 50_000}).encode())
    assert len(told.message) == 4096


@pytest.mark.parametrize("status", [400, 418])
def test_an_error_without_a_body_still_tells_its_status(status: int) -> None:
    error = error_of(httpx.Response(status), now=NOON)
    assert (error.message, error.reason, error.hint) == (f"HTTP {status}", Reason.BAD_REQUEST, "")
    assert error.request_id == ""


def test_an_error_of_which_only_the_code_is_known_tells_the_code() -> None:
    error = error_of(httpx.Response(500, json={"error_code": "DBS.1"}), now=NOON)
    assert error.message == "HTTP 500: DBS.1"


@pytest.mark.parametrize("status", [300, 302, 399])
def test_a_redirect_is_told_as_one_with_its_request(status: int) -> None:
    error = error_of(httpx.Response(status, headers={"X-Request-Id": "r-1"}), now=NOON)
    assert error.message == f"HTTP {status}: a redirect, which is not followed"
    assert (error.reason, error.request_id) == (Reason.BAD_RESPONSE, "r-1")


def test_a_request_without_a_signature_is_not_refused_for_the_clock() -> None:
    answer = httpx.Response(401, headers={"Date": "Fri, 28 Jul 2023 01:00:00 GMT"})
    assert "clock" not in error_of(answer, now=NOON).hint
    assert "660 minutes ahead" in error_of(answer, now=NOON, signed=True).hint


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_locked_account_is_told_whatever_the_status(status: int) -> None:
    body = {"error_code": "IAM.1", "error_msg": "The account is locked."}
    assert (
        "locked after failed logins" in error_of(httpx.Response(status, json=body), now=NOON).hint
    )


# Rows ------------------------------------------------------------------------------------------

ROW: Mapping[str, object] = {
    "id": "f0d2aea28d26t4848b8c84ed3fea1822fbr07",
    "name": "GaussDBforMySQL--20230728181555006",
    "begin_time": "2022-07-07T12:41:14+0800",
    "end_time": "2022-07-08T12:45:14+0800",
    "size": 0.109375,
    "backup_type": "Log",
    "instance_id": "61a4ea66210545909d74a05c27a7179ein07",
}


def listing(*rows: object, total_count: object = ...) -> bytes:
    document = {"backups": list(rows), "total_count": total_count}
    if total_count is ...:
        document["total_count"] = len(rows)
    return json.dumps(document).encode()


def row(**changes: object) -> dict[str, object]:
    """The documented row; `...` takes a field away."""
    return {name: value for name, value in {**ROW, **changes}.items() if value is not ...}


def test_the_documented_row_is_read() -> None:
    assert parse_page(listing(row())) == Page(
        [
            Backup(
                "f0d2aea28d26t4848b8c84ed3fea1822fbr07",
                1_657_168_874.0,  # 2022-07-07T04:41:14Z
                1_657_255_514.0,  # 2022-07-08T04:45:14Z
                0.109375,
            )
        ],
        1,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"size": None}, (1_657_168_874.0, 1_657_255_514.0, 0.0)),
        ({"size": ...}, (1_657_168_874.0, 1_657_255_514.0, 0.0)),
        ({"size": 0}, (1_657_168_874.0, 1_657_255_514.0, 0.0)),
        ({"size": 7}, (1_657_168_874.0, 1_657_255_514.0, 7.0)),
        ({"end_time": None}, (1_657_168_874.0, None, 0.109375)),
        ({"end_time": ""}, (1_657_168_874.0, None, 0.109375)),
        ({"end_time": ...}, (1_657_168_874.0, None, 0.109375)),
        ({"begin_time": None}, (None, 1_657_255_514.0, 0.109375)),
        ({"begin_time": ""}, (None, 1_657_255_514.0, 0.109375)),
        ({"name": None, "a_new_field": [1]}, (1_657_168_874.0, 1_657_255_514.0, 0.109375)),
    ],
)
def test_what_may_be_missing_may_be_missing(
    changes: dict[str, object], expected: tuple[float | None, float | None, float]
) -> None:
    assert tuple(parse_page(listing(row(**changes))).rows[0])[1:] == expected


@pytest.mark.parametrize(
    "wrong",
    [
        row(id=...),
        row(id=None),
        row(id=""),
        row(id=7),
        row(id=["x"]),
        row(size=-1),
        row(size=-0.001),
        row(size="12.5"),
        row(size=True),
        row(size={"kb": 1}),
        row(size=1e306),  # finite, but not in bytes
        row(end_time="yesterday"),
        row(end_time=" "),
        row(end_time="2023-02-30T25:61:00+0800"),
        row(end_time="2022-07-08T12:45:14"),  # whose time?
        row(end_time="2022-07-08"),
        row(end_time="12:45:14+0800"),
        row(end_time=1690539355),
        row(end_time=["2023-07-28T18:15:55+0800"]),
        row(end_time="2022-07-08T12:45:14 0800"),  # a + that was not escaped
        row(begin_time="now"),
        row(begin_time=0),
        row(begin_time=None, end_time=None),
        row(begin_time="", end_time=""),
        ["a", "list"],
        "a string",
        3,
        None,
        {},
    ],
)
def test_a_row_that_makes_no_sense_fails_the_page(wrong: object) -> None:
    with pytest.raises(BadResponseError) as caught:
        parse_page(listing(row(), wrong))
    assert caught.value.reason is Reason.BAD_RESPONSE
    assert re.search("backup|array", caught.value.message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"<html></html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"backups": ' * 100_000,
        b"{}",
        b'{"total_count": 3}',
        b'{"backups": null}',
        b'{"backups": null, "total_count": 5}',
        b'{"backups": {}, "total_count": 0}',
        b'{"backups": [], "total_count": -1}',
        b'{"backups": [], "total_count": "0"}',
        b'{"backups": [], "total_count": 1.5}',
        b'{"backups": [], "total_count": true}',
        b'{"backups": [{"id": "a", "begin_time": "2022-07-07T12:41:14+0800", "size": NaN}]}',
        b'{"backups": [{"id": "a", "begin_time": "2022-07-07T12:41:14+0800", "size": 1e999}]}',
        b'{"backups": [{"id": "\xff", "begin_time": "2022-07-07T12:41:14+0800"}]}',
        b'{"backups": []} and more',
    ],
)
def test_a_page_of_a_foreign_shape_makes_no_sense(body: bytes) -> None:
    with pytest.raises(
        BadResponseError, match=r"listing of backups(:| but) .*\w|no backups|count is"
    ):
        parse_page(body)


@pytest.mark.parametrize(
    ("body", "page"),
    [
        (b'{"backups": [], "total_count": 0}', Page([], 0)),
        (b'{"backups": []}', Page([], None)),
        (b'{"backups": [], "total_count": null}', Page([], None)),
        (b'{"backups": null, "total_count": 0}', Page((), 0)),
        (b'{"total_count": 0}', Page((), 0)),
        (b'{"backups": [], "total_count": 123456789012}', Page([], 123456789012)),
    ],
)
def test_an_empty_page_is_an_empty_page(body: bytes, page: Page) -> None:
    assert (list(parse_page(body).rows), parse_page(body).total_count) == (
        list(page.rows),
        page.total_count,
    )


def test_an_error_of_a_row_quotes_it_shortly_and_without_secrets() -> None:
    with pytest.raises(BadResponseError) as caught:
        parse_page(listing(row(id="x" * 5000, end_time=f"X-Auth-Token: {TOKEN}")))
    assert len(caught.value.message) < 600
    assert TOKEN not in caught.value.message


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_no_value_of_any_kind_breaks_a_row(value: Any) -> None:
    for field in ("id", "begin_time", "end_time", "size"):
        try:
            page = parse_page(msgspec.json.encode({"backups": [{**ROW, field: value}]}))
        except BadResponseError:
            continue
        (backup,) = page.rows
        assert backup.size_kilobytes >= 0


# Times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2022-07-07T12:41:14+0800", 1_657_168_874.0),
        ("2022-07-07T12:41:14+08:00", 1_657_168_874.0),
        ("2022-07-07T01:11:14-0330", 1_657_168_874.0),
        ("2022-07-07T04:41:14Z", 1_657_168_874.0),
        ("2022-07-07T04:41:14+0000", 1_657_168_874.0),
        ("2022-07-07T04:41:14+00:00", 1_657_168_874.0),
        ("2022-07-07T04:41:14-00:00", 1_657_168_874.0),
        ("2022-07-07 04:41:14Z", 1_657_168_874.0),
        ("2022-07-07T04:41:14.5Z", 1_657_168_874.5),
        ("2022-07-07T04:41:14.250000+0000", 1_657_168_874.25),
        ("1970-01-01T08:00:00+0800", 0.0),
        ("1969-12-31T23:59:59Z", -1.0),
        ("0001-01-01T00:00:00+0000", -62_135_596_800.0),
        ("0001-01-01T00:00:00+2359", -62_135_683_140.0),
        ("9999-12-31T23:59:59Z", 253_402_300_799.0),
        ("9999-12-31T23:59:59-1200", 253_402_343_999.0),
    ],
)
def test_times_with_a_zone_are_understood(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "2022-07-07T04:41:14",
        "2022-07-07",
        "",
        "now",
        "1657168874",
        "10000-01-01T00:00:00Z",
        "2022-13-07T04:41:14Z",
        "2022-07-07T04:41:61Z",
        "2022-07-07T04:41:14+9900",
        "٢٠٢٢-07-07T04:41:14Z",
        "2022-07-07T04:41:14\ud800Z",
        "2022-07-07T04:41:14Z and more",
    ],
)
def test_other_times_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_time(text)


# Rows that were not asked for ------------------------------------------------------------------

# 2022-07-07T12:41:14+0800 to 2022-07-08T12:45:14+0800: the times of ROW.
BEGIN, END = 1_657_168_874.0, 1_657_255_514.0


def test_a_row_of_another_instance_makes_no_sense() -> None:
    asked = Asked("24a4ea66210545909d74a05c27a7179ein07", BEGIN, END)
    with pytest.raises(BadResponseError) as caught:
        parse_page(listing(row()), asked)
    assert caught.value.message == (
        "backup f0d2aea28d26t4848b8c84ed3fea1822fbr07 is of instance"
        " 61a4ea66210545909d74a05c27a7179ein07, not of the one asked for"
    )
    assert "mixes answers up" in caught.value.hint


@pytest.mark.parametrize("told", ["61a4ea66210545909d74a05c27a7179ein07", "", None])
def test_a_row_of_the_instance_or_of_none_that_it_names_is_taken(told: str | None) -> None:
    asked = Asked("61a4ea66210545909d74a05c27a7179ein07", BEGIN, END)
    assert len(parse_page(listing(row(instance_id=told)), asked).rows) == 1


def test_a_row_of_the_listing_of_full_backups_makes_no_sense() -> None:
    asked = Asked("61a4ea66210545909d74a05c27a7179ein07", BEGIN, END)
    full = row(type="auto", status="COMPLETED", backup_type=...)
    with pytest.raises(BadResponseError, match="is a full one: the answer is of another listing"):
        parse_page(listing(full), asked)


@pytest.mark.parametrize(
    ("begin", "end", "changes", "belongs"),
    [
        (BEGIN + 3600, END + 3600, {}, True),  # it ended within
        (BEGIN - 3600, BEGIN + 3600, {}, True),  # it began within
        (BEGIN + 60, END - 60, {}, True),  # it was under way
        (END + 60, END + 120, {}, True),  # the minute that the cloud's clocks may differ by
        (END + 61, END + 120, {}, False),
        (BEGIN - 120, BEGIN - 60, {}, True),
        (BEGIN - 120, BEGIN - 61, {}, False),
        (END + 86_400, END + 90_000, {"end_time": None}, True),  # it still runs
        (BEGIN - 120, BEGIN - 61, {"end_time": None}, True),  # perhaps always shown while it runs
        (BEGIN - 120, BEGIN - 61, {"begin_time": None}, True),  # nobody knows when it began
        (END + 61, END + 120, {"begin_time": None}, False),
    ],
)
def test_a_row_outside_of_the_times_asked_for_makes_no_sense(
    begin: float, end: float, changes: Mapping[str, object], belongs: bool
) -> None:
    asked = Asked("61a4ea66210545909d74a05c27a7179ein07", begin, end)
    body = listing(row(**changes))
    if belongs:
        assert len(parse_page(body, asked).rows) == 1
    else:
        with pytest.raises(BadResponseError, match="outside of the times asked for"):
            parse_page(body, asked)


# Instances -------------------------------------------------------------------------------------


def test_instances_are_read_with_name_and_tags() -> None:
    body = {
        "instances": [
            {
                "id": "a",
                "name": "orders",
                "status": "normal",
                "tags": [{"key": "env", "value": "prod"}, {"key": "bare", "value": None}, {}],
                "datastore": {"type": "gaussdb-mysql"},
            },
            {"id": "b"},
            {"id": "c", "name": None, "tags": None},
        ],
        "total_count": 3,
    }
    page = parse_instance_page(json.dumps(body).encode())
    assert page.total_count == 3
    assert page.instances == [
        FoundInstance("a", "orders", {"env": "prod", "bare": "", "": ""}, status="normal"),
        FoundInstance("b", "", {}),
        FoundInstance("c", "", {}),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"instances": null}',
        b'{"instances": [{}]}',
        b'{"instances": [{"id": 1}]}',
        b'{"instances": [{"id": "a", "tags": {"env": "prod"}}]}',
        b'{"instances": [null]}',
        b'{"instances": [{"id": "\xff"}]}',
        b"[" * 100_000,
    ],
)
def test_instances_of_a_foreign_shape_make_no_sense(body: bytes) -> None:
    with pytest.raises(BadResponseError, match=r"not a listing of instances(:| but) .*\w"):
        parse_instance_page(body)


def test_times_are_sent_in_utc_to_the_second() -> None:
    assert format_time(NOON) == "2023-07-28T12:00:00+0000"
    assert format_time(NOON + 0.999) == "2023-07-28T12:00:00+0000"
    assert format_time(0) == "1970-01-01T00:00:00+0000"


# Tokens ---------------------------------------------------------------------------------------

GIVEN = {"token": {"expires_at": "2020-01-04T09:05:22.701000Z"}}


def login_answer(
    body: object = GIVEN, *, token: str = "the-token", status: int = 201
) -> httpx.Response:
    headers = {"X-Subject-Token": token} if token else {}
    return httpx.Response(status, json=body, headers=headers)


@pytest.mark.parametrize(
    "answer",
    [
        login_answer(token=""),
        login_answer({}),
        login_answer({"token": {}}),
        login_answer({"token": {"expires_at": 5}}),
        login_answer({"token": {"expires_at": "tomorrow"}}),
        login_answer({"token": {"expires_at": "2020-01-04T09:05:22"}}),
        login_answer([]),
        httpx.Response(201, content=b"<html>", headers={"X-Subject-Token": "t"}),
        httpx.Response(201, content=b"[" * 99_999, headers={"X-Subject-Token": "t"}),
    ],
)
def test_a_token_without_its_facts_makes_no_sense(answer: httpx.Response) -> None:
    with pytest.raises(BadResponseError, match=r"not a token that says when it ends|no X-Subject"):
        parse_token(answer)


@pytest.mark.parametrize(
    ("keep_days", "expected"),
    [
        (7, 7),
        ("7", 7),
        ("7,", 7),  # as in one of the vendor's samples
        (1, 1),
        (3_660, 3_660),
        (0, None),
        (3_661, None),
        (-7, None),
        (7.5, None),
        (True, None),
        ("", None),
        ("a week", None),
        ("\u0667", None),
        (10**400, None),
        (None, None),
        ([7], None),
    ],
)
def test_the_retention_of_an_instance_is_known_or_absent(
    keep_days: object, expected: int | None
) -> None:
    row = {"id": "a", "backup_strategy": {"keep_days": keep_days}}
    (found,) = parse_instance_page(json.dumps({"instances": [row]}).encode()).instances
    assert found.keep_days == expected


@pytest.mark.parametrize("strategy", [None, [], "16:00-17:00", {}, {"start_time": "16:00-17:00"}])
def test_a_strategy_that_makes_no_sense_is_no_error(strategy: object) -> None:
    row = {"id": "a", "backup_strategy": strategy}
    (found,) = parse_instance_page(json.dumps({"instances": [row]}).encode()).instances
    assert found.keep_days is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("normal", "normal"),
        ("STORAGE FULL", "STORAGE FULL"),
        (None, ""),
        (5, ""),
        ("x" * 99, "x" * 64),
    ],
)
def test_the_status_of_an_instance_is_kept_as_it_is_told(status: object, expected: str) -> None:
    row = {"id": "a", "status": status}
    (found,) = parse_instance_page(json.dumps({"instances": [row]}).encode()).instances
    assert found.status == expected
