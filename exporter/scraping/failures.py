"""What a failed query is called in a result: for people, free of secrets."""

import asyncio
from collections.abc import Callable

from exporter.errors import ApiError, BadResponseError, DeadlineError, Reason
from exporter.models import Failure, Progress
from exporter.transport.query import Query

# Of several pages one that takes longer is what the others wait for.
_SLOW_SECONDS = 5.0
_LOGIN = "the login of its project"
_LOGIN_HINT = (
    "who gives its credentials (IAM, STS, the metadata service) is slow, or a firewall or proxy"
    " drops? The login goes on; the log and the next scrapes tell how it ended"
)
_MORE_TIME = "raise scrape_timeout in Prometheus, or lower the number of instances (shards)"


def failure_of(error: ApiError | DeadlineError, redact: Callable[[str], str]) -> Failure:
    """`redact` takes the secrets out of what the cloud has said."""
    if isinstance(error, DeadlineError):
        return Failure(Reason.DEADLINE, str(error))
    return Failure.of(error, redact)


def not_in_time(
    query: Query,
    redact: Callable[[str], str],
    *,
    waited_for: str = "",
    progress: Progress | None = None,
) -> Failure:
    """Why there is no outcome at the deadline: what failed before it, else how far it was."""
    if query.trouble is not None:
        return Failure.of(query.trouble, redact)
    seconds = asyncio.get_running_loop().time() - query.asking_since if query.asking else 0.0
    answered = query.requests - query.asking
    if query.asking and (not answered or seconds >= _SLOW_SECONDS):
        return Failure(
            Reason.DEADLINE,
            f"asked {query.whom()}, and no answer for {seconds:.1f} s until the scrape's deadline",
            "a slow cloud or DNS, or a firewall or proxy that drops? With scrape_timeout above"
            " api.timeout it is told apart; it goes last in the next scrape",
            host=query.host,
        )
    if answered:
        done = (
            f"page {progress.pages_done} of {progress.pages_total}"
            if progress is not None and progress.pages_done
            else f"{answered} pages read"
        )
        return Failure(
            Reason.DEADLINE,
            f"listing under way at the scrape's deadline: {done}",
            f"{_MORE_TIME}; it goes on from there",
        )
    waited_for = waited_for or query.waits_for
    return Failure(
        Reason.DEADLINE,
        f"not asked yet at the scrape's deadline: it waited for {waited_for or _LOGIN}",
        f"{_MORE_TIME}; it goes first in the next scrape" if waited_for else _LOGIN_HINT,
    )


NO_TIME = Failure(
    Reason.DEADLINE,
    "the scrape left no time to ask",
    "Prometheus' scrape_timeout less scrape.timeout_offset must leave a second or more",
)


def mistake(exception: Exception) -> BadResponseError:
    """A mistake of ours fails one instance like an answer that makes no sense."""
    return BadResponseError(
        f"a mistake in the exporter: {type(exception).__name__}",
        hint="please report it with the log's traceback",
    )
