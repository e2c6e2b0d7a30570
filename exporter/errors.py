"""The errors of this program.

ExporterError
├── ConfigError                every problem of a configuration, one a line, with its path
├── DeadlineError              the scrape ran out of time
└── ApiError                   a failed API request; `reason` is the metric's label
    ├── AuthError              the login or the signature was refused, or the token after a renewal
    ├── LoginError             nobody refused the login, but there was no usable answer to it
    ├── RateLimitedError       429, or the project is backing off after one
    ├── UnavailableError       no answer, or a 5xx
    ├── RefusedError           another 4xx: bad request, missing permission, no such instance
    └── BadResponseError       not the shape that we know
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Self, TypedDict


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
    """The deadline of the scrape came first, while something waited that `waited_for` names."""

    def __init__(self, waited_for: str = "") -> None:
        super().__init__(f"the deadline came first: it waited for {waited_for or 'an answer'}")
        self.waited_for = waited_for


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
        operation: str = "",
        host: str = "",
        tried: int = 1,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after  # seconds, if the answer names them
        self.counted = False  # whether the instance's meter has it already
        # Answered by something else than the API: a page of a proxy, of a portal, a wrong address.
        self.foreign = False
        self.reason = reason
        self.hint = hint
        self.operation = operation  # what was asked for, as the metric's label names it
        self.host = host  # who was asked, with the port where it is not the scheme's own
        self.status = status
        self.error_code = error_code
        self.request_id = request_id
        self.tried = tried  # how often the request was sent

    def kept(self) -> Self:
        """The same for who keeps it, or raises it again: without the frames that it was raised in.

        They hold whatever was at hand, often what keeps the error too: thousands of such rings of
        an outage wait long for the garbage collector.
        """
        kept = type(self).__new__(type(self), *self.args)
        kept.__dict__.update(self.__dict__)
        return kept

    @property
    def facts(self) -> "Facts":
        """The evidence, for an error or a record that stands for this one."""
        return {
            "operation": self.operation,
            "host": self.host,
            "status": self.status,
            "error_code": self.error_code,
            "request_id": self.request_id,
            "tried": self.tried,
        }

    def __str__(self) -> str:
        return f"{self.message}, tried {self.tried} times" if self.tried > 1 else self.message


class Facts(TypedDict):
    """What a failed request leaves as evidence; empty or None where there is none."""

    operation: str
    host: str
    status: int | None
    error_code: str
    request_id: str
    tried: int


class AuthError(ApiError):
    """The cloud does not accept who we are."""


class LoginError(ApiError):
    """Who could tell who we are gave no answer, or none that makes sense."""

    @classmethod
    def of(cls, error: ApiError) -> "LoginError":
        """What all requests fail with that needed the login."""
        facts = error.facts
        facts["tried"] = 1  # the message tells how often
        return cls(
            str(error),
            reason=error.reason,
            hint=error.hint,
            retry_after=error.retry_after,
            **facts,
        )


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
