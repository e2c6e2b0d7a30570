import pytest

from exporter.errors import Reason
from exporter.models import Failure, RestoreWindow
from exporter.restores.known import Known

FORBIDDEN = Failure(Reason.FORBIDDEN, "HTTP 403")


def known_at(at: float) -> Known[RestoreWindow]:
    known: Known[RestoreWindow] = Known()
    known.learn(RestoreWindow(at, ()), at + 2)
    return known


def test_nothing_is_known_at_first() -> None:
    known: Known[RestoreWindow] = Known()
    assert known.is_wanting(0, 60)
    result = known.result(0, 60)
    assert (result.reading, result.failure, result.last_success) == (None, None, None)


@pytest.mark.parametrize(("age", "is_said"), [(0, True), (120, True), (121, False), (-121, False)])
def test_a_reading_is_said_for_two_intervals(age: float, is_said: bool) -> None:
    known = known_at(1_000)
    result = known.result(1_000 + age, 60)
    assert (result.reading is not None) is is_said
    assert known.is_wanting(1_000 + age, 60) is not is_said
    assert (result.failure is None) is is_said
    assert result.last_success == 1_002


def test_one_that_is_too_old_says_why_nothing_newer_came() -> None:
    failure = known_at(0).result(720, 60).failure
    assert failure is not None
    assert failure.reason is Reason.DEADLINE
    assert failure.message == "the last answer is 12 minutes old, and no newer one came in time"


def test_a_failure_ends_what_was_known_until_the_next_success() -> None:
    known = known_at(1_000)
    known.fail(FORBIDDEN)
    result = known.result(1_010, 60)
    assert (result.reading, result.failure, result.last_success) == (None, FORBIDDEN, 1_002)
    assert not known.is_wanting(1_010, 60)  # the failure says enough: nobody waits for the next
    known.learn(RestoreWindow(1_060, ()), 1_060)
    assert known.result(1_060, 60).failure is None
