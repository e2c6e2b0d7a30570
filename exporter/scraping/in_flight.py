"""One query of an instance under way, which outlives the scrape that began it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from exporter.errors import ApiError, DeadlineError, Reason
from exporter.models import Failure, InstanceKey, Reading
from exporter.scraping.failures import failure_of, mistake, not_in_time
from exporter.transport.clock import steady_time
from exporter.transport.query import Query

log = structlog.get_logger(__name__)

# What asks the cloud; numbers that are known before it ends go to the second argument.
Refresh = Callable[[Query, Callable[[Reading], None]], Awaitable[Reading]]


@dataclass(slots=True, eq=False)
class InFlightQuery:
    """All scrapes that come while it is under way wait for the same one. Times are the loop's."""

    query: Query
    started: float
    redact: Callable[[str], str] = str  # takes the secrets out of what the cloud has said
    requests_before: int = 0
    failed_before: int = 0
    task: "asyncio.Task[None] | None" = None
    outcome: Reading | Failure | None = None
    finished: float = 0.0
    # Of the instance's meter when it ended: a later query may count on.
    requests_after: int = 0
    failed_after: int = 0
    # What is known before the whole window is listed: serves if that takes too long.
    early: Reading | None = None
    early_at: float = 0.0  # its steady time

    @classmethod
    def begin(cls, query: Query, redact: Callable[[str], str]) -> "InFlightQuery":
        return cls(
            query=query,
            redact=redact,
            started=asyncio.get_running_loop().time(),
            requests_before=query.meter.requests,
            failed_before=query.meter.failed,
        )

    @property
    def is_answered(self) -> bool:
        """Whether it is known what is new; the whole window may still be waited for."""
        return self.early is not None or self.outcome is not None

    @property
    def early_age(self) -> float:
        """How old the early numbers are, in seconds; those that there are not yet have no age."""
        return steady_time() - self.early_at if self.early is not None else 0.0

    def end(self) -> None:
        self.finished = asyncio.get_running_loop().time()
        self.requests_after = self.query.meter.requests
        self.failed_after = self.query.meter.failed

    async def run(self, refresh: Refresh, *, of: InstanceKey) -> None:
        """Ask, and keep the outcome whatever it is."""
        meter = self.query.meter
        try:
            await self._refresh(refresh)
        except ApiError as exc:
            if not exc.counted:
                meter.count_error(exc.reason)
            self.outcome = failure_of(exc, self.redact)
        except Exception as exc:
            log.exception("query broke", project=of.project_id, instance=of.instance_id)
            meter.count_error(Reason.BAD_RESPONSE)
            self.outcome = Failure.of(mistake(exc))
        finally:
            self.end()

    async def _refresh(self, refresh: Refresh) -> None:
        loop = asyncio.get_running_loop()

        def publish(reading: Reading) -> None:
            self.early, self.early_at = reading, steady_time()

        while self.outcome is None:
            try:
                self.outcome = await refresh(self.query, publish)
            except DeadlineError as exc:
                # Another scrape may have joined meanwhile, with a later deadline.
                if self.query.deadline <= loop.time():
                    self.outcome = not_in_time(self.query, self.redact, waited_for=exc.waited_for)


def cut_off(query: Query) -> InFlightQuery:
    """The query of an instance for which the deadline came before it could be begun."""
    never = InFlightQuery.begin(query, str)
    never.outcome = not_in_time(query, str, waited_for="its turn to begin")
    never.end()
    return never
