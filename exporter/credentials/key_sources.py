"""Where a project's keys come from: a function for each type of `auth` that signs requests."""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from exporter.config.auth import (
    AkskAuth,
    AssumeAgency,
    EcsAgencyAuth,
    EnvAuth,
    OidcAuth,
    PodIdentityAuth,
    ProfileAuth,
)
from exporter.credentials.accounts import Project, plain
from exporter.credentials.endpoints import IAM_VARIABLE, find_endpoint
from exporter.credentials.environment import (
    IdentityProvider,
    find_identity_provider,
    keys_from_environment,
)
from exporter.credentials.exchange import retried
from exporter.credentials.iam_keys import fetch_agency_keys, fetch_id_token_keys
from exporter.credentials.metadata import fetch_metadata_keys
from exporter.credentials.oidc import resolve_oidc
from exporter.credentials.pod_agent import fetch_pod_keys
from exporter.credentials.pod_identity import find_pod_identity
from exporter.credentials.profile import ProfileFile, profile_path
from exporter.credentials.refusals import Refusals
from exporter.credentials.sources import AssumedSource, RenewedSource, Source, StaticSource
from exporter.credentials.sts import assume_agency, assume_agency_with_oidc
from exporter.credentials.values import Keys
from exporter.errors import AuthError, Reason

# As the vendor's SDK: 40 minutes before the end; a share of what is left where that is less.
_MARGIN_SECONDS = 2_400.0
# The cloud replaces a server's keys about ten minutes before their end. Those that come with
# less are what it still has: looked for again soon, but not before each request.
_SERVER_MARGIN_SECONDS = 600.0
_SERVER_USED_SHARE = 0.1

KeyAuth = (
    AkskAuth | EcsAgencyAuth | PodIdentityAuth | OidcAuth | ProfileAuth | EnvAuth
)  # the types that sign requests


def build_key_source(settings: KeyAuth, project: Project) -> Source[Keys]:
    """The keys of the type, or of the agency that is assumed with them. Asks nobody yet."""
    build: Callable[[Any, Project], Source[Keys]] = _BY_TYPE[type(settings)]
    source = build(settings, project)
    if settings.assume_agency is None:
        return source
    return _by_agency(settings.assume_agency, settings, source, project)


def _by_access_key(settings: AkskAuth, project: Project) -> Source[Keys]:
    access_key = settings.access_key
    secret_key = project.secret("secret key", settings.secret_key, file=settings.secret_key_file)
    security_token = plain(settings.security_token)
    if security_token is not None:
        project.registry.update(f"the security token of project {project.id}", [security_token])
    return _static(
        lambda: Keys(access_key, secret_key.read(), security_token),
        _account(access_key),
        project,
        who=_shown(access_key),
        forget=secret_key.forget,
    )


def _by_environment(settings: EnvAuth, project: Project) -> Source[Keys]:
    if find_identity_provider(os.environ) is not None:
        return _by_identity_provider(
            lambda: find_identity_provider(os.environ), lambda: _iam_endpoint(project), project
        )
    return _static(
        lambda: project.hide("the environment", keys_from_environment()),
        "access key of the environment",
        project,
    )


def _by_profile(settings: ProfileAuth, project: Project) -> Source[Keys]:
    path = profile_path(settings.file, os.environ)
    profile = ProfileFile(path, settings.section)
    account = f"section {settings.section} of {path}"

    def provider() -> IdentityProvider | None:
        found = profile.read()
        if not found.idp_id:
            return None
        return IdentityProvider(found.idp_id, path.parent / found.id_token_file)

    def load() -> Keys:
        found = profile.read()
        if found.idp_id:
            raise AuthError(
                f"{account} names an identity provider now, and keys when it was loaded",
                reason=Reason.AUTH,
                hint="reload the configuration",
            )
        return project.hide(account, found.keys)

    try:
        is_federated = provider() is not None
    except AuthError:
        is_federated = False  # told when it is needed: it may be there by then
    if is_federated:
        return _by_identity_provider(
            provider, lambda: _iam_endpoint(project, profile), project, forget=profile.forget
        )
    return _static(load, account, project, forget=profile.forget)


def _iam_endpoint(project: Project, profile: ProfileFile | None = None) -> str:
    """As the SDK looks for it: the profile's, the environment's, the region's."""
    return project.iam_endpoint(
        profile.read().iam_endpoint if profile is not None else None,
        find_endpoint(IAM_VARIABLE, os.environ),
    )


def _by_identity_provider(
    find: Callable[[], IdentityProvider | None],
    iam_endpoint: Callable[[], str],
    project: Project,
    *,
    forget: Callable[[], None] = lambda: None,
) -> Source[Keys]:
    """Keys of the older IAM for the token of a provider that `find` names."""
    token = project.file_secret("identity provider's token")

    def provider() -> IdentityProvider:
        found = find()
        if found is None:
            raise AuthError(
                "no identity provider is named any more",
                reason=Reason.AUTH,
                hint="reload the configuration",
            )
        return found

    async def fetch(id_token: str) -> Keys:
        return await fetch_id_token_keys(
            project.wire,
            iam_endpoint=iam_endpoint(),
            idp_id=provider().idp_id,
            id_token=id_token,
            hide=lambda text: project.registry.update(f"IAM's token of {project.id}", [text]),
        )

    def forget_all() -> None:
        forget()
        token.forget()

    return _renewed(
        fetch,
        "identity provider",
        project,
        secret=lambda: token.read(provider().id_token_file),
        forget=forget_all,
    )


