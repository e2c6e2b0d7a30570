"""Which way in each project takes, and what is missing for it, before anybody is asked.

It reads the environment and the files as logging in would, and shows nothing of a secret.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from exporter.config.auth import (
    AkskAuth,
    AssumeAgency,
    EcsAgencyAuth,
    EnvAuth,
    OidcAuth,
    PasswordAuth,
    PodIdentityAuth,
    ProfileAuth,
    StaticTokenAuth,
)
from exporter.config.schema import Config, ProjectConfig
from exporter.credentials.endpoints import (
    IAM_VARIABLE,
    find_endpoint,
    iam_endpoint,
    sts_endpoint,
)
from exporter.credentials.environment import find_identity_provider, keys_from_environment
from exporter.credentials.oidc import resolve_oidc
from exporter.credentials.pod_identity import find_pod_identity
from exporter.credentials.profile import ProfileFile, profile_path
from exporter.credentials.secret import TextFile, clean
from exporter.errors import AuthError

T = TypeVar("T")

_LOOKED_UP = (EnvAuth, OidcAuth, PodIdentityAuth, ProfileAuth)


@dataclass(frozen=True, slots=True)
class WayIn:
    """How a project logs in; `missing` is what keeps it from that now, a line each.

    `is_looked_up`: it depends on the environment or on a file beside the configuration.
    """

    project_id: str
    text: str
    is_looked_up: bool
    missing: Sequence[str] = ()


def describe_ways(config: Config, environment: Mapping[str, str]) -> Sequence[WayIn]:
    """The way in of each project, in the order of the configuration."""
    return [_Describer(project, environment).describe() for project in config.projects]


class _Describer:
    """Writes about one project, and collects what is missing."""

    def __init__(self, project: ProjectConfig, environment: Mapping[str, str]) -> None:
        self._project = project
        self._environment = environment
        self._missing: dict[str, None] = {}

    def describe(self) -> WayIn:
        settings: Any = self._project.auth
        text = _TEXTS[type(settings)](self, settings)
        if (agency := getattr(settings, "assume_agency", None)) is not None:
            text += f", with which {self._agency(agency, settings)}"
        is_looked_up = agency is not None or isinstance(settings, _LOOKED_UP)
        return WayIn(self._project.id, text, is_looked_up, tuple(self._missing))

    def _attempt(self, look: Callable[[], T]) -> T | None:
        try:
            return look()
        except AuthError as exc:
            prefix = f"type {self._project.auth.type}: "
            self._missing[prefix + exc.message.removeprefix(prefix)] = None
            return None

    def _token_of(self, path: Path) -> None:
        self._attempt(lambda: clean(TextFile(path).read(), f"the token in {path}"))

    def _iam(self, *preferred: str | None) -> str:
        found = self._attempt(
            lambda: iam_endpoint(
                self._project, *preferred, find_endpoint(IAM_VARIABLE, self._environment)
            )
        )
        return found or "an unknown IAM"

    def _sts(self, given: str | None) -> str:
        found = self._attempt(lambda: sts_endpoint(self._project, given, self._environment))
        return found or "an unknown STS"

    def password(self, settings: PasswordAuth) -> str:
        user = f"{settings.domain}/{settings.username}"
        return f"the password of {user}, at {self._project.iam_endpoint}"

    def token(self, settings: StaticTokenAuth) -> str:
        where = f" in {settings.token_file}" if settings.token_file is not None else ""
        return f"the token{where}, which something else renews"

    def access_key(self, settings: AkskAuth) -> str:
        return f"the access key {settings.access_key[:4]}…"

    def environment(self, settings: EnvAuth) -> str:
        provider = find_identity_provider(self._environment)
        if provider is not None:
            self._token_of(provider.id_token_file)
            return self._by_provider(provider.idp_id, provider.id_token_file, self._iam())
        keys = self._attempt(lambda: keys_from_environment(self._environment))
        shown = f" {keys.access_key[:4]}…" if keys is not None else ""
        return f"the access key{shown} of the environment"

    def profile(self, settings: ProfileAuth) -> str:
        path = profile_path(settings.file, self._environment)
        where = f"[{settings.section}] of {path}"
        profile = self._attempt(ProfileFile(path, settings.section).read)
        if profile is None:
            return f"the keys in {where}"
        if profile.idp_id:
            token_file = path.parent / profile.id_token_file
            self._token_of(token_file)
            iam = self._iam(profile.iam_endpoint)
            return f"{self._by_provider(profile.idp_id, token_file, iam)}, by {where}"
        return f"the access key {profile.access_key[:4]}… in {where}"

    def _by_provider(self, idp_id: str, token_file: Path, iam: str) -> str:
        return f"the token in {token_file} of the identity provider {idp_id}, at {iam}"

    def ecs_agency(self, settings: EcsAgencyAuth) -> str:
        return f"the agency of this cloud server, at {settings.metadata_endpoint}"

    def pod_identity(self, settings: PodIdentityAuth) -> str:
        found = self._attempt(lambda: find_pod_identity(self._environment))
        if found is None:
            return "the agency of this pod's service account"
        self._token_of(found.token_file)
        return f"the agency of this pod's service account, at {found.uri}"

    def oidc(self, settings: OidcAuth) -> str:
        sts = self._sts(settings.sts_endpoint)
        found = self._attempt(lambda: resolve_oidc(settings, self._environment))
        if found is None:
            return f"an agency for an OIDC token, at {sts}"
        if settings.token_file is None:
            self._token_of(found.token_file)
        return f"the agency {found.agency_urn} for the OIDC token in {found.token_file}, at {sts}"

    def _agency(self, agency: AssumeAgency, settings: Any) -> str:
        if agency.urn is not None:
            sts = self._sts(getattr(settings, "sts_endpoint", None))
            return f"it assumes the agency {agency.urn}, at {sts}"
        owner = agency.domain or agency.domain_id
        reads_environment = isinstance(settings, EnvAuth | ProfileAuth)
        iam = self._iam() if reads_environment else self._project.iam_endpoint
        return f"it assumes the agency {agency.agency_name} of {owner}, at {iam}"


_TEXTS: Mapping[type, Callable[[_Describer, Any], str]] = {
    PasswordAuth: _Describer.password,
    StaticTokenAuth: _Describer.token,
    AkskAuth: _Describer.access_key,
    EnvAuth: _Describer.environment,
    ProfileAuth: _Describer.profile,
    EcsAgencyAuth: _Describer.ecs_agency,
    PodIdentityAuth: _Describer.pod_identity,
    OidcAuth: _Describer.oidc,
}
