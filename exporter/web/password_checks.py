"""bcrypt is slow on purpose: who may have it next, and who has to go away."""

import asyncio
import ipaddress
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

Client = tuple[str, int]

MAX_CHECKS_AT_ONCE = 1
MAX_WAITING_OF_ADDRESS = 64
MAX_WAITING = 256
# Connections that are remembered to have been right, or wrong.
_MAX_REMEMBERED = 1000
# How often one that was right may be wrong, before it is like any other that was: a password that
# changes is not known to both sides at the same moment.
_PARDONED = 3


class OverloadedError(Exception):
    """Too many wait; this one does not."""


class _Standing(IntEnum):
    """What a connection has shown so far; lower goes first."""

    WAS_RIGHT = 0
    FRESH = 1
    WAS_WRONG = 2


@dataclass(slots=True, eq=False)
class _Turn:
    address: str
    standing: _Standing
    granted: "asyncio.Future[None]"


@dataclass(slots=True)
class _Queue:
    """Those of one address, by their standing."""

    parts: dict[_Standing, deque[_Turn]] = field(
        default_factory=lambda: {standing: deque() for standing in _Standing}
    )

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def part_of(self, turn: _Turn) -> deque[_Turn]:
        return self.parts[turn.standing]

    def first(self) -> _Turn:
        return next(filter(None, self.parts.values())).popleft()

    def last(self) -> _Turn:
        return next(filter(None, reversed(self.parts.values()))).pop()


class PasswordChecks:
    """Lets checks run one at a time, of each address in turn.

    So a client with the right password waits for one check of each other address at most. Of its
    own address it goes before connections that have been wrong, and before all of them where it
    was right on its connection before (its password has changed). Of those who wait only so many
    are kept; beyond it the address that has most loses one.
    """

    def __init__(self) -> None:
        self._running = 0
        self._waiting: OrderedDict[str, _Queue] = OrderedDict()  # whose turn it is, first
        self._right: OrderedDict[Client, int] = OrderedDict()  # and how often each may be wrong
        self._wrong: OrderedDict[Client, None] = OrderedDict()

    def note_right(self, client: Client) -> None:
        """It has shown the right password, whether that took a check or not."""
        self._wrong.pop(client, None)
        self._right[client] = _PARDONED
        self._right.move_to_end(client)
        if len(self._right) > _MAX_REMEMBERED:
            self._right.popitem(last=False)

    def _note_wrong(self, client: Client) -> None:
        pardoned = self._right.pop(client, 0)
        if pardoned > 0:
            self._right[client] = pardoned - 1
            return
        self._wrong[client] = None
        if len(self._wrong) > _MAX_REMEMBERED:
            self._wrong.popitem(last=False)

    def _standing_of(self, client: Client) -> _Standing:
        if client in self._right:
            return _Standing.WAS_RIGHT
        return _Standing.WAS_WRONG if client in self._wrong else _Standing.FRESH

    async def run(self, client: Client, check: Callable[[], Awaitable[bool]]) -> bool:
        """Whether the check says so; raises OverloadedError."""
        await self._take_turn(client)
        try:
            right = await check()
        finally:
            self._pass_on()
        if not right:
            self._note_wrong(client)
        return right

    async def _take_turn(self, client: Client) -> None:
        if self._running < MAX_CHECKS_AT_ONCE:
            self._running += 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        turn = _Turn(_network_of(client[0]), self._standing_of(client), granted)
        queue = self._waiting.setdefault(turn.address, _Queue())
        queue.part_of(turn).append(turn)
        self._drop_one_too_many(queue)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._pass_on()
            else:
                self._forget(turn)
            raise

    def _drop_one_too_many(self, queue: _Queue) -> None:
        if len(queue) > MAX_WAITING_OF_ADDRESS:
            dropped = queue.last()
        elif sum(map(len, self._waiting.values())) > MAX_WAITING:
            dropped = max(self._waiting.values(), key=len).last()
        else:
            return
        self._clean(dropped.address)
        dropped.granted.set_exception(OverloadedError())

    def _pass_on(self) -> None:
        for turn in self._in_turn():
            if not turn.granted.done():
                turn.granted.set_result(None)
                return
        self._running -= 1

    def _in_turn(self) -> Iterator[_Turn]:
        while self._waiting:
            address, queue = next(iter(self._waiting.items()))
            turn = queue.first()
            self._waiting.move_to_end(address)
            self._clean(address)
            yield turn

    def _forget(self, turn: _Turn) -> None:
        queue = self._waiting.get(turn.address)
        if queue is not None and turn in queue.part_of(turn):
            queue.part_of(turn).remove(turn)
            self._clean(turn.address)

    def _clean(self, address: str) -> None:
        queue = self._waiting.get(address)
        if queue is not None and not len(queue):
            del self._waiting[address]


def _network_of(address: str) -> str:
    """What one client has of addresses: of IPv6 a whole network (RFC 6177)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))
