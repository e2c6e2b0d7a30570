"""Who is too late, and who has only not been looked at yet by a process that was held up."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from exporter.web.connection import is_over
from exporter.web.unread import has_room, has_unread


class Transport(asyncio.Transport):
    """Of an event loop that does not get to run."""

    def __init__(self, of: socket.socket) -> None:
        super().__init__(extra={"socket": of})


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Any]]:
    client, server = socket.socketpair()
    with client, server:
        server.setblocking(False)
        yield client, Transport(server)


def test_what_has_come_is_seen_before_it_is_read(ends: tuple[socket.socket, Any]) -> None:
    client, transport = ends
    assert not has_unread(transport)
    client.send(b"GET / HTTP/1.1\r\n")
    assert has_unread(transport)


def test_that_a_client_has_gone_is_seen_too(ends: tuple[socket.socket, Any]) -> None:
    client, transport = ends
    client.close()
    assert has_unread(transport)


def test_what_a_client_has_taken_makes_room(ends: tuple[socket.socket, Any]) -> None:
    client, transport = ends
    server: socket.socket = transport.get_extra_info("socket")
    sent = 0
    while has_room(transport):
        sent += server.send(b"x" * 65536)
    while sent > 0:
        sent -= len(client.recv(65536))
    assert has_room(transport)


def test_a_closed_connection_has_nothing(ends: tuple[socket.socket, Any]) -> None:
    client, transport = ends
    client.send(b"x")
    transport.get_extra_info("socket").close()
    assert not has_unread(transport)


@pytest.mark.parametrize(
    ("now", "has_moved", "over"),
    [
        (9.9, False, False),
        (10.0, False, True),
        (10.0, True, False),  # it came in time, for all that is known
        (14.9, True, False),
        (15.0, True, True),  # who goes on and on is late all the same
    ],
)
def test_a_client_is_late_when_its_time_is_over_and_nothing_of_it_is_left_to_look_at(
    now: float, has_moved: bool, over: bool
) -> None:
    assert is_over(10.0, now, lambda: has_moved) is over
