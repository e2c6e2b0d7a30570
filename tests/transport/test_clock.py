"""What time it is, by a machine whose clock may be wrong and answers whose `Date` may be, too."""

from dataclasses import dataclass, field
from email.utils import formatdate

import pytest
import structlog

from exporter.transport.clock import (
    CloudClock,
    CloudClocks,
    describe_skew,
    parse_date,
    steady_time,
)
from tests.support.virtual_time import NOON, Clock

HOUR = 3_600.0


@dataclass
class World:
    """True time passes; the machine's clock is off by `off`. Times are exact to the second, so
    that an answer's `Date` lies half a second before the middle of what it may mean."""

    off: float = 0.0
    passed: float = 0.0
    clock: CloudClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = CloudClock(self.machine, steady=lambda: self.passed)

    def machine(self) -> float:
        return NOON + self.passed + self.off

    @property
    def error(self) -> float:
        """How wrong the time is that the clock tells."""
        return self.clock() - NOON - self.passed

    def answer(self, date_off: float = 0.0, *, took: float = 0.0) -> None:
        """An answer comes after `took` seconds; it was given in the middle of them."""
        sent, self.passed = self.passed, self.passed + took
        date = formatdate(NOON + sent + took / 2 + date_off, usegmt=True)
        self.clock.observe(date, sent=sent, received=self.passed)


def test_before_the_first_answer_the_time_is_the_machines() -> None:
    world = World(off=2 * HOUR)
    assert (world.error, world.clock.skew, world.clock.ahead) == (2 * HOUR, None, 0.0)


@pytest.mark.parametrize("off", [2 * HOUR, -2 * HOUR, 61, -61, 10 * 365 * 24 * HOUR])
def test_beyond_a_minute_the_time_is_the_clouds_from_the_first_answer_on(off: float) -> None:
    world = World(off=off)
    world.answer()
    assert world.error == pytest.approx(0, abs=1)
    assert world.clock.skew == pytest.approx(off, abs=1)
    assert world.clock.ahead == pytest.approx(off, abs=1)
    assert world.clock.moves == 1
    world.passed += 600
    world.answer()
    assert world.error == pytest.approx(0, abs=1)
    assert world.clock.moves == 1


@pytest.mark.parametrize("off", [0, 59, -59])
def test_within_a_minute_the_machines_clock_counts(off: float) -> None:
    world = World(off=off)
    world.answer()
    assert (world.error, world.clock.ahead, world.clock.moves) == (off, 0.0, 0)
    assert world.clock.skew == pytest.approx(off, abs=1)


def test_a_clock_near_the_limit_does_not_move_to_and_fro() -> None:
    world = World(off=62)
    world.answer()
    for off in (58, 62, 57, 61):
        world.off = off
        world.answer()
        assert world.clock.ahead == pytest.approx(off, abs=1)
    world.off = 50
    world.answer()
    assert (world.clock.ahead, world.error) == (0.0, 50)


def test_an_answer_that_took_long_is_taken_to_be_given_in_the_middle() -> None:
    world = World(off=HOUR)
    world.answer(took=8)
    assert world.error == pytest.approx(0, abs=1)


def test_an_answer_that_took_over_a_minute_tells_no_time() -> None:
    world = World(off=HOUR)
    world.answer(took=61)
    assert world.clock.skew is None


# The machine's clock is set, or the machine sleeps ----------------------------------------------


@pytest.mark.parametrize("step", [2 * HOUR, -2 * HOUR])
def test_a_clock_that_is_set_wrong_is_noticed_before_the_next_answer(step: float) -> None:
    world = World()
    world.answer()
    world.passed += 60
    world.off = step
    assert world.error == pytest.approx(0, abs=1)
    assert world.clock.skew == pytest.approx(step, abs=1)


def test_a_clock_that_is_set_right_again_counts_again() -> None:
    world = World(off=2 * HOUR)
    world.answer()
    world.off = 0
    world.answer()
    assert (world.error, world.clock.ahead) == (0, 0.0)


def test_a_machine_that_slept_has_the_right_time_with_the_first_answer() -> None:
    """What passes evenly stood still; the clock went on."""
    world = World()
    world.answer()
    world.off, world.passed = 8 * HOUR, world.passed + 1  # as the steady time sees it
    world.answer(date_off=8 * HOUR)
    assert world.clock.moves == 1
    assert world.clock() == NOON + 1 + 8 * HOUR
    assert world.clock.skew == pytest.approx(0, abs=1)


def test_a_machine_that_slept_with_its_clock_is_believed_with_the_second_answer() -> None:
    """A virtual machine may be stopped as a whole: nothing in it knows. The first answer is a
    reason to ask again."""
    world = World()
    world.answer()
    world.answer(date_off=8 * HOUR)
    assert (world.clock.moves, world.error) == (1, 0)
    world.answer(date_off=8 * HOUR)
    assert world.clock.moves == 2
    assert world.error == pytest.approx(8 * HOUR, abs=1)


