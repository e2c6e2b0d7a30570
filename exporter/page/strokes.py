"""Moments as SVG path data: what is told by strokes and outlines, in few characters."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

WIDTH = 720
HEIGHT = 24
# Narrower gaps cannot be seen at any usual size of the picture, and cost bytes.
_MERGE_WIDTH = 0.8
# Bars of a length that people count in; at most so many in a picture.
_MOST_BARS = 96
_BAR_SECONDS = tuple(
    minutes * 60.0
    for minutes in (1, 5, 15, 30, 60, 120, 180, 360, 720, 1_440, 2_880, 10_080, 20_160)
)
_BAR_MIN_HEIGHT, _BAR_MAX_HEIGHT = 3, 15


@dataclass(frozen=True, slots=True)
class Scale:
    """From the moments of the window to the picture's units."""

    start: float
    end: float

    def x(self, moment: float) -> float:
        return self.width(moment - self.start)

    def width(self, seconds: float) -> float:
        return seconds * WIDTH / (self.end - self.start)

    def seconds(self, width: float) -> float:
        return width * (self.end - self.start) / WIDTH

    def clip(self, start: float, end: float, min_width: float) -> tuple[float, float]:
        """From and to of what lies inside, at least so wide."""
        first = min(max(self.x(start), 0.0), WIDTH - min_width)
        return first, min(max(self.x(end), first + min_width), float(WIDTH))


def merge_ticks(
    ends: Sequence[float], first: int, scale: Scale, tick: float
) -> Iterator[tuple[float, float]]:
    """Runs of ticks that touch, each as (from, to); a run's inside is jumped over."""
    if first == len(ends):
        return
    last_x = WIDTH - tick
    run_start = run_end = min(scale.x(ends[first]), last_x)
    index = first
    while index < len(ends):
        x = min(scale.x(ends[index]), last_x)
        if x - run_end > _MERGE_WIDTH:
            yield run_start, run_end
            run_start = x
        run_end = x + tick
        # The last tick that starts inside the run decides how far it reaches.
        beyond = bisect_left(ends, scale.start + scale.seconds(run_end), index + 1)
        index = max(index + 1, beyond - 1)
    yield run_start, run_end


def draw_bars(ends: Sequence[float], first: int, scale: Scale) -> str:
    """The outline of a bar for each stretch of time in which backups ended: the more, the higher.

    A stretch that the window cuts is measured by the part that lies inside, and sets no measure.
    """
    span = scale.end - scale.start
    length = next((each for each in _BAR_SECONDS if span / each <= _MOST_BARS), span / _MOST_BARS)
    bars: list[tuple[float, float, float]] = []  # from, to, backups a second
    start, index = scale.start, first
    while start < scale.end:
        end = min((start // length + 1) * length, scale.end)
        beyond = bisect_left(ends, end, index) if end < scale.end else len(ends)
        bars.append((start, end, (beyond - index) / (end - start)))
        start, index = end, beyond
    most = max(rate for start, end, rate in bars if end - start > length / 2)
    parts, height = [f"M0 {HEIGHT}"], 0
    for start, _, rate in bars:
        share = min(rate / most, 1.0) if most else 1.0
        wanted = round(_BAR_MIN_HEIGHT + (_BAR_MAX_HEIGHT - _BAR_MIN_HEIGHT) * share)
        wanted = wanted if rate else 0
        if wanted != height:
            parts.append(f"H{scale.x(start):.4g}V{HEIGHT - wanted}")
            height = wanted
    return "".join((*parts, f"H{WIDTH}V{HEIGHT}z"))


def draw_grid(percents: Iterable[float]) -> str:
    """Upright lines from the top to the bottom."""
    return "".join(f"M{percent * WIDTH / 100:.4g} 0v{HEIGHT}" for percent in percents)


def draw_runs(runs: Iterable[tuple[float, float]]) -> str:
    """Relative moves and lines: some eight characters for each run."""
    parts: list[str] = []
    pen = 0.0
    for start, end in runs:
        move, line = round(start - pen, 1), round(end - start, 1)
        pen += move + line
        parts.append(f"m{move:g} 0h{line:g}")
    return "M0 12" + "".join(parts) if parts else ""
