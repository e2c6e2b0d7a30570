"""Reading a configuration: YAML, variables of the environment, every problem at once."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from exporter.config.problems import (
    KeyPath,
    Problem,
    describe_validation,
    key_text,
    place_of,
    write_path,
)
from exporter.config.rules import find_conflicts
from exporter.config.schema import Config
from exporter.config.yaml_text import load_yaml
from exporter.errors import ConfigError

_VARIABLE = re.compile(r"\$(?:(\$)|\{([^}]*)(\}?))")


class _Unresolved:
    """Stands where a variable is missing: no rule takes it, and its own problem is told already."""


def parse_config(
    text: str, *, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Config:
    """The configuration in `text`; relative paths in it start at `folder`.

    Raises ConfigError with every problem that was found, each with its path. No message holds a
    value that might be a secret.
    """
    document = load_yaml(text)
    if document is None:
        raise ConfigError(["the configuration is empty: at least one project is needed"])
    if not isinstance(document, dict):
        raise ConfigError(["the configuration must be a mapping with the key projects"])
    problems: list[Problem] = []
    tree = _expand(document, environment or {}, (), problems)
    config, found = _validate(tree, folder)
    unresolved = {path for path, _ in problems}
    problems += [problem for problem in found if problem[0] not in unresolved]
    if problems or config is None:
        problems.sort(key=lambda problem: place_of(tree, problem[0]))
        raise ConfigError(
            [f"{write_path(path)}: {message}" if path else message for path, message in problems]
        )
    return config


def _validate(tree: dict[str, Any], folder: Path | None) -> tuple[Config | None, list[Problem]]:
    relations = list(find_conflicts(tree))
    try:
        return Config.model_validate(tree, context={"folder": folder}), relations
    except ValidationError as exc:
        return None, [*describe_validation(exc), *relations]


def load_config(path: Path, *, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration in a file; ConfigError also where the file cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise ConfigError([f"cannot read {path}: {reason}; name it with --config.file"]) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError([f"{path} is not UTF-8 text (byte {exc.start})"]) from exc
    return parse_config(
        text,
        environment=os.environ if environment is None else environment,
        folder=path.parent,
    )


def _expand(node: Any, environment: Mapping[str, str], path: KeyPath, unset: list[Problem]) -> Any:
    """`node` with the environment's values in its strings, and with all keys as text.

    What cannot be expanded is added to `unset`.
    """
    if isinstance(node, dict):
        return {
            (name := key_text(key)): _expand(item, environment, (*path, name), unset)
            for key, item in node.items()
        }
    if isinstance(node, list):
        return [_expand(item, environment, (*path, i), unset) for i, item in enumerate(node)]
    if not isinstance(node, str) or "$" not in node:
        return node
    problems: list[str] = []

    def replace(match: re.Match[str]) -> str:
        dollar, name, closed = match.groups()
        if dollar:
            return "$"
        if not closed or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            problems.append("write ${NAME} for an environment variable, $$ for a dollar")
        elif name not in environment:
            # In another form it may be a part of a password with a dollar in it.
            shown = f"variable {name}" if name.isupper() else "variable that is named here"
            problems.append(f"the environment {shown} is not set ($$ is a dollar)")
        else:
            return environment[name]
        return ""

    expanded = _VARIABLE.sub(replace, node)
    unset.extend((path, problem) for problem in dict.fromkeys(problems))
    return _Unresolved() if problems else expanded
