"""What the kernel knows of a connection, and this process has not looked at yet."""

import asyncio
import select
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar


class _Reader(Protocol):
    def has_room(self) -> bool: ...


R = TypeVar("R", bound=_Reader)


def has_unread(transport: asyncio.BaseTransport) -> bool:
    """Whether something has come that is not read yet, the end included."""
    return _is_ready(transport, select.POLLIN)


def has_room(transport: asyncio.BaseTransport) -> bool:
    """Whether the client has taken so much that more of the answer could go out."""
    return _is_ready(transport, select.POLLOUT)


def first_stalled(readers: Iterable[R], *, since: Callable[[R], float], by: float) -> R | None:
    """Who has stood still for longest, `since` a moment no later than `by`. Nobody who reads, where
    it is this process that is held up."""
    stalled = sorted((each for each in readers if since(each) <= by), key=since)
    return next((each for each in stalled if not each.has_room()), None)


def _is_ready(transport: asyncio.BaseTransport, event: int) -> bool:
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0:  # just closed
        return False
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(0))
