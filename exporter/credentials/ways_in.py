"""From the configuration of a project to its credentials: a function for each type of `auth`."""

import httpx

from exporter.config.auth import PasswordAuth, StaticTokenAuth
from exporter.config.schema import ProjectConfig
from exporter.credentials.accounts import Accounts, Project
from exporter.credentials.http_auth import CloudAuth, TokenAuth
from exporter.credentials.key_sources import build_key_source
from exporter.credentials.login import fetch_token
from exporter.credentials.sources import RenewedSource, StaticSource
from exporter.credentials.values import Token
from exporter.transport.wire import Wire

_TOKEN_MARGIN_SECONDS = 1_800.0


def build_auth(
    project: ProjectConfig, wire: Wire, accounts: Accounts, *, local: httpx.AsyncClient
) -> CloudAuth:
    """The way in that the project's configuration names. Asks nothing and nobody yet."""
    made_with = Project(project, wire, accounts, local)
    settings = project.auth
    if isinstance(settings, PasswordAuth):
        return _by_password(settings, made_with)
    if isinstance(settings, StaticTokenAuth):
        return _by_token(settings, made_with)
    return made_with.signing_auth(build_key_source(settings, made_with))


def _by_password(settings: PasswordAuth, project: Project) -> TokenAuth:
    password = project.secret("password", settings.password, file=settings.password_file)

    async def log_in(secret: str) -> Token:
        return await fetch_token(
            project.wire,
            iam_endpoint=project.config.iam_endpoint,
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
            refusals=project.refusals_of(account),
            project_id=project.id,
            margin_seconds=_TOKEN_MARGIN_SECONDS,
        ),
        shown=f"the token of {account}",
    )


def _by_token(settings: StaticTokenAuth, project: Project) -> TokenAuth:
    token = project.secret("token", settings.token, file=settings.token_file)
    account = f"the token of project {project.id}"
    return project.token_auth(
        StaticSource(
            lambda: Token(token.read()),
            lambda value: value.value,
            lambda _: project.refusals_of(account),
            project_id=project.id,
            who=account,
            forget=token.forget,
        ),
        shown=account,
    )
