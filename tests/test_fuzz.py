"""Never a wrong number, whatever the cloud holds and however the API fails: a property.

Each example draws a cloud and a script of faults, and scrapes one exporter several times. For every
instance and every scrape, either the published numbers are those of a correct full listing, or
`scrape_success` is 0 and there is no backup gauge at all.

The right numbers are computed here from the simulated rows and the definitions of the contract,
with nothing of the exporter. A listing takes time and comes in pages, so a row that changes while
the query runs may be published as it was at any moment of it; all others must be exact.

`listing_complete 0` excuses different numbers. It must itself have an excuse: a `total_count` that
is not true, rows that changed during the query, or a fault that changed the listing.

What the contract leaves to the next listing of the whole window, and is drawn accordingly:

- rows that the API deletes are counted until then, if they were known;
- a scrape asks for what is new since an hour before the latest known end (or since the begin of
  the oldest running backup). A row that appears more than an hour late is not seen before then,
  nor is one that was hidden while it ran for more than an hour where the API filters by
  begin_time: neither is drawn;
- a full listing asks for 24 hours more than the lookback: no drawn backup runs for longer.

And what nobody could tell: pages in a new order for each request show all rows only if the number
of rows is right, so that order is not drawn together with a count that lies.
"""

import asyncio
import itertools
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from math import floor, fsum, inf, isclose
from typing import Any, Literal

import httpx
import structlog
import structlog.testing
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from exporter.assembly import Exporter
from exporter.config.schema import Config
from exporter.simulator import Fault, Knobs, RecordedRequest, SimulatedBackup, Simulator
from exporter.simulator.knobs import Order
from exporter.web.app import create_app
from tests.support.factories import (
    REASONS,
    Samples,
    instance_id,
    make_config,
    make_exporter,
    make_instance,
    make_project,
    make_project_settings,
    parse_samples,
)
from tests.support.faults import RESET, StreamingTransport
from tests.support.virtual_time import HOUR, NOON, Clock, VirtualTimeLoop

# Asked for a number, it looks for new examples; without, every run tries the same ones: a change is
# not blamed for what it did not break.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "500"))
NEW_EXAMPLES = "FUZZ_EXAMPLES" in os.environ
API_TIMEOUT = 3.0
# Silences after a 429 and back-offs after refused logins last 15 minutes at most.
LONGEST_BACKOFF = 900.0
MOST_VARIANTS = 4_000

TotalCount = Literal["true", "missing", "null", "lie", "negative", "string", "float"]

