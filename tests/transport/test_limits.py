import asyncio
import random
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import DeadlineError, RateLimitedError, Reason
from exporter.transport.backoff import (
    backoff_seconds,
    parse_policy_hint,
    parse_retry_after,
    retry_seconds,
)
from exporter.transport.limits import ConnectionPool, Permit, RateLimiter
from exporter.transport.query import Meter, Query
from tests.support.searches import extent
from tests.support.virtual_time import HOUR, NOON, Clock, VirtualTimeLoop

FOREVER = float("inf")


def longest(low: float, high: float) -> float:
    """A jitter that is always unlucky."""
    return high


def make_limiter(
    pool: ConnectionPool | None = None, *, rate_limit: float = 0.0, max_connections: int = 50
) -> RateLimiter:
    return RateLimiter(
        pool or ConnectionPool(max_connections), rate_limit=rate_limit, jitter=longest
    )


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def loop_time() -> float:
    return asyncio.get_running_loop().time()


# Slots -----------------------------------------------------------------------------------------


async def test_a_free_slot_is_given_at_once(clock: Clock) -> None:
    pool = ConnectionPool(2)
    limiter = make_limiter(pool)
    permit = await limiter.acquire(Query())
    assert permit.limiter is limiter
    assert (pool.in_flight, limiter.in_flight) == (1, 1)
    limiter.release()
    assert (pool.in_flight, limiter.in_flight) == (0, 0)


async def test_who_finds_no_slot_waits_for_the_next_one(clock: Clock) -> None:
    limiter = make_limiter(max_connections=1)
    await limiter.acquire(Query())
    second = asyncio.create_task(limiter.acquire(Query()))
    await settle()
    assert not second.done()
    limiter.release()
    await settle()
    assert second.done()
    assert limiter.in_flight == 1


async def test_lower_priorities_go_first_and_equals_in_turn(clock: Clock) -> None:
    limiter = make_limiter(max_connections=1)
    await limiter.acquire(Query())
    order: list[str] = []

    async def ask(name: str, priority: int) -> None:
        await limiter.acquire(Query(priority=priority))
        order.append(name)
        limiter.release()

    tasks = [
        asyncio.create_task(ask(name, priority))
        for name, priority in [("c", 3), ("a1", 1), ("b", 2), ("a2", 1)]
    ]
    await settle()
    limiter.release()
    await asyncio.gather(*tasks)
    assert order == ["a1", "a2", "b", "c"]


async def test_projects_take_turns(clock: Clock) -> None:
    pool = ConnectionPool(1)
    limiters = {"one": make_limiter(pool), "two": make_limiter(pool), "three": make_limiter(pool)}
    await limiters["one"].acquire(Query())
    order: list[str] = []

    async def ask(name: str) -> None:
        await limiters[name].acquire(Query())
        order.append(name)
        limiters[name].release()

    tasks = [asyncio.create_task(ask(name)) for name in ["one"] * 4 + ["two"] * 2 + ["three"]]
    await settle()
    limiters["one"].release()
    await asyncio.gather(*tasks)
    assert order == ["one", "two", "three", "one", "two", "one", "one"]


async def test_a_project_that_hangs_leaves_slots_for_the_others(clock: Clock) -> None:
    pool = ConnectionPool(8)
    hanging, other = make_limiter(pool), make_limiter(pool)
    tasks = [asyncio.create_task(hanging.acquire(Query())) for _ in range(20)]
    await settle()
    assert hanging.in_flight == 6  # the other one's part of the half that is kept stays free
    await other.acquire(Query())
    await other.acquire(Query())
    assert pool.in_flight == 8
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_slots_kept_for_a_project_are_free_when_it_is_gone(clock: Clock) -> None:
    pool = ConnectionPool(8)
    limiter, gone = make_limiter(pool), make_limiter(pool)
    tasks = [asyncio.create_task(limiter.acquire(Query())) for _ in range(8)]
    await settle()
    assert limiter.in_flight == 6
    gone.close()
    limiter.release()
    await settle()
    assert limiter.in_flight == 7  # one of the six is back, and two more went
    await asyncio.gather(*tasks)


