"""What a request shows of who we are: a token, or keys to sign with."""

from dataclasses import dataclass, field
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Token:
    """An IAM token, scoped to one project. `expires_at` is None where nothing tells it."""

    value: str = field(repr=False)
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key, permanent or temporary."""

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None


class Expiring(Protocol):
    @property
    def expires_at(self) -> float | None: ...


T = TypeVar("T", bound=Expiring)
