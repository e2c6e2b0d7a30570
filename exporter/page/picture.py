"""The picture of an instance's window: every backup, and the holes between them.

The window ends at the moment of looking and is as long as the lookback. A hole is a stretch without
a backup's end that is longer than the instance's `stale_after`: the same threshold that alerts.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

from exporter.models import Instance, Reading
from exporter.page.axis import Mark, build_axis
from exporter.page.state import has_hole
from exporter.page.strokes import WIDTH, Scale, draw_bars, draw_grid, draw_runs, merge_ticks
from exporter.page.words import format_clock, format_count, format_duration, format_span

# Few backups are given broad ticks: a thin one would be lost between two holes.
_FEW_BACKUPS = 72
_TICK_WIDTH, _BROAD_TICK_WIDTH = 1.5, 4.0
# More than these are no ticks any longer but one slab: bars tell how many they are.
_MOST_TICKS = 360
_HOLE_MIN_WIDTH = 3.0
# The longest holes get a tooltip each; the rest one common stroke, which bounds a picture's size.
_TITLED_HOLES = 12
_LISTED_HOLES = 2


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the window, in the picture's units and in words."""

    x: float
    width: float
    text: str
    is_open: bool = False  # a hole that no backup has ended


@dataclass(frozen=True, slots=True)
class Picture:
    """What the template draws; the paths are SVG path data, all but `bars` along a line."""

    ticks: str  # each backup's end; or
    bars: str  # an outline of how many ended when, where they are too many
    covered: str  # from backup to backup where there is no hole
    holes: Sequence[Stretch]  # the longest ones
    further_holes: str
    before: Stretch | None  # a long empty beginning of a young instance
    unread: Stretch | None  # since the last scrape
    grid: str
    marks: Sequence[Mark]
    hole_texts: Sequence[str]
    hole_texts_left_out: int
    longest_gap: str  # empty where a listed hole is the longest
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class _Hole:
    start: float  # as far as it is drawn
    end: float
    since: float  # where it really began, which may be before the window
    still_open: str = ""  # as of when, in words; empty for a hole that a backup has ended

    @property
    def seconds(self) -> float:
        return self.end - self.since

    def describe(self, now: float) -> str:
        long = format_duration(self.seconds)
        if self.still_open:
            return f"since {format_clock(self.since, now)} ({long} {self.still_open})"
        return f"{format_span(self.since, self.end, now)} ({long})"


def build_picture(reading: Reading, instance: Instance, *, now: float) -> Picture:
    """The window of `reading` as of `now`, both in seconds since the epoch."""
    scale = Scale(now - instance.lookback_seconds, now)
    ends = reading.ends
    first = bisect_left(ends, scale.start)
    tick = _BROAD_TICK_WIDTH if len(ends) - first <= _FEW_BACKUPS else _TICK_WIDTH
    is_crowded = len(ends) - first > _MOST_TICKS

    looked_until, still_open, unread = now, "so far", None
    if scale.width(now - reading.at) >= 1:
        looked_until, still_open = reading.at, "at the last look"
        text = f"not looked at since {format_clock(reading.at, now)}"
        unread = _place(scale, max(reading.at, scale.start), now, text)

    holes = list(_find_holes(reading, instance, scale.start, looked_until, still_open))
    longest_first = sorted(holes, key=lambda hole: -hole.seconds)
    titled, further = longest_first[:_TITLED_HOLES], longest_first[_TITLED_HOLES:]
    latest_first = sorted(holes, key=lambda hole: -hole.end)
    stretches = [
        _place_hole(scale, hole, tick, f"hole: {hole.describe(now)}", _HOLE_MIN_WIDTH)
        for hole in titled
    ]
    if reading.latest_end is None:
        empty = _place(scale, scale.start, looked_until, "no backup known")
        stretches = [replace(empty, is_open=True)]
    further_stretches = [_place_hole(scale, hole, tick, "", 1.0) for hole in further]
    listed = latest_first[:_LISTED_HOLES]
    longest_gap = _describe_longest_gap(reading, longest_first)
    marks = build_axis(scale.start, now)
    return Picture(
        ticks="" if is_crowded else draw_runs(merge_ticks(ends, first, scale, tick)),
        bars=draw_bars(ends, first, scale) if is_crowded else "",
        covered=draw_runs(_find_covered(ends, first, holes, scale)),
        holes=stretches,
        further_holes=draw_runs((each.x, each.x + each.width) for each in further_stretches),
        before=_find_beginning(reading, instance, scale, now),
        unread=unread,
        grid=draw_grid(mark.percent for mark in marks),
        marks=marks,
        hole_texts=[hole.describe(now) for hole in listed],
        hole_texts_left_out=max(len(holes) - _LISTED_HOLES, 0),
        longest_gap="" if longest_first[:1] and longest_first[0] in listed else longest_gap,
        title=_build_title(reading, instance, longest_gap),
        description=_build_description(reading, longest_first, instance, now),
    )


