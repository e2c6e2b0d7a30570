"""The marks below a picture: clock times, and days where the window is long."""

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.page.words import format_clock, format_day

_MINUTE, _HOUR, _DAY = 60.0, 3_600.0, 86_400.0
_STEPS = (
    *(_MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR),
    *(_DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY, 28 * _DAY, 91 * _DAY, 182 * _DAY),
)
# What fits beneath a picture of a phone's width.
_MOST_MARKS = 7
# Nearer to an end its text would be cut, or run into the "now" at the right.
_FREE_LEFT, _FREE_RIGHT = 4.0, 86.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of the window: where it is, in percent of the width, and what stands there."""

    percent: float
    text: str  # empty where there is no room


def build_axis(start: float, end: float) -> Sequence[Mark]:
    """Whole hours or days between `start` and `end`, as many as can be read."""
    span = end - start
    step = next((step for step in _STEPS if span / step <= _MOST_MARKS), _STEPS[-1])
    marks = []
    moment = -(-start // step) * step
    while moment < end:
        percent = round((moment - start) / span * 100, 2)
        text = format_day(moment, end) if moment % _DAY == 0 else format_clock(moment, moment)
        marks.append(Mark(percent, text if _FREE_LEFT <= percent <= _FREE_RIGHT else ""))
        moment += step
    return marks
