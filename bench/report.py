"""The arithmetic of the benchmark and its table. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """One scrape, or one pass of a loop, over all instances."""

    requests: int
    wall_seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """A configuration as measured: the medians of its samples."""

    subject: str
    state: str
    instances: int
    window: str
    samples: Sequence[Sample]
    connections: int
    latency_seconds: float
    peak_rss_bytes: int
    stall_seconds: float | None = None  # the longest that the health page took meanwhile

    @property
    def requests_per_instance(self) -> float:
        return sum(sample.requests for sample in self.samples) / len(self.samples) / self.instances

    @property
    def wall_seconds(self) -> float:
        return median(sample.wall_seconds for sample in self.samples)

    @property
    def ideal_seconds(self) -> float:
        """What the requests take where nothing but the latency costs time."""
        return self.requests_per_instance * self.instances / self.connections * self.latency_seconds

    @property
    def ratio(self) -> float:
        return self.wall_seconds / self.ideal_seconds

    @property
    def cpu_milliseconds_per_instance(self) -> float:
        return median(sample.cpu_seconds for sample in self.samples) / self.instances * 1000


HEADINGS = (
    "what",
    "state",
    "instances",
    "window",
    "requests per instance",
    "wall s",
    "ideal s",
    "wall / ideal",
    "CPU ms per instance",
    "peak RSS MB",
    "longest stall ms",
    "samples",
)


def cells(row: Row) -> tuple[str, ...]:
    return (
        row.subject,
        row.state,
        f"{row.instances:,}",
        row.window,
        f"{row.requests_per_instance:.2f}",
        f"{row.wall_seconds:.2f}",
        f"{row.ideal_seconds:.2f}",
        f"{row.ratio:.2f}",
        f"{row.cpu_milliseconds_per_instance:.2f}",
        f"{row.peak_rss_bytes / 1e6:.0f}",
        "" if row.stall_seconds is None else f"{row.stall_seconds * 1000:.0f}",
        str(len(row.samples)),
    )


def render_table(rows: Iterable[Row]) -> str:
    """The rows as Markdown, columns aligned for people."""
    table = [HEADINGS, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    numbers = range(4, len(HEADINGS))
    lines = []
    for i, texts in enumerate(table):
        padded = [
            text.rjust(width) if column in numbers or column == 2 else text.ljust(width)
            for column, (text, width) in enumerate(zip(texts, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(padded)} |")
        if i == 0:
            rule = [
                "-" * (width - 1) + ":" if column in numbers or column == 2 else "-" * width
                for column, width in enumerate(widths)
            ]
            lines.append(f"| {' | '.join(rule)} |")
    return "\n".join(lines)
