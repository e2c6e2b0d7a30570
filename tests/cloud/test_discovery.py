import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import structlog

from exporter.cloud.answers import FoundInstance, InstancePage
from exporter.cloud.discovery import Discovery, Found, choose
from exporter.config.schema import DiscoveryConfig
from exporter.errors import (
    ApiError,
    AuthError,
    DeadlineError,
    Reason,
    RefusedError,
    UnavailableError,
)
from exporter.transport.query import Query
from tests.support.virtual_time import DAY, Clock

PROJECT = "97b026aa9cc4417888c14c84a1ad9860"


def make_instance(id: str, name: str = "", **tags: str) -> FoundInstance:
    return FoundInstance(id, name or f"name-of-{id}", tags)


def make_instances(count: int) -> list[FoundInstance]:
    return [make_instance(f"i{number:03}") for number in range(count)]


def not_found() -> RefusedError:
    return RefusedError("HTTP 404: APIGW.0101", reason=Reason.NOT_FOUND, status=404)


def unavailable() -> UnavailableError:
    return UnavailableError("HTTP 500", reason=Reason.SERVER, status=500, hint="ask the support")


class Cloud:
    """The project's instances, a hundred a page, and what it was asked for."""

    def __init__(self, instances: Sequence[FoundInstance] = ()) -> None:
        self.instances = list(instances)
        self.asked: list[tuple[str, int]] = []
        self.queries: list[Query] = []
        self.errors: dict[str, Exception] = {}  # by version
        self.total: Callable[[int], int | None] = lambda total: total
        self.ignores_offset = False
        self.page_rows = 100
        self.before: Callable[[int], object] = lambda number: None
        self.takes_seconds = 0.0
        self.counts_page = False  # total_count is that of the page
        self.endless = False  # every page is full of instances that no other has

    async def fetch_instances(self, *, version: str, offset: int, query: Query) -> InstancePage:
        self.asked.append((version, offset))
        self.queries.append(query)
        self.before(len(self.asked))
        await query.sleep(self.takes_seconds)
        if version in self.errors:
            raise self.errors[version]
        start = 0 if self.ignores_offset else offset
        page = self.instances[start : start + self.page_rows]
        if self.endless:
            page = [make_instance(f"i{start + number}") for number in range(self.page_rows)]
            return InstancePage(page, start + 2 * self.page_rows)
        if self.counts_page:
            return InstancePage(page, len(page))
        return InstancePage(page, self.total(len(self.instances)))

    def requests(self) -> list[tuple[str, int]]:
        """Those since the last call."""
        asked, self.asked = self.asked, []
        return asked


def make_discovery(cloud: Cloud, clock: Clock, **filters: Any) -> Discovery:
    return Discovery(PROJECT, DiscoveryConfig.model_validate(filters), cloud, clock=clock)


async def refresh(discovery: Discovery) -> None:
    task = discovery.refresh()
    assert task is not None
    await task


def monitored(discovery: Discovery) -> list[str]:
    return list(discovery.found.monitored)


# Filters ---------------------------------------------------------------------------------------

FLEET = [
    make_instance("a1", "prod-orders", env="prod", team="shop"),
    make_instance("a2", "prod-billing", env="prod"),
    make_instance("a3", "test-orders", env="test", team="shop"),
    make_instance("a4", "Prod-old"),
]


@pytest.mark.parametrize(
    ("filters", "wanted", "unmonitored"),
    [
        ({}, {"a1", "a2", "a3", "a4"}, set()),
        ({"name": "prod-*"}, {"a1", "a2"}, {"a3", "a4"}),
        ({"name": "*-orders"}, {"a1", "a3"}, {"a2", "a4"}),
        ({"name": "prod-?rders"}, {"a1"}, {"a2", "a3", "a4"}),
        ({"name": "prod"}, set(), {"a1", "a2", "a3", "a4"}),
        ({"tags": {"env": "prod"}}, {"a1", "a2"}, {"a3", "a4"}),
        ({"tags": {"env": "prod", "team": "shop"}}, {"a1"}, {"a2", "a3", "a4"}),
        ({"tags": {"env": ""}}, set(), {"a1", "a2", "a3", "a4"}),
        ({"name": "prod-*", "tags": {"team": "shop"}}, {"a1"}, {"a2", "a3", "a4"}),
        ({"exclude": ["a1"]}, {"a2", "a3", "a4"}, set()),
        ({"exclude": ["*-orders", "a4"]}, {"a2"}, set()),
        ({"name": "prod-*", "exclude": ["test-*"]}, {"a1", "a2"}, {"a4"}),
        ({"name": "prod-*", "exclude": ["prod-billing"]}, {"a1"}, {"a3", "a4"}),
        ({"exclude": ["*"]}, set(), set()),
    ],
)
def test_filters_choose_and_exclusions_are_not_unmonitored(
    filters: dict[str, Any], wanted: set[str], unmonitored: set[str]
) -> None:
    found = choose(FLEET, DiscoveryConfig.model_validate(filters))
    assert set(found.monitored) == wanted
    assert found.unmonitored == unmonitored


