import asyncio

import pytest

from tests.support.lost_exceptions import no_lost_exceptions


async def fail_unseen(*, in_a_cycle: bool) -> None:
    """Drops a failed task; in a cycle, only the garbage collector finds it."""

    async def fail() -> None:
        raise ValueError("nobody looks")

    task = asyncio.create_task(fail())
    if in_a_cycle:
        held = [task]
        task.add_done_callback(held.append)
        held.append(held)  # type: ignore[arg-type]  # a cycle
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_a_lost_exception_is_found(in_a_cycle: bool) -> None:
    with pytest.raises(AssertionError, match="exception was never retrieved"), no_lost_exceptions():
        asyncio.run(fail_unseen(in_a_cycle=in_a_cycle))


def test_an_exception_that_somebody_takes_is_not_lost() -> None:
    async def take() -> None:
        async def fail() -> None:
            raise ValueError("somebody looks")

        with pytest.raises(ValueError, match="somebody looks"):
            await asyncio.create_task(fail())

    with no_lost_exceptions():
        asyncio.run(take())
