"""One instance as the page shows it."""

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.models import InstanceKey, InstanceResult
from exporter.page.picture import Picture, build_picture
from exporter.page.restores import Restores, build_restores, has_restorable_range
from exporter.page.state import Judged, State
from exporter.page.troubles import SharedCause, Trouble, build_trouble, runbook_href
from exporter.page.words import (
    Moment,
    Size,
    build_moment,
    build_size,
    format_count,
    format_duration,
)

# What is to be done, in a sentence; the runbook has the rest.
_ADVICE: Mapping[State, str] = {
    State.STALE: (
        "Compare with the backups that the cloud's console lists. If it shows none either: is the"
        " instance running? Make a full backup by hand and open a ticket."
    ),
    State.NO_BACKUPS: (
        "Incremental backups follow the first full one: is there one in the cloud's console, and"
        " is this the id of the instance?"
    ),
    State.NOT_RESTORABLE: (
        "Backups arrive, and the cloud offers no restore up to them. Compare with the times that"
        " the console offers, make a full backup by hand and open a ticket."
    ),
    State.HOLE: (
        "Backups are made again. If the console offers no restore to the time of the hole, make a"
        " full backup now; the hole stays in sight until it has left the window."
    ),
    State.INCOMPLETE: (
        "The rows listed do not match the cloud's own total: count, size and holes may be wrong."
    ),
}
_NOTHING_TO_RESTORE = (
    "The cloud names not one moment to restore to. Is there a full backup in its console? Make one"
    " by hand, and open a ticket."
)
_STALE_BY_FAILURE = "While the queries fail no newer backup can become known: mend that first."


@dataclass(frozen=True, slots=True)
class Advice:
    """What is the matter, what to do about it, and where more of it stands."""

    state: State
    word: str  # the state as people read it
    text: str
    runbook_href: str


@dataclass(frozen=True, slots=True)
class Row:
    """One instance as the template shows it; its numbers are the last that are known."""

    judged: Judged
    lookback: str
    stale_after: str
    as_of: Moment | None  # set where the numbers are those of an earlier query
    latest: Moment | None
    count: str
    running: str
    size: Size | None
    latest_size: Size | None
    picture: Picture | None
    restores: Restores | None
    trouble: Trouble | None
    advice: Advice | None
    effort: str
    last_success: Moment | None


def build_row(judged: Judged, *, shared: Mapping[InstanceKey, SharedCause] | None = None) -> Row:
    """What the page shows of an instance; what `shared` names is told elsewhere on the page."""
    result, reading = judged.result, judged.reading
    instance, now = result.instance, judged.now
    size = reading.size_kilobytes if reading is not None else None
    latest_size = reading.latest_size_kilobytes if reading is not None else None
    latest_end = reading.latest_end if reading is not None else None
    is_listed = reading is not None and reading.count is not None
    last_success = result.last_success
    return Row(
        judged,
        lookback=format_duration(instance.lookback_seconds),
        stale_after=format_duration(instance.stale_after_seconds),
        as_of=build_moment(reading.at, now) if reading is not None and not result.reading else None,
        latest=build_moment(latest_end, now) if latest_end is not None else None,
        count=f"{reading.count:,}" if reading is not None and reading.count is not None else "",
        running=f"{reading.running:,}" if reading is not None and reading.running else "",
        size=build_size(size) if size is not None else None,
        latest_size=build_size(latest_size) if latest_size is not None else None,
        picture=(
            build_picture(reading, instance, now=now) if reading is not None and is_listed else None
        ),
        restores=build_restores(result, now=now),
        trouble=_find_trouble(judged, shared or {}),
        advice=find_advice(judged),
        effort=_describe_effort(result),
        last_success=build_moment(last_success, now) if last_success is not None else None,
    )


def _find_trouble(judged: Judged, shared: Mapping[InstanceKey, SharedCause]) -> Trouble | None:
    failure = judged.result.failure
    if failure is None or State.LISTING in judged.states:
        return None
    return build_trouble(failure, shared=shared.get(judged.result.instance.key))


def find_advice(judged: Judged) -> Advice | None:
    """What to do about the worst state. Of a failure that is all, the failure says it."""
    state = judged.state
    text = _ADVICE.get(state)
    if state is State.SUSPENDED:
        text = f"No backup is due while the instance is {judged.word}."
    elif state is State.STALE and State.FAILING in judged.states:
        text = _STALE_BY_FAILURE
    elif state is State.INCOMPLETE and judged.reading is not None and judged.reading.overdue:
        since, reason = judged.reading.overdue
        text = (
            f"For {format_duration(round(judged.now - since))} the whole window could not be listed"
            f" anew ({reason}): what was deleted meanwhile is still counted. The log says why."
        )
    elif state is State.NOT_RESTORABLE and not has_restorable_range(judged.result):
        text = _NOTHING_TO_RESTORE
    if text is None:
        return None
    return Advice(state, judged.word, text, runbook_href(state.alert))


def _describe_effort(result: InstanceResult) -> str:
    requests = format_count(result.api_requests, "request")
    errors = format_count(result.api_errors, "error")
    return f"{requests}, {errors}, {format_duration(result.duration_seconds)}"
