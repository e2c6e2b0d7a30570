"""The picture of an instance's window: every backup, and the holes between them.

The window ends at the moment of looking and is as long as the lookback. A hole is a stretch without
a backup's end that is longer than the instance's `stale_after`: the same threshold that alerts.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from exporter.models import Instance, Reading
from exporter.page.state import has_hole
from exporter.page.words import format_count, format_duration, format_span, format_time

WIDTH = 720
_TICK_WIDTH = 1.5
# Few backups are given broad ticks: a thin one would be lost between two holes.
_FEW_BACKUPS = 72
_BROAD_TICK_WIDTH = 4.0
# Narrower gaps cannot be seen at any usual size of the picture, and cost bytes.
_MERGE_WIDTH = 0.8
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


@dataclass(frozen=True, slots=True)
class Picture:
    """What the template draws; the paths are SVG path data, strokes along a horizontal line."""

    ticks: str  # each backup's end
    covered: str  # from backup to backup where there is no hole
    holes: Sequence[Stretch]  # the longest ones
    further_holes: str
    before: Stretch | None  # a long empty beginning: a young instance, or a hole's end
    unread: Stretch | None  # since the last scrape
    hole_texts: Sequence[str]
    hole_texts_left_out: int
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class _Hole:
    start: float
    end: float
    since: float  # where it really began, which may be before the window
    still_open: str = ""  # as of when, in words; empty for a hole that a backup has ended

    @property
    def text(self) -> str:
        long = format_duration(self.end - self.since)
        if self.still_open:
            return f"since {format_time(self.since)} ({long} {self.still_open})"
        return f"{format_span(self.since, self.end)} ({long})"


def build_picture(reading: Reading, instance: Instance, *, now: float) -> Picture:
    """The window of `reading` as of `now`, both in seconds since the epoch."""
    window_start = now - instance.lookback_seconds
    scale = WIDTH / instance.lookback_seconds
    ends = reading.ends
    first = bisect_left(ends, window_start)
    tick = _BROAD_TICK_WIDTH if len(ends) - first <= _FEW_BACKUPS else _TICK_WIDTH

    def place(start: float, end: float, text: str, min_width: float = 0.0) -> Stretch:
        x = max((start - window_start) * scale, 0.0)
        width = max((end - start) * scale, min_width)
        x = min(x, WIDTH - min_width)
        return Stretch(round(x, 1), round(min(width, WIDTH - x), 1), text)

    def place_hole(hole: _Hole, text: str, min_width: float) -> Stretch:
        # The tick of the backup that a hole follows stays free.
        return place(min(hole.start + tick / scale, hole.end), hole.end, text, min_width)

    unread = None
    looked_until, still_open = now, "so far"
    if (now - reading.at) * scale >= 1:
        looked_until, still_open = reading.at, "at the last scrape"
        text = f"not looked at since the scrape of {format_time(reading.at)}"
        unread = place(max(reading.at, window_start), now, text)

    holes = list(_find_holes(reading, instance, window_start, looked_until, still_open))
    before = None
    if ends and ends[0] - window_start > instance.stale_after_seconds:
        text = f"no backup in this window before {format_time(ends[0])}"
        before = place(window_start, ends[0], text)

    longest_first = sorted(holes, key=lambda hole: hole.since - hole.end)
    titled, further = longest_first[:_TITLED_HOLES], longest_first[_TITLED_HOLES:]
    latest_first = sorted(holes, key=lambda hole: -hole.end)
    stretches = [place_hole(h, f"hole: {h.text}", _HOLE_MIN_WIDTH) for h in titled]
    if reading.latest_end is None:
        stretches = [place(window_start, looked_until, "no backup known")]
    return Picture(
        ticks=_draw(_merge_ticks(ends, first, window_start, scale, tick)),
        covered=_draw(_find_covered(ends, first, holes, window_start, scale)),
        holes=stretches,
        further_holes=_draw(
            (s.x, s.x + s.width) for s in (place_hole(h, "", 1.0) for h in further)
        ),
        before=before,
        unread=unread,
        hole_texts=[hole.text for hole in latest_first[:_LISTED_HOLES]],
        hole_texts_left_out=max(len(holes) - _LISTED_HOLES, 0),
        title=_build_title(reading, instance),
        description=_build_description(reading, longest_first, instance),
    )


def _build_title(reading: Reading, instance: Instance) -> str:
    window = format_duration(instance.lookback_seconds)
    if reading.count is None:
        return f"the last {window}, not all of it listed yet"
    title = f"{format_count(reading.count, 'backup')} in {window}"
    if reading.max_interval_seconds is None:
        return title
    return f"{title}, longest gap {format_duration(reading.max_interval_seconds)}"


def _build_description(reading: Reading, longest_first: Sequence[_Hole], instance: Instance) -> str:
    if reading.latest_end is None:
        return "No backup known, in this window or before it."
    limit = format_duration(instance.stale_after_seconds)
    if not longest_first:
        return f"No hole longer than {limit}."
    named = "; ".join(hole.text for hole in longest_first[:_LISTED_HOLES])
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
        for start, end in pairwise(reading.ends):
            if end - start > limit and end > window_start:
                yield _Hole(max(start, window_start), end, start)
    last = max(reading.latest_end, window_start)
    if looked_until > window_start and looked_until - reading.latest_end > limit:
        yield _Hole(last, looked_until, reading.latest_end, still_open)


def _merge_ticks(
    ends: Sequence[float], first: int, window_start: float, scale: float, tick: float
) -> Iterator[tuple[float, float]]:
    """Runs of ticks that touch, each as (from, to); a run's inside is jumped over."""
    if first == len(ends):
        return
    last_x = WIDTH - tick
    run_start = run_end = min((ends[first] - window_start) * scale, last_x)
    index = first
    while index < len(ends):
        x = min((ends[index] - window_start) * scale, last_x)
        if x - run_end > _MERGE_WIDTH:
            yield run_start, run_end
            run_start = x
        run_end = x + tick
        # The last tick that starts inside the run decides how far it reaches.
        beyond = bisect_left(ends, window_start + run_end / scale, index + 1)
        index = max(index + 1, beyond - 1)
    yield run_start, run_end


def _find_covered(
    ends: Sequence[float], first: int, holes: Sequence[_Hole], window_start: float, scale: float
) -> Iterator[tuple[float, float]]:
    """The stretches from backup to backup that no hole interrupts, each as (from, to)."""
    if first == len(ends):
        return
    start = ends[first]
    for hole in holes:
        if hole.start > start:
            yield (start - window_start) * scale, (hole.start - window_start) * scale
        start = max(start, hole.end)
    if ends[-1] > start:
        yield (start - window_start) * scale, (ends[-1] - window_start) * scale


def _draw(runs: Iterable[tuple[float, float]]) -> str:
    """Relative moves and lines: some eight characters for each run."""
    parts: list[str] = []
    pen = 0.0
    for start, end in runs:
        move, line = round(start - pen, 1), round(end - start, 1)
        pen += move + line
        parts.append(f"m{move:g} 0h{line:g}")
    return "M0 12" + "".join(parts) if parts else ""
