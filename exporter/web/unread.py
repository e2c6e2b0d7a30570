"""What the kernel knows of a connection, and this process has not looked at yet."""

import asyncio
import select


def has_unread(transport: asyncio.BaseTransport) -> bool:
    """Whether something has come that is not read yet, the end included."""
    return _is_ready(transport, select.POLLIN)


def has_room(transport: asyncio.BaseTransport) -> bool:
    """Whether the client has taken so much that more of the answer could go out."""
    return _is_ready(transport, select.POLLOUT)


def _is_ready(transport: asyncio.BaseTransport, event: int) -> bool:
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0:  # just closed
        return False
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(0))