def test_the_names_of_all_instances_are_known() -> None:
    found = choose(FLEET, DiscoveryConfig(name="prod-*", exclude=["a4"]))
    assert {id: instance.name for id, instance in found.instances.items()} == {
        "a1": "prod-orders",
        "a2": "prod-billing",
        "a3": "test-orders",
        "a4": "Prod-old",
    }


# Pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "offsets"),
    # Each page begins with the last instance of the one before.
    [
        (0, [0]),
        (1, [0]),
        (99, [0]),
        (100, [0, 99]),  # a full page proves nothing
        (101, [0, 99]),
        (199, [0, 99, 198]),
        (250, [0, 99, 198]),
    ],
)
async def test_all_pages_are_read(clock: Clock, count: int, offsets: list[int]) -> None:
    cloud = Cloud(make_instances(count))
    discovery = make_discovery(cloud, clock)
    assert (discovery.known, discovery.success) == (False, None)
    await refresh(discovery)
    assert len(discovery.found.monitored) == count
    assert cloud.requests() == [("v3.1", offset) for offset in offsets]
    assert (discovery.known, discovery.success) == (True, True)


async def test_without_a_total_pages_are_read_until_one_brings_nothing(clock: Clock) -> None:
    cloud = Cloud(make_instances(200))
    cloud.total = lambda total: None
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    assert len(discovery.found.monitored) == 200
    assert [offset for _, offset in cloud.requests()] == [0, 99, 198, 199]


@pytest.mark.parametrize("total", [None, 100, 5000, 10**9])
async def test_an_ignored_offset_does_not_spin(clock: Clock, total: int | None) -> None:
    cloud = Cloud(make_instances(100))
    cloud.ignores_offset = True
    cloud.total = lambda _: total
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    assert discovery.success is (total == 100)
    assert len(cloud.requests()) <= 4


@pytest.mark.parametrize("page_rows", [1, 2, 50])
async def test_shorter_pages_than_asked_for_are_all_read(clock: Clock, page_rows: int) -> None:
    cloud = Cloud(make_instances(101))
    cloud.page_rows = page_rows
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    assert len(discovery.found.monitored) == 101


async def test_an_instance_deleted_between_pages_takes_no_other_with_it(clock: Clock) -> None:
    """The others move up, one is skipped, and the number is right nevertheless."""
    cloud = Cloud(make_instances(150))
    discovery = make_discovery(cloud, clock)

    def delete(number: int) -> None:
        if number == 2:
            del cloud.instances[0]

    cloud.before = delete
    await refresh(discovery)
    assert sorted(monitored(discovery)) == [f"i{number:03}" for number in range(1, 150)]


async def test_pages_that_move_again_and_again_are_a_failure(clock: Clock) -> None:
    cloud = Cloud(make_instances(300))
    cloud.before = lambda number: cloud.instances.pop(0)
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    assert (discovery.success, discovery.known) == (False, False)


@pytest.mark.parametrize("lie", [10, 10**9])
async def test_a_listing_with_less_than_it_announces_is_a_failure(clock: Clock, lie: int) -> None:
    cloud = Cloud(make_instances(150))
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    before = discovery.found
    cloud.total = lambda total: total + lie
    await clock.advance(600)
    await refresh(discovery)
    assert discovery.success is False
    assert discovery.found is before
    assert len(cloud.requests()) <= 8


