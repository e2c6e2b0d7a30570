"""What is urgent is asked first: what is new of each instance, then whole windows, then others."""

import asyncio
from collections.abc import Callable

from exporter.scraping.in_flight import InFlightQuery
from exporter.scraping.listings import WindowListings
from exporter.scraping.refresh_queue import AT_ONCE

_ANSWER_SECONDS = 5.0
# How long what has time waits for listings of whole windows, which may take many minutes.
_LISTINGS_SECONDS = 60.0


class Urgency:
    """Which projects still have something new to ask for, and what else may be asked meanwhile."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self.listings = WindowListings(is_busy=self.is_asking, redact=redact)
        self._new: dict[str, dict[InFlightQuery, None]] = {}  # by project: what is new is asked

    def began(self, project: str, in_flight: InFlightQuery) -> None:
        self._new.setdefault(project, {})[in_flight] = None

    def ended(self, project: str, in_flight: InFlightQuery) -> None:
        self._new.get(project, {}).pop(in_flight, None)
        self.listings.start(project)

    def is_asking(self, project: str) -> bool:
        """Whether an instance of the project still waits to be asked what is new."""
        queries = self._new.get(project, {})
        answered = []
        for in_flight in queries:
            if in_flight.is_answered:
                answered.append(in_flight)
            elif in_flight.query.is_waiting:
                break
        else:
            queries = {}
        for in_flight in answered:
            self._new[project].pop(in_flight)
        return bool(queries)

    def _is_answering(self, project: str) -> bool:
        """Whether an answer may be expected. One that takes longer keeps nothing waiting."""
        now = asyncio.get_running_loop().time()
        return any(
            not in_flight.is_answered and now - in_flight.query.asking_since < _ANSWER_SECONDS
            for in_flight in self._new.get(project, {})
        )

    def room_behind(self, project: str, waited: float) -> int:
        """How many refreshes may be under way, of which the first has waited for so many seconds.

        None while it is asked what is new, or answers: what is read meanwhile would keep the
        answers of a scrape waiting. One, in the end, while windows are listed.
        """
        if self.is_asking(project) or self._is_answering(project):
            return 0
        if self.listings.are_under_way(project):
            return int(waited > _LISTINGS_SECONDS)
        return AT_ONCE