async def test_one_connection_serves_all_projects_in_turn(clock: Clock) -> None:
    pool = ConnectionPool(1)
    limiters = [make_limiter(pool) for _ in range(5)]
    served = []

    async def ask(index: int) -> None:
        await limiters[index].acquire(Query())
        await asyncio.sleep(1)
        served.append(index)
        limiters[index].release()

    await asyncio.gather(*map(ask, range(5)))
    assert sorted(served) == list(range(5))
    assert loop_time() == 5


# Waiting that ends -----------------------------------------------------------------------------


async def test_waiting_ends_when_the_query_expires(clock: Clock) -> None:
    limiter = make_limiter(max_connections=1)
    await limiter.acquire(Query())
    query = Query(deadline=5.0)
    waiting = [asyncio.create_task(limiter.acquire(query)) for _ in range(3)]
    await settle()
    query.expire()
    for task in waiting:
        with pytest.raises(DeadlineError):
            await task
    limiter.release()
    assert limiter.in_flight == 0
    query.expire()  # nobody waits: nothing happens


async def test_a_query_after_its_deadline_goes_if_nothing_keeps_it_waiting(clock: Clock) -> None:
    limiter = make_limiter(max_connections=1)
    late = Query(deadline=-1.0)
    await limiter.acquire(late)
    with pytest.raises(DeadlineError):
        await limiter.acquire(late)


async def test_a_cancelled_waiter_does_not_take_the_slot_with_it(clock: Clock) -> None:
    limiter = make_limiter(max_connections=1)
    await limiter.acquire(Query())
    first = asyncio.create_task(limiter.acquire(Query()))
    second = asyncio.create_task(limiter.acquire(Query()))
    await settle()
    first.cancel()
    limiter.release()
    await settle()
    assert first.cancelled()
    assert second.done()


async def test_a_slot_given_to_one_who_is_cancelled_at_once_is_passed_on(clock: Clock) -> None:
    limiter = make_limiter(max_connections=1)
    await limiter.acquire(Query())
    first = asyncio.create_task(limiter.acquire(Query()))
    second = asyncio.create_task(limiter.acquire(Query()))
    await settle()
    limiter.release()  # the slot is the first one's
    first.cancel()
    await settle()
    assert first.cancelled()
    assert second.done()
    assert limiter.in_flight == 1


async def test_a_sleep_ends_in_time_or_when_the_query_expires(clock: Clock) -> None:
    query = Query(deadline=100.0)
    await query.sleep(30)
    assert loop_time() == 30
    sleeper = asyncio.create_task(query.sleep(60))
    await settle()
    query.expire()
    with pytest.raises(DeadlineError):
        await sleeper
    assert loop_time() == 30


async def test_a_query_knows_what_it_has_time_for(clock: Clock) -> None:
    query = Query(deadline=10.0)
    assert query.has_time_for(9.9)
    assert not query.has_time_for(10.0)
    assert Query().has_time_for(1e9)


# Rate ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 5, 50])
async def test_no_second_sees_more_requests_than_the_limit(clock: Clock, rate: int) -> None:
    limiter = make_limiter(rate_limit=rate, max_connections=10_000)
    rng = random.Random(rate)
    sent: list[float] = []

    async def ask(after: float) -> None:
        await asyncio.sleep(after)
        await limiter.acquire(Query())
        sent.append(loop_time())
        limiter.release()

    await asyncio.gather(*(ask(rng.choice([0.0, 0.3, 2.0, 9.0])) for _ in range(rate * 12)))
    sent.sort()
    # The (n + rate)th comes a second after the nth at the soonest.
    assert all(b - a >= 1 - 1e-9 for a, b in zip(sent, sent[rate:], strict=False))
    assert sent[-1] <= 9 + 12  # and not much later than the limit wants


async def test_no_second_sees_more_than_the_whole_part_of_a_broken_rate(clock: Clock) -> None:
    limiter = make_limiter(rate_limit=2.5)
    sent = []
    for _ in range(6):
        await limiter.acquire(Query())
        sent.append(loop_time())
        limiter.release()
    assert sent == [0, 0.5, 1, 1.5, 2, 2.5]