@pytest.mark.parametrize("count", [100, 150, 200, 230])
async def test_a_total_that_counts_the_rows_of_its_page_hides_no_instance(
    clock: Clock, count: int
) -> None:
    """The first page of 230 said 100, and 130 instances were never watched."""
    cloud = Cloud(make_instances(count))
    cloud.counts_page = True
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    assert (discovery.success, len(discovery.found.monitored)) == (True, count)


@pytest.mark.parametrize(("page_rows", "requests"), [(100, 203), (1, 2000)])
async def test_a_listing_without_an_end_is_given_up(
    clock: Clock, page_rows: int, requests: int
) -> None:
    cloud = Cloud()
    cloud.endless = True
    cloud.page_rows = page_rows
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    assert discovery.success is False
    assert "has no end" in str(discovery.error)
    assert len(cloud.requests()) == requests  # once: another try would be no better


@pytest.mark.parametrize("bad", ["", "../../etc", "a b", "x" * 65, "ü", "a/b", "a\n"])
async def test_ids_that_could_mean_another_path_are_left_out_and_said(
    clock: Clock, bad: str
) -> None:
    cloud = Cloud([make_instance("good_1-A"), FoundInstance(bad, "bad", {})])
    discovery = make_discovery(cloud, clock)
    with structlog.testing.capture_logs() as logs:
        await refresh(discovery)
        await clock.advance(600)
        await refresh(discovery)
    assert monitored(discovery) == ["good_1-A"]
    assert discovery.success is True
    assert discovery.found.unusable == (bad.strip(),)
    (line,) = [line for line in logs if line["event"] != "discovery succeeded"]
    assert line == {
        "event": "discovered instances without a usable id",
        "log_level": "warning",
        "project": PROJECT,
        "instances": 1,
        "ids": [bad.strip()],
        "hint": "they are not watched: an id is 1 to 64 letters, digits, - or _",
    }


def test_an_unusable_id_that_nobody_wants_is_not_worth_a_word() -> None:
    odd = FoundInstance("odd id", "test-odd", {})
    assert choose([odd], DiscoveryConfig(exclude=["test-*"])).unusable == ()
    found = choose([odd], DiscoveryConfig(name="prod-*"))
    assert not found.unusable
    assert found.unmonitored == {"odd id"}


async def test_many_unusable_ids_are_counted_and_some_told(clock: Clock) -> None:
    cloud = Cloud([FoundInstance(f"id {n}", "", {}) for n in range(300)])
    with structlog.testing.capture_logs() as logs:
        await refresh(make_discovery(cloud, clock))
    assert logs[1]["instances"] == 300
    assert logs[1]["ids"] == ["id 0", "id 1", "id 2", "id 3", "id 4"]


@pytest.mark.parametrize("filters", [{"name": "Prod-*"}, {"exclude": ["*"]}, {"tags": {"a": "b"}}])
async def test_filters_that_take_nothing_are_said_once(
    clock: Clock, filters: dict[str, Any]
) -> None:
    """A misspelt filter watches nothing, and every number that is published is fine."""
    cloud = Cloud([make_instance("a1", "prod-orders"), make_instance("a2", "prod-billing")])
    discovery = make_discovery(cloud, clock, **filters)
    with structlog.testing.capture_logs() as logs:
        await refresh(discovery)
        await clock.advance(600)
        await refresh(discovery)
    assert discovery.found.takes_none
    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert line["event"] == "discovery takes no instance"
    assert (line["found"], line["names"]) == (2, ["prod-orders", "prod-billing"])


async def test_a_project_without_instances_is_no_fault_of_its_filters(clock: Clock) -> None:
    discovery = make_discovery(Cloud(), clock, name="prod-*")
    with structlog.testing.capture_logs() as logs:
        await refresh(discovery)
    assert not discovery.found.takes_none
    assert [line["event"] for line in logs] == ["discovery succeeded"]


async def test_filters_that_a_reload_spoils_are_said_too(clock: Clock) -> None:
    cloud = Cloud([make_instance("a1", "prod-orders")])
    before = make_discovery(cloud, clock, name="prod-*")
    await refresh(before)
    with structlog.testing.capture_logs() as logs:
        make_discovery(cloud, clock, name="prd-*").adopt(before)
    assert [line["event"] for line in logs] == ["discovery takes no instance"]


