"""What the credentials of a project are made with, and what outlives them."""

import os
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import SecretStr

from exporter.config.schema import ProjectConfig
from exporter.credentials.endpoints import iam_endpoint, sts_endpoint
from exporter.credentials.http_auth import SigningAuth, TokenAuth
from exporter.credentials.refusals import Refusals
from exporter.credentials.secret import FileSecret, SecretSource
from exporter.credentials.sources import Source
from exporter.credentials.values import Keys, Token
from exporter.errors import ApiError
from exporter.reporting.redaction import SecretRegistry
from exporter.transport.failures import error_of
from exporter.transport.wire import Wire


@dataclass(slots=True)
class Accounts:
    """What outlives a reload: the secrets to hide, and what was refused to whom."""

    registry: SecretRegistry
    refusals: dict[str, Refusals] = field(default_factory=dict)

    def refusals_of(self, account: str, *, shown: str = "") -> Refusals:
        """The memory of an account; in logs it is `shown`."""
        return self.refusals.setdefault(account, Refusals(shown or account))


@dataclass(frozen=True, slots=True)
class Project:
    """A project, and what its credentials are made with."""

    config: ProjectConfig
    wire: Wire
    accounts: Accounts
    local: httpx.AsyncClient  # for what is on this machine or link: no proxy

    @property
    def id(self) -> str:
        return self.config.id

    @property
    def registry(self) -> SecretRegistry:
        return self.accounts.registry

    def refusals_of(self, account: str, *, shown: str = "") -> Refusals:
        return self.accounts.refusals_of(account, shown=shown)

    def secret(self, what: str, value: SecretStr | None, **more: Any) -> SecretSource:
        """A secret of the configuration; `what` it is, for those who hide it."""
        return SecretSource(
            self.registry, f"the {what} of project {self.id}", value=plain(value), **more
        )

    def file_secret(self, what: str) -> FileSecret:
        return FileSecret(self.registry, f"the {what} of project {self.id}")

    def hide(self, owner: str, keys: Keys) -> Keys:
        """No log and no page shows them from now on."""
        secrets = filter(None, [keys.secret_key, keys.security_token])
        self.registry.update(f"{owner} of project {self.id}", secrets)
        return keys

    def iam_endpoint(self, *preferred: str | None) -> str:
        return iam_endpoint(self.config, *preferred)

    def sts_endpoint(self, given: str | None = None) -> str:
        return sts_endpoint(self.config, given, os.environ)

    def token_auth(self, source: Source[Token], *, shown: str) -> TokenAuth:
        return TokenAuth(source, shown=shown, explain=self._explain)

    def signing_auth(self, source: Source[Keys]) -> SigningAuth:
        return self._signing(source, self.id)

    def account_auth(self, source: Source[Keys]) -> SigningAuth:
        """As `signing_auth`, where nothing of the project is asked for."""
        return self._signing(source, None)

    def _signing(self, source: Source[Keys], project_id: str | None) -> SigningAuth:
        return SigningAuth(
            source,
            shown=f"a signature by the {source.who}",
            project_id=project_id,
            clock=self.wire.clock,
            explain=self._explain_signed,
        )

    def _explain(self, response: httpx.Response) -> ApiError:
        return error_of(response, now=self.wire.clock())

    def _explain_signed(self, response: httpx.Response) -> ApiError:
        return error_of(response, now=self.wire.clock(), signed=True)


def plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
