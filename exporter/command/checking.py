"""Reading what the flags name: the same for `--config.check` and for serving."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from exporter.config.load import Loaded, read_config
from exporter.config.warnings import find_warnings
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
    return Checked(summary, find_warnings(loaded))


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
