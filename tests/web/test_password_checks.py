"""Whose password is checked next."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from exporter.web.password_checks import (
    MAX_WAITING,
    MAX_WAITING_OF_ADDRESS,
    OverloadedError,
    PasswordChecks,
)


class Bcrypt:
    """Checks that end when a test says so; `begun` is their order."""

    def __init__(self) -> None:
        self.checks = PasswordChecks()
        self.begun: list[str] = []
        self._tasks: dict[str, asyncio.Task[bool]] = {}
        self.verdicts: dict[str, asyncio.Future[bool]] = {}

    async def ask(self, name: str, address: str, port: int = 1) -> None:
        """Somebody asks, and has got as far as they come by themselves."""
        verdict: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.verdicts[name] = verdict

        async def check() -> bool:
            self.begun.append(name)
            return await verdict

        self._tasks[name] = asyncio.create_task(self.checks.run((address, port), check))
        await self.settle()

    async def end(self, name: str, right: bool = False) -> None:
        self.verdicts[name].set_result(right)
        await self.settle()
        assert self._tasks[name].done()

    async def leave(self, name: str) -> None:
        self._tasks[name].cancel()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def is_refused(self, name: str) -> bool:
        task = self._tasks[name]
        return task.done() and isinstance(task.exception(), OverloadedError)

    async def end_all(self) -> None:
        for name in self.begun:  # it grows meanwhile
            if not self.verdicts[name].done():
                await self.end(name)

    async def aclose(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


@pytest.fixture
async def bcrypt() -> AsyncIterator[Bcrypt]:
    made = Bcrypt()
    yield made
    await made.aclose()


async def test_one_is_checked_at_a_time_and_addresses_take_turns(bcrypt: Bcrypt) -> None:
    for number in range(4):
        await bcrypt.ask(f"flood{number}", "192.0.2.1", number)
    await bcrypt.ask("prometheus", "192.0.2.2")
    await bcrypt.ask("person", "192.0.2.3")
    assert bcrypt.begun == ["flood0"]
    await bcrypt.end_all()
    assert bcrypt.begun == ["flood0", "flood1", "prometheus", "person", "flood2", "flood3"]


async def test_who_has_not_been_wrong_goes_before_who_has(bcrypt: Bcrypt) -> None:
    await bcrypt.ask("wrong", "192.0.2.1", 1)
    await bcrypt.end("wrong", right=False)
    await bcrypt.ask("running", "192.0.2.1", 2)
    for number in range(3):
        await bcrypt.ask(f"again{number}", "192.0.2.1", 1)
    await bcrypt.ask("fresh", "192.0.2.1", 3)
    await bcrypt.end_all()
    assert bcrypt.begun[2:] == ["fresh", "again0", "again1", "again2"]


async def test_a_fresh_connection_takes_the_place_of_one_that_was_wrong(bcrypt: Bcrypt) -> None:
    await bcrypt.ask("wrong", "192.0.2.1", 1)
    await bcrypt.end("wrong", right=False)
    await bcrypt.ask("running", "192.0.2.1", 2)
    for number in range(MAX_WAITING_OF_ADDRESS):
        await bcrypt.ask(f"again{number}", "192.0.2.1", 1)
    await bcrypt.ask("fresh", "192.0.2.1", 3)
    assert bcrypt.is_refused(f"again{MAX_WAITING_OF_ADDRESS - 1}")
    await bcrypt.end("running")
    assert bcrypt.begun[-1] == "fresh"


async def test_a_connection_that_was_right_goes_first_when_its_password_changes(
    bcrypt: Bcrypt,
) -> None:
    """Though others of its address are more than may wait, none of whom has been wrong yet."""
    bcrypt.checks.note_right(("192.0.2.1", 1))
    await bcrypt.ask("running", "192.0.2.1", 2)
    for number in range(MAX_WAITING_OF_ADDRESS):
        await bcrypt.ask(f"flood{number}", "192.0.2.1", 3 + number)
    await bcrypt.ask("prometheus", "192.0.2.1", 1)
    await bcrypt.end("running")
    assert bcrypt.begun == ["running", "prometheus"]
    assert bcrypt.is_refused(f"flood{MAX_WAITING_OF_ADDRESS - 1}")


async def test_a_connection_that_was_right_is_pardoned_three_times(bcrypt: Bcrypt) -> None:
    """It may show the old password until the new one has reached it; then it is one of many."""
    bcrypt.checks.note_right(("192.0.2.1", 1))
    for number in range(5):
        await bcrypt.ask(f"running{number}", "192.0.2.1", 10 + number)
        await bcrypt.ask(f"fresh{number}", "192.0.2.1", 20 + number)
        await bcrypt.ask(f"known{number}", "192.0.2.1", 1)
        await bcrypt.end_all()
    order = [name[:-1] for name in bcrypt.begun if not name.startswith("running")]
    assert order == ["known", "fresh"] * 4 + ["fresh", "known"]


async def test_of_those_who_have_been_wrong_the_next_is_refused(bcrypt: Bcrypt) -> None:
    await bcrypt.ask("running", "192.0.2.1")
    for number in range(MAX_WAITING_OF_ADDRESS + 1):
        await bcrypt.ask(str(number), "192.0.2.1")
    assert bcrypt.is_refused(str(MAX_WAITING_OF_ADDRESS))
    assert not bcrypt.is_refused("0")


async def test_beyond_what_may_wait_the_address_with_most_loses_one(bcrypt: Bcrypt) -> None:
    await bcrypt.ask("running", "192.0.2.1")
    for number in range(MAX_WAITING):
        await bcrypt.ask(str(number), f"192.0.2.{1 + number % 4}", number)
    await bcrypt.ask("another", "198.51.100.1")
    assert not bcrypt.is_refused("another")
    assert sum(bcrypt.is_refused(str(number)) for number in range(MAX_WAITING)) == 1


async def test_a_network_of_ipv6_is_one_client(bcrypt: Bcrypt) -> None:
    await bcrypt.ask("running", "192.0.2.9")
    for number in range(3):
        await bcrypt.ask(f"flood{number}", f"2001:db8::{number}")
    await bcrypt.ask("mapped0", "::ffff:192.0.2.1")
    await bcrypt.ask("mapped1", "::ffff:192.0.2.2")
    await bcrypt.end_all()
    assert bcrypt.begun == ["running", "flood0", "mapped0", "mapped1", "flood1", "flood2"]


async def test_who_leaves_while_waiting_is_not_checked(bcrypt: Bcrypt) -> None:
    await bcrypt.ask("running", "192.0.2.1")
    await bcrypt.ask("leaving", "192.0.2.2")
    await bcrypt.ask("staying", "192.0.2.3")
    await bcrypt.leave("leaving")
    await bcrypt.end_all()
    assert bcrypt.begun == ["running", "staying"]


async def test_who_leaves_while_being_checked_lets_the_next_one_go_on(bcrypt: Bcrypt) -> None:
    await bcrypt.ask("running", "192.0.2.1")
    await bcrypt.ask("next", "192.0.2.2")
    await bcrypt.leave("running")
    assert bcrypt.begun == ["running", "next"]
    await bcrypt.end("next")
    await bcrypt.ask("later", "192.0.2.1")
    assert bcrypt.begun[-1] == "later"


async def test_who_leaves_just_when_its_turn_comes_passes_it_on(bcrypt: Bcrypt) -> None:
    await bcrypt.ask("running", "192.0.2.1")
    await bcrypt.ask("leaving", "192.0.2.2")
    await bcrypt.ask("next", "192.0.2.3")
    bcrypt.verdicts["running"].set_result(False)
    await asyncio.sleep(0)  # the check has ended, and its turn is given away
    await asyncio.sleep(0)
    await bcrypt.leave("leaving")
    assert "next" in bcrypt.begun
