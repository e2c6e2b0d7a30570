"""Reading a configuration: YAML, variables of the environment, every problem at once."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from exporter.config.document import Document, KeyPath, Problem, key_text
from exporter.config.files import certificate_fault, read_text
from exporter.config.misplaced import correct_names, find_misplaced, has_value
from exporter.config.problems import ALL_KEYS, describe_validation
from exporter.config.rules import find_conflicts
from exporter.config.schema import Config
from exporter.config.yaml_text import load_yaml

_VARIABLE = re.compile(r"\$(?:(\$)|\{([^}]*)(\}?))")
# systemd sets it for units alone, so it is missed by whoever checks by hand.
_OF_SYSTEMD = (
    "it is systemd's, for a unit with LoadCredential=: outside of it, set it to a folder with"
    " copies of those files"
)


class _Unresolved:
    """Stands where a variable is missing: no rule takes it, and its own problem is told already."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration with what it was made of: what is odd about it is told with its place."""

    config: Config
    document: Document
    tree: Mapping[str, Any] = field(repr=False)  # the plain values, variables put in


def parse_config(
    text: str,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    name: str = "config.yaml",
) -> Config:
    """The configuration in `text`, the file `name`'s; relative paths in it start at `folder`.

    Raises ConfigError with every problem that was found, each with its place and path. No message
    holds a value that might be a secret.
    """
    return _parse(text, environment or {}, folder=folder, name=name).config


def load_config(path: Path, *, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration in a file; ConfigError also where the file cannot be read."""
    return read_config(path, environment=environment).config


def read_config(
    path: Path, *, environment: Mapping[str, str] | None = None, hint: str = ""
) -> Loaded:
    """Like `load_config`; `hint` is added where the file cannot be opened."""
    loaded = _parse(
        read_text(path, hint=hint),
        os.environ if environment is None else environment,
        folder=path.parent,
        name=str(path),
    )
    if problems := list(_find_faulty_files(loaded.config)):
        raise loaded.document.error(problems)
    return loaded


def _parse(text: str, environment: Mapping[str, str], *, folder: Path | None, name: str) -> Loaded:
    document = load_yaml(text, name, keys=ALL_KEYS)
    if document.value is None:
        problem = "the configuration is empty: at least one project is needed"
        raise document.error([Problem((), problem)])
    if not isinstance(document.value, dict):
        problem = "the configuration must be a mapping with the key projects"
        raise document.error([Problem((), problem)])
    unset: list[Problem] = []
    tree = _expand(document.value, environment, (), unset)
    try:
        config = Config.model_validate(tree, context={"folder": folder})
        problems = list(find_conflicts(tree))
    except ValidationError as exc:
        config, problems = None, list(_explain(tree, describe_validation(exc)))
    told = {problem.path for problem in unset}
    problems = [*unset, *(problem for problem in problems if problem.path not in told)]
    if problems or config is None:
        raise document.error(problems)
    return Loaded(config, document, tree)


def _explain(tree: dict[str, Any], found: Iterable[Problem]) -> Iterator[Problem]:
    """All problems of a tree in which values were `found` wrong: one for each mistake."""
    corrected = correct_names(tree)
    said: set[KeyPath] = set()
    for problem, explained in find_misplaced(tree):
        said |= explained
        yield problem
    for problem in found:
        # What is missing under its name, and there under nearly its name, is told once.
        is_there = problem.message == "is required" and has_value(corrected, problem.path)
        if problem.path not in said and not is_there:
            yield problem
    yield from find_conflicts(corrected)


def _find_faulty_files(config: Config) -> Iterator[Problem]:
    if config.api.ca_file is not None and (fault := certificate_fault(config.api.ca_file)):
        yield Problem(("api", "ca_file"), fault)


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
            return ""
        value = environment.get(name)
        # In another form it may be a part of a password with a dollar in it.
        shown = f"variable {name}" if name.isupper() else "variable that is named here"
        if value is None:
            hint = _OF_SYSTEMD if name == "CREDENTIALS_DIRECTORY" else "$$ is a dollar"
            problems.append(f"the environment {shown} is not set ({hint})")
        elif not _is_text(value):
            problems.append(f"the environment {shown} holds bytes that are not UTF-8 text")
        else:
            return value
        return ""

    expanded = _VARIABLE.sub(replace, node)
    unset.extend(Problem(path, problem) for problem in dict.fromkeys(problems))
    return _Unresolved() if problems else expanded


def _is_text(value: str) -> bool:
    """Bytes of the environment that are no text arrive as halves of surrogate pairs."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
