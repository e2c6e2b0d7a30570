import base64
import html
import json
import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.errors import Reason
from exporter.reporting.redaction import INPUT_LIMIT_CHARS, RedactSecrets, SecretRegistry, redact
from tests.support.paths import TESTDATA
from tests.support.searches import extent

SECRET = "correct horse/battery+staple\"é'"
TOKEN = "MIIEogYJKoZIhvcNAQcCoIIEkzCCBI8CAQExDTALBglghkgBZQMEAgEwggK0Bgkqhkiwn"


def processor(*secrets: str, max_chars: int = 1_000) -> RedactSecrets:
    registry = SecretRegistry()
    registry.update("account", secrets)
    return RedactSecrets(registry, max_chars=max_chars)


def process(event: dict[str, Any], *secrets: str) -> dict[str, Any]:
    return dict(processor(*secrets)(None, "warning", event))


# By shape


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Authorization: SDK-HMAC-SHA256 Access=AKEXAMPLE0123456789Q, SignedHeaders=host, "
            "Signature=697452c8a96692d6d88d\nHost: db",
            "Authorization: [redacted] Host: db",
        ),
        ('{"authorization": "Basic dTpw", "host": "db"}', '{"authorization": [redacted], "host":'),
        ("X-Auth-Token: abc123\nHost: db", "X-Auth-Token: [redacted] Host: db"),
        ("x-subject-token:abc123|host:db", "x-subject-token:[redacted]|host:db"),
        ("{'X-Security-Token': 'abc', 'Host': 'db'}", "{'X-Security-Token': [redacted], 'Host'"),
        ("[(b'x-auth-token', b'abc')]", "[(b'x-auth-token', [redacted])]"),
        (
            "Access=AKEXAMPLE0123456789Q, SignedHeaders=host;x-sdk-date",
            "Access=AKEX[redacted], SignedHeaders=host;x-sdk-date",
        ),
        ("Get secretKey failed,ak:AKEXAMPLE0123456789Q,err:x", "failed,ak:AKEX[redacted],err:x"),
        ("Signature=697452c8a96692d6d88d393454ffd91a refused", "Signature=[redacted] refused"),
        ('{"password": "a\\"b c", "user": "u"}', '{"password": [redacted], "user": "u"}'),
        ("{'secret_key': 'abc'}", "{'secret_key': [redacted]}"),
        ("grant?token=abc&limit=5", "grant?token=[redacted]&limit=5"),
        ("auth:\n  password: hunter2\n  type: x", "auth: password: [redacted] type: x"),
        ('basic_auth="admin:pw"', "basic_auth=[redacted]"),
        ("GET https://user:p@ss@proxy:8080/x", "GET https://[redacted]@proxy:8080/x"),
        ("sent Bearer abcDEF123 and Basic dXNlcjpwYXNz", "sent Bearer [redacted] and Basic [red"),
        (f"token {TOKEN} is not valid", "token [redacted] is not valid"),
        ("got " + "Zm9v_-" * 20 + " back", "got [redacted] back"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc x", "[redacted] x"),
        ("hash $2y$10$abcdefghijklmnopqrstuv.wxyz end", "hash [redacted] end"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabcd\n-----END RSA PRIVATE KEY----- end",
            "[redacted] end",
        ),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, expected: str) -> None:
    assert expected in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "projects[0].auth.password: must not be empty",
        "Incorrect IAM authentication information: verify aksk signature fail",
        "basic authentication required, the bearer of it decides",
        "GET https://gaussdb.cn-north-4.myhuaweicloud.com/v3/0483b6b16e954cb88930a360d2c4e663"
        "/instances/43e4feaab48f11e89039fa163ebaa7e4in07/incremental-backups?limit=50",
        "SignedHeaders=content-type;host;x-project-id;x-sdk-date;x-security-token",
        "password_file: /run/secrets/gaussdb-password",
        "policy user over ratelimit,limit:200,time:5 minute",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "mail operator@example.com",
    ],
)
def test_what_helps_a_person_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("separator", ["\n", "|", "\\n"])
def test_canonical_request_that_an_error_message_echoes_is_safe(separator: str) -> None:
    vectors = json.loads((TESTDATA / "signing_vectors.json").read_text())
    vector = next(v for v in vectors if v["name"] == "temporary-credentials")
    echo = vector["canonical_request"].replace("\n", separator)
    shown = redact(f"verify aksk signature fail, canonicalRequest:{echo}", max_chars=2_000)
    assert "ggpj-example-token" not in shown
    assert "host:gaussdb-mysql.af-south-1.myhuaweicloud.com" in shown


# By value


@pytest.mark.parametrize(
    "escaped",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        "correct%20horse%2fbattery%2bstaple%22%c3%a9%27",
        quote_plus(SECRET),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        repr(SECRET),
        html.escape(SECRET),
        SECRET.replace(" ", "\n"),
    ],
)
def test_known_secret_is_masked_however_it_is_escaped(escaped: str) -> None:
    shown = redact(f"they said <{escaped}> back", [SECRET])
    assert "[redacted]" in shown
    assert "battery" not in shown