def _place(scale: Scale, start: float, end: float, text: str, min_width: float = 0.0) -> Stretch:
    x = min(max(scale.x(start), 0.0), WIDTH - min_width)
    width = max(scale.width(end - start), min_width)
    return Stretch(round(x, 1), round(min(width, WIDTH - x), 1), text)


def _place_hole(scale: Scale, hole: _Hole, tick: float, text: str, min_width: float) -> Stretch:
    # The tick of the backup that a hole follows stays free.
    start = (
        min(hole.start + scale.seconds(tick), hole.end)
        if hole.start == hole.since
        else (hole.start)
    )
    stretch = _place(scale, start, hole.end, text, min_width)
    return replace(stretch, is_open=bool(hole.still_open))


def _find_beginning(
    reading: Reading, instance: Instance, scale: Scale, now: float
) -> Stretch | None:
    ends = reading.ends
    if reading.previous_end is not None or not ends:
        return None
    if ends[0] - scale.start <= instance.stale_after_seconds:
        return None
    text = f"no backup in this window before {format_clock(ends[0], now)}"
    return _place(scale, scale.start, ends[0], text)


def _describe_longest_gap(reading: Reading, longest_first: Sequence[_Hole]) -> str:
    """The longest interval; the longest hole where that is longer, be it open still."""
    longest = reading.max_interval_seconds
    if longest_first and (longest is None or longest_first[0].seconds > longest):
        hole = longest_first[0]
        return " ".join(filter(None, (format_duration(hole.seconds), hole.still_open)))
    return format_duration(longest) if longest is not None else ""


def _build_title(reading: Reading, instance: Instance, longest_gap: str) -> str:
    window = format_duration(instance.lookback_seconds)
    if reading.count is None:
        return f"the last {window}, not all of it listed yet"
    title = f"{format_count(reading.count, 'backup')} in {window}"
    return f"{title}, longest gap {longest_gap}" if longest_gap else title


def _build_description(
    reading: Reading, longest_first: Sequence[_Hole], instance: Instance, now: float
) -> str:
    if reading.latest_end is None:
        return "No backup known, in this window or before it."
    limit = format_duration(instance.stale_after_seconds)
    if not longest_first:
        return f"No hole longer than {limit}."
    named = "; ".join(hole.describe(now) for hole in longest_first[:_LISTED_HOLES])
    return f"{format_count(len(longest_first), 'hole')} longer than {limit}: {named}."


def _find_holes(
    reading: Reading,
    instance: Instance,
    window_start: float,
    looked_until: float,
    still_open: str,
) -> Iterator[_Hole]:
    limit = instance.stale_after_seconds
    if reading.latest_end is None:
        return
    # The longest interval is known, so that a window without holes costs no walk.
    if has_hole(reading, limit):
        previous = () if reading.previous_end is None else (reading.previous_end,)
        for start, end in pairwise(chain(previous, reading.ends)):
            if end - start > limit and end > window_start:
                yield _Hole(max(start, window_start), end, start)
    last = max(reading.latest_end, window_start)
    if looked_until > window_start and looked_until - reading.latest_end > limit:
        yield _Hole(last, looked_until, reading.latest_end, still_open)


def _find_covered(
    ends: Sequence[float], first: int, holes: Sequence[_Hole], scale: Scale
) -> Iterator[tuple[float, float]]:
    """The stretches from backup to backup that no hole interrupts, each as (from, to)."""
    if first == len(ends):
        return
    start = ends[first]
    for hole in holes:
        if hole.start > start:
            yield scale.x(start), scale.x(hole.start)
        start = max(start, hole.end)
    if ends[-1] > start:
        yield scale.x(start), scale.x(ends[-1])
