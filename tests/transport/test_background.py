"""What nobody waits for keeps nothing waiting that somebody does."""

import asyncio

import pytest

from exporter.errors import RateLimitedError
from exporter.transport.background import BackgroundLimiter, background_pool
from exporter.transport.limits import ConnectionPool, RateLimiter
from exporter.transport.query import Query
from tests.support.virtual_time import Clock


class Project:
    """A project's two limiters."""

    def __init__(
        self, pool: ConnectionPool, background: ConnectionPool, *, rate_limit: float = 0.0
    ) -> None:
        self.limiter = RateLimiter(pool, rate_limit=rate_limit, jitter=lambda low, high: high)
        self.background = BackgroundLimiter(
            self.limiter, background, rate_limit=rate_limit, jitter=lambda low, high: high
        )


def make_projects(
    count: int = 1, *, max_connections: int = 50, rate_limit: float = 0.0
) -> list[Project]:
    pool = ConnectionPool(max_connections)
    background = background_pool(pool)
    return [Project(pool, background, rate_limit=rate_limit) for _ in range(count)]


def loop_time() -> float:
    return asyncio.get_running_loop().time()


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def in_background() -> Query:
    return Query(background=True)


async def test_the_background_has_half_of_the_connections(clock: Clock) -> None:
    first, second = make_projects(2, max_connections=10)
    asked = [
        asyncio.create_task(project.background.acquire(in_background()))
        for project in (first, second)
        for _ in range(20)
    ]
    await settle()
    assert sum(task.done() for task in asked) == 5
    # A query finds its slots free, whatever the background does.
    queries = [asyncio.create_task(second.limiter.acquire(Query())) for _ in range(5)]
    await settle()
    assert all(task.done() for task in queries)
    for task in asked:
        task.cancel()


async def test_a_single_connection_serves_both(clock: Clock) -> None:
    (project,) = make_projects(max_connections=1)
    await project.background.acquire(in_background())
    query = asyncio.create_task(project.limiter.acquire(Query()))
    await settle()
    project.background.release()
    await settle()
    assert query.done()


async def test_queries_go_before_the_background_that_came_first(clock: Clock) -> None:
    (project,) = make_projects(max_connections=1)
    await project.limiter.acquire(Query())
    order: list[str] = []

    async def ask(name: str, background: bool) -> None:
        limiter = project.background if background else project.limiter
        await limiter.acquire(Query(background=background))
        order.append(name)
        limiter.release()

    tasks = [asyncio.create_task(ask("behind", True))]
    await settle()
    tasks += [asyncio.create_task(ask(name, False)) for name in ("one", "two")]
    await settle()
    project.limiter.release()
    await asyncio.gather(*tasks)
    assert order == ["one", "two", "behind"]


async def test_queries_of_one_project_go_before_the_background_of_another(clock: Clock) -> None:
    first, second = make_projects(2, max_connections=2)
    for _ in range(2):
        await first.limiter.acquire(Query())
    behind = asyncio.create_task(first.background.acquire(in_background()))
    await settle()
    queries = [asyncio.create_task(second.limiter.acquire(Query())) for _ in range(2)]
    await settle()
    first.limiter.release()
    await settle()
    first.limiter.release()
    await settle()
    assert [task.done() for task in (behind, *queries)] == [False, True, True]
    behind.cancel()


async def test_the_background_leaves_half_of_the_rate(clock: Clock) -> None:
    """In the second in which it asks as fast as it may, 25 of 50 are left for queries."""
    (project,) = make_projects(rate_limit=50)
    sent: list[float] = []
    started = loop_time()

    async def ask() -> None:
        await project.background.acquire(in_background())
        sent.append(loop_time() - started)
        project.background.release()

    await asyncio.gather(*(ask() for _ in range(50)))
    assert sum(moment < 1.0 for moment in sent) == 25
    assert max(sent) < 2.0


async def test_a_query_waits_for_no_more_than_its_share_of_a_second(clock: Clock) -> None:
    (project,) = make_projects(rate_limit=50)

    async def ask() -> None:
        await project.background.acquire(in_background())
        project.background.release()

    behind = [asyncio.create_task(ask()) for _ in range(500)]
    await clock.advance(3)
    started = loop_time()
    await project.limiter.acquire(Query())
    assert loop_time() - started <= 0.1  # a tenth of a second's requests may go at once
    for task in behind:
        task.cancel()


async def test_a_429_of_the_background_silences_it_alone(clock: Clock) -> None:
    (project,) = make_projects()
    permit = await project.background.acquire(in_background())
    assert project.background.throttled(permit, retry_after=60, hint=None) == 60
    project.background.release()
    started = loop_time()
    await project.limiter.acquire(Query())
    assert loop_time() == started
    with pytest.raises(RateLimitedError):
        await project.background.acquire(Query(background=True, deadline=started + 30))


async def test_a_429_of_a_query_silences_the_background_too(clock: Clock) -> None:
    (project,) = make_projects()
    permit = await project.limiter.acquire(Query())
    project.limiter.throttled(permit, retry_after=7, hint=None)
    project.limiter.release()
    started = loop_time()
    await project.background.acquire(in_background())
    assert loop_time() - started == 7


async def test_what_is_given_up_gives_back_what_it_holds(clock: Clock) -> None:
    (project,) = make_projects(max_connections=2)
    for _ in range(2):
        await project.limiter.acquire(Query())
    behind = asyncio.create_task(project.background.acquire(in_background()))
    await settle()
    behind.cancel()
    await settle()
    project.limiter.release()
    await project.background.acquire(in_background())
