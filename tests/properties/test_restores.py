"""Never a wrong number of restores, whatever the cloud holds and its calls answer: a property.

Each example draws instances with incremental and full backups, full backups of instances that are
gone (pages of them, which move while they are read), and a script: time passes, calls fail or tell
nonsense, the configuration is loaded again with other intervals or without the settings, and in
between one exporter is scraped. For every instance and source, either the published numbers are
those of the last refresh that was answered rightly, or `source_success` is 0 and there is no number
at all. The incremental backups know nothing of it.

The right numbers are computed here from the simulated rows and the definitions of the contract,
with nothing of the exporter or of the simulator's own ranges.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import floor
from typing import Any

import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.assembly import Exporter
from exporter.config.schema import Config
from exporter.simulator import (
    Fault,
    Knobs,
    RecordedRequest,
    SimulatedBackup,
    SimulatedFullBackup,
    SimulatedInstance,
    Simulator,
)
from tests.support.factories import (
    PROJECT,
    Samples,
    fetch_metrics,
    instance_id,
    make_config,
    make_exporter,
    make_instance,
    make_project,
    parse_samples,
)
from tests.support.faults import RESET
from tests.support.searches import extent, search
from tests.support.virtual_time import HOUR, NOON, Clock, VirtualTimeLoop

# Of all that is published: to read the rest takes longer than the rest of an example.
IS_READ = re.compile(r"gaussdb_mysql_(restorable|full_backup|source|scrape_success)")
ALL = "/metrics?collect[]=instances"
BREAKS_AFTER = 900.0
# A silence after a 429, and the longest wait for what was never told.
LONGEST_SILENCE = 900.0

# The cloud that is drawn -----------------------------------------------------------------------

_SECONDS = st.integers(-12 * 3_600, 2 * 3_600).map(float)  # after noon
FULLS = st.builds(
    lambda begin, lasting, ends, status, kind, size, kept: SimulatedFullBackup(
        "",
        NOON + begin,
        NOON + begin + lasting if ends else None,
        size,
        kind,
        status,
        deleted_at=NOON + begin + kept if kept is not None else None,
    ),
    _SECONDS,
    st.integers(0, 3_600),
    st.sampled_from([True, True, True, False]),
    st.sampled_from(["COMPLETED", "COMPLETED", "AVAILABLE", "FAILED"]),
    st.sampled_from(["auto", "manual"]),
    st.sampled_from([0.0, 0.25, 2_803.5]),
    st.sampled_from([None, None, 7_200.0, 40_000.0]),
)
# A run of incremental backups: its first end, how many there are, and how far apart.
RUNS = st.tuples(_SECONDS, st.integers(1, 30), st.sampled_from([60.0, 300.0, 899.0, 901.0]))


@st.composite
def instances(draw: st.DrawFn, number: int) -> SimulatedInstance:
    instance = make_instance(id=instance_id(number))
    for first, count, every in draw(st.lists(RUNS, max_size=3)):
        for i in range(count):
            end = NOON + first + i * every
            place = len(instance.backups)
            instance.backups.append(
                SimulatedBackup(f"{number:04d}{place:028d}br07", end - 30, end, 1.0)
            )
    for place, full in enumerate(draw(st.lists(FULLS, max_size=6))):
        full.id = f"f{number:03d}{place:028d}br07"
        instance.full_backups.append(full)
    return instance


def _no_list(document: Any) -> Any:
    return {"restore_time": []}


def _nothing(document: Any) -> Any:
    return {"restore_times": [], "backups": [], "total_count": 0}


def _odd_status(rows: list[Any]) -> list[Any]:
    return [{**row, "status": "ODD"} for row in rows]


# What may happen to both calls; those that end a refresh at once, and those that are tried again.
FINAL: Mapping[str, Fault] = {
    "403": Fault(status=403),
    "404": Fault(status=404, form="gateway"),
    "500": Fault(status=500),
    "html": Fault(body=b"<html>", content_type="text/html"),
    "empty": Fault(body=b"{}"),
    "list": Fault(body=b"[]"),
    "no list": Fault(alter=_no_list),
}
PASSING: Mapping[str, Fault] = {
    "503": Fault(status=503),
    "429": Fault(status=429, headers={"Retry-After": "30"}),
    "429 long": Fault(status=429, headers={"Retry-After": "700"}),
    "reset": RESET,
    "hang": Fault(hang=True),
}
# An answer like any other: there is nothing.
NOTHING = "nothing"
FAULTS = {**FINAL, **PASSING, NOTHING: Fault(alter=_nothing)}
SPOILED_RANGES = ("inverted", "text", "seconds", "missing")


@dataclass(frozen=True)
class Step:
    """Time passes, the calls behave from now on as told, and the exporter is asked."""

    seconds: float
    window: str = ""  # a fault of the calls for restore windows, or a form of their answers
    full: str = ""
    doing: str = "scrape"  # or probe, reload, restart
    setting: int = 0  # of a reload
    # Before which request for full backups how many others are made, or deleted in front.
    moves: tuple[tuple[int, int], ...] = ()


BOTH = {"restore_window": True, "full_backups": True}
SLOW = {"restore_window_interval": "5m", "full_backups_interval": "10m"}
# What is on, and how often it is asked for.
SETTINGS: Sequence[tuple[Mapping[str, bool], Mapping[str, str]]] = (
    (BOTH, SLOW),
    (BOTH, {"restore_window_interval": "1m", "full_backups_interval": "2m"}),
    (BOTH, {"restore_window_interval": "20s", "full_backups_interval": "20s"}),
    ({"restore_window": True}, SLOW),
    ({"full_backups": True}, SLOW),
    ({}, SLOW),
)
SKEWS = [0.0, 0.0, 0.0, 7_200.0, -7_200.0, -40 * 86_400.0]


@dataclass(frozen=True)
class Scenario:
    contents: list[SimulatedInstance]
    knobs: Mapping[str, Any]
    steps: list[Step]
    others: int = 0  # full backups of instances that are gone
    skew: float = 0.0  # of the exporter's clock


PAGE_ROWS = 100
DELETED = st.sampled_from([-1, -8, -40])
MOVES = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from([-40, -8, -1, 1, 3, 40])), max_size=3
).map(tuple)
STEPS = st.builds(
    Step,
    st.sampled_from([0.0, 1.0, 15.0, 60.0, 60.0, 61.0, 300.0, 600.0, 1_300.0]),
    st.sampled_from(["", "", "", *FAULTS, *SPOILED_RANGES]),
    st.sampled_from(["", "", "", "odd", *FAULTS]),
    st.sampled_from(["scrape", "scrape", "scrape", "probe", "reload", "restart"]),
    st.integers(0, len(SETTINGS) - 1),
    MOVES,
)
# About the borders of pages, of which each begins with the last row of the one before; and more
# pages than there are instances.
OTHERS = st.sampled_from([0, 0, 0, 0, 0, 3, 96, 99, 100, 101, 197, 250, 480])


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    count = draw(st.integers(1, 3))
    steps = draw(st.lists(STEPS, min_size=1, max_size=8))
    others = draw(OTHERS)
    if others >= PAGE_ROWS and draw(st.booleans()):
        steps[0] = replace(steps[0], full="", doing="scrape", moves=((2, draw(DELETED)),))
    return Scenario(
        [draw(instances(number)) for number in range(count)],
        {
            "order": draw(st.sampled_from(["begin_desc", "id", "shuffled_stable"])),
            "restore_times": draw(st.sampled_from(["true", "split"])),
            "total_count": draw(st.sampled_from(["true", "true", "missing", "null", "lie"])),
            "show_empty_end_as": draw(st.sampled_from(["null", "empty", "missing"])),
            "time_offset": draw(st.sampled_from([480, 480, 0, -210, 840])),
            "time_form": draw(st.sampled_from(["basic", "colon", "zulu"])),
        },
        steps,
        others,
        draw(st.sampled_from(SKEWS)),
    )


def moved() -> Scenario:
    """A part of the first page is deleted before the second is asked for: what it held moves up."""
    contents = [make_instance(id=instance_id(number)) for number in range(3)]
    for number, instance in enumerate(contents):
        instance.full_backups = [
            SimulatedFullBackup(f"f{number:03d}{hour:028d}br07", begin, begin + 300, 1.0)
            for hour in range(12)
            for begin in [NOON - 12 * HOUR + hour * HOUR + number * 600]
        ]
    knobs = {"order": "begin_desc", "restore_times": "true", "total_count": "true"}
    knobs["show_empty_end_as"] = "null"
    return Scenario(contents, knobs, [Step(0.0, moves=((2, -40),))], others=250)


def make_other(number: int, begin: float) -> SimulatedFullBackup:
    """A manual one of an instance that is gone, anywhere among the others by its id."""
    id_ = f"e{number * 7_919 % 9_973:06d}{number:025d}br07"
    return SimulatedFullBackup(id_, begin, begin + 60, backup_type="manual", instance_id="gone")


# What is right ---------------------------------------------------------------------------------


def right_window(instance: SimulatedInstance, now: float) -> dict[str, float]:
    logs = sorted(
        floor(row.end) for row in instance.backups if row.end is not None and row.end <= now
    )
    moments = []
    for full in instance.full_backups:
        if full.status == "FAILED" or full.end is None or not full.begin <= now >= full.end:
            continue
        if full.deleted_at is not None and now >= full.deleted_at:
            continue
        start = until = floor(full.end)
        for end in logs:
            if end > until:
                if end - until > BREAKS_AFTER:
                    break
                until = end
        moments.append((start, until))
    moments.sort()
    ranges: list[list[float]] = []
    for start, until in moments:
        if ranges and start <= ranges[-1][1] + 1:
            ranges[-1][1] = max(ranges[-1][1], until)
        else:
            ranges.append([start, until])
    numbers: dict[str, float] = {"restorable_ranges": len(ranges)}
    if ranges:
        numbers["restorable_until_timestamp_seconds"] = ranges[-1][1]
        numbers["restorable_since_timestamp_seconds"] = ranges[-1][0]
        numbers["restorable_oldest_timestamp_seconds"] = ranges[0][0]
    if len(ranges) > 1:
        gaps = [later[0] - earlier[1] for earlier, later in pairwise(ranges)]
        numbers["restorable_max_gap_seconds"] = max(gaps)
    return numbers


def right_full(instance: SimulatedInstance, now: float) -> dict[str, float]:
    there = [
        full
        for full in instance.full_backups
        if full.begin <= now and (full.deleted_at is None or now < full.deleted_at)
    ]
    # To the second, as the cloud writes times.
    ended = sorted(
        (floor(full.end), full.status == "FAILED", full.id, full)
        for full in there
        if full.end is not None and full.end <= now
    )
    numbers: dict[str, float] = {}
    if ended:
        numbers["full_backup_latest_failed"] = float(ended[-1][1])
    usable = [(end, full) for end, failed, _, full in ended if not failed]
    if usable:
        numbers["full_backup_oldest_end_timestamp_seconds"] = usable[0][0]
    for kind in ("auto", "manual"):
        of_kind = [(end, full) for end, full in usable if full.backup_type == kind]
        numbers[f"full_backups {kind}"] = len(of_kind)
        if of_kind:
            end, last = of_kind[-1]
            assert last.megabytes is not None
            numbers[f"full_backup_latest_end_timestamp_seconds {kind}"] = end
            numbers[f"full_backup_latest_duration_seconds {kind}"] = end - floor(last.begin)
            numbers[f"full_backup_latest_size_bytes {kind}"] = last.megabytes * 1024 * 1024
    return numbers


# What is told of an instance of which the cloud lists nothing.
OF_NOTHING = {
    "restore_window": {"restorable_ranges": 0.0},
    "full_backups": {"full_backups auto": 0.0, "full_backups manual": 0.0},
}
RIGHT: Mapping[str, Callable[[SimulatedInstance, float], dict[str, float]]] = {
    "restore_window": right_window,
    "full_backups": right_full,
}
CALLS = {"show_restore_time": "restore_window", "list_full_backups": "full_backups"}


def published(found: Samples, instance: str) -> dict[str, dict[str, float]]:
    numbers: dict[str, dict[str, float]] = {"restore_window": {}, "full_backups": {}}
    for (name, pairs), value in found.items():
        labels = dict(pairs)
        if labels.get("instance") != instance or "stale_after" in name:
            continue
        short = name.removeprefix("gaussdb_mysql_")
        if short.startswith("restorable_"):
            numbers["restore_window"][short] = value
        elif short.startswith("full_backup"):
            kind = labels.get("backup_type")
            numbers["full_backups"][f"{short} {kind}" if kind else short] = value
    return numbers


# The run ---------------------------------------------------------------------------------------


@dataclass
class Run:
    scenario: Scenario
    clock: Clock
    simulator: Simulator
    setting: int = 0
    behaviour: dict[str, str] = field(default_factory=dict)  # by operation
    moves: list[tuple[int, int]] = field(default_factory=list)
    listings: int = 0  # requests for full backups in this step
    made: int = 1_000  # others
    # When a source of an instance (or, with "", of all) was answered rightly, was told to have
    # nothing, or was refused for good.
    good: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    nothing: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    refused: dict[tuple[str, str], float] = field(default_factory=dict)

    def fault_of(self, request: RecordedRequest) -> Fault | None:
        source = CALLS.get(request.operation)
        if source is None:
            return None
        if source == "full_backups":
            self.move_others(request.at)
        behaviour = self.behaviour.get(source, "")
        key = source, request.instance_id
        if not behaviour or self.spoils_nothing(behaviour, request):
            self.good.setdefault(key, []).append(request.at)
            return None
        if behaviour == NOTHING:
            self.nothing.setdefault(key, []).append(request.at)
        if behaviour in FINAL or behaviour in SPOILED_RANGES:
            self.refused[key] = request.at
        if behaviour == "odd":
            for instance in self.scenario.contents:
                if request.instance_id in ("", instance.id):
                    one = source, instance.id
                    if instance.full_backups_at(request.at):
                        self.refused[one] = request.at
                    else:  # it has no row that could be odd
                        self.good.setdefault(one, []).append(request.at)
            return Fault(rows=_odd_status)
        return FAULTS.get(behaviour)

    def move_others(self, now: float) -> None:
        """The rows of others move those of ours to other places, between two pages."""
        self.listings += 1
        others = self.simulator.projects[PROJECT].left_behind
        for request, count in self.moves:
            if request == self.listings:
                if count < 0:
                    del others[count:]  # the newest
                else:
                    numbers = range(self.made, self.made + count)
                    others += [make_other(number, now - 60) for number in numbers]
                    self.made += count

    def spoils_nothing(self, behaviour: str, request: RecordedRequest) -> bool:
        """Whether there is no range to spoil, or none that is longer than a moment to turn."""
        if behaviour not in ("inverted", "text", "seconds"):
            return False
        (instance,) = [i for i in self.scenario.contents if i.id == request.instance_id]
        ranges = self.simulator.restorable_ranges(PROJECT, instance.id, request.at)
        return not ranges or (
            behaviour == "inverted" and all(start == end for start, end in ranges)
        )

    def load(self) -> Config:
        defaults, intervals = SETTINGS[self.setting]
        return make_config(
            *(instance.id for instance in self.scenario.contents),
            defaults=defaults,
            api={"timeout": "3s", "retries": 1, "rate_limit": 0, **intervals},
        )

    def behave(self, step: Step) -> None:
        self.behaviour = {"restore_window": step.window, "full_backups": step.full}
        self.moves, self.listings = list(step.moves), 0
        spoiled = step.window in SPOILED_RANGES
        form = step.window if spoiled else self.scenario.knobs["restore_times"]
        self.simulator.knobs = Knobs(**{**self.scenario.knobs, "restore_times": form})

    async def run(self) -> None:
        exporter = await self.start()
        try:
            for step in self.scenario.steps:
                await self.clock.advance(step.seconds)
                self.behave(step)
                if step.doing == "reload":
                    self.setting = step.setting
                    await exporter.reload()
                if step.doing == "restart":
                    await exporter.aclose()
                    exporter = await self.start()
                await self.ask(exporter, probe=step.doing == "probe")
            await self.recover(exporter)
        finally:
            await exporter.aclose()

    async def start(self) -> Exporter:
        clock = Clock(offset=self.scenario.skew)
        return await make_exporter(self.simulator, self.load, clock=clock)

    async def recover(self, exporter: Exporter) -> None:
        """When all works again, all is told again, within a silence and an interval."""
        self.behave(Step(0.0))
        for seconds in (LONGEST_SILENCE, self.interval("full_backups"), 60):
            await self.clock.advance(seconds + 1)
            await exporter.scraper.scrape(30)
        found = await self.ask(exporter)
        for instance in self.scenario.contents:
            for source in RIGHT:
                told = found.of("source_success", instance.id, source=source)
                lies = source == "full_backups" and self.lies
                assert told == (float(not lies) if self.is_on(source) else None), (
                    instance.id,
                    source,
                )

    @property
    def lies(self) -> bool:
        """Whether the cloud announces more rows than there are."""
        return bool(self.scenario.knobs["total_count"] == "lie")

    def is_on(self, source: str) -> bool:
        return SETTINGS[self.setting][0].get(source, False)

    def interval(self, source: str) -> float:
        text = SETTINGS[self.setting][1][f"{source}_interval"]
        return float(text[:-1]) * {"s": 1, "m": 60}[text[-1]]

    async def ask(self, exporter: Exporter, *, probe: bool = False) -> Samples:
        asked = self.scenario.contents[:1] if probe else self.scenario.contents
        path = f"/probe?project={PROJECT}&instance={asked[0].id}" if probe else ALL
        begun = self.clock()
        text = (await fetch_metrics(exporter, path=path, timeout=30)).text
        found = parse_samples("".join(filter(IS_READ.match, text.splitlines(keepends=True))))
        for instance in asked:
            self.check(instance, found, begun)
        return found

    def check(self, instance: SimulatedInstance, found: Samples, begun: float) -> None:
        if not self.lies:  # else the last backup before the lookback may not be found
            assert found.of("scrape_success", instance.id) == 1
        for source, numbers in published(found, instance.id).items():
            success = found.of("source_success", instance.id, source=source)
            at = found.of("source_last_success_timestamp_seconds", instance.id, source=source)
            if not self.is_on(source):
                assert (success, at, numbers) == (None, None, {}), f"{source} is off"
                continue
            right = self.right_answers(source, instance, at) if at is not None else []
            if not success:
                assert success == 0
                assert numbers == {}, f"{source} of {instance.id} has failed"
                continue
            assert at is not None
            assert numbers in right, f"{source} as of {at - NOON}: {numbers}, not of {right}"
            assert self.clock() - at <= 2 * self.interval(source) + 2 + self.tolerance
            refused = max(
                self.refused.get((source, key), float("-inf")) for key in ("", instance.id)
            )
            assert not at + self.tolerance < refused < begun, (
                f"{source}: a refusal since has changed nothing"
            )

    @property
    def tolerance(self) -> float:
        """The cloud's time is known to a second or two where the machine's own is of no use."""
        return 2.0 if self.scenario.skew else 0.0

    def right_answers(
        self, source: str, instance: SimulatedInstance, at: float
    ) -> list[dict[str, float]]:
        """What may be told after a refresh that succeeded at that moment; there was one."""

        def moments(of: Mapping[tuple[str, str], list[float]]) -> list[float]:
            asked = [*of.get((source, instance.id), ()), *of.get((source, ""), ())]
            return [moment for moment in asked if abs(moment - at) <= self.tolerance]

        right = [RIGHT[source](instance, moment) for moment in moments(self.good)]
        right += [OF_NOTHING[source] for _ in moments(self.nothing)]
        assert right, f"{source}: no right answer at {at - NOON}"
        return right


def execute(scenario: Scenario) -> None:
    clock = Clock()
    simulator = Simulator([make_project(*scenario.contents)], clock=clock, seed=1)
    simulator.projects[PROJECT].left_behind = [
        # Among those of the instances, whatever the order.
        make_other(number, NOON - 13 * HOUR * (1 - number / scenario.others))
        for number in range(scenario.others)
    ]
    run = Run(scenario, clock, simulator)
    run.behave(Step(0.0))
    simulator.fault_script = run.fault_of
    with (
        structlog.testing.capture_logs() as entries,
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
    ):
        runner.run(run.run())
    assert not [entry for entry in entries if entry["log_level"] in ("error", "critical")]


@search(extent(60), divisor=5)
@example(moved())
@given(scenarios())
def test_numbers_of_restores_are_those_of_the_last_right_answer_or_absent(
    scenario: Scenario,
) -> None:
    execute(scenario)
