"""From the configuration of a project to its credentials: a function for each type of `auth`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import SecretStr

from exporter.config.schema import (
    AkskAuth,
    EcsAgencyAuth,
    EnvAuth,
    PasswordAuth,
    ProjectConfig,
    StaticTokenAuth,
)
from exporter.credentials.environment import keys_from_environment
from exporter.credentials.exchange import retried
from exporter.credentials.http_auth import CloudAuth, SigningAuth, TokenAuth
from exporter.credentials.login import fetch_token
from exporter.credentials.metadata import fetch_metadata_keys
from exporter.credentials.refusals import Refusals
from exporter.credentials.secret import SecretSource
from exporter.credentials.sources import RenewedSource, Source, StaticSource
from exporter.credentials.values import Keys, Token
from exporter.errors import ApiError
from exporter.reporting.redaction import SecretRegistry
from exporter.transport.failures import error_of
from exporter.transport.wire import Wire

_TOKEN_MARGIN_SECONDS = 1_800.0
# The cloud replaces an agency's keys about ten minutes before their end. Those that come with
# less are what it still has: looked for again soon, but not before each request.
_KEYS_MARGIN_SECONDS = 600.0
_KEYS_USED_SHARE = 0.1


@dataclass(slots=True)
class Accounts:
    """What outlives a reload: the secrets to hide, and what was refused to whom."""

    registry: SecretRegistry
    refusals: dict[str, Refusals] = field(default_factory=dict)

    def refusals_of(self, account: str, *, shown: str = "") -> Refusals:
        """The memory of an account; in logs it is `shown`."""
        return self.refusals.setdefault(account, Refusals(shown or account))


@dataclass(frozen=True, slots=True)
class _Project:
    """A project, and what its credentials are made with."""

    config: ProjectConfig
    wire: Wire
    accounts: Accounts
    local: httpx.AsyncClient

    @property
    def id(self) -> str:
        return self.config.id

    @property
    def registry(self) -> SecretRegistry:
        return self.accounts.registry

    def secret(self, what: str, value: SecretStr | None, **more: Any) -> SecretSource:
        """A secret of the configuration, `what` it is for those who hide it."""
        return SecretSource(
            self.registry, f"the {what} of project {self.id}", value=_plain(value), **more
        )

    def hide(self, owner: str, keys: Keys) -> None:
        """No log and no page shows them from now on."""
        self.registry.update(owner, filter(None, [keys.secret_key, keys.security_token]))

    def token_auth(self, source: Source[Token]) -> TokenAuth:
        return TokenAuth(source, explain=self._explain)

    def signing_auth(self, source: Source[Keys]) -> SigningAuth:
        return SigningAuth(
            source, project_id=self.id, clock=self.wire.clock, explain=self._explain_signed
        )

    def _explain(self, response: httpx.Response) -> ApiError:
        return error_of(response, now=self.wire.clock())

    def _explain_signed(self, response: httpx.Response) -> ApiError:
        return error_of(response, now=self.wire.clock(), signed=True)


def build_auth(
    project: ProjectConfig, wire: Wire, accounts: Accounts, *, local: httpx.AsyncClient
) -> CloudAuth:
    """The way in that the project's configuration names. Asks nothing and nobody yet."""
    build = _WAYS_IN[type(project.auth)]
    return build(project.auth, _Project(project, wire, accounts, local))


def _by_password(settings: PasswordAuth, project: _Project) -> TokenAuth:
    password = project.secret("password", settings.password, file=settings.password_file)
    iam_endpoint = project.config.iam_endpoint

    async def log_in(secret: str) -> Token:
        return await fetch_token(
            project.wire,
            iam_endpoint=iam_endpoint,
            domain=settings.domain,
            username=settings.username,
            password=secret,
            project_id=project.id,
            registry=project.registry,
        )

    # It is one account for all projects and regions: what locks it is counted together.
    account = f"{settings.domain}/{settings.username}"
    return project.token_auth(
        RenewedSource(
            log_in,
            secret=password.read,
            forget=password.forget,
            clock=project.wire.clock,
            refusals=project.accounts.refusals_of(account),
            project_id=project.id,
            margin_seconds=_TOKEN_MARGIN_SECONDS,
        )
    )


def _by_token(settings: StaticTokenAuth, project: _Project) -> TokenAuth:
    token = project.secret("token", settings.token, file=settings.token_file)
    return project.token_auth(
        StaticSource(
            lambda: Token(token.read()),
            lambda value: value.value,
            project.accounts.refusals_of(f"the token of project {project.id}"),
            project_id=project.id,
            forget=token.forget,
        )
    )


def _by_ecs_agency(settings: EcsAgencyAuth, project: _Project) -> SigningAuth:
    endpoint = settings.metadata_endpoint

    async def fetch_keys(_: str) -> Keys:
        keys = await retried(
            project.wire,
            lambda _: fetch_metadata_keys(project.local, endpoint),
            what=f"the metadata service at {endpoint}",
        )
        project.hide(f"the agency at {endpoint}", keys)
        return keys

    return project.signing_auth(
        RenewedSource(
            fetch_keys,
            secret=lambda: "",
            clock=project.wire.clock,
            refusals=project.accounts.refusals_of(f"the server's agency at {endpoint}"),
            project_id=project.id,
            margin_seconds=_KEYS_MARGIN_SECONDS,
            used_share=_KEYS_USED_SHARE,
        )
    )


def _by_access_key(settings: AkskAuth, project: _Project) -> SigningAuth:
    access_key = settings.access_key
    secret_key = project.secret("secret key", settings.secret_key, file=settings.secret_key_file)
    security_token = _plain(settings.security_token)
    if security_token is not None:
        project.registry.update(f"the security token of project {project.id}", [security_token])
    return _by_static_keys(
        lambda: Keys(access_key, secret_key.read(), security_token),
        project.accounts.refusals_of(
            f"access key {access_key}", shown=f"access key {access_key[:4]}…"
        ),
        project,
        forget=secret_key.forget,
    )


def _by_environment(settings: EnvAuth, project: _Project) -> SigningAuth:
    def load() -> Keys:
        keys = keys_from_environment()
        project.hide("the environment", keys)
        return keys

    account = "access key of the environment"
    return _by_static_keys(load, project.accounts.refusals_of(account), project)


def _by_static_keys(
    load: Callable[[], Keys],
    refusals: Refusals,
    project: _Project,
    *,
    forget: Callable[[], None] = lambda: None,
) -> SigningAuth:
    return project.signing_auth(
        StaticSource(
            load, lambda keys: keys.secret_key, refusals, project_id=project.id, forget=forget
        )
    )


_WAYS_IN: Mapping[type, Callable[[Any, _Project], CloudAuth]] = {
    PasswordAuth: _by_password,
    StaticTokenAuth: _by_token,
    EcsAgencyAuth: _by_ecs_agency,
    AkskAuth: _by_access_key,
    EnvAuth: _by_environment,
}


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
