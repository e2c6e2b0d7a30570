"""What is told in the log of a scrape: what has changed, never the same thing twice."""

from collections.abc import Sequence

import structlog

from exporter.models import InstanceResult
from exporter.scraping.watch import Watch

log = structlog.get_logger(__name__)


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
