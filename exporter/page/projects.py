"""One project as the page shows it."""

from dataclasses import dataclass

from exporter.models import ProjectResult
from exporter.page.words import Moment, build_moment


@dataclass(frozen=True, slots=True)
class Project:
    """One project as the template shows it."""

    result: ProjectResult
    instances: int
    token_expiry: Moment | None
    is_token_expired: bool


def build_project(project: ProjectResult, instances: int, now: float) -> Project:
    expiry = project.token_expiry
    return Project(
        result=project,
        instances=instances,
        token_expiry=build_moment(expiry, now) if expiry is not None else None,
        is_token_expired=expiry is not None and expiry <= now,
    )
