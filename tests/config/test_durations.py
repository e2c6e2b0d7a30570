import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("1ms", 0.001),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5_400.0),
        ("7d", 604_800.0),
        ("2w", 1_209_600.0),
        ("1y", 31_536_000.0),
        ("1y2w3d4h5m6s7ms", 33_019_506.007),
        ("90m", 5_400.0),
        ("007s", 7.0),
    ],
)
def test_durations_are_read_as_prometheus_writes_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "00",
        "s",
        "1.5h",
        "-5m",
        "+5m",
        "5 m",
        " 5m",
        "5m\n",
        "5M",
        "30m1h",  # units come in their order
        "1m1m",  # each at most once
        "1h30",
        "5us",
        "٣s",  # digits are ASCII ones
        "9" * 400 + "ms",  # no float holds it
    ],
)
def test_what_prometheus_would_not_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.text(max_size=80))
def test_any_text_is_a_finite_duration_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0.0 <= seconds < float("inf")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.0004, "0s"),
        (0.5, "500ms"),
        (59.999, "59s999ms"),
        (60.0, "1m"),
        (5_400.0, "1h30m"),
        (86_400.0, "1d"),
        (732 * 86_400.0, "732d"),
    ],
)
def test_durations_are_written_in_their_shortest_form(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**12))
def test_a_written_duration_is_read_as_itself(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-4)