# The older API ---------------------------------------------------------------------------------


async def test_the_older_api_is_asked_where_the_newer_is_not_there(clock: Clock) -> None:
    cloud = Cloud(make_instances(150))
    cloud.errors["v3.1"] = not_found()
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    assert len(discovery.found.monitored) == 150
    assert cloud.requests() == [("v3.1", 0), ("v3", 0), ("v3", 99)]
    await clock.advance(600)
    await refresh(discovery)
    assert cloud.requests() == [("v3", 0), ("v3", 99)]


async def test_a_project_that_is_not_there_is_a_failure(clock: Clock) -> None:
    cloud = Cloud()
    cloud.errors = {"v3.1": not_found(), "v3": not_found()}
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    assert discovery.success is False
    assert cloud.requests() == [("v3.1", 0), ("v3", 0)]
    cloud.errors = {}
    await clock.advance(600)
    await refresh(discovery)
    assert cloud.requests() == [("v3.1", 0)]


async def test_the_older_api_is_not_asked_for_any_other_trouble(clock: Clock) -> None:
    cloud = Cloud()
    cloud.errors["v3.1"] = RefusedError("HTTP 403", reason=Reason.FORBIDDEN, status=403)
    await refresh(make_discovery(cloud, clock))
    assert cloud.requests() == [("v3.1", 0)]


async def test_the_older_api_that_is_gone_is_a_failure(clock: Clock) -> None:
    cloud = Cloud(make_instances(1))
    cloud.errors["v3.1"] = not_found()
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    cloud.errors["v3"] = not_found()
    await clock.advance(600)
    cloud.requests()
    await refresh(discovery)
    assert (discovery.success, monitored(discovery)) == (False, ["i000"])
    assert cloud.requests() == [("v3", 0)]


# Again and again -------------------------------------------------------------------------------


async def test_it_asks_again_when_the_interval_is_over(clock: Clock) -> None:
    cloud = Cloud(make_instances(1))
    discovery = make_discovery(cloud, clock, refresh_interval="10m")
    await refresh(discovery)
    await clock.advance(599)
    assert discovery.refresh() is None
    await clock.advance(1)
    await refresh(discovery)
    assert len(cloud.requests()) == 2


async def test_all_who_ask_meanwhile_wait_for_the_same_answer(clock: Clock) -> None:
    cloud = Cloud(make_instances(1))
    cloud.takes_seconds = 3
    discovery = make_discovery(cloud, clock)
    first = discovery.refresh()
    await clock.advance(1)
    assert discovery.refresh() is first is not None
    await first
    assert len(cloud.requests()) == 1


async def test_instances_come_and_go(clock: Clock) -> None:
    cloud = Cloud(make_instances(2))
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    cloud.instances = [make_instance("i001"), make_instance("new")]
    await clock.advance(600)
    with structlog.testing.capture_logs() as logs:
        await refresh(discovery)
    assert monitored(discovery) == ["i001", "new"]
    assert logs == [
        {
            "event": "discovered instances changed",
            "log_level": "info",
            "project": PROJECT,
            "added": ["new"],
            "removed": ["i000"],
        }
    ]


@pytest.mark.parametrize(
    "error",
    [
        unavailable(),
        not_found(),
        AuthError("the cloud refused the token", reason=Reason.AUTH, hint="check it"),
        DeadlineError("the deadline came before a free slot"),
    ],
)
async def test_a_failure_keeps_the_last_known_instances(
    clock: Clock, error: ApiError | DeadlineError
) -> None:
    cloud = Cloud(make_instances(3))
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    cloud.errors = {"v3.1": error, "v3": error}
    cloud.instances = []
    await clock.advance(600)
    await refresh(discovery)
    assert (discovery.success, discovery.error, discovery.known) == (False, error, True)
    assert monitored(discovery) == ["i000", "i001", "i002"]
    cloud.errors = {}
    await clock.advance(600)
    await refresh(discovery)
    assert (discovery.success, discovery.error, monitored(discovery)) == (True, None, [])


