"""How long to wait before another try: what the answer names, else a random time that doubles."""

import email.utils
import math
import re
from collections.abc import Callable

Jitter = Callable[[float, float], float]
_RETRY_BASE_SECONDS = 0.5
_RETRY_CAP_SECONDS = 10.0
_POLICY = re.compile(r"time:\s*([0-9]{1,4})\s*(second|minute|hour)", re.IGNORECASE)
_POLICY_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}


def backoff_seconds(attempt: int, *, base: float, cap: float, jitter: Jitter) -> float:
    """Full jitter: anything up to base x 2^attempt, at most `cap`."""
    return jitter(0.0, doubled(base, attempt + 1, cap=cap))


def retry_seconds(attempt: int, retry_after: float | None, *, jitter: Jitter) -> float:
    """How long to wait before try `attempt` + 1: a random back-off, or longer where the answer
    says so. One that says "at once" to everybody would be asked without end."""
    step = backoff_seconds(attempt, base=_RETRY_BASE_SECONDS, cap=_RETRY_CAP_SECONDS, jitter=jitter)
    return max(step, retry_after or 0.0)


def doubled(seconds: float, failures: int, *, cap: float = math.inf) -> float:
    """How long what has failed so many times in a row waits: `seconds`, twice, four times..."""
    return min(cap, seconds * 2.0 ** min(failures - 1, 16))


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3), else None."""
    if not value:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def parse_policy_hint(message: str) -> float | None:
    """The period in a throttling message, as users report it: `limit:200,time:5 minute`."""
    match = _POLICY.search(message)
    return float(match[1]) * _POLICY_SECONDS[match[2].lower()] if match else None
