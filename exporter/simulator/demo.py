"""The clouds that the program brings along: the demo's, and one of any size for load."""

import math
import time
import zlib
from collections.abc import Callable
from typing import NamedTuple

from exporter.simulator.app import Simulator
from exporter.simulator.cloud import SimulatedInstance, SimulatedProject
from exporter.simulator.faults import Fault
from exporter.simulator.full_backups import FullSchedule
from exporter.simulator.knobs import Knobs
from exporter.simulator.schedule import Schedule

_HOUR = 3_600.0
_DAY = 86_400.0
_EVERY_SECONDS = 300.0  # as the cloud makes them

DEMO_PROJECT_ID = "deadbeef0000demo0000deadbeef0000"
DEMO_PROJECT_NAME = "demo"
DEMO_REGION = "cn-north-4"
DEMO_DOMAIN = "demo-account"
DEMO_USER = "demo-backup-reader"
DEMO_PASSWORD = "not-a-secret-demo-only"  # noqa: S105 - opens nothing but the simulator
DEMO_ACCESS_KEY = "DEMOACCESSKEY0000001"
DEMO_SECRET_KEY = "not-a-secret-demo-key"  # noqa: S105 - opens nothing but the simulator


class DemoInstance(NamedTuple):
    """An instance of the demo, as the exporter's configuration should name it."""

    id: str
    name: str
    lookback_seconds: float
    what: str


DEMO_HEALTHY = DemoInstance("0a1b2c3d4e5f60718293a4b5c6d7e801in07", "orders", _DAY, "healthy")
DEMO_BUSY = DemoInstance(
    "0a1b2c3d4e5f60718293a4b5c6d7e802in07",
    "billing",
    7 * _DAY,
    "a week of backups, large ones; the last full one failed",
)
DEMO_STALE = DemoInstance(
    "0a1b2c3d4e5f60718293a4b5c6d7e803in07", "shipping", _DAY, "stopped three hours ago"
)
DEMO_HOLE = DemoInstance(
    "0a1b2c3d4e5f60718293a4b5c6d7e804in07",
    "sessions",
    _DAY,
    "four hours without, then resumed; not restorable since",
)
DEMO_EMPTY = DemoInstance(
    "0a1b2c3d4e5f60718293a4b5c6d7e805in07", "sandbox", _DAY, "no backup at all"
)
DEMO_FAILING = DemoInstance(
    "0a1b2c3d4e5f60718293a4b5c6d7e806in07", "legacy-crm", _DAY, "the API answers 500"
)
DEMO_INSTANCES = (DEMO_HEALTHY, DEMO_BUSY, DEMO_STALE, DEMO_HOLE, DEMO_EMPTY, DEMO_FAILING)


def build_demo(
    clock: Callable[[], float] = time.time, *, knobs: Knobs | None = None, control: bool = False
) -> Simulator:
    """One project with the six instances above; their backups go on as the clock does."""
    now = clock()

    def make(demo: DemoInstance, schedule: Schedule | None) -> SimulatedInstance:
        return SimulatedInstance(
            demo.id,
            demo.name,
            tags={"env": "demo"},
            region=DEMO_REGION,
            schedule=schedule,
            full_schedule=None if schedule is None else _full_schedule(schedule, now),
        )

    instances = [
        make(DEMO_HEALTHY, _schedule(DEMO_HEALTHY.id, now, typical_kilobytes=2_048)),
        make(DEMO_BUSY, _schedule(DEMO_BUSY.id, now, typical_kilobytes=96_000)),
        make(DEMO_STALE, _schedule(DEMO_STALE.id, now, typical_kilobytes=6_400)),
        make(DEMO_HOLE, _schedule(DEMO_HOLE.id, now, typical_kilobytes=512)),
        make(DEMO_EMPTY, None),
        make(DEMO_FAILING, _schedule(DEMO_FAILING.id, now)),
    ]
    by_id = {instance.id: instance for instance in instances}
    for demo, pause in (
        (DEMO_STALE, (now - 3 * _HOUR, math.inf)),
        # The full backup after the first hole is the start of another range; after the second
        # there has been none yet.
        (DEMO_HOLE, (now - 4 * _DAY, now - 4 * _DAY + 3 * _HOUR)),
        (DEMO_HOLE, (now - 10 * _HOUR, now - 6 * _HOUR)),
    ):
        schedule = by_id[demo.id].schedule
        assert schedule is not None
        schedule.pauses.append(pause)
    large = by_id[DEMO_BUSY.id].full_schedule
    assert large is not None
    large.typical_megabytes = 184_320.0
    large.lasting_seconds = 5_400.0
    large.failing.append((now - _DAY, math.inf))
    by_id[DEMO_FAILING.id].failure = Fault(
        status=500, code="DBS.200412", message="The operation failed. Try again later."
    )
    return Simulator(
        [_project(by_id)], clock=clock, knobs=knobs or Knobs(filter_meaning="end"), control=control
    )


def build_cloud(
    instances: int,
    backups_per_instance: int,
    *,
    every_seconds: float = _EVERY_SECONDS,
    clock: Callable[[], float] = time.time,
    knobs: Knobs | None = None,
    control: bool = False,
) -> Simulator:
    """The demo's project with so many healthy instances, about as many backups in each, and one
    more every `every_seconds`."""
    now = clock()
    by_id = {}
    for number in range(instances):
        id_ = f"{number:032x}in07"
        past_seconds = backups_per_instance * every_seconds
        schedule = _schedule(id_, now, past_seconds=past_seconds, every_seconds=every_seconds)
        by_id[id_] = SimulatedInstance(
            id_,
            f"instance-{number:04d}",
            schedule=schedule,
            full_schedule=_full_schedule(schedule, now),
        )
    return Simulator([_project(by_id)], clock=clock, knobs=knobs, control=control)


def _project(instances: dict[str, SimulatedInstance]) -> SimulatedProject:
    return SimulatedProject(
        DEMO_PROJECT_ID,
        region=DEMO_REGION,
        users={(DEMO_DOMAIN, DEMO_USER): DEMO_PASSWORD},
        access_keys={DEMO_ACCESS_KEY: DEMO_SECRET_KEY},
        instances=instances,
    )


def _schedule(
    instance_id: str,
    now: float,
    *,
    typical_kilobytes: float = 2_048.0,
    past_seconds: float = 8 * _DAY,
    every_seconds: float = _EVERY_SECONDS,
) -> Schedule:
    """One every `every_seconds` since `past_seconds` ago; what is older than that goes."""
    seed = zlib.crc32(instance_id.encode())
    return Schedule(
        since=math.floor(now - past_seconds) - seed % math.ceil(every_seconds),
        every_seconds=every_seconds,
        shortest_seconds=every_seconds * 2 / 15,
        longest_seconds=every_seconds * 2 / 3,
        typical_kilobytes=typical_kilobytes,
        retention_seconds=past_seconds,
        seed=seed,
    )


def _full_schedule(schedule: Schedule, now: float) -> FullSchedule:
    """One a day, the last of them half a day ago, give or take an hour."""
    return FullSchedule(
        since=math.floor(now - 8.5 * _DAY) + schedule.seed % 3_600,
        typical_megabytes=schedule.typical_kilobytes,  # about a thousand times an incremental one
        seed=schedule.seed,
    )
