"""The limits of what nobody waits for: it keeps nothing waiting that somebody does."""

from exporter.transport.backoff import Jitter
from exporter.transport.limits import ConnectionPool, Permit, RateLimiter
from exporter.transport.query import Query, Share


def background_pool(pool: ConnectionPool) -> ConnectionPool:
    """For all projects together, half of the connections: the others stay free for queries."""
    return ConnectionPool(max(1, pool.max_connections // 2), behind=1.0)


class BackgroundLimiter:
    """A project's limiter for requests that have time.

    They pass a limit of their own, half of the project's, and then the project's, where they go
    after all others. A 429 silences them alone: it may be of an API that only they call.
    """

    def __init__(
        self, limiter: RateLimiter, pool: ConnectionPool, *, rate_limit: float, jitter: Jitter
    ) -> None:
        self._limiter = limiter
        self._own = RateLimiter(pool, rate_limit=rate_limit / 2, jitter=jitter)

    async def acquire(self, query: Query) -> Permit:
        """As RateLimiter's."""
        permit = await self._own.acquire(query)
        try:
            await self._limiter.acquire(query)
        except BaseException:
            self._own.release(query.share)
            raise
        return permit

    def release(self, share: Share = Share.BEHIND) -> None:
        self._limiter.release(share)
        self._own.release(share)

    def ended(self, permit: Permit, *, answered: bool) -> None:
        self._own.ended(permit, answered=answered)

    def succeeded(self, permit: Permit) -> None:
        self._own.succeeded(permit)

    def throttled(
        self, permit: Permit, *, retry_after: float | None, hint: float | None, by: str = ""
    ) -> float:
        return self._own.throttled(permit, retry_after=retry_after, hint=hint, by=by)

    def close(self) -> None:
        self._own.close()
