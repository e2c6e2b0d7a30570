"""A configuration, as text, of the project that the demo's simulated cloud has."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from exporter.demo import demo_project


def demo_config(
    address: str, instances: Iterable[str | Mapping[str, str]], *, name: str = "", **sections: Any
) -> str:
    """Watches `instances`, ids or settings of the simulator at `address`; `sections` are those
    beside `projects`."""
    project = {**demo_project(address), "name": name or None, "instances": list(instances)}
    return yaml.safe_dump({**sections, "projects": [project]}, sort_keys=False, allow_unicode=True)
