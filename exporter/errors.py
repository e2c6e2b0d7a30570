"""The errors of this program.

ExporterError
├── ConfigError                every problem of a configuration, one a line, with its path
├── DeadlineError              the scrape ran out of time
└── ApiError                   a failed API request; `reason` is the metric's label
    ├── AuthError              the login or the signature was refused, or the token after a renewal
    ├── RateLimitedError       429, or the project is backing off after one
    ├── UnavailableError       no answer, or a 5xx
    ├── RefusedError           another 4xx: bad request, missing permission, no such instance
    └── BadResponseError       not the shape that we know
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Why an API request failed: the values of `gaussdb_mysql_api_errors_total{reason}`."""

    AUTH = "auth"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    BAD_REQUEST = "bad_request"
    THROTTLED = "throttled"
    SERVER = "server"
    TIMEOUT = "timeout"
    NETWORK = "network"
    BAD_RESPONSE = "bad_response"
    DEADLINE = "deadline"


class ExporterError(Exception):
    """The root: whatever this program raises on purpose."""


class ConfigError(ExporterError):
    """A configuration that cannot be used; `problems` lists all that is wrong with it."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class DeadlineError(ExporterError):
    """The deadline of the scrape came first."""


class ApiError(ExporterError):
    """A request to the cloud that failed.

    `message` tells a person what happened and is free of secrets; `hint` what to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: Reason,
        hint: str = "",
        status: int | None = None,
        error_code: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after  # seconds, if the answer names them
        self.counted = False  # whether the instance's meter has it already
        self.reason = reason
        self.hint = hint
        self.status = status
        self.error_code = error_code
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message


class AuthError(ApiError):
    """The cloud does not accept who we are."""


class RateLimitedError(ApiError):
    """Too many requests."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message, reason=Reason.THROTTLED, **facts)


class UnavailableError(ApiError):
    """No answer, or a failing server: worth another try."""


class RefusedError(ApiError):
    """The request was understood and refused: another try would not help."""


class BadResponseError(ApiError):
    """An answer that makes no sense."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message, reason=Reason.BAD_RESPONSE, **facts)
