"""How often the same thing is said."""

from exporter.web.repeats import Repeats


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_time_is_said_and_then_once_a_minute_with_how_often() -> None:
    time = Time()
    repeats = Repeats(clock=time)
    assert [repeats.count("a") for _ in range(4)] == [1, 0, 0, 0]
    time.now += 59.0
    assert repeats.count("a") == 0
    time.now += 1.0
    assert repeats.count("a") == 5
    assert repeats.count("a") == 0


def test_each_thing_is_counted_for_itself() -> None:
    repeats = Repeats(clock=Time())
    assert [repeats.count(key) for key in "abab"] == [1, 1, 0, 0]


def test_a_crowd_of_things_is_counted_as_one() -> None:
    time = Time()
    repeats = Repeats(clock=time)
    assert [repeats.count(number) for number in range(64)] == [1] * 64
    assert [repeats.count(number) for number in range(64, 1000)] == [1] + [0] * 935
    time.now += 60.0
    assert [repeats.count(number) for number in range(64)] == [1] * 64
