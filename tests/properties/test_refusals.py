"""No account and no key is locked, whatever is withdrawn, given back or hangs: a property.

Each example draws a way in, projects that share it, and what happens between scrapes. The oracle
counts at the cloud: what was refused is not shown again within a minute, but for what may be on its
way when it is withdrawn, and it is found within the longest back-off once it is right again.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from exporter.assembly import Exporter
from exporter.simulator import Fault, RecordedRequest, Simulator
from exporter.simulator.gateway import Operation
from tests.support.factories import (
    ACCESS_KEY,
    DOMAIN,
    PASSWORD,
    SECRET_KEY,
    USER,
    instance_id,
    make_backup,
    make_config,
    make_instance,
    make_project,
    make_project_settings,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.searches import extent, search
from tests.support.virtual_time import Clock, VirtualTimeLoop

INSTANCES = 3  # of each project

AUTHS: Mapping[str, Mapping[str, str]] = {
    "password": {"type": "password", "domain": DOMAIN, "username": USER, "password": PASSWORD},
    "aksk": {"type": "aksk", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY},
    "env": {"type": "env"},
    "ecs-agency": {"type": "ecs-agency"},
}
KEYS = {"HUAWEICLOUD_SDK_AK": ACCESS_KEY, "HUAWEICLOUD_SDK_SK": SECRET_KEY}


@dataclass(frozen=True, slots=True)
class Step:
    """What happens, and how long it is until the scrape that follows."""

    event: str
    project: int
    wait_seconds: float


# Longer than a key is trusted without being shown: what is withdrawn is not on its way.
WAITS = st.sampled_from([6.0, 15.0, 15.0, 30.0, 60.0, 240.0, 1_000.0])
EVENTS = st.sampled_from(["nothing", "nothing", "withdraw", "give back", "hang", "answer", "renew"])
STEPS = st.lists(st.builds(Step, EVENTS, st.integers(0, 3), WAITS), min_size=3, max_size=14)
# The next one in turn does not wait longer than a second and a half for the one before.
LATENCIES = st.sampled_from([0.1, 0.1, 2.0, 4.0])


class World:
    """A cloud with projects that share a way in, and what is wrong with it now."""

    def __init__(self, type_: str, projects: int, clock: Clock, *, latency: float) -> None:
        self.type = type_
        # A metadata service that takes longer than 3 s is none.
        self.latency = latency if type_ != "ecs-agency" else 0.1
        self.clock = clock
        self.simulator: Simulator = make_simulator(
            *(
                make_project(
                    *(
                        make_instance(make_backup(), id=instance_id(project * INSTANCES + number))
                        for number in range(INSTANCES)
                    ),
                    id=f"project-{project}",
                )
                for project in range(projects)
            ),
            clock=clock,
            latency_seconds=self.latency,
            failures_until_locked=10_000,  # the oracle counts, so that it sees by how much
        )
        self.is_withdrawn = False
        self.hanging: set[int] = set()
        self.silent_at: list[float] = []
        self.simulator.fault_script = self._spoil

    def _spoil(self, request: RecordedRequest) -> Fault | None:
        if request.operation == "login" and self.is_withdrawn:
            return Fault(status=401, form="iam")
        if request.operation != "list_backups":
            return None
        if int(request.project_id.removeprefix("project-")) in self.hanging:
            self.silent_at.append(request.at)
            return Fault(hang=True)
        if self.is_withdrawn and self.type != "password":
            return Fault(status=401, form="gateway")
        return None

    def happen(self, step: Step) -> None:
        project = step.project % len(self.simulator.projects)
        if step.event == "withdraw":
            self.is_withdrawn = True
            self.simulator.revoke_tokens()
        elif step.event == "give back":
            self.is_withdrawn = False
        elif step.event == "hang":
            self.hanging.add(project)
        elif step.event == "answer":
            self.hanging.discard(project)
        elif step.event == "renew":
            self.simulator.revoke_tokens()

    def config(self) -> Any:
        return make_config(
            projects=[
                make_project_settings(*project.instances, id=project.id, auth=AUTHS[self.type])
                for project in self.simulator.projects.values()
            ],
            api={"timeout": "5s", "retries": 1},
        )

    @property
    def locking(self) -> Sequence[RecordedRequest]:
        """What locks where it is refused: logins, or signatures."""
        counted: Operation = "login" if self.type == "password" else "list_backups"
        return self.simulator.requests_of(counted)

    def refused_at(self) -> Sequence[float]:
        return [request.at for request in self.locking if request.status == 401]

    def burst(self, moment: float) -> int:
        """How many more a slow cloud sees of what it had let in, before the first is refused.

        A key that serves is not taken for withdrawn where there is no answer yet; what asks for
        a token goes one after the other, four at most without an answer.
        """
        before = [r for r in self.locking if r.at < moment - self.latency and r.status is not None]
        if self.latency < 1.5 or not before or before[-1].status == 401:
            return 0
        return 3 if self.type == "password" else INSTANCES * len(self.simulator.projects)

    def assert_not_locked(self) -> None:
        """Each refusal is alone in its minute, but for what a silent cloud lets through.

        Two projects that were not served since may have a trouble of their own.
        """
        at = self.refused_at()
        strangers = min(2, len(self.simulator.projects) - 1)
        # A temporary key that was fetched anew is another key.
        keys = 2 if self.type == "ecs-agency" else 1
        for first in at:
            within = [moment for moment in at if first <= moment < first + 59]
            was_silent = any(first - 60 <= moment <= first for moment in self.silent_at)
            allowed = (
                keys + strangers + (INSTANCES * len(self.simulator.projects) if was_silent else 0)
            )
            assert len(within) <= allowed + self.burst(first), within


async def scrape(exporter: Exporter) -> Mapping[str, float]:
    return (await samples(exporter, timeout=10.5)).by_instance("scrape_success")


async def play(world: World, steps: Sequence[Step]) -> None:
    async with running_exporter(world.simulator, world.config()) as exporter:
        await scrape(exporter)
        for step in steps:
            world.happen(step)
            await world.clock.advance(step.wait_seconds)
            await scrape(exporter)
            world.assert_not_locked()
        # Once it is right again, everybody gets in within the longest back-off.
        world.is_withdrawn = False
        world.hanging.clear()
        for _ in range(70):
            await world.clock.advance(15)
            if set((await scrape(exporter)).values()) == {1.0}:
                break
        assert set((await scrape(exporter)).values()) == {1.0}
        world.assert_not_locked()


@search(
    extent(60),
    divisor=3,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.sampled_from(sorted(AUTHS)), st.integers(1, 4), STEPS, LATENCIES)
def test_what_was_refused_is_not_shown_again_within_a_minute(
    type_: str, projects: int, steps: Sequence[Step], latency: float
) -> None:
    with (
        mock.patch.dict(os.environ, KEYS),
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
    ):
        runner.run(play(World(type_, projects, Clock(), latency=latency), steps))
