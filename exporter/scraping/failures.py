"""What a failed query is called in a result: for people, free of secrets."""

from collections.abc import Callable

from exporter.errors import ApiError, DeadlineError, Reason
from exporter.models import Failure

DEADLINE = Failure(
    Reason.DEADLINE,
    "the scrape's deadline came before the answer",
    "raise scrape_timeout in Prometheus, or lower the number of instances (shards); it goes first"
    " in the next scrape",
)


def failure_of(error: ApiError | DeadlineError, redact: Callable[[str], str]) -> Failure:
    """`redact` takes the secrets out of what the cloud has said."""
    if isinstance(error, DeadlineError):
        return Failure(Reason.DEADLINE, str(error))
    return Failure.of(error, redact)


def mistake(exception: Exception) -> Failure:
    """A mistake of ours fails one instance like an answer that makes no sense."""
    return Failure(
        Reason.BAD_RESPONSE,
        f"a mistake in the exporter: {type(exception).__name__}",
        "please report it with the log's traceback",
    )
