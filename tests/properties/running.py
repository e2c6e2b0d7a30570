"""A scenario while it runs: one exporter of the simulated cloud, scraped step by step."""

import asyncio
import calendar
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from math import inf
from unittest import mock

import httpx
import structlog.testing
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.assembly import Exporter
from exporter.config.schema import Config
from exporter.simulator import Fault, RecordedRequest, Simulator
from exporter.web.app import create_app
from tests.properties.oracle import (
    LATEST,
    LONGEST_BACKOFF,
    ROUNDING,
    Band,
    History,
    Query,
    Truth,
    note,
)
from tests.properties.world import (
    CHANGING_FAULTS,
    DATE_FAULTS,
    FAULTS,
    LOOKBACKS,
    WHOLE_SECONDS,
    Scenario,
    Step,
)
from tests.support.factories import (
    ENDPOINT,
    IAM_ENDPOINT,
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
from tests.support.faults import StreamingTransport
from tests.support.virtual_time import NOON, Clock, VirtualTimeLoop

API_TIMEOUT = 3.0
# As good as new for so long: a scrape may be answered by the query of another.
SHARED_SECONDS = 5.0
# So far the machine's clock may be off before it is the cloud's that counts.
TOLERATED_SKEW = 60
# The cloud's time is learned from headers that tell it to the second.
UNSURE: Band = (-2.5, 2.5)
HERE, ELSEWHERE = (ENDPOINT, IAM_ENDPOINT), ("https://elsewhere.example", "https://iam-2.example")


@dataclass
class Sites:
    """Two clouds, told apart by the host that is asked: one is the other elsewhere."""

    here: Simulator
    elsewhere: Simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_here = f"https://{scope['server'][0]}" in HERE
        await (self.here if is_here else self.elsewhere)(scope, receive, send)

    def requests_of(self, instance: str) -> int:
        simulators = (self.here, self.elsewhere)
        return sum(len(simulator.requests_of("list_backups", instance)) for simulator in simulators)


@dataclass
class Run:
    """Times are the cloud's, in seconds after noon."""

    scenario: Scenario
    cloud_clock: Clock
    machine_clock: Clock
    sites: Sites
    transport: StreamingTransport
    is_here: bool = True
    step: Step = field(default_factory=lambda: Step(0.0))
    faults: Iterator[str] = field(default_factory=lambda: iter(()))
    fault_at: float = -inf
    awake_at_fault: float = -inf  # the loop's time, in which back-offs pass
    changing_fault_at: float = -inf
    clock_set_at: float = -inf
    slept: float = 0.0
    strange_dates: int = 0
    answers_since: int = 0
    bands: set[Band] = field(default_factory=set)
    histories: dict[str, History] = field(default_factory=dict)
    requests_before: dict[str, int] = field(default_factory=dict)

    def now(self) -> float:
        return self.cloud_clock() - NOON

    # What happens to requests ---------------------------------------------------------------------

    def next_fault(self, record: RecordedRequest) -> Fault | None:
        self.answers_since += 1
        if self.step.listings_fail and record.operation == "list_backups":
            begin = record.query["begin_time"].split("+")[0]
            asked = calendar.timegm(time.strptime(begin, "%Y-%m-%dT%H:%M:%S"))
            cloud = self.histories[record.instance_id].truth.cloud
            if asked < self.cloud_clock() - cloud.lookback - WHOLE_SECONDS:
                self.awake_at_fault = asyncio.get_running_loop().time()
                return Fault(status=500)
        name = next(self.faults, "")
        if not name:
            return None
        self.fault_at = self.now()
        self.awake_at_fault = asyncio.get_running_loop().time()
        if name == "revoke":
            self.sites.here.revoke_tokens()
            self.sites.elsewhere.revoke_tokens()
            return None
        if name in DATE_FAULTS:
            self.strange_dates += 1
            self.answers_since = 0
            is_old = name == "an old date"
            date = formatdate(self.cloud_clock() - 7_200, usegmt=True) if is_old else "yesterday"
            return Fault(headers={"Date": date})
        if name in CHANGING_FAULTS:
            self.changing_fault_at = self.fault_at
            return CHANGING_FAULTS[name]
        return FAULTS[name]

    # The clocks -----------------------------------------------------------------------------------

    def set_clock(self, skew: int) -> None:
        self.machine_clock.offset = self.cloud_clock.offset + skew
        self.clock_set_at = self.now()
        self.bands.add(self.band)

    @property
    def skew(self) -> float:
        return self.machine_clock.offset - self.cloud_clock.offset

    @property
    def band(self) -> Band:
        """How far the exporter's time may be ahead of the cloud's."""
        is_good = abs(self.skew) <= TOLERATED_SKEW
        return (self.skew, self.skew) if is_good or not self.tells_time else UNSURE

    @property
    def tells_time(self) -> bool:
        return self.scenario.knobs.date == "true"

    def suspend(self, seconds: float) -> None:
        """The machine sleeps, the cloud does not; its clock is right when it wakes."""
        self.cloud_clock.offset += seconds
        self.machine_clock.offset += seconds
        self.slept += seconds

    def slept_seconds(self) -> float:
        return self.slept

    @property
    def knows_time(self) -> bool:
        """Whether no strange `Date` can have moved the exporter's clock."""
        if self.strange_dates == 0 or not self.tells_time:
            return self.strange_dates == 0
        return self.answers_since >= 3

    # The exporter ---------------------------------------------------------------------------------

    def forget(self) -> None:
        """The exporter knows nothing of these rows."""
        for number, cloud in enumerate(self.scenario.clouds):
            id_ = instance_id(number)
            lookback = cloud.lookback
            if id_ in self.histories:
                lookback = self.histories[id_].truth.cloud.lookback
            rows = cloud.rows if self.is_here else cloud.elsewhere
            truth = Truth(replace(cloud, rows=rows, lookback=lookback), self.scenario.knobs)
            self.histories[id_] = History(truth, self.scenario.resync_interval)

    def reconfigure(self) -> None:
        """Every instance gets the next of the lookbacks."""
        for history in self.histories.values():
            cloud = history.truth.cloud
            longer = LOOKBACKS[(LOOKBACKS.index(cloud.lookback) + 1) % len(LOOKBACKS)]
            history.truth = replace(history.truth, cloud=replace(cloud, lookback=longer))
        self.forget()

    def load(self) -> Config:
        endpoint, iam_endpoint = HERE if self.is_here else ELSEWHERE
        instances = [
            {
                "id": id_,
                "lookback": f"{history.truth.cloud.lookback}s",
                "offsite": history.truth.cloud.offsite,
            }
            for id_, history in self.histories.items()
        ]
        project = make_project_settings(
            *instances, auth="password", endpoint=endpoint, iam_endpoint=iam_endpoint
        )
        return make_config(
            projects=[project],
            api={
                "timeout": f"{API_TIMEOUT:.0f}s",
                "resync_interval": f"{self.scenario.resync_interval}s",
                "rate_limit": self.scenario.rate_limit,
                "max_connections": self.scenario.max_connections,
            },
            scrape={"timeout": "30s", "timeout_offset": "0s"},
        )

    async def start(self) -> Exporter:
        self.histories.clear()
        self.forget()
        for id_ in self.histories:
            self.requests_before[id_] = self.sites.requests_of(id_)
        self.strange_dates = 0
        return await make_exporter(
            self.sites.here, self.load, clock=self.machine_clock, transport=self.transport
        )

    async def run(self) -> None:
        exporter = await self.start()
        app = create_app(exporter)  # one for all scrapes: it remembers what it has rendered
        try:
            for step in self.scenario.steps:
                await self.wait(step)
                if step.action == "restart":
                    await exporter.aclose()
                    self.transport.closed = False
                    exporter = await self.start()
                    app = create_app(exporter)
                elif step.action:
                    if step.action == "reconfigure":
                        self.reconfigure()
                    elif step.action == "move":
                        self.is_here = not self.is_here
                        self.forget()
                    await exporter.reload()
                await self.scrape(app, step)
        finally:
            await exporter.aclose()
            assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks left behind"

    async def wait(self, step: Step) -> None:
        before = 0.0
        if step.clock is not None and step.clock[0] < 0:
            before = -step.clock[0]
        await asyncio.sleep(step.gap - before)
        self.suspend(step.suspended)
        if before and step.clock is not None:
            self.set_clock(step.clock[1])
            await asyncio.sleep(before)

    async def scrape(self, app: ASGIApp, step: Step) -> None:
        self.step, self.faults = step, iter(step.faults)
        self.bands = {self.band}
        begun = self.now()
        tasks = [self.fetch(app, step.timeout)]
        if step.overlapping is not None:
            tasks.append(self.fetch(app, step.timeout, after=step.overlapping))
        if step.clock is not None and step.clock[0] >= 0:
            asyncio.get_running_loop().call_later(step.clock[0], self.set_clock, step.clock[1])
        for first, last, published in await asyncio.gather(*tasks):
            assert last - first <= step.timeout + 1e-6, "an answer after its deadline"
            for id_, history in self.histories.items():
                self.check(id_, history, published, begun, first, last)
        self.check_requests(published)

    async def fetch(
        self, app: ASGIApp, timeout: float, *, after: float = 0.0
    ) -> tuple[float, float, Samples]:
        """When it began and ended, and what it published."""
        await asyncio.sleep(after)
        begun = self.now()
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
        ended = self.now()
        lines = [line for line in response.text.splitlines(True) if "gaussdb_mysql_" in line]
        return begun, ended, parse_samples("".join(lines))

    # What it has published ------------------------------------------------------------------------

    def check_requests(self, published: Samples) -> None:
        for id_, before in self.requests_before.items():
            counted = published.of("api_requests_total", id_)
            assert counted is not None
            # A query that goes on after the last scrape may have sent more.
            assert counted <= self.sites.requests_of(id_) - before

    def check(
        self,
        id_: str,
        history: History,
        published: Samples,
        step_begun: float,
        first: float,
        last: float,
    ) -> None:
        success = published.of("scrape_success", id_)
        gauges = published.backup_gauges(id_)
        self.check_always_there(id_, published, success)
        query = self.observe(history, gauges, step_begun, first, last, success == 1)
        if success == 0:
            assert not gauges, f"gauges of a failed query: {gauges}"
            assert not self.must_succeed(query), f"failed without reason: {published.errors(id_)}"
            return
        assert success == 1
        history.check_overdue()
        if not query.listed:
            note("listing")
            assert not self.must_succeed(query), "not listed, for no reason"
            assert not history.is_listed or self.may_forget(history), "it was listed before"
            if self.is_excused(query) or not self.knows_time:
                return
            history.check_latest(gauges, sorted(self.bands))
            return
        history.is_listed = True
        if self.is_excused(query):
            history.excused_at = last
        if not query.complete:
            note("incomplete")
            if self.may_be_overdue(query):
                history.excused_at = last
            assert history.excused_at > -inf, "incomplete without an excuse"
            assert not (
                query.calm
                and query.quiet
                and first - history.excused_at > self.scenario.resync_interval
            ), "still incomplete after the whole window was listed anew"
            return
        note("complete")
        if self.knows_time:
            history.check_numbers(gauges, sorted(self.bands))

    def observe(
        self,
        history: History,
        gauges: dict[str, float],
        step_begun: float,
        first: float,
        last: float,
        success: bool,
    ) -> Query:
        before = history.queries[-1] if history.queries else None
        # A query that was cut off goes on, and its answer is of the scrape that joins it.
        since = step_begun
        if before is not None and (
            not before.success
            or before.ended > step_begun
            or step_begun - before.begun <= SHARED_SECONDS + 1
        ):
            since = min(since, before.since)
        truth = history.truth
        latest = gauges.get(LATEST)
        awake = asyncio.get_running_loop().time() - (last - first)
        query = Query(
            since,
            first,
            last,
            success,
            latest=None if latest is None else latest - NOON,
            complete=gauges.get("incremental_backups_listing_complete") == 1,
            listed="incremental_backups" in gauges,
            calm=(
                self.fault_at < since
                and last - first < self.step.timeout - 0.05
                and not self.step.listings_fail
                and self.clock_set_at < since
                and self.knows_time
            ),
            quiet=self.awake_at_fault < awake - LONGEST_BACKOFF,
            steady=all(len(truth.states(row, since, last)) == 1 for row in truth.rows()),
        )
        history.queries.append(query)
        self.note_failing(history, query)
        return query

    def note_failing(self, history: History, query: Query) -> None:
        """Since when whole windows cannot be listed, and when that has been tried at the latest."""
        if not self.step.listings_fail:
            history.failing_since = history.tried_at = None
            return
        if history.failing_since is None:
            history.failing_since = query.since
        due = history.failing_since + self.scenario.resync_interval
        if history.tried_at is None and query.success and query.listed and query.since >= due:
            history.tried_at = query.begun

    def check_always_there(self, id_: str, published: Samples, success: float | None) -> None:
        assert success in (0.0, 1.0)
        for name in ("scrape_duration_seconds", "scrape_api_requests", "scrape_api_errors"):
            value = published.of(name, id_)
            assert value is not None
            assert value >= 0
        for reason in REASONS:
            assert published.of("api_errors_total", id_, reason=reason) is not None

    def is_excused(self, query: Query) -> bool:
        """Whether the number of rows may not be the one that is announced."""
        knobs = self.scenario.knobs
        return (
            knobs.total_count not in ("true", "float")
            or not query.steady
            or self.changing_fault_at >= query.since
            or self.step.listings_fail
            or (
                knobs.order == "shuffled_each_request"
                and any(
                    len(rows) > 50
                    for cloud in self.scenario.clouds
                    for rows in (cloud.rows, cloud.elsewhere)
                )
            )
        )

    def may_be_overdue(self, query: Query) -> bool:
        """Whether the back-off of a listing that met a fault may last longer than an interval.

        Back-offs pass while the machine is awake, the interval in any case.
        """
        since = query.begun - self.fault_at
        return not query.quiet and since >= self.scenario.resync_interval - ROUNDING

    def may_forget(self, history: History) -> bool:
        """Whether what is gone, or contradicts itself, may have ended what was known."""
        return (
            any(row.deleted is not None for row in history.truth.rows())
            or self.changing_fault_at > -inf
            or self.scenario.knobs.order == "shuffled_each_request"
            or self.strange_dates > 0
            or self.clock_set_at > -inf
            or any(step.suspended for step in self.scenario.steps)
        )

    def must_succeed(self, query: Query) -> bool:
        knobs = self.scenario.knobs
        return (
            query.calm
            and query.quiet
            and query.steady
            and knobs.total_count in ("true", "missing", "null")
            and knobs.order in ("begin_desc", "begin_asc", "end_desc", "end_asc")
        )


def execute(scenario: Scenario) -> None:
    cloud_clock = Clock()
    simulators = []
    for site in range(2):
        instances = [
            make_instance(
                *(
                    row.build(site * 100_000 + number * 1_000 + i)
                    for i, row in enumerate((cloud.rows, cloud.elsewhere)[site])
                ),
                id=instance_id(number),
            )
            for number, cloud in enumerate(scenario.clouds)
        ]
        project = make_project(*instances)
        simulators.append(Simulator([project], clock=cloud_clock, knobs=scenario.knobs, seed=1))
    sites = Sites(*simulators)
    run = Run(
        scenario,
        cloud_clock,
        Clock(offset=scenario.skew),
        sites,
        StreamingTransport(sites),
    )
    for simulator in simulators:
        simulator.fault_script = run.next_fault
    with (
        mock.patch("exporter.transport.clock.slept_seconds", run.slept_seconds),
        structlog.testing.capture_logs() as entries,
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
    ):
        runner.run(run.run())
    assert not [entry for entry in entries if entry["log_level"] in ("error", "critical")]
