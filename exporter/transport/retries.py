"""A request that failed for a passing reason is sent again."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from exporter.errors import ApiError, RateLimitedError, UnavailableError
from exporter.transport.backoff import Jitter, retry_seconds
from exporter.transport.query import Query

log = structlog.get_logger(__name__)

T = TypeVar("T")

_RETRIED_STATUSES = frozenset({429, 502, 503, 504})


async def with_retries(
    send: Callable[[], Awaitable[T]], *, query: Query, retries: int, jitter: Jitter
) -> T:
    """What `send` gives, tried again `retries` times at most and within the query's deadline.

    Raises ApiError, which tells how often it was tried, and DeadlineError. What failed last is
    the query's `trouble`, for whom the deadline comes first.
    """
    attempt = 0
    while True:
        try:
            return await send()
        except (UnavailableError, RateLimitedError) as exc:
            # What keeps a retry from being sent is no second failure, and no try.
            exc.tried = attempt + 1 if exc.counted else max(1, attempt)
            exc.counted = exc.counted or attempt > 0
            query.trouble = exc.kept()
            if attempt >= retries or not _is_retried(exc):
                raise
            if isinstance(exc, RateLimitedError):
                # The limiter keeps the project silent: nothing to wait for here.
                if not query.has_time_for(exc.retry_after or 0.0):
                    raise
                wait = 0.0
            else:
                wait = retry_seconds(attempt, exc.retry_after, jitter=jitter)
            if not query.has_time_for(wait):
                raise
            log.debug(
                "request retried",
                operation=exc.operation,
                attempt=attempt + 1,
                wait_seconds=round(wait, 3),
                error=exc.message,
            )
            if wait:
                await query.sleep(wait)
            attempt += 1
        except ApiError as exc:
            exc.tried = attempt + 1 if exc.counted else max(1, attempt)
            query.trouble = exc.kept()
            raise


def _is_retried(error: ApiError) -> bool:
    """429, 502, 503, 504 and whatever kept an answer from coming; nothing that was not sent."""
    if error.status is None:
        return error.counted
    return error.status in _RETRIED_STATUSES
