import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.models import RestoreWindow, TimeRange
from exporter.restores.ranges import merge


def window(*ranges: tuple[float, float]) -> RestoreWindow:
    return RestoreWindow(0.0, merge([TimeRange(start, end) for start, end in ranges]))


def numbers(found: RestoreWindow) -> tuple[float | None, ...]:
    return found.until, found.since, found.oldest, len(found.ranges), found.max_gap_seconds


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], (None, None, None, 0, None)),
        ([(10, 20)], (20, 10, 10, 1, None)),
        ([(10, 10)], (10, 10, 10, 1, None)),
        ([(30, 40), (10, 20)], (40, 30, 10, 2, 10)),  # in whatever order they come
        ([(10, 20), (20, 30)], (30, 10, 10, 1, None)),
        ([(10, 20), (21, 30)], (30, 10, 10, 1, None)),  # they touch
        ([(10, 20), (21.001, 30)], (30, 21.001, 10, 2, pytest.approx(1.001))),
        ([(10, 50), (20, 30)], (50, 10, 10, 1, None)),  # one within another
        ([(10, 30), (20, 40), (40.5, 60)], (60, 10, 10, 1, None)),
        ([(10, 20), (10, 20)], (20, 10, 10, 1, None)),
        ([(10, 20), (100, 110), (50, 60)], (110, 100, 10, 3, 40)),
    ],
)
def test_ranges_that_touch_are_one(
    ranges: list[tuple[float, float]], expected: tuple[float | None, ...]
) -> None:
    assert numbers(window(*ranges)) == expected


def test_gaps_lie_between_the_ranges() -> None:
    assert window((10, 20), (50, 60), (100, 110)).gaps == [(20, 50), (60, 100)]


_SECONDS = st.integers(0, 60)
_RANGES = st.lists(st.tuples(_SECONDS, _SECONDS).map(lambda pair: TimeRange(*sorted(pair))))


@given(_RANGES)
def test_merged_ranges_hold_the_same_moments_and_lie_apart(ranges: list[TimeRange]) -> None:
    merged = merge(ranges)
    assert all(later.start - earlier.end > 1 for earlier, later in itertools.pairwise(merged))
    covered = {s for start, end in ranges for s in range(int(start), int(end) + 1)}
    # Half a second past each: a moment between two seconds that touch.
    assert {s for r in merged for s in range(int(r.start), int(r.end) + 1)} == covered


@given(_RANGES, st.randoms())
def test_the_order_of_ranges_means_nothing(ranges: list[TimeRange], random: object) -> None:
    assert merge(reversed(ranges)) == merge(ranges)
