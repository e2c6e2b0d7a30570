"""Reads one YAML document strictly, for every file that a person writes for this program."""

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Protocol

import yaml

from exporter.errors import ConfigError

if yaml.__with_libyaml__:
    # Four times as fast: a configuration of 10,000 instances in under a second.
    from yaml import CSafeLoader as _SafeLoader
else:  # pragma: no cover - wheels of PyYAML carry libyaml; this is for those who build it without
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

MAX_TEXT_BYTES = 1024 * 1024
MAX_DEPTH = 100
MAX_NODES = 1_000_000  # after aliases are written out; plain text of 1 MiB holds half as many

_STRING_TAGS = ("!", "tag:yaml.org,2002:str")
_MERGE_TAG = "tag:yaml.org,2002:merge"
_SURPRISING_TAGS = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")


class _Mark(Protocol):
    """A place in the text: libyaml and the Python parser have a class each."""

    line: int
    column: int


class _Loader(_SafeLoader):
    """A plain `2024-01-01` stays text: no setting is a date, and impossible dates would raise."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _SURPRISING_TAGS]
    for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
}


def load_yaml(text: str) -> object:
    """The document in `text` as dicts, lists and scalars; None if there is none.

    Raises ConfigError, each problem with its line and column: text that is no YAML, more than one
    document, keys that are there twice, tags other than `!!str`, text over 1 MiB, nesting or
    aliases without end. A message never quotes a value: it might be a secret.
    """
    if len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
        raise ConfigError(["the file is larger than 1 MiB: split it, or discover the instances"])
    try:
        _check_shape(text)
        loader = _Loader(text)
        try:
            document = loader.get_single_node()
            if document is None:
                return None
            problems = list(_duplicate_keys(loader, document))
            if problems:
                raise ConfigError(problems)
            loaded: object = loader.construct_document(document)
            return loaded
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as exc:
        raise ConfigError([describe_validation(exc)]) from None
    except (yaml.YAMLError, ValueError) as exc:
        # Characters that YAML does not have, or a number that Python does not.
        problem = (
            str(exc).splitlines()[0] if isinstance(exc, yaml.YAMLError) else "unreadable value"
        )
        raise ConfigError([f"not readable as YAML: {problem}"]) from None


@dataclass(slots=True)
class _Branch:
    """A node on the way from the root to where the reader is."""

    anchor: str | None
    nodes: int = 1
    height: int = 1


def _check_shape(text: str) -> None:
    """Raises ConfigError for what would exhaust memory or stack if it were built.

    Looks at the stream of events only: libyaml's composer recurses in C and crashes on deep
    nesting, and aliases grow only when they are followed.
    """
    anchors: dict[str, _Branch] = {}
    branches = [_Branch(anchor=None)]
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            # The parser refuses neither an alias inside its own anchor nor one without an anchor.
            aliased = anchors.get(event.anchor or "")
            if aliased is None:
                raise ConfigError(
                    [
                        f"{place_of(event.start_mark)}: an alias without a finished anchor;"
                        " put a value that begins with '*' in quotes"
                    ]
                )
            _grow(branches, nodes=aliased.nodes, height=aliased.height, event=event)
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.tag is not None and event.tag not in _STRING_TAGS:
                raise ConfigError(
                    [
                        f"{place_of(event.start_mark)}: tags are not supported;"
                        " put a value that begins with '!' in quotes"
                    ]
                )
            _grow(branches, nodes=1, height=1, event=event)
            branch = _Branch(event.anchor)
            if isinstance(event, yaml.CollectionStartEvent):
                branches.append(branch)
            elif branch.anchor is not None:
                anchors[branch.anchor] = branch
        elif isinstance(event, yaml.CollectionEndEvent):
            branch = branches.pop()
            # The node itself was counted at its start.
            _grow(branches, nodes=branch.nodes - 1, height=branch.height, event=event)
            if branch.anchor is not None:
                anchors[branch.anchor] = branch


def _grow(branches: list[_Branch], *, nodes: int, height: int, event: yaml.Event) -> None:
    innermost = branches[-1]
    innermost.nodes += nodes
    innermost.height = max(innermost.height, height + 1)
    if len(branches) + height > MAX_DEPTH:
        raise ConfigError([f"{place_of(event.start_mark)}: nested over {MAX_DEPTH} levels deep"])
    if innermost.nodes > MAX_NODES:
        raise ConfigError(
            [f"{place_of(event.start_mark)}: aliases grow to over {MAX_NODES} values"]
        )


def _duplicate_keys(loader: _Loader, document: yaml.Node) -> Iterator[str]:
    seen: set[int] = set()
    waiting = [document]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # another alias led here
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(reversed(node.value))
        elif isinstance(node, yaml.MappingNode):
            waiting.extend(value for _, value in reversed(node.value))
            first: dict[Hashable, _Mark | None] = {}
            for key_node, _ in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    continue  # refused when it is built
                key = (
                    key_node.value
                    if key_node.tag == _MERGE_TAG
                    else loader.construct_object(key_node)
                )
                if key in first:
                    yield (
                        f"{place_of(key_node.start_mark)}: {key_node.value[:64]!r} is there twice"
                        f" (first on {place_of(first[key])})"
                    )
                else:
                    first[key] = key_node.start_mark


def describe_validation(error: yaml.MarkedYAMLError) -> str:
    # PyYAML quotes names of the text (tags, anchors): a password may look like one.
    problem = re.sub(r"'[^'<]{2,}'", "'...'", error.problem or "not YAML")
    context = f"{error.context}: " if error.context else ""
    place = place_of(error.problem_mark or error.context_mark)
    hint = ""
    if "cannot start any token" in problem:
        hint = "; indent with spaces, and put a value that begins with @, ` or % in quotes"
    elif "mapping values are not allowed" in problem:
        hint = "; check the indentation, and put a value that holds ': ' in quotes"
    elif "another document" in problem:
        hint = "; remove the line '---'"
    return f"{place}: {context}{problem}{hint}"


def place_of(mark: _Mark | None) -> str:
    if mark is None:
        return "line unknown"
    return f"line {mark.line + 1}, column {mark.column + 1}"