@pytest.mark.parametrize(("rate", "at_once"), [(5, 1), (10, 1), (50, 5), (200, 20)])
async def test_the_requests_of_a_second_are_spread_over_it(
    clock: Clock, rate: int, at_once: int
) -> None:
    """What arrives a little late does not meet all of the next second's."""
    limiter = make_limiter(rate_limit=rate, max_connections=10_000)
    sent = []
    for _ in range(3 * rate):
        await limiter.acquire(Query())
        sent.append(loop_time())
        limiter.release()
    for tenth in range(0, 3 * rate, at_once):
        assert sent[tenth : tenth + at_once] == pytest.approx([tenth / rate] * at_once)


async def test_a_rate_under_one_means_a_request_every_few_seconds(clock: Clock) -> None:
    limiter = make_limiter(rate_limit=0.25)
    sent = []
    for _ in range(4):
        await limiter.acquire(Query())
        sent.append(loop_time())
        limiter.release()
    assert sent == [0, 4, 8, 12]


async def test_a_rate_of_zero_is_no_limit(clock: Clock) -> None:
    limiter = make_limiter(rate_limit=0)
    for _ in range(1000):
        await limiter.acquire(Query())
        limiter.release()
    assert loop_time() == 0


async def test_the_rate_of_one_project_does_not_slow_another(clock: Clock) -> None:
    pool = ConnectionPool(10)
    slow, fast = make_limiter(pool, rate_limit=1), make_limiter(pool, rate_limit=0)
    await slow.acquire(Query())
    slow.release()
    waiting = asyncio.create_task(slow.acquire(Query()))
    await settle()
    await fast.acquire(Query())
    assert loop_time() == 0
    await waiting
    assert loop_time() == 1


async def test_a_closed_lane_wakes_nobody(clock: Clock) -> None:
    limiter = make_limiter(rate_limit=1)
    await limiter.acquire(Query())
    waiting = asyncio.create_task(limiter.acquire(Query()))
    await settle()
    limiter.close()
    await asyncio.sleep(10)
    assert not waiting.done()
    waiting.cancel()
    make_limiter().close()  # one that never waited closes as well


# Silence after a 429 ---------------------------------------------------------------------------


async def throttle(
    limiter: RateLimiter, *, retry_after: float | None = None, hint: float | None = None
) -> float:
    """One request that is answered with a 429."""
    permit = await limiter.acquire(Query())
    try:
        return limiter.throttled(permit, retry_after=retry_after, hint=hint)
    finally:
        limiter.release()


async def succeed(limiter: RateLimiter, query: Query | None = None) -> None:
    permit = await limiter.acquire(query or Query())
    limiter.succeeded(permit)
    limiter.release()


async def test_the_whole_project_is_silent_as_long_as_the_answer_says(clock: Clock) -> None:
    limiter = make_limiter()
    assert await throttle(limiter, retry_after=7) == 7
    await asyncio.gather(*(succeed(limiter) for _ in range(5)))
    assert loop_time() == 7


async def test_a_silence_is_told_with_the_proxy_that_asked_for_it(clock: Clock) -> None:
    limiter = make_limiter()
    permit = await limiter.acquire(Query())
    limiter.throttled(permit, retry_after=7, hint=None, by="the proxy http://proxy:3128")
    limiter.release()
    with pytest.raises(RateLimitedError, match="for another 7 s after a 429 of the proxy http"):
        await limiter.acquire(Query(deadline=loop_time() + 5))


async def test_another_project_is_not_silent(clock: Clock) -> None:
    pool = ConnectionPool(10)
    throttled, other = make_limiter(pool), make_limiter(pool)
    await throttle(throttled, retry_after=60)
    await succeed(other)
    assert loop_time() == 0


@pytest.mark.parametrize(
    ("retry_after", "hint", "silence"),
    [
        (7.0, None, 7.0),
        (7.0, 300.0, 7.0),
        (0.0, 300.0, 1.0),  # never less than the back-off
        (None, 300.0, 1.0),
        (None, None, 1.0),
        (1e9, None, 900.0),
    ],
)
async def test_the_silence_is_what_is_named_within_a_quarter_of_an_hour(
    clock: Clock, retry_after: float | None, hint: float | None, silence: float
) -> None:
    assert await throttle(make_limiter(), retry_after=retry_after, hint=hint) == silence


