"""Ranges of moments that can be restored to. Pure."""

from collections.abc import Iterable

from exporter.models import TimeRange

# The cloud tells whole milliseconds of what are in truth one log after another.
_TOUCH_SECONDS = 1.0


def merge(ranges: Iterable[TimeRange]) -> tuple[TimeRange, ...]:
    """The same moments in ascending ranges that neither overlap nor touch (within a second)."""
    merged: list[TimeRange] = []
    for found in sorted(ranges):
        last = merged[-1] if merged else None
        if last is not None and found.start - last.end <= _TOUCH_SECONDS:
            merged[-1] = TimeRange(last.start, max(last.end, found.end))
        else:
            merged.append(found)
    return tuple(merged)
