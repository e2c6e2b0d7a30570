"""One project as the page shows it."""

from dataclasses import dataclass

from exporter.models import ProjectResult
from exporter.page.words import Moment, build_moment

# The threshold of the alert about it: the exporter renews a token earlier where it can.
TOKEN_ENDS_SOON_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Project:
    """One project as the template shows it."""

    result: ProjectResult
    instances: int
    token_expiry: Moment | None
    is_token_expired: bool
    is_token_ending: bool

    @property
    def name(self) -> str:
        return self.result.name or self.result.id


def build_project(result: ProjectResult, instances: int, now: float) -> Project:
    expiry = result.token_expiry
    now -= result.clock_ahead_seconds
    left = expiry - now if expiry is not None else None
    return Project(
        result,
        instances,
        token_expiry=build_moment(expiry, now) if expiry is not None else None,
        is_token_expired=left is not None and left <= 0,
        is_token_ending=left is not None and 0 < left < TOKEN_ENDS_SOON_SECONDS,
    )