async def test_without_a_time_named_the_silence_doubles_up_to_a_minute(clock: Clock) -> None:
    limiter = make_limiter()
    silences = [await throttle(limiter) for _ in range(9)]
    assert silences == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("hint", "longest"), [(300.0, 300), (9999 * HOUR, 900), (10.0, 60)])
async def test_the_period_of_a_policy_is_the_bound_of_the_doubling(
    clock: Clock, hint: float, longest: float
) -> None:
    limiter = make_limiter()
    silences = [await throttle(limiter, hint=hint) for _ in range(12)]
    assert silences[:6] == [1, 2, 4, 8, 16, 32]
    assert silences[-1] == longest


async def test_an_answer_ends_the_doubling(clock: Clock) -> None:
    limiter = make_limiter()
    for _ in range(3):
        await throttle(limiter)
    await succeed(limiter)
    assert await throttle(limiter) == 1


async def test_silence_is_drawn_at_random(clock: Clock) -> None:
    drawn: list[tuple[float, float]] = []

    def jitter(low: float, high: float) -> float:
        drawn.append((low, high))
        return high / 4

    limiter = RateLimiter(ConnectionPool(1), rate_limit=0, jitter=jitter)
    assert await throttle(limiter) == 0.25
    assert await throttle(limiter) == 0.5
    assert drawn == [(0.0, 1.0), (0.0, 2.0)]


async def test_answers_to_one_burst_count_as_one(clock: Clock) -> None:
    """Fifty requests were on their way: the next silence is not 2^50 times as long."""
    limiter = make_limiter()
    permits = [await limiter.acquire(Query()) for _ in range(50)]
    silences = [limiter.throttled(permit, retry_after=None, hint=None) for permit in permits]
    for _ in permits:
        limiter.release()
    assert silences == [1] * 50
    assert await throttle(limiter) == 2


async def test_a_late_answer_of_the_burst_may_name_a_longer_silence(clock: Clock) -> None:
    limiter = make_limiter()
    first, second = await limiter.acquire(Query()), await limiter.acquire(Query())
    assert limiter.throttled(first, retry_after=3, hint=None) == 3
    assert limiter.throttled(second, retry_after=20, hint=None) == 20
    limiter.release()
    limiter.release()
    await succeed(limiter)
    assert loop_time() == 20


async def test_a_late_success_of_the_burst_does_not_end_the_silence(clock: Clock) -> None:
    limiter = make_limiter()
    first, second = await limiter.acquire(Query()), await limiter.acquire(Query())
    limiter.throttled(first, retry_after=None, hint=None)
    limiter.succeeded(second)
    limiter.release()
    limiter.release()
    assert await throttle(limiter) == 2


async def test_who_cannot_wait_for_the_end_of_the_silence_is_told_at_once(clock: Clock) -> None:
    limiter = make_limiter(max_connections=1)
    permit = await limiter.acquire(Query())
    soon = asyncio.create_task(limiter.acquire(Query(deadline=29.0)))
    late = asyncio.create_task(limiter.acquire(Query(deadline=31.0)))
    await settle()
    limiter.throttled(permit, retry_after=30, hint=None)
    limiter.release()
    with pytest.raises(RateLimitedError, match="another 30 s after a 429") as caught:
        await soon
    assert loop_time() == 0
    assert caught.value.reason is Reason.THROTTLED
    assert caught.value.retry_after == 30
    assert caught.value.hint
    assert not caught.value.counted
    await late
    assert loop_time() == 30


async def test_who_comes_during_the_silence_is_told_at_once_too(clock: Clock) -> None:
    limiter = make_limiter()
    await throttle(limiter, retry_after=30)
    await asyncio.sleep(10)
    with pytest.raises(RateLimitedError, match="another 20 s"):
        await limiter.acquire(Query(deadline=30.0))
    assert loop_time() == 10


async def test_one_request_goes_first_after_the_silence(clock: Clock) -> None:
    limiter = make_limiter()
    await throttle(limiter, retry_after=30)
    sent: list[float] = []

    async def ask() -> None:
        permit = await limiter.acquire(Query())
        sent.append(loop_time())
        await asyncio.sleep(2)
        limiter.succeeded(permit)
        limiter.release()

    await asyncio.gather(*(ask() for _ in range(10)))
    assert sent == [30] + [32] * 9


