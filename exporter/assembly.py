"""Putting the parts together from a configuration, and anew at each reload."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

import httpx
import structlog

from exporter.cloud.api import ProjectClient
from exporter.cloud.discovery import Discovery
from exporter.config.schema import (
    ApiConfig,
    Config,
    ProjectConfig,
)
from exporter.credentials.accounts import Accounts
from exporter.credentials.local import create_local_client
from exporter.credentials.ways_in import build_auth
from exporter.errors import ConfigError
from exporter.exposition.metrics import OwnMetrics
from exporter.models import ConfigurationState
from exporter.reporting.redaction import SecretRegistry
from exporter.scraping.project import Project, origin_of
from exporter.scraping.scraper import Scraper
from exporter.transport.backoff import Jitter
from exporter.transport.clock import CloudClocks
from exporter.transport.wire import Wire, connect, proxy_of, read_authorities

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Assembly:
    """A scraper with what it was built of."""

    scraper: Scraper
    wire: Wire
    authorities: bytes  # what api.ca_file held
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
        self._clocks = CloudClocks(clock)
        self._jitter = jitter
        self._shard = shard
        self._total_shards = total_shards
        self._local = (
            httpx.AsyncClient(transport=transport(), trust_env=False)
            if transport is not None
            else create_local_client()
        )
        self._assembly: Assembly | None = None
        self._retiring: dict[asyncio.Task[None], Assembly] = {}
        self._reloading = asyncio.Lock()
        self.stopping = False
        self.configuration: ConfigurationState | None = None  # None before the first is in force

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
            except ConfigError as exc:
                self.own.config_loaded(False)
                if self.configuration is not None:
                    self.configuration = replace(
                        self.configuration, refused_at=self.clock(), problems=exc.problems
                    )
                raise
            previous, self._assembly = self._assembly, assembly
            self.own.config_loaded(True)
            self.configuration = ConfigurationState(loaded_at=self.clock())
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
        authorities = self._read_authorities(config.api)
        kept = (
            previous is not None
            and previous.scraper.config.api == config.api
            and previous.authorities == authorities
        )
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
        # Not before: where the configuration is refused, the old one goes on with its clocks.
        self._clocks.keep({(project.id, project.endpoint) for project in config.projects})
        return Assembly(scraper, wire, authorities, clients)

    def _read_authorities(self, config: ApiConfig) -> bytes:
        with _certificate_problems(config):
            return read_authorities(config) if self._transport is None else b""

    def _connect(self, config: ApiConfig) -> Wire:
        proxy = proxy_of(config)
        self._accounts.registry.update("the proxy", [proxy.secret] if proxy is not None else [])
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
            and all(
                getattr(before.config, name) == getattr(settings, name)
                for name in ("region", "endpoint", "iam_endpoint", "auth")
            )
        ):
            return previous.clients[settings.id]
        wire = wire.by(self._clocks.of(settings.id, settings.endpoint))
        return ProjectClient(
            wire,
            project_id=settings.id,
            endpoint=settings.endpoint,
            auth=build_auth(settings, wire, self._accounts, local=self._local),
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
                and origin_of(before.config) == origin_of(settings)
            ):
                discovery.adopt(before.discovery)
        return Project(
            settings,
            client,
            lambda: client.auth.token_expires_at,
            discovery,
            self._clocks.of(settings.id, settings.endpoint),
        )

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
        await self._local.aclose()


async def _close_client(client: ProjectClient) -> None:
    await client.auth.source.aclose()
    client.limiter.close()
    client.background.close()


@contextlib.contextmanager
def _certificate_problems(config: ApiConfig) -> Iterator[None]:
    try:
        yield
    except OSError as exc:  # what TLS refuses is one too
        reason = exc.strerror or str(exc)
        raise ConfigError([f"api.ca_file: cannot use {config.ca_file}: {reason}"]) from exc
