"""What is told in the log of a scrape: what has changed, never the same thing twice."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import structlog

from exporter.models import Failure, Instance, InstanceKey, InstanceResult, Source
from exporter.page.causes import group_causes, name_first
from exporter.scraping.watch import Watch

log = structlog.get_logger(__name__)


class _Phrase(NamedTuple):
    one: str
    many: str


_FAILING = _Phrase("instance failing", "instances failing")
_RECOVERED = _Phrase("instance recovered", "instances recovered")


class Changes:
    """Which instances fail since a scrape, or do so no more: told when all of it is known, those
    with one cause together. Three hundred of them with one wrong password are one line."""

    def __init__(self) -> None:
        self._failing: list[InstanceResult] = []
        # By project, and why they had failed: how long each did.
        self._recovered: defaultdict[tuple[str, str], list[tuple[Instance, float]]]
        self._recovered = defaultdict(list)

    def note(self, watch: Watch, result: InstanceResult, *, now: float) -> None:
        failure, before = result.failure, watch.failing_reason
        if failure is None:
            if before is not None and watch.failing_since is not None:
                key = watch.instance.project_id, before.value
                self._recovered[key].append((watch.instance, now - watch.failing_since))
            watch.failing_since = watch.failing_reason = None
        elif before is not failure.reason:
            if watch.failing_since is None:
                watch.failing_since = now
            watch.failing_reason = failure.reason
            self._failing.append(result)

    def tell(self) -> None:
        for cause in group_causes(self._failing):
            _tell(
                log.warning,
                _FAILING,
                cause.instances,
                project=cause.instances[0].project_id,
                reason=cause.reason.value,
                error=cause.failure.message,
                hint=cause.failure.hint,
                **cause.failure.facts,
            )
        for (project, reason), recovered in self._recovered.items():
            _tell(
                log.info,
                _RECOVERED,
                [instance for instance, _ in recovered],
                project=project,
                reason=reason,
                failed_seconds=round(max(seconds for _, seconds in recovered)),
            )


def _tell(
    say: Callable[..., Any], what: _Phrase, instances: Sequence[Instance], **facts: object
) -> None:
    """One line for all of them, with the first names; at debug each of them is to be found."""
    first = instances[0]
    if len(instances) == 1:
        say(what.one, **facts, instance=first.id, instance_name=first.name)
        return
    say(what.many, **facts, instances=len(instances), names=name_first(instances))
    for instance in instances:
        log.debug(
            what.one,
            project=instance.project_id,
            reason=facts["reason"],
            instance=instance.id,
            instance_name=instance.name,
        )


def log_listings(results: Sequence[InstanceResult]) -> None:
    """How far the first listings are, which go on behind the scrapes."""
    waiting = [
        result for result in results if result.reading is not None and result.reading.count is None
    ]
    listings = [result.progress for result in waiting if result.progress is not None]
    if listings:
        log.info(
            "first listings go on",
            instances=len(waiting),
            pages_done=sum(progress.pages_done for progress in listings),
            pages_total=sum(progress.pages_total for progress in listings),
        )


class SourceChanges:
    """Of what is asked beside the backups: which instances' sources were told to fail, and why."""

    def __init__(self) -> None:
        self._told: dict[tuple[InstanceKey, Source], Failure] = {}

    def adopt(self, previous: "SourceChanges") -> None:
        self._told = previous._told

    def log(self, results: Iterable[InstanceResult]) -> None:
        """A line of the log for each cause that is new, and for each source that works again."""
        failing: dict[tuple[str, Source, Failure], list[InstanceResult]] = {}
        recovered: dict[tuple[str, Source], list[InstanceResult]] = {}
        for result in results:
            instance = result.instance
            for source, known in result.sources.items():
                told = self._told.get((instance.key, source))
                if known.failure is not None:
                    self._told[instance.key, source] = known.failure
                    if told is None or told.reason is not known.failure.reason:
                        cause = replace(known.failure, request_id="", tried=1)
                        failing.setdefault((instance.project_id, source, cause), []).append(result)
                elif told is not None and known.reading is not None:
                    del self._told[instance.key, source]
                    recovered.setdefault((instance.project_id, source), []).append(result)
        for (project_id, source, failure), those in failing.items():
            log.warning(
                "source failing",
                project=project_id,
                source=source.value,
                reason=failure.reason.value,
                error=failure.message,
                hint=failure.hint,
                **failure.facts,
                **_facts_of(those),
            )
        for (project_id, source), those in recovered.items():
            log.info(
                "source works again", project=project_id, source=source.value, **_facts_of(those)
            )


def _facts_of(results: Sequence[InstanceResult]) -> dict[str, object]:
    instances = [result.instance for result in results]
    return {
        "instances": len(instances),
        "names": name_first(instances),
    }
