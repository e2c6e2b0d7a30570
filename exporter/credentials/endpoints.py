"""Whom to ask for keys: IAM and STS, by the configuration, the environment or the region."""

from collections.abc import Mapping

from exporter.config.regions import default_iam_endpoint, default_sts_endpoint
from exporter.config.scalars import url_fault
from exporter.config.schema import ProjectConfig
from exporter.errors import AuthError, Reason

IAM_VARIABLE = "HUAWEICLOUD_SDK_IAM_ENDPOINT"
STS_VARIABLE = "HUAWEICLOUD_SDK_STS_ENDPOINT"


def iam_endpoint(project: ProjectConfig, *preferred: str | None) -> str:
    """What the configuration names, else one of the `preferred`, else the region's own.

    AuthError where there is none.
    """
    written, usual = project.iam_endpoint, default_iam_endpoint(project.region)
    chosen = written if written != usual else next(filter(None, preferred), written)
    if not chosen:
        raise AuthError(
            "no iam_endpoint is known for the project's region",
            reason=Reason.AUTH,
            hint="set iam_endpoint in the project's section",
        )
    return chosen


def sts_endpoint(project: ProjectConfig, given: str | None, environment: Mapping[str, str]) -> str:
    """What is given, else the environment's, else the region's. AuthError where there is none."""
    region = project.region
    found = given or find_endpoint(STS_VARIABLE, environment) or default_sts_endpoint(region)
    if found is None:
        raise AuthError(
            f"no STS endpoint is known for the region {region or 'of the project'}",
            reason=Reason.AUTH,
            hint=f"set the variable {STS_VARIABLE} (with type oidc, sts_endpoint)",
        )
    return found


def find_endpoint(name: str, environment: Mapping[str, str]) -> str | None:
    """The endpoint of a variable; None where it is not set. AuthError if it is no URL."""
    value = environment.get(name, "").strip()
    if not value:
        return None
    if (fault := url_fault(value)) is not None:
        raise AuthError(
            f"{name} is not a URL like https://host or https://host:port: {fault}",
            reason=Reason.AUTH,
            hint="correct the variable, or take it away",
        )
    return value.rstrip("/")
