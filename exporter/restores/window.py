"""One instance's restore window: one request, once in each interval."""

from collections.abc import Callable, Sequence
from typing import Protocol

from exporter.models import Instance, RestoreWindow, Source, TimeRange
from exporter.restores.known import Known
from exporter.restores.ranges import merge
from exporter.restores.schedule import RefreshSchedule
from exporter.transport.query import Query


class Client(Protocol):
    """What is needed of the API's client."""

    async def fetch_restore_times(
        self, instance: Instance, *, query: Query
    ) -> Sequence[TimeRange]: ...


class RestoreWindowSource:
    """What is known of it, and when to ask again."""

    def __init__(
        self, instance: Instance, client: Client, *, clock: Callable[[], float], interval: float
    ) -> None:
        self._instance = instance
        self._client = client
        self._clock = clock
        self.schedule = RefreshSchedule((Source.RESTORE_WINDOW, *instance.key), interval)
        self.known: Known[RestoreWindow] = Known()

    def adopt(self, previous: "RestoreWindowSource") -> None:
        self.known = previous.known
        self.schedule.adopt(previous.schedule, self._clock())

    async def refresh(self, query: Query) -> None:
        """Raises ApiError, DeadlineError; whoever catches it says so to `known`."""
        ranges = await self._client.fetch_restore_times(self._instance, query=query)
        now = self._clock()
        self.known.learn(RestoreWindow(now, merge(ranges)), now)
