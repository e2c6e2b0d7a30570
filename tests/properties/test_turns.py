"""Small budgets: what was known stays known, and no instance waits longer than its turn."""

import asyncio
import itertools
from dataclasses import dataclass
from math import ceil, inf

import structlog.testing
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from exporter.simulator import Simulator
from exporter.web.app import create_app
from tests.properties.world import Plain
from tests.support.factories import (
    fetch_metrics,
    fill,
    instance_id,
    make_config,
    make_instance,
    make_project_settings,
    make_simulator,
    running_exporter,
)
from tests.support.searches import extent, search
from tests.support.virtual_time import NOON, Clock, VirtualTimeLoop


@dataclass(frozen=True, repr=False)
class Budget(Plain):
    """So many instances, each with so many backups and one more every five minutes."""

    backups: tuple[int, ...]
    scrapes: int
    gap: int
    timeout: int
    rate_limit: int
    max_connections: int
    latency: float
    lookback: int = 86_400

    @property
    def requests(self) -> float:
        """How many can be asked and answered in one scrape."""
        by_rate = (self.timeout - self.latency) * self.rate_limit if self.rate_limit else inf
        turns = self.timeout // self.latency if self.latency else inf
        return min(by_rate, turns * self.max_connections)


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    pick = st.sampled_from
    return Budget(
        tuple(draw(st.lists(pick([3, 40, 120, 300]), min_size=2, max_size=12))),
        scrapes=draw(st.integers(4, 10)),
        gap=draw(pick([15, 60])),
        timeout=draw(pick([3, 6, 10])),
        rate_limit=draw(pick([1, 1, 2, 4, 50])),
        max_connections=draw(pick([1, 3, 50])),
        latency=draw(pick([0.0, 0.25, 1.0])),
        lookback=draw(pick([3_600, 86_400])),
    )


def build(budget: Budget, clock: Clock) -> Simulator:
    until = NOON + 900.0 * budget.scrapes
    made = int((until - NOON) // 300)
    instances = [
        fill(make_instance(id=instance_id(number)), count=count + made, until=until)
        for number, count in enumerate(budget.backups)
    ]
    return make_simulator(*instances, clock=clock, latency_seconds=budget.latency)


async def scrape_all(budget: Budget) -> list[set[str]]:
    """The instances that were answered, scrape by scrape."""
    clock = Clock()
    ids = [instance_id(number) for number in range(len(budget.backups))]
    config = make_config(
        projects=[make_project_settings(*ids)],
        api={"rate_limit": budget.rate_limit, "max_connections": budget.max_connections},
        defaults={"lookback": f"{budget.lookback}s"},
        scrape={"timeout": "30s", "timeout_offset": "0s"},
    )
    answered = []
    async with running_exporter(build(budget, clock), config) as exporter:
        app = create_app(exporter)
        for _ in range(budget.scrapes):
            begun = clock()
            scrape = await fetch_metrics(exporter, timeout=float(budget.timeout), app=app)
            success = scrape.samples.by_instance("scrape_success")
            answered.append({id_ for id_, value in success.items() if value})
            await asyncio.sleep(max(0.0, budget.gap - (clock() - begun)))
    return answered


# Many instances in each: a few say as much as many clouds.
@search(extent(60), divisor=10, suppress_health_check=[HealthCheck.too_slow])
@given(budgets())
def test_each_instance_has_its_turn_and_what_is_known_stays_known(budget: Budget) -> None:
    with (
        structlog.testing.capture_logs(),
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
    ):
        answered = runner.run(scrape_all(budget))
    instances = len(budget.backups)
    if budget.requests >= instances + 1:
        for before, after in itertools.pairwise(answered):
            assert before <= after, f"known and then not: {[len(ids) for ids in answered]}"
    # One request may be for what is listed behind.
    wait = ceil(instances / max(1.0, budget.requests - 1)) + 1
    for first in range(len(answered) - wait):
        served = set[str]().union(*answered[first : first + wait + 1])
        assert len(served) == instances, (
            f"{instances - len(served)} without a turn in {wait + 1} scrapes:"
            f" {[len(ids) for ids in answered]}"
        )
