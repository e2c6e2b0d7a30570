"""Durations, times and sizes as people read them."""

import pytest

from exporter.page.words import (
    format_clock,
    format_duration,
    format_exact_size,
    format_size,
    format_span,
)
from tests.page.making import DAY, HOUR, NOW


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (0.4, "under 1 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (252, "4 min 12 s"),
        (3_600, "1 h"),
        (8_159, "2 h 15 min"),
        (86_400, "24 h"),
        (172_799, "47 h 59 min"),
        (172_800, "2 d"),
        (273_600, "3 d 4 h"),
        (63_244_800, "732 d"),
    ],
)
def test_durations_are_cut_to_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (112, "112 bytes"),
        (1_023, "1,023 bytes"),
        (1_024, "1.0 KiB"),
        (4_299_161, "4.1 MiB"),
        (230_686_720, "220 MiB"),
        (1.5 * 1_024**3, "1.5 GiB"),
        (5_000 * 1_024**6, "5,000 EiB"),
    ],
)
def test_sizes_are_in_binary_units(size: float, text: str) -> None:
    assert format_size(size) == text


def test_exact_size_keeps_the_unit_of_the_api() -> None:
    assert format_exact_size(0.109375) == "112 bytes (0.109375 KB)"


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        (NOW - 4 * HOUR, NOW, "06:13 to 10:13"),
        (NOW - 14 * HOUR, NOW, "4 Jul 20:13 to 5 Jul 10:13"),
        (NOW - 14 * HOUR, NOW - 11 * HOUR, "4 Jul 20:13 to 23:13"),
        (NOW - 36 * HOUR, NOW - 13 * HOUR, "3 Jul 22:13 to 4 Jul 21:13"),
    ],
)
def test_span_names_a_day_where_it_is_not_today_alone(start: float, end: float, text: str) -> None:
    assert format_span(start, end, NOW) == text


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (NOW - 7, "10:13"),
        (NOW - 10.3 * HOUR, "4 Jul 23:55"),
        (NOW - 200 * DAY, "17 Dec 2025 10:13"),
        (NOW + 21 * HOUR, "6 Jul 07:13"),
    ],
)
def test_clock_names_the_day_and_the_year_where_they_are_not_todays(
    timestamp: float, text: str
) -> None:
    assert format_clock(timestamp, NOW) == text
