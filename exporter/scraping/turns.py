"""Whose turn it is where there is not enough time, rate or connections for all. Pure."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Waiting(Protocol):
    """What takes turns."""

    last_turn: int
    is_unanswered: bool


W = TypeVar("W", bound=Waiting)


def in_turn(waiting: Iterable[W]) -> list[W]:
    """The longest unasked first, whatever kept it from being asked.

    Last come those that were asked and did not answer: they would keep the others waiting.
    """
    return sorted(waiting, key=lambda one: (one.is_unanswered, one.last_turn))
