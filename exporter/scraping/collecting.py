"""What each instance has come to when a scrape's time is over."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from exporter.errors import Reason
from exporter.models import Failure, InstanceResult, Reading
from exporter.scraping.changes import Changes
from exporter.scraping.failures import NO_TIME, not_in_time
from exporter.scraping.in_flight import InFlightQuery
from exporter.scraping.sources import SourceResults
from exporter.scraping.watch import Watch

# With less time than this a scrape asks in vain. That is nobody's failure but the scraper's.
LEAST_SECONDS = 0.5
# Numbers of a query that another scrape has begun are as good as new for so long.
SHARED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Span:
    """A scrape's time, in the loop's."""

    begun: float
    deadline: float

    @property
    def is_enough(self) -> bool:
        """Whether what is not answered in it says something of the instance."""
        return self.deadline - self.begun >= LEAST_SECONDS


def collect(
    watch: Watch,
    in_flight: InFlightQuery,
    span: Span,
    sources: SourceResults,
    changes: Changes,
) -> InstanceResult:
    """The instance's part in the scrape, whatever its query does."""
    now = asyncio.get_running_loop().time()
    outcome = _outcome(watch, in_flight, span)
    finished, requests, failed = (
        (now, watch.meter.requests, watch.meter.failed)
        if in_flight.outcome is None
        else (in_flight.finished, in_flight.requests_after, in_flight.failed_after)
    )
    api_errors = failed - in_flight.failed_before
    failure = outcome if isinstance(outcome, Failure) else None
    if span.is_enough or failure is None or failure.reason is not Reason.DEADLINE:
        reason = failure.reason if failure is not None else None
        watch.had_its_turn(in_flight.query, reason, begun=span.begun)
        if reason is Reason.DEADLINE:
            watch.meter.count_error(Reason.DEADLINE)
            api_errors += 1
    if in_flight.outcome is None and in_flight.query.deadline <= span.deadline:
        expire(watch, in_flight)  # no other scrape waits longer
    if isinstance(outcome, Reading):
        watch.last_reading = outcome
        if outcome is in_flight.early:
            watch.last_success = watch.clock()
        if outcome.latest_end is not None:
            watch.last_end = outcome.latest_end
    result = InstanceResult(
        instance=watch.instance,
        reading=outcome if isinstance(outcome, Reading) else None,
        failure=failure,
        duration_seconds=finished - in_flight.started,
        api_requests=requests - in_flight.requests_before,
        api_errors=api_errors,
        api_requests_total=watch.meter.requests + sources.requests,
        api_errors_total=_total_errors(watch.meter.errors, sources.errors),
        last_success=watch.last_success,
        progress=watch.sync.progress,
        last_reading=watch.last_reading,
        last_end=watch.last_end,
        clock_ahead_seconds=watch.clock.ahead,
        restore_window=sources.restore_window,
        full_backups=sources.full_backups,
    )
    # Not where a later query was faster, nor where there was no time to learn anything.
    if in_flight.started >= watch.result_begun and failure is not NO_TIME:
        watch.result, watch.result_begun = result, in_flight.started
        changes.note(watch, result, now=watch.clock())
    return result


def _total_errors(
    queries: Mapping[Reason, int], sources: Mapping[Reason, int]
) -> Mapping[Reason, int]:
    if not sources:
        return dict(queries)
    return {reason: count + sources[reason] for reason, count in queries.items()}


def _outcome(watch: Watch, in_flight: InFlightQuery, span: Span) -> Reading | Failure:
    outcome = in_flight.outcome
    is_open = outcome is None or (
        isinstance(outcome, Failure) and outcome.reason is Reason.DEADLINE
    )
    age = asyncio.get_running_loop().time() - span.begun
    in_time = in_flight.early_age <= age + SHARED_SECONDS
    if is_open and in_flight.early is not None and in_time:
        return in_flight.early  # the window is still being listed
    if outcome is None:
        outcome = not_in_time(in_flight.query, in_flight.redact, progress=watch.sync.progress)
    if isinstance(outcome, Failure) and outcome.reason is Reason.DEADLINE and not span.is_enough:
        return NO_TIME
    return outcome


def expire(watch: Watch, in_flight: InFlightQuery) -> None:
    """No scrape waits any longer: nothing new is waited for, what was sent goes on."""
    in_flight.query.expire()
    if in_flight.early is not None and in_flight.task is not None:
        # It has given its numbers; the next scrape needs newer ones at once.
        in_flight.task.cancel()
        watch.in_flight = None
