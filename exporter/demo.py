"""`--demo`: the simulator, the configuration for it, and what to tell the person who tries it."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from exporter.config.schema import Config
from exporter.simulator import (
    DEMO_DOMAIN,
    DEMO_INSTANCES,
    DEMO_PASSWORD,
    DEMO_PROJECT_ID,
    DEMO_PROJECT_NAME,
    DEMO_REGION,
    DEMO_USER,
    build_demo,
    serve,
)


@contextlib.asynccontextmanager
async def run_demo() -> AsyncIterator[Callable[[], Config]]:
    """The simulator on a free port of loopback, and how to load the configuration for it."""
    async with serve(build_demo()) as address:
        config = build_demo_config(address)
        yield lambda: config


def demo_project(address: str) -> dict[str, Any]:
    """The settings of the project of the simulator at `address` (http://127.0.0.1:PORT), less what
    is watched there."""
    return {
        "id": DEMO_PROJECT_ID,
        "name": DEMO_PROJECT_NAME,
        "region": DEMO_REGION,
        "endpoint": address,
        "iam_endpoint": address,
        "auth": {
            "type": "password",
            "domain": DEMO_DOMAIN,
            "username": DEMO_USER,
            "password": DEMO_PASSWORD,
        },
    }


def build_demo_config(address: str) -> Config:
    """The six instances of the simulator at `address`."""
    return Config.model_validate(
        {
            "defaults": {"restore_window": True, "full_backups": True},
            "api": {"rate_limit": 0},  # the simulator has none, and whoever tries it waits less
            "projects": [
                {
                    **demo_project(address),
                    "instances": [
                        {
                            "id": instance.id,
                            "name": instance.name,
                            "lookback": f"{instance.lookback_seconds:.0f}s",
                        }
                        for instance in DEMO_INSTANCES
                    ],
                }
            ],
        }
    )


def describe_demo(address: str, telemetry_path: str) -> Iterator[str]:
    yield "The demo runs on a simulated cloud with six instances:"
    for instance in DEMO_INSTANCES:
        yield f"  {instance.name:<12} {instance.what}"
    yield f"Look at {address}/ (status page) and {address}{telemetry_path}. Ctrl-C ends it."
