"""The table of `--once`: the verdict, each instance worst first, what happened and what to do."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prettytable import PrettyTable
from wcwidth import wrap

from exporter.command.report import Report
from exporter.models import Instance
from exporter.page.causes import name_first
from exporter.page.notices import build_notices
from exporter.page.projects import build_project
from exporter.page.state import Judged, Severity, State
from exporter.page.troubles import Trouble, build_trouble
from exporter.page.words import (
    format_clock,
    format_count,
    format_duration,
    format_exact_time,
    format_size,
)

WIDTH = 100
_COLOURS = {  # of the terminal's own sixteen, so that they suit its background
    Severity.CRITICAL: "1;31",
    Severity.WARNING: "1;33",
    Severity.UNKNOWN: "36",
    Severity.GOOD: "32",
}
_NOTHING = "-"
_HEADER = ("STATE", "INSTANCE", "LATEST (UTC)", "AGE", "BACKUPS", "SIZE", "LONGEST")
_RESTORABLE = "RESTORABLE TO"
_NUMBERS = frozenset({"AGE", "BACKUPS", "SIZE", "LONGEST"})
_GAP = 2
# Of a narrow terminal: columns for a name, columns of the table, columns in all.
_LEAST_NAME, _LEAST, _LEAST_WIDTH = 16, 4, 50
_RANK = {state: rank for rank, state in enumerate(State)}


def render_table(
    report: Report, *, width: int = WIDTH, has_colours: bool = False, external_url: str = ""
) -> str:
    """The report in lines of at most `width` columns."""
    pen = _Pen(max(width, _LEAST_WIDTH), has_colours, external_url)
    return "".join(f"{line.rstrip()}\n" for line in _draw(report, pen))


def wants_colours(*, is_terminal: bool) -> bool:
    """https://no-color.org: any value of NO_COLOR but the empty one."""
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@dataclass(frozen=True, slots=True)
class _Pen:
    """How to write for the one who reads."""

    width: int
    has_colours: bool
    external_url: str

    def colour(self, text: str, severity: Severity) -> str:
        return f"\x1b[{_COLOURS[severity]}m{text}\x1b[0m" if self.has_colours else text

    def wrap(self, text: str, *, indent: str = "") -> Iterator[str]:
        for line in wrap(text, self.width - len(indent), break_on_hyphens=False):
            yield indent + line

    def runbook(self, href: str) -> str:
        name = href.rpartition("/")[2]
        if self.external_url:
            return f"{self.external_url}/runbooks/{name}"
        return f"docs/runbooks/{name}.md"


def _draw(report: Report, pen: _Pen) -> Iterator[str]:
    snapshot, verdict = report.snapshot, report.verdict
    yield pen.colour(verdict.text, verdict.severity)
    words = Counter(each.word for each in report.instances)  # in the order of the rows
    counts = ", ".join(f"{count:,} {word}" for word, count in words.items())
    took = format_duration(snapshot.finished - snapshot.started)
    yield f"scraped {format_exact_time(snapshot.finished)} in {took}"
    yield from pen.wrap(counts)
    if report.instances:
        yield ""
        yield from _draw_instances(report, pen)
    told = [*_tell_states(report), *_tell_causes(report), *_tell_notices(report)]
    for block in sorted(told, key=lambda block: block.rank):
        yield ""
        yield from block.draw(pen)


@dataclass(frozen=True, slots=True)
class _Block:
    """What is the matter with some instances or a project, and what to do."""

    rank: int
    what: str
    severity: Severity
    whom: str
    lines: Sequence[str]
    runbook_href: str

    def draw(self, pen: _Pen) -> Iterator[str]:
        title = f"{pen.colour(self.what, self.severity)}: {_printable(self.whom)}"
        yield from pen.wrap(title)
        for line in filter(None, self.lines):
            yield from pen.wrap(_printable(line), indent="    ")
        if self.runbook_href:
            yield from pen.wrap(f"Runbook: {pen.runbook(self.runbook_href)}", indent="    ")


