"""The tests' own clock does what the tests rely on."""

import asyncio
import gc
import os

import pytest

from tests.support.virtual_time import (
    NOON,
    Clock,
    LostExceptionError,
    NothingToDoError,
    VirtualTimeLoop,
)


async def test_hours_pass_at_once(clock: Clock) -> None:
    await clock.advance(10 * 86_400.25)
    assert clock() == NOON + 10 * 86_400.25


async def test_what_is_due_meanwhile_happens_in_order(clock: Clock) -> None:
    seen: list[tuple[str, float]] = []

    async def note(name: str, after: float) -> None:
        await asyncio.sleep(after)
        seen.append((name, clock() - NOON))

    async with asyncio.TaskGroup() as group:
        group.create_task(note("later", 3_600.5))
        group.create_task(note("sooner", 0.25))
    assert seen == [("sooner", 0.25), ("later", 3_600.5)]


async def test_time_limits_are_virtual_too(clock: Clock) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30):
            await asyncio.sleep(31)
    assert clock() == NOON + 30


async def test_threads_work_in_place(clock: Clock) -> None:
    assert await asyncio.to_thread(lambda: "done") == "done"
    with pytest.raises(KeyError):
        await asyncio.to_thread(os.environ.__getitem__, "HUAWEICLOUD_SDK_AK")
    assert clock() == NOON


async def test_a_clock_can_be_set_off(clock: Clock) -> None:
    clock.offset = -90.0
    await clock.advance(10)
    assert clock() == NOON - 80


def test_a_loop_that_would_hang_says_so() -> None:
    with (
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
        pytest.raises(NothingToDoError, match="no timer to wait for"),
    ):
        runner.run(asyncio.Event().wait())


def test_a_lost_exception_is_found() -> None:
    async def fail() -> None:
        raise ValueError("nobody looks")

    async def drop() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(1)
        del task
        gc.collect()

    with (
        pytest.raises(LostExceptionError, match="nobody looks"),
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
    ):
        runner.run(drop())
