"""What is tried again, how often, and what is remembered of it."""

from collections.abc import Callable

import pytest

from exporter.errors import (
    ApiError,
    AuthError,
    BadResponseError,
    DeadlineError,
    RateLimitedError,
    Reason,
    RefusedError,
    UnavailableError,
)
from exporter.transport.query import Query
from exporter.transport.retries import with_retries
from tests.support.virtual_time import Clock


def failed(error: ApiError) -> ApiError:
    """As an exchange leaves it: counted, since it was sent."""
    error.counted = True
    return error


def server(status: int | None = 503, reason: Reason = Reason.SERVER) -> ApiError:
    return failed(UnavailableError("it failed", reason=reason, status=status))


class Sender:
    """Fails so one time after the other, then answers."""

    def __init__(self, *failures: ApiError | Exception) -> None:
        self._failures = list(failures)
        self.sent = 0

    async def __call__(self) -> str:
        self.sent += 1
        if self._failures:
            raise self._failures.pop(0)
        return "answer"


async def send(sender: Sender, query: Query | None = None, retries: int = 2) -> str:
    return await with_retries(
        sender, query=query or Query(), retries=retries, jitter=lambda low, high: high
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: server(502),
        lambda: server(503),
        lambda: server(504),
        lambda: server(None, Reason.NETWORK),
        lambda: server(None, Reason.TIMEOUT),
        lambda: server(503, Reason.NETWORK),  # of a proxy
        lambda: failed(RateLimitedError("too many", status=429)),
    ],
)
async def test_what_passes_is_tried_again(clock: Clock, make: Callable[[], ApiError]) -> None:
    sender = Sender(make(), make())
    assert await send(sender) == "answer"
    assert sender.sent == 3


@pytest.mark.parametrize(
    "error",
    [
        server(500),
        server(407, Reason.NETWORK),  # of a proxy
        server(403, Reason.NETWORK),
        failed(RefusedError("no", reason=Reason.FORBIDDEN, status=403)),
        failed(AuthError("no", reason=Reason.AUTH, status=401)),
        BadResponseError("nonsense", status=200),
        UnavailableError("not sent", reason=Reason.NETWORK),
    ],
    ids=lambda error: str(error),
)
async def test_what_does_not_pass_is_not_tried_again(clock: Clock, error: ApiError) -> None:
    sender = Sender(error)
    with pytest.raises(ApiError) as caught:
        await send(sender)
    assert sender.sent == 1
    assert str(caught.value) == caught.value.message  # once is not worth a word


async def test_an_error_tells_how_often_it_was_tried(clock: Clock) -> None:
    sender = Sender(server(), server(), server())
    with pytest.raises(UnavailableError) as caught:
        await send(sender)
    assert sender.sent == 3
    assert str(caught.value) == "it failed, tried 3 times"


async def test_what_failed_last_is_known_when_the_deadline_comes(clock: Clock) -> None:
    """The third try is under way: what is told is that of the two before."""
    query = Query()
    with pytest.raises(DeadlineError):
        await send(Sender(server(), server(), DeadlineError("too late")), query)
    assert query.trouble is not None
    assert str(query.trouble) == "it failed, tried 2 times"


async def test_a_try_that_was_never_sent_is_no_try(clock: Clock) -> None:
    """The project fell silent in between, for longer than there is time: nothing was sent."""
    silent = RateLimitedError("not asked: the project backs off", retry_after=60.0)
    with pytest.raises(RateLimitedError) as caught:
        await send(Sender(server(), silent), Query(deadline=10.0))
    assert caught.value.tried == 1
    assert caught.value.counted