async def test_a_first_request_that_is_refused_again_keeps_the_others_waiting(
    clock: Clock,
) -> None:
    limiter = make_limiter()
    await throttle(limiter, retry_after=30)
    sent: list[float] = []

    async def ask() -> None:
        permit = await limiter.acquire(Query())
        sent.append(loop_time())
        if len(sent) == 1:
            limiter.throttled(permit, retry_after=30, hint=None)
        else:
            limiter.succeeded(permit)
        limiter.release()

    await asyncio.gather(*(ask() for _ in range(5)))
    assert sent == [30] + [60] * 4


async def test_a_first_request_without_an_answer_lets_the_next_one_try(clock: Clock) -> None:
    limiter = make_limiter()
    await throttle(limiter, retry_after=30)
    sent: list[float] = []

    async def ask() -> None:
        await limiter.acquire(Query())
        sent.append(loop_time())
        await asyncio.sleep(5)
        limiter.release()  # neither a success nor a 429

    await asyncio.gather(*(ask() for _ in range(3)))
    assert sent == [30, 35, 40]


async def test_a_slot_given_just_before_a_429_is_not_used_in_the_silence(clock: Clock) -> None:
    limiter = make_limiter(max_connections=2)
    first = await limiter.acquire(Query())
    await limiter.acquire(Query())
    waiting = asyncio.create_task(limiter.acquire(Query()))
    hopeless = asyncio.create_task(limiter.acquire(Query(deadline=5.0)))
    await settle()
    limiter.release()  # the slot is given, its owner has not run yet
    limiter.throttled(first, retry_after=30, hint=None)
    limiter.release()
    with pytest.raises(RateLimitedError):
        await hopeless
    await waiting
    assert loop_time() == 30
    assert limiter.in_flight == 1


# Back-off --------------------------------------------------------------------------------------


def test_back_off_is_full_jitter_up_to_a_cap() -> None:
    bounds: list[tuple[float, float]] = []

    def jitter(low: float, high: float) -> float:
        bounds.append((low, high))
        return low

    for attempt in (0, 1, 2, 5, 10**6):
        assert backoff_seconds(attempt, base=0.5, cap=10.0, jitter=jitter) == 0
    assert bounds == [(0, 0.5), (0, 1.0), (0, 2.0), (0, 10.0), (0, 10.0)]


def test_a_retry_waits_for_the_announced_time_and_never_less_than_the_back_off() -> None:
    assert retry_seconds(0, 7.0, jitter=longest) == 7.0
    assert retry_seconds(3, 0.0, jitter=longest) == 4.0
    assert retry_seconds(3, 3.0, jitter=longest) == 4.0
    assert [retry_seconds(n, None, jitter=longest) for n in range(6)] == [0.5, 1, 2, 4, 8, 10]


# Reading the answer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("999999999", 999999999.0),
        ("Fri, 28 Jul 2023 12:01:30 GMT", 90.0),
        ("Fri, 28 Jul 2023 20:01:30 +0800", 90.0),
        ("Friday, 28-Jul-23 12:01:30 GMT", 90.0),
        ("Fri, 28 Jul 2023 11:00:00 GMT", 0.0),
        ("", None),
        (None, None),
        (" ", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("٣", None),
        ("1234567890", None),
        ("Fri, 99 Jul 2023 12:01:30 GMT", None),
        ("Fri, 28 Jul 99999 12:01:30 GMT", None),
        ("28 Jul 2023 12:01:30 +9999999999", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now=NOON) == seconds


@given(st.one_of(st.text(max_size=60), st.from_regex(r"\w{3}, \d+ \w{3} \d+ [\d:]+ [\w+-]*")))
def test_retry_after_never_breaks(value: str) -> None:
    seconds = parse_retry_after(value, now=NOON)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("policy user over ratelimit,limit:200,time:5 minute", 300.0),
        ("limit:5,time:30 second", 30.0),
        ("LIMIT:5,TIME: 2 Hours", 7200.0),
        ("time:1minute", 60.0),
        ("too many requests", None),
        ("time:99999 minute", None),
        ("time:5 day", None),
        ("", None),
    ],
)
def test_the_period_in_a_throttling_message_is_a_hint(message: str, seconds: float | None) -> None:
    assert parse_policy_hint(message) == seconds


