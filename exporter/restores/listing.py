"""A project's full backups: one listing for all of its instances, or one for each of a few."""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from exporter.errors import ApiError, BadResponseError, DeadlineError, Reason
from exporter.models import Failure, FullBackup, FullBackups, Source, UnreadableBackup
from exporter.restores.full_backups import summarise
from exporter.restores.known import Known
from exporter.restores.schedule import RefreshSchedule
from exporter.transport.pages import PAGE_ROWS, Page, read_pages
from exporter.transport.query import Query

Row = FullBackup | UnreadableBackup
# How a failed request is told.
Explain = Callable[[ApiError | DeadlineError], Failure]

# What else there is to do waits for so many.
_LEARNED_AT_ONCE = 500
# Sixty backups of each of the most instances that a project holds.
_MOST_ROWS = 1_200_000


class Client(Protocol):
    """What is needed of the API's client."""

    async def fetch_full_backups(
        self, *, instance_id: str, offset: int, query: Query
    ) -> Page[Row]: ...


class _TooLongError(Exception):
    """The project's listing has more pages than there are instances to ask for."""


class FullBackupsSource:
    """What is known of the full backups of a project's instances, and when to ask again."""

    def __init__(
        self, project_id: str, client: Client, *, clock: Callable[[], float], interval: float
    ) -> None:
        self._client = client
        self._clock = clock
        self.schedule = RefreshSchedule((Source.FULL_BACKUPS, project_id), interval)
        self._known: dict[str, Known[FullBackups]] = {}
        # The project's listing is longer than a listing for each of so many instances.
        self._few = 1

    def adopt(self, previous: "FullBackupsSource") -> None:
        self._known = previous._known
        self._few = previous._few
        self.schedule.adopt(previous.schedule, self._clock())

    def known(self, instance_id: str) -> Known[FullBackups]:
        return self._known.get(instance_id) or Known()

    def is_due(self, wanted: Iterable[str], now: float) -> bool:
        """Also where an instance is wanted that no listing was asked about yet."""
        return self.schedule.is_due(now) or (
            self.schedule.task is None and any(id_ not in self._known for id_ in wanted)
        )

    def excuse(self, wanted: Iterable[str], failure: Failure) -> None:
        """Say why there is nothing to say of these, where that is so."""
        for id_ in wanted:
            self._known.setdefault(id_, Known()).excuse(failure)

    def fail(self, wanted: Iterable[str], failure: Failure) -> None:
        for id_ in wanted:
            self._known.setdefault(id_, Known()).fail(failure)

    async def refresh(
        self, wanted: Sequence[str], query_of: Callable[[str], Query], explain: Explain
    ) -> bool:
        """Ask about these instances; whether all could be told.

        `query_of` gives the query for an instance, or for the project with "".
        """
        self._known = {id_: self._known.get(id_) or Known() for id_ in wanted}
        try:
            if len(wanted) > self._few:
                await self._list_project(wanted, query_of(""))
            else:
                await self._list_each(wanted, query_of, explain)
        except _TooLongError:
            self._few = len(wanted)
            await self._list_each(wanted, query_of, explain)
        except (ApiError, DeadlineError) as exc:
            self.fail(wanted, explain(exc))
        return all(known.failure is None for known in self._known.values())

    async def _list_project(self, wanted: Sequence[str], query: Query) -> None:
        started = self._clock()

        async def fetch(offset: int) -> Page[Row]:
            page = await self._client.fetch_full_backups(instance_id="", offset=offset, query=query)
            if offset == 0 and _pages(page.total_count) - 1 > len(wanted):
                raise _TooLongError
            return page

        with query.until_deadline():
            rows = await read_pages(fetch, what="full backups", most=_MOST_ROWS)
        by_instance: dict[str, list[Row]] = {}
        for row in rows.values():
            by_instance.setdefault(row.instance_id, []).append(row)
        for i, id_ in enumerate(wanted, start=1):
            self._learn(id_, by_instance.get(id_, []), started)
            if i % _LEARNED_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _list_each(
        self, wanted: Sequence[str], query_of: Callable[[str], Query], explain: Explain
    ) -> None:
        for id_ in wanted:
            started = self._clock()
            try:
                self._learn(id_, await self._list_one(id_, query_of(id_)), started)
            except (ApiError, DeadlineError) as exc:
                self._known[id_].fail(explain(exc))

    async def _list_one(self, instance_id: str, query: Query) -> Iterable[Row]:
        async def fetch(offset: int) -> Page[Row]:
            page = await self._client.fetch_full_backups(
                instance_id=instance_id, offset=offset, query=query
            )
            for row in page.rows:
                if row.instance_id not in ("", instance_id):
                    raise BadResponseError("the listing has full backups of another instance")
            return page

        with query.until_deadline():
            return (await read_pages(fetch, what="full backups", most=_MOST_ROWS)).values()

    def _learn(self, instance_id: str, rows: Iterable[Row], started: float) -> None:
        known, readable = self._known[instance_id], []
        for row in rows:
            if isinstance(row, UnreadableBackup):
                known.fail(Failure(Reason.BAD_RESPONSE, row.problem))
                return
            readable.append(row)
        known.learn(summarise(readable, at=started), self._clock())


def _pages(total_count: int | None) -> int:
    return math.ceil(((total_count or 0) - 1) / (PAGE_ROWS - 1))
