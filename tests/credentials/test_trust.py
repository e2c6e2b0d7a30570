"""Who goes first, and who waits for what it learns."""

import asyncio

from exporter.credentials.trust import Trust
from exporter.credentials.turns import Turn
from tests.support.virtual_time import Clock


async def hold(trust: Trust, value: object, seconds: float, went: list[float]) -> None:
    async with trust.turn(value):
        went.append(asyncio.get_running_loop().time())
        await asyncio.sleep(seconds)


async def test_until_one_is_accepted_they_go_one_at_a_time(clock: Clock) -> None:
    trust, went = Trust(), list[float]()
    await asyncio.gather(*(hold(trust, "key", 1.0, went) for _ in range(3)))
    assert went == [0.0, 1.0, 2.0]


async def test_once_one_is_accepted_nobody_waits(clock: Clock) -> None:
    trust, went = Trust(), list[float]()

    async def accept() -> None:
        async with trust.turn("key"):
            await asyncio.sleep(0.5)
            trust.accept("key", 0.0)
            await asyncio.sleep(10.0)  # whatever else it does

    waiting = [asyncio.create_task(accept())]
    await asyncio.sleep(0.1)
    waiting += [asyncio.create_task(hold(trust, "key", 1.0, went)) for _ in range(3)]
    await asyncio.gather(*waiting)
    assert went == [0.5, 0.5, 0.5]
    assert trust.holds("key")


async def test_trust_ends_with_its_time_a_new_value_or_a_refusal(clock: Clock) -> None:
    trust = Trust(5.0)
    trust.accept("key", 0.0)
    assert trust.holds("key")
    assert not trust.holds("another")
    await clock.advance(5)
    assert not trust.holds("key")
    trust.accept("key", 5.0)
    trust.doubt()
    assert not trust.holds("key")
    trust.accept("key", 4.0)  # sent before the refusal: it says nothing
    assert not trust.holds("key")


async def test_one_that_gets_no_answer_keeps_the_others_for_a_moment(clock: Clock) -> None:
    """Where nothing was accepted yet, the next one goes; else all of them."""
    trust, went = Trust(5.0), list[float]()
    await asyncio.gather(*(hold(trust, "key", 10.0, went) for _ in range(3)))
    assert went == [0.0, 1.5, 3.0]
    trust.accept("key", asyncio.get_running_loop().time())
    await clock.advance(60)
    begun = asyncio.get_running_loop().time()
    went.clear()
    await asyncio.gather(*(hold(trust, "key", 10.0, went) for _ in range(3)))
    assert [round(moment - begun, 1) for moment in went] == [0.0, 1.5, 1.5]


async def test_a_project_that_waits_for_its_account_is_not_silent(clock: Clock) -> None:
    """It has not been sent: nobody may take its wait for an answer that does not come."""
    account = Trust(5.0)
    account.accept(None, 0.0)
    await clock.advance(10)
    first, second = Trust(5.0, within=account), Trust(5.0, within=account)
    for project in (first, second):
        project.accept("key", 10.0)
    await clock.advance(10)
    began = asyncio.get_running_loop().time()
    went: list[float] = []
    await asyncio.gather(
        hold(first, "key", 1.4, went),
        hold(second, "key", 1.4, went),
        hold(second, "key", 1.4, went),
    )
    assert [round(moment - began, 1) for moment in went] == [0.0, 1.4, 2.8]


class Who:
    """Something that can be remembered."""


async def go(turn: Turn, went: dict[object, float], who: object, seconds: float) -> None:
    async with turn.take(who) as begin:
        begin()
        went[who] = round(asyncio.get_running_loop().time(), 1)
        await asyncio.sleep(seconds)


async def test_whoever_was_silent_last_time_lets_the_others_go_first(clock: Clock) -> None:
    turn, went = Turn(), dict[object, float]()
    silent, other = Who(), Who()
    await asyncio.gather(go(turn, went, silent, 10.0), go(turn, went, other, 0.5))
    assert (went[silent], went[other]) == (0.0, 1.5)
    await clock.advance(50)
    await asyncio.gather(go(turn, went, silent, 10.0), go(turn, went, other, 0.5))
    assert (went[silent], went[other]) == (60.5, 60.0)


async def test_of_those_that_were_silent_one_after_the_other_is_waited_for_less(
    clock: Clock,
) -> None:
    """Not the first: it may answer by now, and be refused."""
    turn, went = Turn(), dict[object, float]()
    silent = [Who() for _ in range(4)]
    await asyncio.gather(*(go(turn, went, who, 10.0) for who in silent))
    assert [went[who] for who in silent] == [0.0, 1.5, 3.0, 4.5]
    await clock.advance(60)
    began = round(asyncio.get_running_loop().time(), 1)
    await asyncio.gather(*(go(turn, went, who, 10.0) for who in silent))
    assert [round(went[who] - began, 1) for who in silent] == [0.0, 1.5, 1.6, 1.7]
