"""Putting the parts together from a configuration, and anew at each reload."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import httpx
import structlog
from pydantic import SecretStr

from exporter.cloud.answers import error_of
from exporter.cloud.api import ProjectClient, Wire, connect, fetch_token, ssl_context
from exporter.cloud.discovery import Discovery
from exporter.config.schema import (
    AkskAuth,
    ApiConfig,
    Config,
    EcsAgencyAuth,
    EnvAuth,
    PasswordAuth,
    ProjectConfig,
    StaticTokenAuth,
)
from exporter.credentials.auth import (
    CloudAuth,
    FixedSource,
    Keys,
    Refusals,
    RenewedSource,
    SecretSource,
    SigningAuth,
    Token,
    TokenAuth,
    keys_from_environment,
)
from exporter.credentials.metadata import create_metadata_client, fetch_temporary_keys
from exporter.errors import ApiError, ConfigError
from exporter.exposition.metrics import OwnMetrics
from exporter.reporting.redaction import SecretRegistry
from exporter.scraping.scraper import Project, Scraper
from exporter.transport.limits import Jitter

log = structlog.get_logger(__name__)

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


@dataclass(slots=True, eq=False)
class Assembly:
    """A scraper with what it was built of."""

    scraper: Scraper
    wire: Wire
    clients: dict[str, ProjectClient]


class Exporter:
    """The running exporter: the scraper of the configuration in force, and its replacement."""

    def __init__(
        self,
        load: Callable[[], Config],
        *,
        own: OwnMetrics,
        registry: SecretRegistry,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
        clock: Callable[[], float] = time.time,
        jitter: Jitter = random.uniform,
        shard: int = 0,
        total_shards: int = 1,
    ) -> None:
        self._load = load
        self.own = own
        self._accounts = Accounts(registry)
        self._transport = transport
        self.clock = clock
        self._jitter = jitter
        self._shard = shard
        self._total_shards = total_shards
        self._metadata = (
            httpx.AsyncClient(transport=transport(), trust_env=False)
            if transport is not None
            else create_metadata_client()
        )
        self._assembly: Assembly | None = None
        self._retiring: dict[asyncio.Task[None], Assembly] = {}
        self._reloading = asyncio.Lock()
        self.stopping = False

    @property
    def scraper(self) -> Scraper:
        assert self._assembly is not None, "not started"
        return self._assembly.scraper

    @property
    def ready(self) -> bool:
        return self._assembly is not None and not self.stopping

    async def reload(self) -> None:
        """Load the configuration and put it in force, whole or not at all. Raises ConfigError."""
        async with self._reloading:
            try:
                config = await asyncio.to_thread(self._load)
                assembly = self._assemble(config)
            except ConfigError:
                self.own.config_loaded(False)
                raise
            previous, self._assembly = self._assembly, assembly
            self.own.config_loaded(True)
            if previous is not None:
                task = asyncio.create_task(
                    self._retire(previous, assembly, frozenset(self._retiring))
                )
                self._retiring[task] = previous
                task.add_done_callback(self._retiring.pop)
            log.info(
                "configuration loaded",
                projects=len(config.projects),
                instances=len(assembly.scraper.instances),
            )

    def _assemble(self, config: Config) -> Assembly:
        previous = self._assembly
        kept = previous is not None and previous.scraper.config.api == config.api
        wire = previous.wire if previous is not None and kept else self._connect(config.api)
        clients: dict[str, ProjectClient] = {}
        projects: list[Project] = []
        for settings in config.projects:
            client = self._client(settings, wire, previous if kept else None)
            clients[settings.id] = client
            projects.append(self._project(settings, client, previous))
        scraper = Scraper(
            config,
            projects,
            clock=self.clock,
            shard=self._shard,
            total_shards=self._total_shards,
            redact=self._accounts.registry.redact,
        )
        if previous is not None:
            scraper.adopt(previous.scraper)
        return Assembly(scraper, wire, clients)

    def _connect(self, config: ApiConfig) -> Wire:
        with _certificate_problems(config):
            return connect(
                config,
                observe=self.own.observe_request,
                transport=self._transport() if self._transport is not None else None,
                clock=self.clock,
                jitter=self._jitter,
            )

    def _client(
        self, settings: ProjectConfig, wire: Wire, previous: Assembly | None
    ) -> ProjectClient:
        before = previous.scraper.projects.get(settings.id) if previous is not None else None
        if (
            previous is not None
            and before is not None
            and (before.config.endpoint, before.config.iam_endpoint, before.config.auth)
            == (settings.endpoint, settings.iam_endpoint, settings.auth)
        ):
            return previous.clients[settings.id]
        return ProjectClient(
            wire,
            project_id=settings.id,
            endpoint=settings.endpoint,
            auth=build_auth(settings, wire, self._accounts, metadata=self._metadata),
        )

    def _project(
        self, settings: ProjectConfig, client: ProjectClient, previous: Assembly | None
    ) -> Project:
        discovery = None
        if settings.discovery is not None and settings.discovers:
            discovery = Discovery(settings.id, settings.discovery, client, clock=self.clock)
            before = previous.scraper.projects.get(settings.id) if previous is not None else None
            if (
                before is not None
                and before.discovery is not None
                and before.config.endpoint == settings.endpoint
            ):
                discovery.adopt(before.discovery)
        return Project(settings, client, lambda: client.auth.token_expires_at, discovery)

    async def _retire(
        self, previous: Assembly, current: Assembly, earlier: Collection[asyncio.Task[None]]
    ) -> None:
        """Let the scrapes that run end, then close what is no longer used."""
        try:
            if earlier:  # they may use the same connections
                await asyncio.wait(earlier)
            await previous.scraper.drain()
        finally:
            await previous.scraper.aclose()
            for project_id, client in previous.clients.items():
                if current.clients.get(project_id) is not client:
                    await _close_client(client)
            if previous.wire is not current.wire:
                await previous.wire.aclose()

    async def aclose(self) -> None:
        # Without queries to wait for they close what they have.
        for retired in list(self._retiring.values()):
            await retired.scraper.aclose()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        if self._assembly is not None:
            await self._assembly.scraper.aclose()
            for client in self._assembly.clients.values():
                await _close_client(client)
            await self._assembly.wire.aclose()
        await self._metadata.aclose()


async def _close_client(client: ProjectClient) -> None:
    await client.auth.source.aclose()
    client.lane.close()


@contextlib.contextmanager
def _certificate_problems(config: ApiConfig) -> Iterator[None]:
    try:
        yield
    except OSError as exc:  # what TLS refuses is one too
        reason = exc.strerror or str(exc)
        raise ConfigError([f"api.ca_file: cannot use {config.ca_file}: {reason}"]) from exc


def check_certificates(config: ApiConfig) -> None:
    """ConfigError where the certificates to trust cannot be used."""
    with _certificate_problems(config):
        ssl_context(config)


def missing_secrets(config: Config) -> Sequence[str]:
    """What the configuration refers to and is not there now; it may come before it is needed."""
    missing = []
    for i, project in enumerate(config.projects):
        auth = project.auth
        for name in ("password_file", "secret_key_file", "token_file"):
            path = getattr(auth, name, None)
            if path is not None and not path.is_file():
                missing.append(f"projects[{i}].auth.{name}: there is no file {path}")
    return missing
