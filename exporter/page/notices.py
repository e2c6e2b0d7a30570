"""What is the matter beside the instances: nobody scrapes, a project, the configuration."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from exporter.errors import Reason
from exporter.models import ConfigurationState, InstanceResult, Source
from exporter.page.causes import group_causes
from exporter.page.projects import Project
from exporter.page.troubles import Trouble, build_trouble, runbook_href, shorten
from exporter.page.words import build_moment, format_count, format_duration

_LISTED = 5
# Whatever is asked, these are troubles of the whole project.
_OWN_RUNBOOKS = {Reason.AUTH, Reason.THROTTLED}
_SOURCES = {
    Source.RESTORE_WINDOW: "The restore window",
    Source.FULL_BACKUPS: "The full backups",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person should know before reading the rows."""

    title: str
    text: str
    name: str = ""  # what the title is about, as it came from elsewhere
    items: Sequence[str] = ()
    trouble: Trouble | None = None
    runbook_href: str = ""
    is_alarm: bool = False


def build_notices(
    projects: Sequence[Project],
    configuration: ConfigurationState | None,
    old_scrape: float | None,
    now: float,
    results: Sequence[InstanceResult] = (),
) -> Iterator[Notice]:
    """All of them, the gravest first. `old_scrape`: the last one's end where it is too long ago."""
    if old_scrape is not None:
        yield _notice_old_scrape(old_scrape, now)
    if configuration is not None and configuration.problems:
        yield _notice_configuration(configuration, now)
    for project in projects:
        if project.result.clock_ahead_seconds:
            yield _notice_clock(project.result.clock_ahead_seconds)
            break  # it is one machine
    for project in projects:
        yield from _notice_project(project)
    for source in Source:
        yield from _notice_source(source, results)


def _notice_old_scrape(finished: float, now: float) -> Notice:
    scraped = build_moment(finished, now)
    return Notice(
        f"Nobody has scraped for {scraped.distance}.",
        f"Everything below is as of {scraped.text}; newer backups are not known here, and an"
        " instance may be called stale only because nobody looked. Check that Prometheus scrapes"
        " this exporter.",
        is_alarm=True,
        runbook_href=runbook_href("GaussDBMySQLBackupExporterDown"),
    )


def _notice_configuration(state: ConfigurationState, now: float) -> Notice:
    refused = build_moment(state.refused_at, now)
    loaded = build_moment(state.loaded_at, now)
    return Notice(
        f"The new configuration was refused {refused.distance} ago.",
        f"The one of {loaded.text} stays in force; a restart would fail.",
        items=_first(state.problems),
        runbook_href=runbook_href("GaussDBMySQLBackupConfigReloadFailed"),
    )


def _notice_clock(ahead_seconds: float) -> Notice:
    far = format_duration(abs(ahead_seconds))
    where = "ahead" if ahead_seconds > 0 else "behind"
    return Notice(
        f"The clock of the exporter's machine is {far} {where}.",
        "The cloud's time is used instead for all numbers and ages of backups. Set the machine's"
        " clock, by NTP.",
    )


def _notice_project(project: Project) -> Iterator[Notice]:
    """Each trouble of a project: its token, its discovery."""
    result, expiry = project.result, project.token_expiry
    if expiry is not None and project.is_token_expired:
        yield _of_project(
            project,
            f"its token ended {expiry.distance} ago and was not renewed. The log says why.",
            "GaussDBMySQLBackupTokenExpiring",
        )
    elif expiry is not None and project.is_token_ending:
        yield _of_project(
            project,
            f"its token ends in {expiry.distance} and has not been renewed.",
            "GaussDBMySQLBackupTokenExpiring",
        )
    if result.discovery_success is False:
        failure, discovery_alert = result.discovery_failure, "GaussDBMySQLBackupDiscoveryFailing"
        yield _of_project(
            project,
            (
                "discovery has not succeeded yet, so none of its instances is watched."
                if result.discovered_instances is None
                else "discovery is failing, so instances created since are not watched."
            )
            + ("" if failure is not None else " The log says why."),
            discovery_alert if failure is None else "",
            trouble=(
                build_trouble(failure, runbook=discovery_alert) if failure is not None else None
            ),
        )
    if result.takes_none:
        found = format_count(result.found_instances or 0, "instance")
        yield _of_project(
            project,
            f"discovery finds {found} and its filters take none of them: look at name, tags and"
            " exclude in the configuration.",
            "GaussDBMySQLBackupUnmonitored",
        )
    if result.unusable_ids:
        dropped = format_count(len(result.unusable_ids), "instance")
        yield _of_project(
            project,
            f"{dropped} cannot be watched: an id is 1 to 64 letters, digits, - or _.",
            items=_first(result.unusable_ids),
        )


def _notice_source(source: Source, results: Sequence[InstanceResult]) -> Iterator[Notice]:
    """What cannot be read beside the backups, once for each cause.

    Not of an instance that fails itself for the same reason: its row says why.
    """
    failing = (
        replace(result, failure=asked.failure)
        for result in results
        if (asked := result.sources.get(source)) is not None
        and asked.failure is not None
        and (result.failure is None or result.failure.reason is not asked.failure.reason)
    )
    for cause in group_causes(failing):
        instances = format_count(len(cause.results), "instance")
        yield Notice(
            f"{_SOURCES[source]} of {instances} cannot be read:",
            cause.names,
            trouble=build_trouble(
                cause.failure,
                runbook="" if cause.reason in _OWN_RUNBOOKS else "GaussDBMySQLBackupSourceFailing",
            ),
        )


def _of_project(
    project: Project,
    text: str,
    alert: str = "",
    *,
    items: Sequence[str] = (),
    trouble: Trouble | None = None,
) -> Notice:
    return Notice(
        "Project",
        text,
        name=project.name,
        items=items,
        trouble=trouble,
        runbook_href=runbook_href(alert),
    )


def _first(texts: Sequence[str]) -> Sequence[str]:
    shown = [shorten(text) for text in texts[:_LISTED]]
    left_out = len(texts) - len(shown)
    return [*shown, f"and {left_out:,} more"] if left_out else shown