async def test_a_page_that_fails_in_the_middle_changes_nothing(clock: Clock) -> None:
    cloud = Cloud(make_instances(150))
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    cloud.instances = cloud.instances[:120]

    def fail(number: int) -> None:
        if number == 4:
            cloud.errors["v3.1"] = unavailable()

    cloud.before = fail
    await clock.advance(600)
    await refresh(discovery)
    assert len(cloud.asked) == 4
    assert (discovery.success, len(monitored(discovery))) == (False, 150)


@pytest.mark.parametrize(("interval", "pause"), [("10m", 60), ("5s", 5)])
async def test_a_failure_is_tried_again_soon_but_not_at_every_scrape(
    clock: Clock, interval: str, pause: int
) -> None:
    cloud = Cloud()
    cloud.errors["v3.1"] = unavailable()
    discovery = make_discovery(cloud, clock, refresh_interval=interval)
    await refresh(discovery)
    await clock.advance(pause - 0.5)
    assert discovery.refresh() is None
    await clock.advance(0.5)
    await refresh(discovery)


async def test_a_failure_is_logged_when_it_begins_and_when_it_ends(clock: Clock) -> None:
    cloud = Cloud(make_instances(2))
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    with structlog.testing.capture_logs() as logs:
        cloud.errors["v3.1"] = unavailable()
        for _ in range(3):
            await clock.advance(600)
            await refresh(discovery)
        cloud.errors = {}
        for _ in range(3):
            await clock.advance(600)
            await refresh(discovery)
    assert logs == [
        {
            "event": "discovery failing",
            "log_level": "warning",
            "project": PROJECT,
            "reason": "server",
            "error": "HTTP 500",
            "hint": "ask the support",
            "status": 500,
            "kept_instances": 2,
        },
        {
            "event": "discovery succeeded",
            "log_level": "info",
            "project": PROJECT,
            "instances": 2,
        },
    ]


async def test_a_listing_that_waits_too_long_is_a_failure(clock: Clock) -> None:
    """A 429 or a 503 may announce hours: that must show, and not hang for hours."""
    cloud = Cloud(make_instances(3))
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    cloud.takes_seconds = 1e9
    await clock.advance(600)
    before = clock()
    await refresh(discovery)
    assert clock() - before == 300
    assert cloud.queries[-1].deadline == asyncio.get_running_loop().time()
    assert (discovery.success, len(monitored(discovery))) == (False, 3)


async def test_a_clock_set_back_a_day_does_not_stop_it_for_a_day(clock: Clock) -> None:
    cloud = Cloud(make_instances(1))
    discovery = make_discovery(cloud, clock)
    await refresh(discovery)
    clock.offset = -DAY
    await refresh(discovery)
    assert discovery.refresh() is None


async def test_closing_ends_the_listing_under_way(clock: Clock) -> None:
    cloud = Cloud()
    cloud.takes_seconds = 100
    discovery = make_discovery(cloud, clock)
    await discovery.aclose()
    task = discovery.refresh()
    await clock.advance(1)
    await discovery.aclose()
    assert task is not None
    assert task.cancelled()


# After a reload --------------------------------------------------------------------------------


async def test_a_failure_outlives_a_reload(clock: Clock) -> None:
    cloud = Cloud(FLEET)
    cloud.errors = {"v3.1": RefusedError("no", reason=Reason.FORBIDDEN)}
    before = make_discovery(cloud, clock)
    await refresh(before)
    after = make_discovery(cloud, clock)
    after.adopt(before)
    assert (after.success, str(after.error)) == (False, "no")


async def test_what_was_listed_outlives_a_reload_under_the_new_filters(clock: Clock) -> None:
    cloud = Cloud(FLEET)
    cloud.errors["v3.1"] = not_found()
    before = make_discovery(cloud, clock)
    await refresh(before)
    after = make_discovery(cloud, clock, name="prod-*")
    after.adopt(before)
    assert (after.known, after.success, monitored(after)) == (True, True, ["a1", "a2"])
    assert after.found.unmonitored == {"a3", "a4"}
    cloud.requests()
    await refresh(after)
    assert cloud.requests() == [("v3", 0)]


def test_nothing_is_known_at_first(clock: Clock) -> None:
    discovery = make_discovery(Cloud(), clock)
    assert discovery.found == Found({}, frozenset(), (), {})
    assert discovery.error is None
