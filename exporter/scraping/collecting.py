"""What each instance has come to when a scrape's time is over."""

import asyncio

from exporter.errors import Reason
from exporter.models import Failure, InstanceResult, Reading
from exporter.scraping.changes import log_change
from exporter.scraping.failures import DEADLINE
from exporter.scraping.in_flight import InFlightQuery
from exporter.scraping.watch import Watch


def collect(
    watch: Watch,
    in_flight: InFlightQuery,
    *,
    begun: float,
    deadline: float,
) -> InstanceResult:
    """The instance's part in the scrape from `begun` to `deadline`, whatever its query does."""
    outcome = in_flight.outcome
    finished = in_flight.finished
    requests, failed = in_flight.requests_after, in_flight.failed_after
    cut_off, watch.cut_off = watch.cut_off, 0
    if outcome is None:
        finished = asyncio.get_running_loop().time()
        requests, failed = watch.meter.requests, watch.meter.failed
        if in_flight.early is not None and in_flight.early_at >= begun:
            # The listing goes on in the next scrape from the pages that it has.
            outcome = in_flight.early
            watch.last_success = watch.clock()
        else:
            outcome = DEADLINE
        if in_flight.query.deadline <= deadline:  # no other scrape waits longer
            expire(watch, in_flight)
    elif in_flight.early is not None and isinstance(outcome, Failure):
        # Only the listing anew has failed: it is due again at the next scrape.
        outcome = in_flight.early if in_flight.early_at >= begun else outcome
        if isinstance(outcome, Reading):
            watch.last_success = watch.clock()
    api_errors = failed - in_flight.failed_before
    if isinstance(outcome, Failure) and outcome.reason is Reason.DEADLINE:
        watch.cut_off = cut_off + 1
        watch.meter.count_error(Reason.DEADLINE)
        api_errors += 1
    if isinstance(outcome, Reading):
        watch.last_reading = outcome
        if outcome.latest_end is not None:
            watch.last_end = outcome.latest_end
    result = InstanceResult(
        instance=watch.instance,
        reading=outcome if isinstance(outcome, Reading) else None,
        failure=outcome if isinstance(outcome, Failure) else None,
        duration_seconds=finished - in_flight.started,
        api_requests=requests - in_flight.requests_before,
        api_errors=api_errors,
        api_requests_total=watch.meter.requests,
        api_errors_total=dict(watch.meter.errors),
        last_success=watch.last_success,
        progress=watch.sync.progress,
        last_reading=watch.last_reading,
        last_end=watch.last_end,
        clock_ahead_seconds=watch.clock.ahead,
    )
    if in_flight.started >= watch.result_begun:  # not where a later query was faster
        watch.result, watch.result_begun = result, in_flight.started
        log_change(watch, result, now=watch.clock())
    return result


def expire(watch: Watch, in_flight: InFlightQuery) -> None:
    """No scrape waits any longer: nothing new is waited for, what was sent goes on."""
    in_flight.query.expire()
    if in_flight.early is not None and in_flight.task is not None:
        # It has given its numbers; the next scrape needs newer ones at once.
        in_flight.task.cancel()
        watch.in_flight = None
