"""The table of `--once`: the verdict, each instance worst first, what happened and what to do."""

import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from exporter.models import Failure, Instance, ProjectResult
from exporter.once import Report, worst_severity
from exporter.page.causes import Cause, name_first
from exporter.page.state import Judged, Severity, State
from exporter.page.words import format_count, format_duration, format_size, format_time

WIDTH = 100
_STYLES = {
    Severity.CRITICAL: "bold red",
    Severity.WARNING: "bold yellow",
    Severity.UNKNOWN: "cyan",
    Severity.GOOD: "green",
}
_NOTHING = "-"
_YEAR_MATTERS_SECONDS = 300 * 86_400.0


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
    yield Text(report.verdict, _STYLES[Severity(worst_severity(report))])
    counts = ", ".join(f"{report.counts[s]:,} {s.value}" for s in State if report.counts[s])
    took = format_duration(snapshot.finished - snapshot.started)
    scraped = f"scraped {format_time(snapshot.finished)} in {took}"
    yield Text(": ".join(filter(None, (scraped, counts))), "dim")
    if report.instances:
        yield Text()
        yield _build_table(report)
    for cause in report.causes:
        yield Text()
        yield _describe_cause(cause, external_url)
    for project in snapshot.projects:
        for notice in _notice_project(project):
            yield Text()
            yield notice


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
    yield _short_time(latest, now) if latest is not None else _NOTHING
    yield _short_duration(now - latest) if latest is not None else _NOTHING
    count = reading.count if reading is not None else None
    yield f"{count:,}" if count is not None else _NOTHING
    size = reading.size_kilobytes if reading is not None else None
    yield format_size(size * 1024) if size is not None else _NOTHING
    longest = reading.max_interval_seconds if reading is not None else None
    yield _short_duration(longest) if longest is not None else _NOTHING


def _describe_cause(cause: Cause, external_url: str) -> Group:
    failure, instances = cause.failure, cause.instances
    first = instances[0]
    project = first.project_name or first.project_id
    if len(instances) == 1:
        concerned = f"{_name_of(first)} ({first.id})" if first.name else first.id
    else:
        concerned = f"{format_count(len(instances), 'instance')}: {name_first(instances)}"
    return _describe(
        f"failing, {failure.reason.value}",
        f"{concerned}, project {project}",
        *_tell(failure),
        f"Runbook: {_runbook(State.FAILING.alert, external_url)}",
    )


def _notice_project(project: ProjectResult) -> Iterator[Group]:
    name = project.name or project.id
    if project.discovery_success is False:
        failure = project.discovery_failure
        yield _describe(
            "discovery failing",
            f"project {name}: instances created since are not watched",
            *(_tell(failure) if failure is not None else ()),
        )
    if project.takes_none:
        found = format_count(project.found_instances or 0, "instance")
        yield _describe(
            "nothing watched",
            f"project {name}: discovery finds {found} and takes none of them",
            "What to do: look at name, tags and exclude of the discovery, and at --shard",
        )
    if project.unusable_ids:
        yield _describe(
            "not watched",
            f"project {name}: ids of another form: {', '.join(project.unusable_ids[:3])}",
            "An id is 1 to 64 letters, digits, '-' or '_'.",
        )


def _tell(failure: Failure) -> Iterator[str]:
    yield failure.message
    yield failure.evidence
    yield f"What to do: {failure.hint}" if failure.hint else ""


def _describe(what: str, whom: str, *lines: str) -> Group:
    title = Text.assemble((what, _STYLES[Severity.WARNING]), f"  {_printable(whom)}")
    return Group(title, *(Padding(Text(_printable(line)), (0, 0, 0, 4)) for line in lines if line))


def _runbook(alert: str, external_url: str) -> str:
    return f"{external_url}/runbooks/{alert}" if external_url else f"docs/runbooks/{alert}.md"


def _name_of(instance: Instance, *, with_project: bool = False) -> str:
    name = instance.name or instance.id
    if with_project:
        name = f"{instance.project_name or instance.project_id} / {name}"
    return _printable(name)


def _printable(text: str) -> str:
    """Names and messages come from elsewhere: none may steer the terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _short_time(timestamp: float, now: float) -> str:
    moment = datetime.fromtimestamp(int(timestamp), UTC)
    is_far = abs(now - timestamp) > _YEAR_MATTERS_SECONDS
    return moment.strftime("%Y-%m-%d" if is_far else "%m-%d %H:%M")


def _short_duration(seconds: float) -> str:
    """`2h5m`, `26h`, `3d4h`, `40s`."""
    return format_duration(int(seconds)).replace(" min", "m").replace(" ", "")
