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