@pytest.mark.parametrize("user", ["", "u", "us", "usr"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_known_secret_is_masked_inside_base64_of_something_longer(user: str, encode: Any) -> None:
    encoded = encode(f"{user}hunter22>>??!".encode()).decode()
    shown = redact(f"blob {encoded}!", ["hunter22>>??"])
    # All but the characters that carry a neighbour's bits as well.
    assert len(shown.removeprefix("blob ").replace("[redacted]", "")) <= 9
    assert encoded[8:16] not in shown


def test_overlapping_secrets_leave_no_rest_of_either() -> None:
    assert redact("x abcdefghi y", ["abcdef", "defghi"]) == "x [redacted] y"


def test_short_values_are_not_looked_for() -> None:
    assert redact("the root of it", ["root"]) == "the root of it"


def test_short_values_do_not_disturb_the_registry() -> None:
    registry = SecretRegistry()
    for secret in ("root", "longer-secret", "toor", "rtoo"):
        registry.update("account", [secret])
    assert registry.redact("root and toor, longer-secret") == "root and toor, longer-secret"


def test_message_comes_out_as_one_short_printable_line() -> None:
    shown = redact("a\x1b[31m\r\n\t b\u2028c\u202ed\x00 " + "word " * 200, max_chars=40)
    assert shown == "a [31m b c d word word word word word w…"


def test_exactly_the_allowed_length_is_not_trimmed() -> None:
    assert redact("a b c", max_chars=5) == "a b c"
    assert redact("a b c!", max_chars=5) == "a b…"


SURROUNDINGS = st.text(max_size=40)
SECRETS = st.text(min_size=6, max_size=40)


@settings(max_examples=extent(500), deadline=None)
@given(before=SURROUNDINGS, secret=SECRETS, after=SURROUNDINGS)
@example(before="", secret="\n\n\n\n\n\n", after="")
@example(before="[reda", secret="abc  def", after="cted]")
@example(before="", secret="redacted", after="")
@example(before="password: ", secret="two words", after=" more")
@example(before="abc", secret="abcabc", after="abc")
def test_known_secret_never_comes_out_whatever_surrounds_it(
    before: str, secret: str, after: str
) -> None:
    assert secret not in redact(before + secret + after, [secret])


@settings(max_examples=extent(200), deadline=None)
@given(
    secret=st.text("abcdefgh 123\n", min_size=10, max_size=60).map(lambda rest: f"s3{rest}"),
    offset=st.integers(-70, 70),
    rest=st.integers(0, 200),
    filler=st.sampled_from(["x", "x ", "\n", "MII", "a/", "  \n"]),
    traceback=st.booleans(),
)
def test_known_secret_is_not_cut_in_half_at_the_limit(
    secret: str, offset: int, rest: int, filler: str, traceback: bool
) -> None:
    limit = 65_536 if traceback else 600  # twice what is shown
    registry = SecretRegistry()
    registry.update("account", [secret])
    text = (filler * limit)[: limit + offset] + "#" + secret + "$" * rest
    show = registry.redact_traceback if traceback else registry.redact
    shown = show(text)
    assert "#s3" not in shown


@pytest.mark.parametrize("cut_at", range(-80, 10, 3))
def test_unknown_token_is_not_shown_in_half_where_the_text_is_cut(cut_at: int) -> None:
    padding = "Z" * 150 + " "  # masked, so that the end of the text comes into view
    text = padding * (INPUT_LIMIT_CHARS // len(padding))
    text += "- " * ((INPUT_LIMIT_CHARS - len(text) + cut_at) // 2)
    shown = redact(text + TOKEN + " end" * 100, max_chars=100_000)
    assert "MII" not in shown


@pytest.mark.parametrize(
    "unit",
    [
        "eyJ-",
        "token:",
        "MII=",
        "://a@",
        "x-auth-token",
        'password": "\\',
        "authorization: ",
        "basic A",
        "a/",
        "/v3/a/instances/",
        "-----BEGIN ",
        "ak:",
        " \n",
        "$2a$10$",
        "signature=",
    ],
)
def test_repetitive_text_of_any_size_is_answered(unit: str) -> None:
    """A pattern of quadratic time would make this run noticeable, a worse one endless."""
    bounded = (unit * INPUT_LIMIT_CHARS)[: INPUT_LIMIT_CHARS - 4] + " x y"
    for text in (bounded, unit * 1_000_000):
        assert len(redact(text, ["a-secret"])) <= 300


# The registry


def test_replaced_secret_stays_known_for_one_more_generation() -> None:
    registry = SecretRegistry()
    for token in ("token-1", "token-2", "token-3"):
        registry.update("account", [token])
    assert registry.redact("token-1 token-2 token-3") == "token-1 [redacted] [redacted]"


def test_same_secrets_again_do_not_push_the_generation_before_out() -> None:
    registry = SecretRegistry()
    for token in ("token-1", "token-2", "token-2"):
        registry.update("account", [token])
    assert registry.redact("token-1 token-2") == "[redacted] [redacted]"


def test_secret_stays_known_while_another_owner_uses_it() -> None:
    registry = SecretRegistry()
    registry.update("one", ["shared-password"])
    registry.update("two", ["shared-password"])
    registry.update("one", [])
    registry.update("one", ["other-password"])
    assert registry.redact("shared-password other-password") == "[redacted] [redacted]"


def test_representation_of_the_registry_holds_no_secret() -> None:
    registry = SecretRegistry()
    registry.update("account", ["hunter22"])
    assert repr(registry) == "SecretRegistry(1 owners)"


# The log processor


def test_every_value_of_a_log_event_is_redacted() -> None:
    event = {
        "event": "login with hunter22",
        "nested": {"list": ["hunter22", ("a", b"hunter22")], "hunter22": {"hunter22"}},
        "error": ValueError("bad hunter22"),
        "path": Path("/run/hunter22"),
    }
    assert process(event, "hunter22") == {
        "event": "login with [redacted]",
        "nested": {"list": ["[redacted]", ("a", "[redacted]")], "[redacted]": ["[redacted]"]},
        "error": "ValueError: bad [redacted]",
        "path": "/run/[redacted]",
    }


def test_plain_facts_pass_unchanged() -> None:
    event = {"event": "done", "attempt": 2, "seconds": 0.5, "cut": True, "status": None}
    assert process(dict(event), "hunter22") == event


def test_enum_value_is_logged_as_its_text() -> None:
    assert process({"event": "failed", "reason": Reason.AUTH})["reason"] == "auth"


@pytest.mark.parametrize("value", ["short", 123456, ["a", "b"]])
@pytest.mark.parametrize("key", ["password", "secret_key", "X-Auth-Token", "basic_auth"])
def test_value_under_a_telling_name_is_masked_whatever_it_is(key: str, value: object) -> None:
    assert process({"event": "x", key: value})[key] == "[redacted]"


def test_of_an_access_key_the_first_four_characters_are_logged() -> None:
    event = process({"event": "x", "access_key": "AKEXAMPLE0123456789Q"})
    assert event["access_key"] == "AKEX[redacted]"


def test_name_that_only_mentions_a_token_keeps_its_value() -> None:
    assert process({"event": "x", "token_expiry": "in 5 minutes"})["token_expiry"] == "in 5 minutes"


def test_traceback_keeps_its_lines_and_loses_the_secret() -> None:
    try:
        raise ValueError("refused hunter22")
    except ValueError:
        event = process({"event": "failed", "exc_info": True}, "hunter22")
    lines = event["exception"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: refused [redacted]"
    assert "exc_info" not in event


def test_traceback_formatted_by_an_earlier_processor_is_redacted_too() -> None:
    event = process({"event": "x", "exception": "Traceback:\nValueError: hunter22"}, "hunter22")
    assert event["exception"] == "Traceback:\nValueError: [redacted]"


def test_endless_nesting_ends() -> None:
    loop: dict[str, Any] = {"password": "abc"}
    loop["self"] = loop
    assert "abc" not in str(process({"event": "x", "loop": loop}))


def test_structlogs_own_fields_are_left_alone() -> None:
    record = logging.makeLogRecord({"msg": "hunter22"})
    event = process({"event": "x", "_record": record, "_from_structlog": False}, "hunter22")
    assert event["_record"] is record
    assert event["_from_structlog"] is False


def test_logger_with_the_processor_writes_no_secret() -> None:
    with structlog.testing.capture_logs(processors=[processor("hunter22")]) as logs:
        structlog.get_logger("test").warning("login refused", detail="hunter22")
    assert logs == [{"event": "login refused", "detail": "[redacted]", "log_level": "warning"}]


@pytest.mark.parametrize("begin", [*range(285, 301), *range(585, 601), 1_000])
def test_no_part_of_a_known_secret_is_left_where_the_text_is_cut(begin: int) -> None:
    """Only about twice what is shown is looked at; a secret that begins there is seen whole."""
    registry = SecretRegistry()
    registry.update("account", [SECRET])
    words = ("word " * 300)[:begin]
    shown = registry.redact(f"{words}{SECRET} and more of it {'word ' * 200}", max_chars=300)
    assert len(shown) <= 300
    assert shown.startswith("word word")
    assert SECRET[:6] not in shown


def test_overlapping_secrets_are_all_hidden() -> None:
    registry = SecretRegistry()
    registry.update("one", ["aaaaaaX"])
    registry.update("other", ["aaaXbcde"])
    assert registry.redact("see aaaaaaXbcde.") == "see [redacted]."
    registry.update("other", ["something"])
    registry.update("other", ["something else"])  # the one before the last is forgotten
    assert registry.redact("see aaaXbcde.") == "see aaaXbcde."
