"""From the configuration of a project to its credentials."""

from collections.abc import Callable
from dataclasses import dataclass, field

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
from exporter.credentials.http_auth import CloudAuth, SigningAuth, TokenAuth
from exporter.credentials.login import fetch_token
from exporter.credentials.metadata import fetch_temporary_keys
from exporter.credentials.refusals import Refusals
from exporter.credentials.sources import (
    FixedSource,
    Keys,
    RenewedSource,
    SecretSource,
    Token,
    keys_from_environment,
)
from exporter.errors import ApiError
from exporter.reporting.redaction import SecretRegistry
from exporter.transport.failures import error_of
from exporter.transport.wire import Wire

_TOKEN_MARGIN_SECONDS = 1_800.0
# The cloud replaces an agency's keys about ten minutes before their end. Those that come with
# less are what it still has: looked for again soon, but not before each request.
_KEYS_MARGIN_SECONDS = 600.0
_KEYS_USED_SHARE = 0.1


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


@dataclass(slots=True)
class Accounts:
    """What outlives a reload: the secrets to hide, and what was refused to whom."""

    registry: SecretRegistry
    refusals: dict[str, Refusals] = field(default_factory=dict)

    def refusals_of(self, account: str, *, shown: str = "") -> Refusals:
        """The memory of an account; in logs it is `shown`."""
        return self.refusals.setdefault(account, Refusals(shown or account))


def build_auth(
    project: ProjectConfig, wire: Wire, accounts: Accounts, *, metadata: httpx.AsyncClient
) -> CloudAuth:
    """The way in that the project's configuration names. Asks nothing and nobody yet."""
    settings, registry, clock = project.auth, accounts.registry, wire.clock

    def explain(response: httpx.Response) -> ApiError:
        return error_of(response, now=clock())

    def explain_signed(response: httpx.Response) -> ApiError:
        return error_of(response, now=clock(), signed=True)

    if isinstance(settings, PasswordAuth):
        password = SecretSource(
            registry,
            f"the password of project {project.id}",
            value=_plain(settings.password),
            file=settings.password_file,
        )
        # One account may serve several projects: what locks it is counted together.
        account = f"{settings.domain}/{settings.username} at {project.iam_endpoint}"
        domain, username = settings.domain, settings.username

        async def login(secret: str) -> Token:
            return await fetch_token(
                wire,
                iam_endpoint=project.iam_endpoint,
                domain=domain,
                username=username,
                password=secret,
                project_id=project.id,
                registry=registry,
            )

        return TokenAuth(
            RenewedSource(
                login,
                secret=password.read,
                clock=clock,
                refusals=accounts.refusals_of(account),
                project_id=project.id,
                margin_seconds=_TOKEN_MARGIN_SECONDS,
            ),
            explain=explain,
        )
    if isinstance(settings, StaticTokenAuth):
        token = SecretSource(
            registry,
            f"the token of project {project.id}",
            value=_plain(settings.token),
            file=settings.token_file,
        )
        return TokenAuth(
            FixedSource(
                lambda: Token(token.read()),
                lambda value: value.value,
                accounts.refusals_of(f"the token of project {project.id}"),
                project_id=project.id,
            ),
            explain=explain,
        )
    if isinstance(settings, EcsAgencyAuth):
        endpoint = settings.metadata_endpoint

        async def fetch_keys(_: str) -> Keys:
            found = await fetch_temporary_keys(metadata, endpoint)
            registry.update(f"the agency at {endpoint}", [found.secret_key, found.security_token])
            return Keys(found.access_key, found.secret_key, found.security_token, found.expires_at)

        return SigningAuth(
            RenewedSource(
                fetch_keys,
                secret=lambda: "",
                clock=clock,
                refusals=accounts.refusals_of(f"the server's agency at {endpoint}"),
                project_id=project.id,
                margin_seconds=_KEYS_MARGIN_SECONDS,
                used_share=_KEYS_USED_SHARE,
            ),
            project_id=project.id,
            clock=clock,
            explain=explain_signed,
        )
    if isinstance(settings, AkskAuth):
        load = _load_keys(settings, project.id, registry)
        account, shown = settings.access_key, f"access key {settings.access_key[:4]}…"
    else:
        assert isinstance(settings, EnvAuth)
        load = _load_environment(registry)
        account, shown = "", "access key of the environment"
    return SigningAuth(
        FixedSource(
            load,
            lambda keys: keys.secret_key,
            accounts.refusals_of(f"access key {account}", shown=shown),
            project_id=project.id,
        ),
        project_id=project.id,
        clock=clock,
        explain=explain_signed,
    )


def _load_keys(settings: AkskAuth, project_id: str, registry: SecretRegistry) -> Callable[[], Keys]:
    secret = SecretSource(
        registry,
        f"the secret key of project {project_id}",
        value=_plain(settings.secret_key),
        file=settings.secret_key_file,
    )
    security_token = _plain(settings.security_token)
    if security_token is not None:
        registry.update(f"the security token of project {project_id}", [security_token])
    return lambda: Keys(settings.access_key, secret.read(), security_token)


def _load_environment(registry: SecretRegistry) -> Callable[[], Keys]:
    def load() -> Keys:
        keys = keys_from_environment()
        registry.update("the environment", filter(None, [keys.secret_key, keys.security_token]))
        return keys

    return load