# Dates that are wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "date",
    [
        None,
        "",
        "yesterday",
        "Fri, 28 Jul 2023 25:00:00 GMT",
        "Fri, 28 Jul 99999 12:00:00 GMT",
        "Fri, 28 Jul 2023 12:00:00 -0000",  # of no zone
        "Thu, 01 Jan 1970 00:00:00 GMT",  # of a machine without a clock
        "Fri, 31 Dec 2100 00:00:00 GMT",
    ],
)
def test_a_date_that_means_nothing_tells_no_time(date: str | None) -> None:
    assert parse_date(date) is None
    world = World(off=HOUR)
    world.clock.observe(date, sent=0.0, received=0.0)
    assert (world.clock.skew, world.clock.moves) == (None, 0)


@pytest.mark.parametrize("first_off", [0, HOUR], ids=["right", "wrong"])
def test_one_strange_date_moves_nothing_but_is_a_reason_to_ask_again(first_off: float) -> None:
    world = World(off=first_off)
    world.answer()
    moves = world.clock.moves
    world.answer(date_off=-24 * HOUR)
    assert world.error == pytest.approx(0, abs=1)
    assert world.clock.moves == moves + 1
    world.answer()
    assert world.error == pytest.approx(0, abs=1)
    assert world.clock.moves == moves + 1


def test_a_strange_first_date_is_corrected_by_the_second_answer() -> None:
    world = World(off=5)
    world.answer(date_off=-24 * HOUR)
    assert world.error == pytest.approx(-24 * HOUR, abs=1)
    world.answer()
    assert world.error == 5
    assert world.clock.moves == 2


def test_a_date_that_stands_still_while_time_passes_tells_no_time() -> None:
    """All answers out of one memory: what was believed at first is forgotten."""
    world = World()
    for passed, moves in ((0, 1), (1, 1), (3, 2), (60, 2), (HOUR, 2)):
        world.clock.observe("Fri, 28 Jul 2023 09:00:00 GMT", sent=passed, received=passed)
        world.passed = passed
        assert world.clock.moves == moves
    assert (world.error, world.clock.skew) == (0, None)


def test_an_answer_out_of_a_memory_does_not_change_what_is_known() -> None:
    world = World(off=HOUR)
    world.answer()
    world.passed += 60
    world.answer()
    for _ in range(3):
        world.passed += 60
        world.clock.observe(
            "Fri, 28 Jul 2023 12:01:00 GMT", sent=world.passed, received=world.passed
        )
    assert world.error == pytest.approx(0, abs=1)
    assert world.clock.moves == 1


# Telling ----------------------------------------------------------------------------------------


def test_it_is_told_once_for_all_projects_and_once_when_it_is_over() -> None:
    world = World(off=2 * HOUR)
    clocks = CloudClocks(world.machine, steady=lambda: world.passed)
    both = [clocks.of(project, "https://db.example") for project in ("p1", "p2")]
    date = formatdate(NOON, usegmt=True)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            for clock in both:
                clock.observe(date, sent=0.0, received=0.0)
        world.off = 0
        for clock in both:
            clock.observe(date, sent=0.0, received=0.0)
    assert logs == [
        {
            "event": "this machine's clock differs from the cloud's",
            "log_level": "warning",
            "project": "p1",
            "skew_seconds": 7200,
            "error": "it is 2h ahead of the cloud's, whose time is used instead",
            "hint": "set this machine's clock, by NTP",
        },
        {"event": "this machine's clock agrees with the cloud's again", "log_level": "info"},
    ]


def test_a_clock_is_of_a_project_at_an_endpoint() -> None:
    clocks = CloudClocks(lambda: NOON, steady=lambda: 0.0)
    clock = clocks.of("p1", "https://one.example")
    assert clocks.of("p1", "https://one.example") is clock
    assert clocks.of("p1", "https://other.example") is not clock
    clocks.keep({("p1", "https://other.example")})
    assert clocks.of("p1", "https://one.example") is not clock


@pytest.mark.parametrize(
    ("seconds", "said"), [(7_199.6, "2h ahead of"), (-300.2, "5m behind"), (0.4, "0s ahead of")]
)
def test_a_skew_is_told_for_people(seconds: float, said: str) -> None:
    assert describe_skew(seconds) == said


async def test_while_the_machine_sleeps_the_steady_time_goes_on(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own clock is right when it wakes: no answer is needed to believe it."""
    slept = 0.0
    monkeypatch.setattr("exporter.transport.clock.slept_seconds", lambda: slept)
    clouds = CloudClock(clock)
    clouds.observe(formatdate(NOON, usegmt=True), sent=steady_time(), received=steady_time())
    slept = clock.offset = 8 * HOUR
    assert (clouds(), clouds.ahead) == (NOON + 8 * HOUR, 0.0)
    assert clouds.skew == pytest.approx(0, abs=1)
