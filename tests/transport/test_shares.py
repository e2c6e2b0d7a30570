"""Whose request goes before whose, and who may hold how many connections."""

import asyncio

import pytest

from exporter.errors import DeadlineError
from exporter.transport.limits import ConnectionPool, RateLimiter
from exporter.transport.query import Query, Share
from tests.support.virtual_time import Clock

UNLIMITED = 0.0


def make_limiter(pool: ConnectionPool, rate_limit: float = UNLIMITED) -> RateLimiter:
    return RateLimiter(pool, rate_limit=rate_limit, jitter=lambda low, high: high)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def stop(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Requests:
    """Requests that begin when they may and end when they are told to."""

    def __init__(self, limiter: RateLimiter) -> None:
        self.limiter = limiter
        self.sent: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.answer = asyncio.Event()

    async def send(self, name: str, query: Query) -> None:
        permit = await self.limiter.acquire(query)
        self.sent.append(name)
        try:
            with query.sending("host"):
                await self.answer.wait()
        finally:
            self.limiter.release(permit.share)

    def start(self, count: int, name: str, share: Share, requests: int = 0) -> list[Query]:
        queries = [Query(share=share, requests=requests) for _ in range(count)]
        self.tasks += [asyncio.create_task(self.send(name, query)) for query in queries]
        return queries


@pytest.mark.parametrize(
    ("share", "held"), [(Share.NEW, 50), (Share.UNANSWERED, 10), (Share.BEHIND, 40)]
)
async def test_each_share_holds_no_more_connections_than_are_its(
    clock: Clock, share: Share, held: int
) -> None:
    requests = Requests(make_limiter(ConnectionPool(50)))
    requests.start(60, "x", share)
    await settle()
    assert len(requests.sent) == held
    requests.answer.set()
    await asyncio.gather(*requests.tasks)
    assert len(requests.sent) == 60


@pytest.mark.parametrize("share", Share)
async def test_one_connection_serves_every_share(clock: Clock, share: Share) -> None:
    requests = Requests(make_limiter(ConnectionPool(1)))
    requests.start(3, "x", share)
    requests.answer.set()
    await asyncio.gather(*requests.tasks)
    assert len(requests.sent) == 3


async def test_what_hangs_leaves_connections_to_the_others_of_its_project(clock: Clock) -> None:
    requests = Requests(make_limiter(ConnectionPool(10)))
    requests.start(20, "hangs", Share.UNANSWERED)
    requests.start(20, "behind", Share.BEHIND)
    requests.start(20, "new", Share.NEW)
    await settle()
    assert [requests.sent.count(name) for name in ("hangs", "behind", "new")] == [2, 6, 2]
    await stop(requests.tasks)


async def test_another_project_takes_what_one_gives_back_of_a_share(clock: Clock) -> None:
    pool = ConnectionPool(10)
    first, second = Requests(make_limiter(pool)), Requests(make_limiter(pool))
    first.start(6, "x", Share.BEHIND)
    await settle()
    second.start(6, "x", Share.BEHIND)
    await settle()
    assert (len(first.sent), len(second.sent)) == (6, 2)
    first.answer.set()
    await settle()
    assert len(second.sent) == 6
    await stop([*first.tasks, *second.tasks])


async def test_what_is_new_goes_first_whatever_came_before_it(clock: Clock) -> None:
    requests = Requests(make_limiter(ConnectionPool(50), rate_limit=1.0))
    requests.answer.set()
    requests.start(1, "first", Share.NEW)
    await settle()
    requests.start(2, "behind", Share.BEHIND)
    requests.start(2, "unanswered", Share.UNANSWERED)
    requests.start(2, "further", Share.NEW, requests=1)
    await clock.advance(0.5)
    requests.start(2, "new", Share.NEW)
    await asyncio.gather(*requests.tasks)
    assert requests.sent == [
        "first",
        *["new"] * 2,
        *["further"] * 2,
        *["unanswered"] * 2,
        *["behind"] * 2,
    ]


async def test_who_waits_can_tell_what_for(clock: Clock) -> None:
    busy = Requests(make_limiter(ConnectionPool(5)))
    busy.start(5, "x", Share.NEW)
    (new,) = busy.start(1, "x", Share.NEW)
    hanging = Requests(make_limiter(ConnectionPool(5)))
    (_, unanswered) = hanging.start(2, "x", Share.UNANSWERED)
    limited = Requests(make_limiter(ConnectionPool(5), rate_limit=2.0))
    (*_, late) = limited.start(3, "x", Share.NEW)
    silent = Requests(make_limiter(ConnectionPool(5)))
    permit = await silent.limiter.acquire(Query())
    silent.limiter.throttled(permit, retry_after=30.0, hint=None)
    (quiet,) = silent.start(1, "x", Share.NEW)
    await settle()
    assert [query.waits_for for query in (new, unanswered, late, quiet)] == [
        "a free one of the 5 connections (api.max_connections)",
        "one of the 1 connections for instances that did not answer last time",
        "its turn, 2 requests a second (api.rate_limit)",
        "the end of the silence after a 429, in 30 s",
    ]
    late.expire()
    with pytest.raises(DeadlineError, match="waited for its turn, 2 requests a second"):
        await limited.tasks[2]
    assert late.waits_for == ""
    for requests in (busy, hanging, limited, silent):
        await stop(requests.tasks)
