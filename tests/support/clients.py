"""HTTP clients of the application, without a server between them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from exporter.assembly import Exporter
from exporter.config.schema import Config
from exporter.errors import ConfigError
from exporter.simulator import Simulator
from exporter.web.app import create_app
from tests.support.factories import (
    running_exporter,
)


@asynccontextmanager
async def client_of(exporter: Exporter, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the exporter's application."""
    transport = httpx.ASGITransport(create_app(exporter, **options))
    async with httpx.AsyncClient(
        transport=transport,
        base_url="http://exporter.example:10042",
        headers={"Accept-Encoding": "identity"},
    ) as client:
        yield client


@asynccontextmanager
async def client_on(
    simulator: Simulator, config: Config | Callable[[], Config] | None = None, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """The same, of a started exporter of that cloud."""
    async with running_exporter(simulator, config) as exporter, client_of(exporter, **options) as c:
        yield c


class Settings:
    """A configuration that can be changed between two reloads; None cannot be loaded."""

    def __init__(self, config: Config | None) -> None:
        self.config = config

    def __call__(self) -> Config:
        if self.config is None:
            raise ConfigError(["projects[0].region: is wrong", "api.retries: is wrong too"])
        return self.config
