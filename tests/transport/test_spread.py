"""What is due again is spread over the interval."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.models import InstanceKey
from exporter.transport.spread import next_due
from tests.support.virtual_time import DAY, HOUR, NOON

SIX_HOURS = 6 * HOUR


def test_what_is_due_is_spread_evenly_and_at_most_an_interval_away() -> None:
    due = [
        next_due(InstanceKey("project", f"instance-{number}"), NOON, SIX_HOURS) - NOON
        for number in range(6000)
    ]
    assert min(due) > 0
    assert max(due) <= SIX_HOURS
    buckets = Counter(int(seconds // 600) for seconds in due)
    assert sorted(buckets) == list(range(36))
    # 6000 in 36 parts: 167 each, give or take four standard deviations.
    assert all(115 <= count <= 219 for count in buckets.values())


@given(
    number=st.integers(0, 10**6),
    now=st.floats(1e9, 4e9),
    interval=st.floats(1.0, 732 * DAY),
)
def test_what_is_due_is_always_ahead_and_then_due_again_an_interval_later(
    number: int, now: float, interval: float
) -> None:
    key = InstanceKey("project", str(number))
    first = next_due(key, now, interval)
    assert now < first <= now + interval + 1e-5
    assert next_due(key, first, interval) - first == pytest.approx(interval, abs=1e-5)
