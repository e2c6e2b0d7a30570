"""The full backups of a project: whom they belong to, and with how few requests they are known."""

from collections.abc import Callable, Sequence

import pytest

from exporter.errors import ApiError, DeadlineError, Reason, RefusedError
from exporter.models import BackupState, Failure, FullBackup, UnreadableBackup
from exporter.restores.listing import FullBackupsSource, Row
from exporter.transport.query import Query
from tests.support.virtual_time import NOON, Clock

INTERVAL = 600.0


class Page:
    def __init__(self, rows: Sequence[Row], total_count: int | None) -> None:
        self.rows = rows
        self.total_count = total_count


def backup(id: str, instance_id: str, end: float = NOON - 100) -> FullBackup:
    return FullBackup(id, instance_id, "auto", BackupState.USABLE, end - 60, end, 1.0)


class Cloud:
    """The full backups of a project, a hundred a page."""

    def __init__(self, *rows: Row) -> None:
        self.rows = list(rows)
        self.asked: list[tuple[str, int]] = []
        self.errors: dict[str, Exception] = {}
        self.before_page: Callable[[int], None] = lambda number: None

    async def fetch_full_backups(self, *, instance_id: str, offset: int, query: Query) -> Page:
        self.asked.append((instance_id, offset))
        query.meter.requests += 1
        self.before_page(len(self.asked))
        if instance_id in self.errors:
            raise self.errors[instance_id]
        found = self.rows
        if instance_id:
            found = [row for row in self.rows if row.instance_id == instance_id]
        return Page(found[offset : offset + 100], len(found))


def fleet(instances: int, each: int) -> list[Row]:
    return [backup(f"b{i}-{n}", f"i{i}") for n in range(each) for i in range(instances)]


def make_source(cloud: Cloud, clock: Clock) -> FullBackupsSource:
    return FullBackupsSource("p1", cloud, clock=clock, interval=INTERVAL)


async def refresh(source: FullBackupsSource, *wanted: str) -> bool:
    def explain(exc: ApiError | DeadlineError) -> Failure:
        return Failure(exc.reason if isinstance(exc, ApiError) else Reason.DEADLINE, str(exc))

    return await source.refresh(wanted, lambda instance_id: Query(), explain)


def counts(source: FullBackupsSource, *ids: str) -> list[int | None]:
    readings = [source.known(id_).result(NOON, INTERVAL).reading for id_ in ids]
    return [reading.usable["auto"] if reading is not None else None for reading in readings]


async def test_one_listing_serves_all_instances(clock: Clock) -> None:
    cloud = Cloud(backup("a", "i1"), backup("b", "i2"), backup("c", "i1"), backup("d", "gone"))
    source = make_source(cloud, clock)
    assert await refresh(source, "i1", "i2", "i3")
    assert counts(source, "i1", "i2", "i3", "gone") == [2, 1, 0, None]
    assert cloud.asked == [("", 0)]


async def test_all_pages_are_read_and_no_more(clock: Clock) -> None:
    cloud = Cloud(*fleet(1_000, 8))
    source = make_source(cloud, clock)
    assert await refresh(source, *(f"i{n}" for n in range(1_000)))
    assert counts(source, "i0", "i999") == [8, 8]
    assert [offset for _, offset in cloud.asked] == list(range(0, 8_000, 99))
    assert len(cloud.asked) == 81


async def test_a_large_project_with_a_long_retention_is_read_to_its_end(clock: Clock) -> None:
    """2,122 pages: after 2,000 the listing was said to have no end."""
    cloud = Cloud(*fleet(2_100, 100))
    source = make_source(cloud, clock)
    assert await refresh(source, *(f"i{n}" for n in range(2_200)))
    assert counts(source, "i0", "i2099", "i2100") == [100, 100, 0]
    assert len(cloud.asked) == 2_122


async def test_one_instance_is_asked_for_alone(clock: Clock) -> None:
    cloud = Cloud(*fleet(1_000, 8))
    source = make_source(cloud, clock)
    assert await refresh(source, "i7")
    assert counts(source, "i7") == [8]
    assert cloud.asked == [("i7", 0)]


async def test_few_of_many_are_asked_for_one_by_one(clock: Clock) -> None:
    """Of a shard, or a configuration: its first look tells that the project's listing is long."""
    cloud = Cloud(*fleet(1_000, 8))
    source = make_source(cloud, clock)
    for _ in range(2):
        assert await refresh(source, "i7", "i8")
    assert counts(source, "i7", "i8") == [8, 8]
    assert cloud.asked == [("", 0), ("i7", 0), ("i8", 0), ("i7", 0), ("i8", 0)]
    # More of them than that: the project is looked at again.
    cloud.asked.clear()
    assert await refresh(source, *(f"i{n}" for n in range(300)))
    assert len(cloud.asked) == 81


