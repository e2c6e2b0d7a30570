"""A configuration, as text, of the project that the demo's simulated cloud has."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from exporter.simulator import (
    DEMO_DOMAIN,
    DEMO_PASSWORD,
    DEMO_PROJECT_ID,
    DEMO_REGION,
    DEMO_USER,
)


def demo_config(
    address: str, instances: Iterable[str | Mapping[str, str]], *, name: str = "", **sections: Any
) -> str:
    """Watches `instances`, ids or settings of the simulator at `address`; `sections` are those
    beside `projects`."""
    project = {
        "id": DEMO_PROJECT_ID,
        "name": name or None,
        "region": DEMO_REGION,
        "endpoint": address,
        "iam_endpoint": address,
        "auth": {
            "type": "password",
            "domain": DEMO_DOMAIN,
            "username": DEMO_USER,
            "password": DEMO_PASSWORD,
        },
        "instances": list(instances),
    }
    return yaml.safe_dump({**sections, "projects": [project]}, sort_keys=False, allow_unicode=True)