def _draw_instances(report: Report, pen: _Pen) -> Iterator[str]:
    with_project = len({each.result.instance.project_id for each in report.instances}) > 1
    with_restores = any(each.result.restore_window is not None for each in report.instances)
    header = (*_HEADER, _RESTORABLE) if with_restores else _HEADER
    rows = [
        (
            each.word,
            _name_of(each.result.instance, with_project=with_project),
            *_numbers(each),
            *([_restorable(each)] if with_restores else []),
        )
        for each in report.instances
    ]
    widths = [max(map(len, column)) + _GAP for column in zip(header, *rows, strict=True)]
    shown = len(header)
    # All others keep in one line; the names have what is left, and go on below. On a narrow
    # terminal the last columns give way.
    while (left := pen.width - sum(widths[:shown]) + widths[1]) < _LEAST_NAME and shown > _LEAST:
        shown -= 1
    table = PrettyTable(list(header[:shown]), border=False)
    table.left_padding_width, table.right_padding_width = 0, _GAP
    for name in header[:shown]:
        table.align[name] = "r" if name in _NUMBERS else "l"
    table.max_width["INSTANCE"] = max(left, _LEAST_NAME)
    for each, (state, *cells) in zip(report.instances, rows, strict=True):
        table.add_row([pen.colour(state, each.state.severity), *cells[: shown - 1]])
    yield from table.get_string().splitlines()


def _restorable(judged: Judged) -> str:
    asked = judged.result.restore_window
    if asked is None or asked.reading is None:
        return _NOTHING
    until = asked.reading.until
    return format_clock(until, judged.now) if until is not None else "nothing"


def _numbers(judged: Judged) -> Iterator[str]:
    reading = judged.result.reading
    latest = reading.latest_end if reading is not None else None
    yield format_clock(latest, judged.now) if latest is not None else _NOTHING
    yield _short_duration(judged.now - latest) if latest is not None else _NOTHING
    count = reading.count if reading is not None else None
    yield f"{count:,}" if count is not None else _NOTHING
    size = reading.size_kilobytes if reading is not None else None
    yield format_size(size * 1024) if size is not None else _NOTHING
    longest = reading.max_interval_seconds if reading is not None else None
    yield _short_duration(longest) if longest is not None else _NOTHING


def _tell_states(report: Report) -> Iterator[_Block]:
    for advice, instances in report.advice.values():
        yield _Block(
            _RANK[advice.state],
            advice.word,
            advice.state.severity,
            _name_all(instances),
            [f"What to do: {advice.text}"],
            advice.runbook_href,
        )


def _tell_causes(report: Report) -> Iterator[_Block]:
    judged = {each.result.instance.key: each for each in report.instances}
    for cause in report.causes:
        first = cause.instances[0]
        of_first = judged[first.key]
        state = State.FAILING if State.FAILING in of_first.states else of_first.state
        trouble = build_trouble(cause.failure)
        yield _Block(
            _RANK[state],
            f"{of_first.word_of(state)}, {cause.reason.value}",
            state.severity,
            f"{_name_all(cause.instances)}, project {first.project_name or first.project_id}",
            _tell(trouble),
            trouble.runbook_href,
        )


def _tell_notices(report: Report) -> Iterator[_Block]:
    projects = [build_project(each, 0, report.now) for each in report.snapshot.projects]
    for notice in build_notices(projects, None, None, report.now, report.snapshot.results):
        trouble = notice.trouble
        yield _Block(
            len(_RANK),
            notice.title.rstrip(".:"),
            Severity.WARNING,
            ": ".join(filter(None, (notice.name, notice.text))),
            [*notice.items, *(_tell(trouble) if trouble is not None else ())],
            trouble.runbook_href if trouble is not None else notice.runbook_href,
        )


def _tell(trouble: Trouble) -> Sequence[str]:
    hint = f"What to do: {trouble.hint}" if trouble.hint else ""
    return trouble.message, trouble.evidence, hint


def _name_all(instances: Sequence[Instance]) -> str:
    """Of one its id too, which is what the console knows."""
    if len(instances) > 1:
        return f"{format_count(len(instances), 'instance')}: {name_first(instances)}"
    (only,) = instances
    return f"{only.name} ({only.id})" if only.name else only.id


def _name_of(instance: Instance, *, with_project: bool = False) -> str:
    name = instance.name or instance.id
    if with_project:
        name = f"{instance.project_name or instance.project_id} / {name}"
    return _printable(name)


def _printable(text: str) -> str:
    """Names and messages come from elsewhere: none may steer the terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _short_duration(seconds: float) -> str:
    """`2h5m`, `26h`, `3d4h`, `40s`."""
    return format_duration(int(seconds)).replace(" min", "m").replace(" ", "")