def test_a_meter_counts_each_reason_from_zero() -> None:
    meter = Meter()
    assert set(meter.errors) == set(Reason)
    assert meter.failed == 0
    meter.count_error(Reason.SERVER)
    meter.count_error(Reason.SERVER)
    meter.count_error(Reason.AUTH)
    assert (meter.errors[Reason.SERVER], meter.failed) == (2, 3)


# Whatever happens ------------------------------------------------------------------------------

_PLAN = st.fixed_dictionaries(
    {
        "limiter": st.integers(0, 2),
        "at": st.sampled_from([0.0, 0.0, 0.5, 3.0]),
        "priority": st.integers(0, 3),
        "deadline": st.sampled_from([FOREVER, 0.0, 1.0, 5.0]),
        "takes": st.sampled_from([0.0, 0.5, 4.0]),
        "answer": st.sampled_from(["ok", "ok", "ok", "429", "429 in 2", "none"]),
        "cancel_at": st.sampled_from([None, None, None, 0.0, 0.5, 1.0, 3.0]),
        "expire_at": st.sampled_from([None, None, 0.5, 3.0]),
    }
)


@settings(max_examples=extent(200))
@given(
    plans=st.lists(_PLAN, min_size=1, max_size=25),
    max_connections=st.integers(1, 6),
    rate=st.sampled_from([0.0, 2.0, 0.5]),
)
def test_no_order_of_events_leaks_a_slot_or_exceeds_a_limit(
    plans: list[dict[str, Any]], max_connections: int, rate: float
) -> None:
    pool = ConnectionPool(max_connections)
    limiters = [RateLimiter(pool, rate_limit=rate, jitter=longest) for _ in range(3)]
    sent: dict[int, list[float]] = {0: [], 1: [], 2: []}
    silent_until = [0.0, 0.0, 0.0]

    async def ask(plan: dict[str, Any]) -> str:
        loop = asyncio.get_running_loop()
        limiter = limiters[plan["limiter"]]
        await asyncio.sleep(plan["at"])
        query = Query(deadline=loop.time() + plan["deadline"], priority=plan["priority"])
        if plan["expire_at"] is not None:
            loop.call_later(plan["expire_at"], query.expire)
        try:
            permit: Permit = await limiter.acquire(query)
        except (DeadlineError, RateLimitedError) as exc:
            return type(exc).__name__
        try:
            assert 0 < pool.in_flight <= max_connections
            assert limiter.in_flight > 0
            assert loop.time() >= silent_until[plan["limiter"]]
            sent[plan["limiter"]].append(loop.time())
            await asyncio.sleep(plan["takes"])
            if plan["answer"] == "ok":
                limiter.succeeded(permit)
            elif plan["answer"] != "none":
                named = 2.0 if plan["answer"] == "429 in 2" else None
                silence = limiter.throttled(permit, retry_after=named, hint=None)
                silent_until[plan["limiter"]] = loop.time() + silence
        finally:
            limiter.release()
        return "sent"

    async def run() -> list[Any]:
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[str]] = []
        for plan in plans:
            task = asyncio.create_task(ask(plan))
            tasks.append(task)
            if plan["cancel_at"] is not None:
                loop.call_later(plan["cancel_at"], task.cancel)
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = _run_virtually(run())
    assert all(
        outcome in ("sent", "DeadlineError", "RateLimitedError")
        or isinstance(outcome, asyncio.CancelledError)
        for outcome in outcomes
    ), outcomes
    assert pool.in_flight == 0
    assert [limiter.in_flight for limiter in limiters] == [0, 0, 0]
    for moments in sent.values():
        if rate == 0.5:
            assert all(b - a >= 2 - 1e-9 for a, b in pairwise(moments))
        if rate == 2.0:
            assert all(b - a >= 1 - 1e-9 for a, b in zip(moments, moments[2:], strict=False))


def _run_virtually(coroutine: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)
