import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.transport.json_body import decode


def read(text: str) -> Any:
    return decode(msgspec.json.decode, text.encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'"x\ud800y and more"', "x\ufffdy and more"),
        (r'"\udc00"', "\ufffd"),
        (r'"\uD83D\uD83D\uDE00"', "\ufffd\U0001f600"),
        (r'"\ud83d\u0041"', "\ufffdA"),
        (r'"\ud83d\n"', "\ufffd\n"),
        (r'"\\ud800 \ud800"', "\\ud800 \ufffd"),  # an escaped backslash, and then a half
        (r'{"\ud800": ["\udfff"]}', {"\ufffd": ["\ufffd"]}),
    ],
)
def test_half_a_surrogate_pair_becomes_a_replacement_character(text: str, expected: object) -> None:
    """One such name made the whole listing unreadable, or every exposition after it."""
    assert read(text) == expected


@pytest.mark.parametrize("text", ["", "{", r'"\ud800', r'"\ud8"', r'["\ud800",]', '"\\ud800\x00"'])
def test_what_is_no_json_is_none_with_a_surrogate_in_it_either(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        read(text)


@given(st.text(st.characters(blacklist_categories=())))
def test_any_text_that_json_can_hold_is_read_and_can_be_written(text: str) -> None:
    made = read(json.dumps(text))
    made.encode()
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert made == expected