# The cloud that is drawn -----------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Plain:
    """Shown with what differs from the defaults alone: a failing example is for people."""

    def __repr__(self) -> str:
        return show(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def show(value: Any) -> str:
    told = []
    for item in fields(value):
        given = getattr(value, item.name)
        if item.default is MISSING or given != item.default:
            told.append(f"{item.name}={show(given) if isinstance(given, Knobs) else repr(given)}")
    return f"{type(value).__name__}({', '.join(told)})"


@dataclass(frozen=True, repr=False)
class Row(Plain):
    """A backup. Times are seconds after the start; `end` None: it never ends."""

    begin: float
    end: float | None
    appears: float
    deleted: float | None = None
    size: float | None = 0.0
    offsite: bool = False

    def build(self, number: int) -> SimulatedBackup:
        return SimulatedBackup(
            f"{zlib.crc32(str(number).encode()):08x}{number:024x}br07",
            NOON + self.begin,
            None if self.end is None else NOON + self.end,
            self.size,
            backup_type="OffSiteLog" if self.offsite else "Log",
            appears_at=NOON + self.appears,
            deleted_at=None if self.deleted is None else NOON + self.deleted,
        )


@dataclass(frozen=True, repr=False)
class Cloud(Plain):
    """An instance's backups and how it is watched."""

    rows: tuple[Row, ...]
    lookback: int
    offsite: bool = False


@dataclass(frozen=True, repr=False)
class Step(Plain):
    """What happens `gap` seconds after the scrape before: an action, then a scrape."""

    gap: float
    timeout: float = 10.0
    faults: tuple[str, ...] = ()
    action: str = ""
    overlapping: float | None = None  # so much later, a second scrape at the same time


@dataclass(frozen=True, repr=False)
class Scenario(Plain):
    clouds: tuple[Cloud, ...]
    knobs: Knobs
    steps: tuple[Step, ...]
    resync_interval: int
    skew: int = 0  # seconds that the exporter's clock is ahead of the cloud's
    rate_limit: int = 50  # where it is small, a window takes several scrapes
    max_connections: int = 50


LOOKBACKS = [300, 900, 3_600, 7_200, 86_400]
SIZES = st.one_of(
    st.none(),
    st.sampled_from([0.0, 0.109375, 1.0, 2_048.0, 1e9]),
    st.floats(0.0, 1e6, allow_nan=False),
)


@st.composite
def series(draw: st.DrawFn, hidden: bool) -> list[Row]:
    """Backups made one after the other, some at the borders of pages."""
    cadence = draw(st.sampled_from([60, 300, 600, 900, 1_800, 3_600]))
    count = draw(
        st.one_of(st.integers(0, 6), st.sampled_from([48, 49, 50, 51, 52, 97, 98, 99, 100, 101]))
    )
    duration = draw(st.sampled_from([1, 30.5, 59, 200, 900] + ([] if hidden else [2 * 3_600])))
    # Where the last one begins: in the past, or while the scrapes go on.
    last = draw(st.integers(-40, 20)) * cadence + draw(st.sampled_from([0, 0.5, 7, 31]))
    retention = draw(st.sampled_from([None, None, None, 1_800.0, 4 * HOUR, 30 * HOUR]))
    late = draw(st.sampled_from([0, 0, 0, 5, 600]))
    if duration > HOUR:
        late = 0  # what appears after its end was hidden while it ran
    rows = []
    for number in range(count):
        begin = last - number * cadence
        end = begin + duration
        size = float(number) + 0.5
        appears = end + late if late else begin
        rows.append(Row(begin, end, appears, None if retention is None else end + retention, size))
    return rows


@st.composite
def odd_rows(draw: st.DrawFn, hidden: bool) -> Row:
    """One backup for itself."""
    begin = draw(
        st.integers(-60 * 3_600, 12 * 3_600) | st.integers(-3 * 3_600, 0) | st.integers(-600, 600)
    ) + draw(st.sampled_from([0, 0.25]))
    longest = 3_000 if hidden else 20 * 3_600
    duration = draw(
        st.none()
        | st.integers(0, 600)
        | st.integers(0, longest)
        | st.integers(min(longest, 3_600), min(longest, 5 * 3_600))
    )
    end = None if duration is None else begin + duration
    late = 0 if end is None and hidden else draw(st.just(0) | st.integers(0, 3_500))
    if hidden and end is not None:
        late = max(0, min(late, 3_500))
    deleted = draw(st.none() | st.integers(0, 40 * 3_600))
    return Row(
        begin,
        end,
        begin + late,
        None if deleted is None else begin + late + deleted,
        draw(SIZES),
        offsite=draw(st.integers(0, 9)) == 0,
    )


@st.composite
def clouds(draw: st.DrawFn, hidden: bool) -> Cloud:
    rows: list[Row] = []
    for _ in range(draw(st.integers(0, 2))):
        rows += draw(series(hidden))
    rows += draw(st.lists(odd_rows(hidden), max_size=5))
    return Cloud(
        tuple(rows),
        draw(st.sampled_from(LOOKBACKS)),
        draw(st.booleans()),
    )


@st.composite
def all_knobs(draw: st.DrawFn) -> Knobs:
    pick = st.sampled_from
    total_counts: list[TotalCount] = ["missing", "null", "lie", "negative", "string", "float"]
    total_count: TotalCount = "true" if draw(st.booleans()) else draw(pick(total_counts))
    orders: list[Order] = [
        "begin_desc",
        "begin_asc",
        "end_asc",
        "end_desc",
        "id",
        "shuffled_stable",
    ]
    if total_count != "lie":
        orders.append("shuffled_each_request")
    return Knobs(
        order=draw(pick(orders)),
        filter_meaning=draw(pick(["begin", "end", "overlap"])),
        running_under_end_filter=draw(pick(["by_begin", "always", "hidden"])),
        bounds=draw(pick(["inclusive", "exclusive", "half_open"])),
        hide_running=draw(pick([False, False, True])),
        time_offset=draw(pick([480, 0, -210, 840, -720])),
        time_form=draw(pick(["basic", "colon", "zulu"])),
        show_empty_end_as=draw(pick(["null", "empty", "missing"])),
        total_count=total_count,
        total_count_lie=draw(st.integers(-3, 3)),
        latency_seconds=draw(pick([0.0, 0.0, 0.125, 0.5])),
    )


def without_a_row(document: Any) -> Any:
    """A page that lost a row: what a listing that shifts looks like."""
    return {**document, "backups": document.get("backups", [])[1:]}


def with_total(change: int) -> Callable[[Any], Any]:
    def alter(document: Any) -> Any:
        total = document.get("total_count")
        if not isinstance(total, int):
            return document
        return {**document, "total_count": max(0, total + change)}

    return alter


# By name, so that a failing example can be read. Those that change what an answer says are apart.
FAULTS: dict[str, Fault] = {
    **{f"status {status}": Fault(status=status) for status in (400, 403, 404, 409, 500, 503)},
    "bad gateway": Fault(status=502, form="html"),
    "gateway timeout": Fault(status=504, form="empty"),
    "unauthorised": Fault(status=401, form="gateway", code="APIGW.0307"),
    "throttled": Fault(status=429, form="gateway", message="limit:200,time:1 second"),
    "throttled plainly": Fault(status=429, form="gateway"),
    "throttled for minutes": Fault(status=429, form="gateway", message="limit:200,time:5 minute"),
    "retry after": Fault(status=429, form="gateway", headers={"Retry-After": "2"}),
    "unavailable for a second": Fault(status=503, headers={"Retry-After": "1"}),
    "redirect": Fault(status=302, headers={"Location": "https://elsewhere.example/"}),
    "empty body": Fault(status=200, form="empty"),
    "no content": Fault(status=204, form="empty"),
    "html": Fault(status=200, form="html"),
    "garbage": Fault(body=b"\x00\xff{]"),
    "no object": Fault(body=b"[]"),
    "empty object": Fault(body=b"{}"),
    "no backups": Fault(body=b'{"backups":null,"total_count":3}'),
    "nested": Fault(nesting=2_000),
    "reset": RESET,
    "cut at once": Fault(cut_after_bytes=0),
    "cut": Fault(cut_after_bytes=57),
    "slow": Fault(chunk_bytes=400, chunk_pause_seconds=0.25),
    "too slow": Fault(chunk_bytes=16, chunk_pause_seconds=1.0),
    "late": Fault(delay_seconds=2.0),
    "hang": Fault(hang=True),
    **{
        spoiler: Fault(rows=spoiler)
        for spoiler in (
            "unreadable_time",
            "impossible_time",
            "number_time",
            "no_zone_time",
            "unreadable_begin",
            "negative_size",
            "nan_size",
            "infinite_size",
            "string_size",
            "bool_size",
            "empty_id",
            "missing_id",
            "missing_times",
            "text_row",
            "null_row",
            "repeated",
        )
    },
}
CHANGING_FAULTS: dict[str, Fault] = {
    "repeated_changed": Fault(rows="repeated_changed"),
    "a row lost": Fault(alter=without_a_row),
    "total too high": Fault(alter=with_total(1)),
    "total too low": Fault(alter=with_total(-1)),
    "no rows": Fault(rows=lambda rows: []),
}
SPECIAL_FAULTS = ("", "revoke")


@st.composite
def steps(draw: st.DrawFn) -> Step:
    faults: tuple[str, ...] = ()
    if draw(st.booleans()):
        names = st.sampled_from([*SPECIAL_FAULTS, *FAULTS, *CHANGING_FAULTS])
        faults = tuple(draw(st.lists(names, min_size=1, max_size=6)))
    return Step(
        gap=draw(
            st.sampled_from(
                [1.0, 15.0, 60.0, 300.0, 1_860.0, 1_860.0, 2 * HOUR, 2 * HOUR, 7.5 * HOUR]
            )
            | st.integers(1, 90)
        ),
        timeout=draw(st.sampled_from([10.0, 10.0, 10.0, 2.0, 0.75])),
        faults=faults,
        action=draw(st.sampled_from(["", "", "", "", "reload", "reconfigure", "restart"])),
        overlapping=draw(st.sampled_from([None, None, None, 0.0, 0.25])),
    )


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    knobs = draw(all_knobs())
    return Scenario(
        tuple(draw(clouds(knobs.hide_running)) for _ in range(draw(st.sampled_from([1, 1, 2])))),
        knobs,
        tuple(draw(st.lists(steps(), min_size=2, max_size=7))),
        draw(st.sampled_from([60, 900, 3_600, 21_600])),
        draw(st.sampled_from([0, 0, 0, 0, -45, 45])),
        draw(st.sampled_from([50, 50, 50, 1, 2])),
        draw(st.sampled_from([50, 50, 50, 1, 2])),
    )


# The right numbers -----------------------------------------------------------------------------

ABSENT, RUNNING, FINISHED = "absent", "running", "finished"


@dataclass
class Truth:
    """What a correct full listing of one instance shows at some moment."""

    cloud: Cloud
    knobs: Knobs
    skew: int = 0

    def rows(self) -> list[Row]:
        return [row for row in self.cloud.rows if self.cloud.offsite or not row.offsite]

    def state(self, row: Row, at: float) -> str:
        if at < row.appears or (row.deleted is not None and at >= row.deleted):
            return ABSENT
        if row.end is not None and row.end <= at:
            return FINISHED
        hidden = self.knobs.hide_running or (
            self.knobs.filter_meaning == "end" and self.knobs.running_under_end_filter == "hidden"
        )
        return ABSENT if hidden else RUNNING

    def states(self, row: Row, since: float, until: float) -> set[str]:
        """All that a row is from `since` to `until`."""
        turns = [row.appears, row.end, row.deleted]
        moments = [since, *(turn for turn in turns if turn is not None and since < turn <= until)]
        return {self.state(row, moment) for moment in moments}

    def numbers(self, listed: Iterable[tuple[Row, str]], at: float) -> dict[str, Any]:
        """The definitions of the contract, word for word. `at` is the exporter's time."""
        since = at - self.cloud.lookback
        finished, running, latest = [], [], -inf
        ever: list[float] = []
        latest_sizes: set[float] = set()
        for row, state in listed:
            size = row.size or 0.0
            if state == RUNNING and since <= floor(NOON + row.begin) <= at:
                running.append(size)
            if state != FINISHED or row.end is None:
                continue
            end = floor(NOON + row.end)
            if end > at:
                continue
            ever.append(end)
            if end > latest:
                latest, latest_sizes = end, set()
            if end == latest:
                latest_sizes.add(size)
            if since <= end:
                finished.append((end, size))
        ends = sorted(end for end, _ in finished)
        return {
            "incremental_backups": len(finished) + len(running),
            "incremental_backups_size_kilobytes": fsum(running) + fsum(s for _, s in finished),
            "incremental_backups_running": len(running),
            "incremental_backup_latest_end_timestamp_seconds": latest if latest > -inf else None,
            "latest_sizes": latest_sizes,
            "incremental_backup_oldest_end_timestamp_seconds": ends[0] if ends else None,
            "incremental_backup_max_interval_seconds": (
                max(
                    (b - a for a, b in itertools.pairwise(sorted(ever)) if b >= since), default=None
                )
            ),
        }

    def moments(self, since: float, until: float) -> list[float]:
        """The exporter's times that stand for all in a span: borders, and between them."""
        first, last = NOON + self.skew + since, NOON + self.skew + until
        borders = {first, last}
        for row in self.rows():
            turns = [floor(NOON + row.begin)]
            if row.end is not None:
                turns.append(floor(NOON + row.end))
            for turn in turns:
                borders |= {
                    border for border in (turn, turn + self.cloud.lookback) if first < border < last
                }
        ordered = sorted(borders)
        between = [(a + b) / 2 for a, b in itertools.pairwise(ordered)]
        return sorted({*ordered, *between})


def agrees(published: dict[str, float], right: dict[str, Any]) -> bool:
    for name, value in right.items():
        if name == "latest_sizes":
            size = published.get("incremental_backup_latest_size_bytes")
            if (size is None) != (not value):
                return False
            if size is not None and size / 1024 not in value:
                return False
        elif name == "incremental_backups_size_kilobytes":
            if not isclose(published[name], value, rel_tol=1e-12, abs_tol=1e-9):
                return False
            if published["incremental_backups_size_bytes"] != published[name] * 1024:
                return False
        elif published.get(name) != value:
            return False
    return True


# The exporter under test -----------------------------------------------------------------------


@dataclass
class Query:
    """One scrape as it went."""

    since: float  # when the query began, which may be in an earlier scrape
    begun: float
    ended: float
    success: bool
    calm: bool  # no fault, and not at its deadline
    steady: bool  # no row changed


@dataclass
class Watched:
    """What the test remembers of an instance, of one exporter's life."""

    truth: Truth
    queries: list[Query] = field(default_factory=list)
    excused_at: float = -inf
    is_listed: bool = False


@dataclass
class Run:
    """A scenario while it runs. Times are the loop's, which starts at 0."""

    scenario: Scenario
    clock: Clock
    simulator: Simulator
    transport: StreamingTransport
    faults: Iterator[str] = field(default_factory=lambda: iter(()))
    fault_at: float = -inf
    changing_fault_at: float = -inf
    watched: dict[str, Watched] = field(default_factory=dict)
    requests_before: dict[str, int] = field(default_factory=dict)

    def next_fault(self, record: RecordedRequest) -> Fault | None:
        name = next(self.faults, "")
        if not name:
            return None
        self.fault_at = asyncio.get_running_loop().time()
        if name == "revoke":
            self.simulator.revoke_tokens()
            return None
        if name in CHANGING_FAULTS:
            self.changing_fault_at = self.fault_at
            return CHANGING_FAULTS[name]
        return FAULTS[name]

    def forget(self) -> None:
        """A new exporter knows nothing."""
        for number, cloud in enumerate(self.scenario.clouds):
            id_ = instance_id(number)
            self.watched[id_] = Watched(Truth(cloud, self.scenario.knobs, self.scenario.skew))
            self.requests_before[id_] = len(self.simulator.requests_of("list_backups", id_))

    def reconfigure(self) -> None:
        """Every instance gets the next of the lookbacks."""
        for watched in self.watched.values():
            cloud = watched.truth.cloud
            longer = LOOKBACKS[(LOOKBACKS.index(cloud.lookback) + 1) % len(LOOKBACKS)]
            watched.truth = replace(watched.truth, cloud=replace(cloud, lookback=longer))
            watched.is_listed = False

    async def start(self) -> Exporter:
        self.forget()

        def load() -> Config:
            return make_config(
                projects=[
                    make_project_settings(
                        *(
                            {
                                "id": id_,
                                "lookback": f"{watched.truth.cloud.lookback}s",
                                "offsite": watched.truth.cloud.offsite,
                            }
                            for id_, watched in self.watched.items()
                        ),
                        auth="password",
                    )
                ],
                api={
                    "timeout": f"{API_TIMEOUT:.0f}s",
                    "resync_interval": f"{self.scenario.resync_interval}s",
                    "rate_limit": self.scenario.rate_limit,
                    "max_connections": self.scenario.max_connections,
                },
                scrape={"timeout": "30s", "timeout_offset": "0s"},
            )

        return await make_exporter(
            self.simulator,
            load,
            clock=Clock(offset=self.scenario.skew),
            transport=self.transport,
        )

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        exporter = await self.start()
        app = create_app(exporter)  # one for all scrapes: it remembers what it has rendered
        try:
            for step in self.scenario.steps:
                await asyncio.sleep(step.gap)
                if step.action == "restart":
                    await exporter.aclose()
                    self.transport.closed = False
                    exporter = await self.start()
                    app = create_app(exporter)
                elif step.action:
                    if step.action == "reconfigure":
                        self.reconfigure()
                    await exporter.reload()
                self.faults = iter(step.faults)
                begun = loop.time()
                scrapes = [scrape(app, step.timeout)]
                if step.overlapping is not None:
                    scrapes.append(scrape(app, step.timeout, after=step.overlapping))
                for first, last, published in await asyncio.gather(*scrapes):
                    assert last - first <= step.timeout + 1e-6, "an answer after its deadline"
                    for id_, watched in self.watched.items():
                        self.check(id_, watched, published, begun, first, last, step)
            self.check_requests(published)
        finally:
            await exporter.aclose()
            assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks left behind"

    def check_requests(self, published: Samples) -> None:
        for id_, before in self.requests_before.items():
            sent = len(self.simulator.requests_of("list_backups", id_)) - before
            counted = published.of("api_requests_total", id_)
            assert counted is not None
            # A query that goes on after the last scrape may have sent more.
            assert counted <= sent

    def check(
        self,
        id_: str,
        watched: Watched,
        published: Samples,
        step_begun: float,
        first: float,
        last: float,
        step: Step,
    ) -> None:
        truth = watched.truth
        success = published.of("scrape_success", id_)
        gauges = published.backup_gauges(id_)
        before = watched.queries[-1] if watched.queries else None
        # A query that was cut off goes on, and its answer is of the scrape that joins it.
        since = step_begun
        if before is not None and (not before.success or before.ended > step_begun):
            since = min(since, before.since)
        changing = [row for row in truth.rows() if len(truth.states(row, since, last)) > 1]
        query = Query(
            since,
            first,
            last,
            success == 1,
            calm=self.fault_at < since and last - first < step.timeout - 0.05,
            steady=not changing,
        )
        watched.queries.append(query)
        self.check_always_there(id_, published, success)
        if success == 0:
            assert not gauges, f"gauges of a failed query: {gauges}"
            assert not self.must_succeed(watched, query, published, id_), (
                f"failed without a reason: {published.errors(id_)}"
            )
            return
        assert success == 1
        if "incremental_backups" not in gauges:
            event("listing")
            assert not self.must_succeed(watched, query, published, id_), (
                "not listed, for no reason"
            )
            # What is gone or contradicts itself ends what was known.
            assert not watched.is_listed or self.may_forget(watched), "known before"
            self.check_latest(watched, query, gauges)
            return
        watched.is_listed = True
        complete = gauges["incremental_backups_listing_complete"]
        if self.excuses_incomplete(query):
            watched.excused_at = last
        if complete == 0:
            event("incomplete")
            assert watched.excused_at > -inf, "incomplete without an excuse"
            assert not (
                query.calm and first - watched.excused_at > self.scenario.resync_interval
            ), "still incomplete after the whole window was listed anew"
            return
        event("complete")
        self.check_numbers(watched, query, gauges, changing)

    def check_always_there(self, id_: str, published: Samples, success: float | None) -> None:
        assert success in (0.0, 1.0)
        for name in ("scrape_duration_seconds", "scrape_api_requests", "scrape_api_errors"):
            value = published.of(name, id_)
            assert value is not None
            assert value >= 0
        for reason in REASONS:
            assert published.of("api_errors_total", id_, reason=reason) is not None

    def excuses_incomplete(self, query: Query) -> bool:
        knobs = self.scenario.knobs
        return (
            knobs.total_count not in ("true", "float")
            or not query.steady
            or self.changing_fault_at >= query.since
            or (
                knobs.order == "shuffled_each_request"
                and any(len(cloud.rows) > 50 for cloud in self.scenario.clouds)
            )
        )

    def may_forget(self, watched: Watched) -> bool:
        return (
            any(row.deleted is not None for row in watched.truth.rows())
            or self.changing_fault_at > -inf
            or self.scenario.knobs.order == "shuffled_each_request"
        )

    def must_succeed(self, watched: Watched, query: Query, published: Samples, id_: str) -> bool:
        knobs = self.scenario.knobs
        return (
            query.calm
            and query.steady
            and self.fault_at < query.begun - LONGEST_BACKOFF
            and knobs.total_count in ("true", "missing", "null")
            and knobs.order in ("begin_desc", "begin_asc", "end_desc", "end_asc")
        )

    def check_numbers(
        self, watched: Watched, query: Query, gauges: dict[str, float], changing: Sequence[Row]
    ) -> None:
        truth = watched.truth
        fixed: list[tuple[Row, str]] = []
        open_: list[tuple[Row, set[str]]] = []
        for row in truth.rows():
            states = truth.states(row, query.since, query.ended)
            states |= self.remembered(watched, query, row)
            if len(states) == 1:
                fixed.append((row, states.pop()))
            else:
                open_.append((row, states))
        moments = truth.moments(query.begun, query.ended)
        variants = 1
        for _, states in open_:
            variants *= len(states)
        if variants * len(moments) > MOST_VARIANTS:
            event("too many variants to check")
            return
        for choice in itertools.product(*(sorted(states) for _, states in open_)):
            listed = [
                *fixed,
                *((row, state) for (row, _), state in zip(open_, choice, strict=True)),
            ]
            for moment in moments:
                if agrees(gauges, truth.numbers(listed, moment)):
                    return
        right = truth.numbers(
            [(row, truth.state(row, query.ended)) for row in truth.rows()], moments[-1]
        )
        raise AssertionError(
            f"scrape from {query.begun} to {query.ended} (query since {query.since}):\n"
            f"published {gauges}\nright at its end {right}\nopen: {open_}"
        )

    def check_latest(self, watched: Watched, query: Query, gauges: dict[str, float]) -> None:
        """All that is told before the window is listed. Backups that take over an hour may miss."""
        truth = watched.truth
        assert gauges.pop("incremental_backups_listing_complete") == 0
        latest = gauges.pop("incremental_backup_latest_end_timestamp_seconds", -inf)
        size = gauges.pop("incremental_backup_latest_size_bytes", None)
        assert not gauges, f"published before the window was listed: {gauges}"
        possible: dict[float, set[float | None]] = {-inf: {None}}
        certain = -inf
        moments = truth.moments(query.begun, query.ended)
        for row in truth.rows():
            states = truth.states(row, query.since, query.ended)
            states |= self.remembered(watched, query, row)
            if (
                FINISHED not in states
                or row.end is None
                or (end := floor(NOON + row.end)) > moments[-1]
            ):
                continue
            possible.setdefault(end, set()).add((row.size or 0.0) * 1024)
            if len(states) == 1 and row.end - row.begin <= HOUR and end <= moments[0]:
                certain = max(certain, end)
        assert latest >= certain, "a later backup is known"
        assert size in possible[latest]

    def remembered(self, watched: Watched, query: Query, row: Row) -> set[str]:
        """What a deleted row may still be published as: what it was when it was last listed."""
        if row.deleted is None or row.deleted > query.ended:
            return set()
        states: set[str] = set()
        for earlier in watched.queries[:-1]:
            if earlier.since >= row.deleted:
                # By then it is due to be noticed, and nothing kept the listing from it.
                if (
                    earlier.calm
                    and earlier.success
                    and earlier.begun >= row.deleted + self.scenario.resync_interval
                ):
                    return set()
                continue
            states |= watched.truth.states(row, earlier.since, min(earlier.ended, row.deleted))
        if query.calm and query.begun >= row.deleted + self.scenario.resync_interval:
            return set()
        return states


async def scrape(
    app: ASGIApp, timeout: float, *, after: float = 0.0
) -> tuple[float, float, Samples]:
    """When it began and ended, and what it published."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(after)
    begun = loop.time()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://exporter") as client:
        response = await client.get(
            "/metrics",
            headers={
                "X-Prometheus-Scrape-Timeout-Seconds": str(timeout),
                "Accept-Encoding": "identity",
            },
        )
    assert response.status_code == 200
    ended = loop.time()
    lines = [line for line in response.text.splitlines(True) if "gaussdb_mysql_" in line]
    return begun, ended, parse_samples("".join(lines))


def execute(scenario: Scenario) -> None:
    clock = Clock()
    instances = [
        make_instance(
            *(row.build(number * 1_000 + i) for i, row in enumerate(cloud.rows)),
            id=instance_id(number),
        )
        for number, cloud in enumerate(scenario.clouds)
    ]
    simulator = Simulator([make_project(*instances)], clock=clock, knobs=scenario.knobs, seed=1)
    run = Run(scenario, clock, simulator, StreamingTransport(simulator))
    simulator.fault_script = run.next_fault
    with (
        structlog.testing.capture_logs() as entries,
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
    ):
        runner.run(run.run())
    assert not [entry for entry in entries if entry["log_level"] in ("error", "critical")]


@settings(
    max_examples=EXAMPLES,
    derandomize=not NEW_EXAMPLES,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.large_base_example,
        HealthCheck.data_too_large,
    ],
)
@given(scenarios())
def test_published_numbers_are_those_of_a_correct_full_listing_or_absent(
    scenario: Scenario,
) -> None:
    execute(scenario)
