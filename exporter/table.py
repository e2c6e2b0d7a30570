"""The table of `--once`: the verdict, each instance worst first, what happened and what to do."""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from exporter.models import Instance
from exporter.once import Report
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
_STYLES = {
    Severity.CRITICAL: "bold red",
    Severity.WARNING: "bold yellow",
    Severity.UNKNOWN: "cyan",
    Severity.GOOD: "green",
}
_NOTHING = "-"
_RANK = {state: rank for rank, state in enumerate(State)}


def render_table(
    report: Report, *, width: int = WIDTH, has_colours: bool = False, external_url: str = ""
) -> str:
    """The report in lines of at most `width` columns."""
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=has_colours,
        color_system="standard" if has_colours else None,
        highlight=False,
        markup=False,
        emoji=False,
        # What the environment says was decided by the caller.
        _environ={},
    )
    with console.capture() as capture:
        console.print(*_build(report, external_url), sep="\n")
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def wants_colours(*, is_terminal: bool) -> bool:
    """https://no-color.org: any value of NO_COLOR but the empty one."""
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _build(report: Report, external_url: str) -> Iterator[RenderableType]:
    snapshot = report.snapshot
    yield Text(report.verdict.text, _STYLES[report.verdict.severity])
    counts = ", ".join(f"{report.counts[s]:,} {s.value}" for s in State if report.counts[s])
    took = format_duration(snapshot.finished - snapshot.started)
    scraped = f"scraped {format_exact_time(snapshot.finished)} in {took}"
    yield Text(": ".join(filter(None, (scraped, counts))), "dim")
    if report.instances:
        yield Text()
        yield _build_table(report)
    told = [*_tell_states(report), *_tell_causes(report), *_tell_projects(report)]
    for block in sorted(told, key=lambda block: block.rank):
        yield Text()
        yield block.draw(external_url)


@dataclass(frozen=True, slots=True)
class _Block:
    """What is the matter with some instances or a project, and what to do."""

    rank: int
    what: str
    severity: Severity
    whom: str
    lines: Sequence[str]
    runbook_href: str

    def draw(self, external_url: str) -> Group:
        title = Text.assemble((self.what, _STYLES[self.severity]), f"  {_printable(self.whom)}")
        name = self.runbook_href.rpartition("/")[2]
        runbook = f"{external_url}/runbooks/{name}" if external_url else f"docs/runbooks/{name}.md"
        lines = [*self.lines, f"Runbook: {runbook}" if name else ""]
        return Group(
            title, *(Padding(Text(_printable(line)), (0, 0, 0, 4)) for line in lines if line)
        )


def _build_table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("STATE", no_wrap=True)
    table.add_column("INSTANCE", overflow="fold")
    table.add_column("LATEST (UTC)", no_wrap=True)
    for name in ("AGE", "BACKUPS", "SIZE", "LONGEST"):
        table.add_column(name, no_wrap=True, justify="right")
    with_project = len({each.result.instance.project_id for each in report.instances}) > 1
    for each in report.instances:
        table.add_row(
            Text(each.state.value, _STYLES[each.state.severity]),
            Text(_name_of(each.result.instance, with_project=with_project)),
            *_numbers(each, report.now),
        )
    return table


def _numbers(judged: Judged, now: float) -> Iterator[str]:
    reading = judged.result.reading
    latest = reading.latest_end if reading is not None else None
    yield format_clock(latest, now) if latest is not None else _NOTHING
    yield _short_duration(now - latest) if latest is not None else _NOTHING
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
            advice.state.value,
            advice.state.severity,
            _name_all(instances),
            [f"What to do: {advice.text}"],
            advice.runbook_href,
        )


def _tell_causes(report: Report) -> Iterator[_Block]:
    states = {each.result.instance.key: each.states for each in report.instances}
    for cause in report.causes:
        first = cause.instances[0]
        state = State.FAILING if State.FAILING in states[first.key] else states[first.key][0]
        trouble = build_trouble(cause.failure)
        yield _Block(
            _RANK[state],
            f"{state.value}, {cause.reason.value}",
            state.severity,
            f"{_name_all(cause.instances)}, project {first.project_name or first.project_id}",
            _tell(trouble),
            trouble.runbook_href,
        )


def _tell_projects(report: Report) -> Iterator[_Block]:
    projects = [build_project(each, 0, report.now) for each in report.snapshot.projects]
    for notice in build_notices(projects, None, None, report.now):
        trouble = notice.trouble
        yield _Block(
            len(_RANK),
            notice.title.lower(),
            Severity.WARNING,
            f"{notice.name}: {notice.text}",
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
