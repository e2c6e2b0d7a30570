"""The numbers made of a window. All pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import fsum, isfinite
from operator import sub

from exporter.backups.window import Window
from exporter.errors import BadResponseError
from exporter.models import Reading


@dataclass(frozen=True, slots=True)
class Sums:
    """What takes a walk over the window: kept until its bounds or its rows change."""

    window: Window
    first: int
    last: int
    size_kilobytes: float
    max_interval_seconds: float | None
    ends: Sequence[float] = field(repr=False)


def sum_up(window: Window, first: int, last: int) -> Sums:
    """Total size and longest interval of the finished backups with index first to last - 1.

    The first interval begins with the backup before them. Where that is not certain the longest
    one is not known.
    """
    previous = window.ends[first - 1] if first else float("-inf")
    bounds = window.ends[max(first - 1, 0) : last]
    return Sums(
        window=window,
        first=first,
        last=last,
        size_kilobytes=_total(window.sizes[first:last]),
        max_interval_seconds=(
            max(map(sub, bounds[1:], bounds), default=None)
            if first < last and previous >= window.shown_from
            else None
        ),
        ends=memoryview(window.ends)[first:last],
    )


def _total(sizes: Iterable[float]) -> float:
    """Their exact sum, rounded once. BadResponseError if it is no finite number of bytes."""
    try:
        total = fsum(sizes)
    except OverflowError:
        total = float("inf")
    if not isfinite(total * 1024):
        raise BadResponseError("the sizes of the backups add up to no finite number")
    return total


def read(
    window: Window, *, now: float, complete: bool, known: Sums | None = None
) -> tuple[Reading, Sums]:
    """The numbers of the window `[now - lookback, now]`; `known` spares the walk where it holds."""
    since = now - window.lookback_seconds
    first, last = bisect_left(window.ends, since), bisect_right(window.ends, now)
    if known is None or known.window is not window or (known.first, known.last) != (first, last):
        known = sum_up(window, first, last)
    running = [
        row.size_kilobytes
        for row in window.recent.values()
        if row.end is None and row.begin is not None and since <= row.begin <= now
    ]
    size_kilobytes = known.size_kilobytes
    if any(running):
        size_kilobytes = _total(chain(window.sizes[first:last], running))
    reading = Reading(
        at=now,
        count=last - first + len(running),
        size_kilobytes=size_kilobytes,
        running=len(running),
        listing_complete=complete and window.complete,
        latest_end=window.ends[last - 1] if last else None,
        latest_size_kilobytes=window.sizes[last - 1] if last else None,
        oldest_end=window.ends[first] if last > first else None,
        max_interval_seconds=known.max_interval_seconds,
        previous_end=window.previous_end(now) if first and window.knows_previous(now) else None,
        ends=known.ends,
    )
    return reading, known


def read_latest(window: Window, *, now: float) -> Reading:
    """What is known of a window that has not been listed yet: its latest backup."""
    last = window.latest(now) if window.knows_latest(now) else -1
    return Reading(
        at=now,
        count=None,
        size_kilobytes=None,
        running=None,
        listing_complete=False,
        latest_end=window.ends[last] if last >= 0 else None,
        latest_size_kilobytes=window.sizes[last] if last >= 0 else None,
    )
