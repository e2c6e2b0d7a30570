"""A document that a person wrote: its values, where each is written, and how problems are told."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import yaml

from exporter.errors import ConfigError

KeyPath = tuple[str | int, ...]
Place = tuple[int, int]  # line and column, both from 1
_BEGINNING = (1, 1)


class Problem(NamedTuple):
    """What is wrong with the key at a path, and `at` which one to look, where that is another."""

    path: KeyPath
    message: str
    at: KeyPath | None = None


def key_text(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, (int, float)) and not isinstance(key, bool):
        return str(key) if abs(key) < 1e15 else "number"
    return "null" if key is None else str(key).lower()


def is_plainly_a_name(key: str) -> bool:
    """Whether a key may be shown that is none of ours: no key has a digit, but passwords do."""
    return re.fullmatch(r"[A-Za-z_.-]{1,40}", key) is not None


def write_path(path: KeyPath) -> str:
    """A path as people write it: projects[1].region."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            # A key of another form may be a secret without its key before it.
            shown = part if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", part) else "(not shown)"
            text += f".{shown}" if text else shown
    return text


def write_problem(name: str, place: Place | None, message: str) -> str:
    where = f"{name}:{place[0]}:{place[1]}" if place is not None else name
    return f"{where}: {message}"


@dataclass(frozen=True, slots=True)
class Document:
    """What was read from the file `name`."""

    name: str
    value: object
    _root: yaml.Node | None = field(default=None, repr=False, compare=False)

    def place_of(self, path: KeyPath) -> Place:
        """Where the key or entry at a path is written; of one that is not there, its parent."""
        place, node = _BEGINNING, self._root
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            place, node = found
        return place

    def describe(self, problems: Iterable[Problem], *, kind: str = "") -> list[str]:
        """`FILE:LINE:COLUMN: path.of.key: what is wrong`, in the order of the text."""
        placed = [(self.place_of(problem.at or problem.path), problem) for problem in problems]
        placed.sort(key=lambda item: item[0])
        return [
            write_problem(
                self.name,
                place,
                kind + (f"{write_path(path)}: {message}" if path else message),
            )
            for place, (path, message, _) in placed
        ]

    def error(self, problems: Iterable[Problem]) -> ConfigError:
        return ConfigError(self.describe(problems))


def place_of_node(node: yaml.Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _child(node: yaml.Node | None, part: str | int) -> tuple[Place, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # a mapping's own keys stand after merged ones
            if str(part) in _names_of(key):
                return place_of_node(key), value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return place_of_node(node.value[part]), node.value[part]
    return None


def _names_of(key: yaml.Node) -> Iterator[str]:
    yield key.value
    if key.tag == "tag:yaml.org,2002:bool":  # `on:` became True
        yield key_text(yaml.SafeLoader.bool_values[key.value.lower()])
    elif key.tag == "tag:yaml.org,2002:null":
        yield "null"
    elif key.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
        yield key_text(yaml.safe_load(key.value))
