"""Failures as people read them: each alone, or once for all instances that share the cause."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from exporter.errors import Reason
from exporter.models import Failure, InstanceKey
from exporter.page.causes import group_causes
from exporter.page.navigation import Selection
from exporter.page.state import Judged, State

# A cloud's or a proxy's message can be a whole page.
_MESSAGE_CHARACTERS = 500
_MOST_CAUSES = 5
_RUNBOOKS: Mapping[Reason, str] = {
    Reason.AUTH: "GaussDBMySQLBackupLoginFailing",
    Reason.THROTTLED: "GaussDBMySQLBackupThrottled",
}


@dataclass(frozen=True, slots=True)
class SharedCause:
    """Where on the page a cause is told once, and how many other instances fail for it."""

    href: str
    others: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failure: what happened, where, what to do."""

    reason: str
    message: str
    hint: str
    evidence: str
    runbook_href: str
    shared: SharedCause | None = None


@dataclass(frozen=True, slots=True)
class ToldCause:
    """A cause of several instances' failures, told once above them."""

    anchor: str
    trouble: Trouble
    project: str
    count: int
    names: str
    list_href: str


def build_trouble(
    failure: Failure, *, shared: SharedCause | None = None, runbook: str = ""
) -> Trouble:
    """`runbook`: of another alert than that of the failure's reason."""
    return Trouble(
        failure.reason.value,
        shorten(failure.message),
        shorten(failure.hint),
        shorten(failure.evidence),
        runbook_href(runbook or _RUNBOOKS.get(failure.reason, State.FAILING.alert)),
        shared,
    )


def tell_causes(
    judged: Iterable[Judged], selection: Selection
) -> tuple[Sequence[ToldCause], Mapping[InstanceKey, SharedCause]]:
    """The causes that several instances share, the commonest first, and whose they are."""
    failing = (each.result for each in judged if State.FAILING in each.states)
    told = []
    shared: dict[InstanceKey, SharedCause] = {}
    for number, cause in enumerate(group_causes(failing)[:_MOST_CAUSES], start=1):
        count = len(cause.results)
        if count == 1:
            break
        anchor = f"cause-{number}"
        first = cause.results[0].instance
        told.append(
            ToldCause(
                anchor,
                build_trouble(cause.failure),
                first.project_name or first.project_id,
                count,
                cause.names,
                selection.href(query=f"{cause.reason.value} {first.project_id}", state=""),
            )
        )
        for result in cause.results:
            shared[result.instance.key] = SharedCause(f"#{anchor}", count - 1)
    return told, shared


def runbook_href(alert: str) -> str:
    """Relative, so that it holds behind a proxy that adds a prefix."""
    return f"./runbooks/{alert}" if alert else ""


def shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE_CHARACTERS else text[: _MESSAGE_CHARACTERS - 1] + "…"