def _by_ecs_agency(settings: EcsAgencyAuth, project: Project) -> Source[Keys]:
    endpoint = settings.metadata_endpoint

    async def fetch(_: str) -> Keys:
        return await retried(
            project.wire,
            lambda _: fetch_metadata_keys(project.local, endpoint),
            what=f"the metadata service at {endpoint}",
        )

    return _renewed(
        fetch,
        f"server's agency at {endpoint}",
        project,
        secret=lambda: "",
        margin_seconds=_SERVER_MARGIN_SECONDS,
        used_share=_SERVER_USED_SHARE,
    )


def _by_pod_identity(settings: PodIdentityAuth, project: Project) -> Source[Keys]:
    token = project.file_secret("pod's token")

    async def fetch(shown: str) -> Keys:
        uri = find_pod_identity(os.environ).uri
        return await retried(
            project.wire,
            lambda _: fetch_pod_keys(project.local, uri, shown),
            what=f"the pod's credential agent at {uri}",
        )

    return _renewed(
        fetch,
        "pod's identity",
        project,
        secret=lambda: token.read(find_pod_identity(os.environ).token_file),
        forget=token.forget,
    )


def _by_oidc(settings: OidcAuth, project: Project) -> Source[Keys]:
    token = project.file_secret("OIDC token")

    async def fetch(id_token: str) -> Keys:
        oidc = resolve_oidc(settings, os.environ)
        return await assume_agency_with_oidc(
            project.wire,
            sts_endpoint=project.sts_endpoint(settings.sts_endpoint),
            provider_urn=oidc.provider_urn,
            agency_urn=oidc.agency_urn,
            session_name=oidc.session_name,
            id_token=id_token,
            duration_seconds=oidc.duration_seconds,
        )

    return _renewed(
        fetch,
        f"OIDC token at {settings.agency_urn or 'the agency of the environment'}",
        project,
        secret=lambda: token.read(resolve_oidc(settings, os.environ).token_file),
        forget=token.forget,
    )


def _by_agency(
    agency: AssumeAgency, settings: KeyAuth, base: Source[Keys], project: Project
) -> Source[Keys]:
    """Keys of an agency, asked for with those of `base`: by STS, or by the older IAM."""
    auth = project.account_auth(base)
    profile = None
    if isinstance(settings, ProfileAuth):
        profile = ProfileFile(profile_path(settings.file, os.environ), settings.section)
    given_sts = settings.sts_endpoint if isinstance(settings, OidcAuth) else None
    name = agency.urn or f"{agency.agency_name} of {agency.domain or agency.domain_id}"
    account = f"agency {name}"

    async def fetch() -> Keys:
        if agency.urn is not None:
            keys = await assume_agency(
                project.wire,
                sts_endpoint=project.sts_endpoint(given_sts),
                auth=auth,
                urn=agency.urn,
                duration_seconds=agency.duration,
            )
        else:
            keys = await fetch_agency_keys(
                project.wire,
                iam_endpoint=(
                    _iam_endpoint(project, profile)
                    if isinstance(settings, ProfileAuth | EnvAuth)
                    else project.iam_endpoint()
                ),
                auth=auth,
                agency_name=agency.agency_name or "",
                domain=(
                    {"domain_name": agency.domain}
                    if agency.domain is not None
                    else {"domain_id": agency.domain_id or ""}
                ),
                duration_seconds=agency.duration,
            )
        return project.hide(account, keys)

    return AssumedSource(
        base,
        fetch,
        clock=project.wire.clock,
        refusals=project.refusals_of(account),
        project_id=project.id,
        margin_seconds=_MARGIN_SECONDS,
    )


def _static(
    load: Callable[[], Keys],
    account: str,
    project: Project,
    *,
    who: str = "",
    forget: Callable[[], None] = lambda: None,
) -> Source[Keys]:
    """`who` is the account for people, where that is not to be shown."""
    who = who or account

    def refusals_of(keys: Keys | None) -> Refusals:
        """An access key is one, wherever it is written. Temporary ones come and go."""
        if keys is None or keys.security_token is not None:
            return project.refusals_of(account, shown=who)
        return project.refusals_of(_account(keys.access_key), shown=_shown(keys.access_key))

    return StaticSource(
        load, _fingerprint, refusals_of, project_id=project.id, who=who, forget=forget
    )


def _account(access_key: str) -> str:
    return f"access key {access_key}"


def _shown(access_key: str) -> str:
    return f"access key {access_key[:4]}…"


def _fingerprint(keys: Keys) -> str:
    """Each part of it may be what is wrong, and is corrected."""
    return "\n".join((keys.access_key, keys.secret_key, keys.security_token or ""))


def _renewed(
    fetch: Callable[[str], Awaitable[Keys]],
    account: str,
    project: Project,
    *,
    secret: Callable[[], str],
    forget: Callable[[], None] = lambda: None,
    margin_seconds: float = _MARGIN_SECONDS,
    used_share: float = 0.75,
) -> Source[Keys]:
    async def fetch_and_hide(shown: str) -> Keys:
        return project.hide(account, await fetch(shown))

    return RenewedSource(
        fetch_and_hide,
        secret=secret,
        forget=forget,
        clock=project.wire.clock,
        refusals=project.refusals_of(account),
        project_id=project.id,
        margin_seconds=margin_seconds,
        used_share=used_share,
    )


_BY_TYPE: Mapping[type, Callable[[Any, Project], Source[Keys]]] = {
    AkskAuth: _by_access_key,
    EnvAuth: _by_environment,
    ProfileAuth: _by_profile,
    EcsAgencyAuth: _by_ecs_agency,
    PodIdentityAuth: _by_pod_identity,
    OidcAuth: _by_oidc,
}