async def test_each_of_few_fails_for_itself(clock: Clock) -> None:
    cloud = Cloud(*fleet(1_000, 8))
    cloud.errors["i7"] = RefusedError("HTTP 404", reason=Reason.NOT_FOUND, status=404)
    source = make_source(cloud, clock)
    assert not await refresh(source, "i7", "i8")
    assert counts(source, "i7", "i8") == [None, 8]
    failure = source.known("i7").failure
    assert failure is not None
    assert failure.reason is Reason.NOT_FOUND


@pytest.mark.parametrize(
    "error",
    [
        RefusedError("HTTP 403", reason=Reason.FORBIDDEN, status=403),
        DeadlineError("the deadline came before a free slot"),
    ],
)
async def test_a_listing_that_fails_ends_what_was_known_of_all(
    clock: Clock, error: Exception
) -> None:
    cloud = Cloud(*fleet(3, 2))
    source = make_source(cloud, clock)
    await refresh(source, "i0", "i1")
    cloud.errors[""] = error
    assert not await refresh(source, "i0", "i1")
    assert counts(source, "i0", "i1") == [None, None]
    cloud.errors.clear()
    assert await refresh(source, "i0", "i1")
    assert counts(source, "i0", "i1") == [2, 2]


async def test_a_row_that_makes_no_sense_spoils_its_instance_alone(clock: Clock) -> None:
    odd = UnreadableBackup("x", "i1", "full backup x makes no sense: its status is ODD")
    source = make_source(Cloud(backup("a", "i1"), odd, backup("b", "i2")), clock)
    assert not await refresh(source, "i1", "i2")
    assert counts(source, "i1", "i2") == [None, 1]
    failure = source.known("i1").failure
    assert failure is not None
    assert (failure.reason, failure.message) == (Reason.BAD_RESPONSE, odd.problem)


async def test_an_odd_row_of_an_instance_that_is_gone_spoils_nothing(clock: Clock) -> None:
    odd = UnreadableBackup("x", "gone", "makes no sense")
    source = make_source(
        Cloud(backup("a", "i1"), odd, UnreadableBackup("y", "", "no sense")), clock
    )
    assert await refresh(source, "i1", "i2")
    assert counts(source, "i1", "i2") == [1, 0]


async def test_rows_of_another_instance_are_not_believed(clock: Clock) -> None:
    class Mixed(Cloud):
        async def fetch_full_backups(self, *, instance_id: str, offset: int, query: Query) -> Page:
            return Page([backup("a", "i1"), backup("b", "i2")], 2)

    source = make_source(Mixed(), clock)
    assert not await refresh(source, "i1")
    assert counts(source, "i1") == [None]


async def test_a_backup_that_is_made_while_pages_are_read_hides_none(clock: Clock) -> None:
    """It comes in front, and all others move back by one."""
    cloud = Cloud(*fleet(50, 5))
    source = make_source(cloud, clock)

    def insert(number: int) -> None:
        if number == 2:
            cloud.rows.insert(0, backup("new", "i0"))

    cloud.before_page = insert
    assert await refresh(source, *(f"i{n}" for n in range(50)))
    assert counts(source, "i1", "i49") == [5, 5]
    assert len(cloud.asked) == 3


async def test_backups_deleted_while_pages_are_read_are_noticed(clock: Clock) -> None:
    cloud = Cloud(*fleet(50, 5))
    source = make_source(cloud, clock)

    def delete(number: int) -> None:
        if number == 2:
            del cloud.rows[:2]

    cloud.before_page = delete
    assert await refresh(source, *(f"i{n}" for n in range(50)))
    assert counts(source, "i0", "i1", "i2", "i49") == [4, 4, 5, 5]


async def test_an_instance_that_nobody_asked_about_makes_it_due(clock: Clock) -> None:
    source = make_source(Cloud(*fleet(3, 1)), clock)
    await refresh(source, "i0")
    source.schedule.done(NOON, succeeded=True)
    assert not source.is_due(["i0"], NOON)
    assert source.is_due(["i0", "i1"], NOON)


async def test_what_is_known_of_an_instance_ends_with_it(clock: Clock) -> None:
    source = make_source(Cloud(*fleet(3, 1)), clock)
    await refresh(source, "i0", "i1")
    await refresh(source, "i1", "i2")
    assert counts(source, "i0", "i1") == [None, 1]
