"""What is told in the log of a scrape: what has changed, never the same thing twice."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import structlog

from exporter.models import Failure, InstanceKey, InstanceResult, Source
from exporter.scraping.watch import Watch

log = structlog.get_logger(__name__)

_NAMED = 5  # of many instances, in a line of the log


def log_change(watch: Watch, result: InstanceResult, *, now: float) -> None:
    """One line when an instance starts failing, and one when it recovers."""
    failure = result.failure
    facts = {
        "project": watch.instance.project_id,
        "instance": watch.instance.id,
        "instance_name": watch.instance.name,
    }
    if failure is not None:
        if watch.failing_reason is not failure.reason:
            if watch.failing_since is None:
                watch.failing_since = now
            watch.failing_reason = failure.reason
            log.warning(
                "instance failing",
                reason=failure.reason.value,
                error=failure.message,
                hint=failure.hint,
                **failure.facts,
                **facts,
            )
    elif watch.failing_since is not None:
        log.info("instance recovered", failed_seconds=round(now - watch.failing_since), **facts)
        watch.failing_since = watch.failing_reason = None


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
        "names": [each.name or each.id for each in instances[:_NAMED]],
    }
