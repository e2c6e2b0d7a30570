import pytest

from exporter.credentials.refusals import Refusals
from exporter.errors import AuthError, Reason
from tests.credentials.doubles import PROJECT, refusal
from tests.support.virtual_time import Clock


async def test_the_memory_of_refusals_is_bounded(clock: Clock) -> None:
    refusals = Refusals("an account")
    for number in range(3_000):
        refusals.refuse(f"secret-{number}", PROJECT, refusal())
    with pytest.raises(AuthError):
        refusals.check("secret-2999", PROJECT)
    refusals.check("secret-0", PROJECT)


async def test_a_secret_that_is_accepted_is_forgiven(clock: Clock) -> None:
    refusals = Refusals("an account")
    refusals.refuse("secret", PROJECT, refusal())
    with pytest.raises(AuthError):
        refusals.check("secret", PROJECT)
    refusals.accept("secret", PROJECT)
    refusals.check("secret", PROJECT)
    await clock.advance(1)
    refusals.refuse("secret", PROJECT, refusal())
    await clock.advance(60)
    refusals.check("secret", PROJECT)  # it counts from the start again


async def test_who_was_refused_less_often_goes_first_when_the_back_off_ends(clock: Clock) -> None:
    refusals = Refusals("an account")
    refused = AuthError("refused", reason=Reason.AUTH)
    refusals.check("secret", "one")
    refusals.refuse("secret", "one", refused)
    with pytest.raises(AuthError):
        refusals.check("secret", "other")
    await clock.advance(61)
    with pytest.raises(AuthError):
        refusals.check("secret", "one")
    refusals.check("secret", "other")
    refusals.refuse("secret", "other", refused)
    await clock.advance(121)
    refusals.check("secret", "one")


async def test_a_key_that_serves_no_more_is_not_tried_by_each_project_that_it_never_served(
    clock: Clock,
) -> None:
    """Six projects, of which one was served when the key was withdrawn: five refusals lock it."""
    refusals = Refusals("an access key")
    refusals.accept("secret", "served")
    tried = []
    for number in range(5):
        try:
            refusals.check("secret", f"stranger-{number}")
        except AuthError:
            continue
        tried.append(number)
        refusals.refuse("secret", f"stranger-{number}", refusal())
    assert tried == [0, 1]
    refusals.check("secret", "served")
    refusals.refuse("secret", "served", refusal())
    with pytest.raises(AuthError):
        refusals.check("secret", "served")


async def test_the_trouble_of_one_project_keeps_no_other_out(clock: Clock) -> None:
    """Of two it may be the key's: a minute later the next one finds out."""
    refusals = Refusals("an access key")
    refusals.accept("secret", "served")
    refusals.refuse("secret", "first", refusal())
    refusals.check("secret", "third")
    refusals.refuse("secret", "second", refusal())
    with pytest.raises(AuthError, match="tried again in 1m"):
        refusals.check("secret", "third")
    refusals.check("secret", "served")
    await clock.advance(60)
    refusals.check("secret", "third")
    refusals.accept("secret", "third")
    refusals.check("secret", "third")
