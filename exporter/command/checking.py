"""Reading what the flags name: the same for `--config.check` and for serving."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from exporter.config.document import Problem
from exporter.config.load import Loaded, read_config
from exporter.config.warnings import find_warnings
from exporter.credentials.describe import WayIn, describe_ways
from exporter.errors import ConfigError
from exporter.reporting import logs
from exporter.reporting.redaction import SecretRegistry
from exporter.web.listener import parse_listen_addresses
from exporter.web.live_config import LoadedWebConfig

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check has found that keeps nothing from starting."""

    summary: str
    ways_in: Sequence[str]
    warnings: Sequence[str]


def check(options: argparse.Namespace) -> Checked:
    """`--config.check`: ConfigError with all that would keep serving from starting."""
    problems: list[str] = []
    loaded = _attempt(lambda: read_configuration(options), problems)
    with logs.logging_to(
        None, level=options.log_level, log_format=options.log_format, registry=SecretRegistry()
    ):
        _attempt(lambda: load_web_configuration(options), problems)
    _attempt(lambda: parse_listen_addresses(options.listen_addresses), problems)
    if problems or loaded is None:
        raise ConfigError(problems)
    projects, instances = len(loaded.config.projects), len(loaded.config.configured_instances())
    summary = f"config OK: {projects} projects, {instances} instances"
    ways = describe_ways(loaded.config, os.environ)
    return Checked(
        summary,
        # Where the configuration says it all, or something is missing, there is no more to say.
        [
            f"project {way.project_id} logs in with {way.text}"
            for way in ways
            if way.is_looked_up and not way.missing
        ],
        find_all_warnings(loaded, ways),
    )


def find_all_warnings(loaded: Loaded, ways: Sequence[WayIn] | None = None) -> list[str]:
    """What is odd about the configuration, and what its projects lack to log in."""
    ways = describe_ways(loaded.config, os.environ) if ways is None else ways
    missing = (
        Problem(("projects", i, "auth"), line) for i, way in enumerate(ways) for line in way.missing
    )
    return [*find_warnings(loaded), *loaded.document.describe(missing, kind="warning: ")]


def read_configuration(options: argparse.Namespace) -> Loaded:
    is_default = "config_file" not in options.given
    hint = " (the default; another one is named with --config.file)" if is_default else ""
    return read_config(options.config_file, hint=hint)


def load_web_configuration(options: argparse.Namespace) -> LoadedWebConfig | None:
    path = options.web_config_file
    return LoadedWebConfig(path) if path is not None else None


def _attempt(look: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return look()
    except ConfigError as exc:
        problems += exc.problems
        return None
