"""Reads one YAML document strictly, for every file that a person writes for this program."""

from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass

import yaml

from exporter.config.document import (
    Document,
    Place,
    is_plainly_a_name,
    place_of_node,
    write_problem,
)
from exporter.config.files import MAX_TEXT_BYTES, TOO_LARGE
from exporter.config.yaml_mistakes import MAX_DEPTH, explain, odd_space_in
from exporter.errors import ConfigError

if yaml.__with_libyaml__:
    # Four times as fast: a configuration of 10,000 instances in under a second.
    from yaml import CSafeLoader as _SafeLoader
else:  # pragma: no cover - wheels of PyYAML carry libyaml; this is for those who build it without
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

MAX_NODES = 1_000_000  # after aliases are written out; plain text of 1 MiB holds half as many

_STRING_TAGS = ("!", "tag:yaml.org,2002:str")
_MERGE_TAG = "tag:yaml.org,2002:merge"
_SURPRISING_TAGS = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")


class _Loader(_SafeLoader):
    """A plain `2024-01-01` stays text: no setting is a date, and impossible dates would raise."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _SURPRISING_TAGS]
    for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
}


def load_yaml(text: str, name: str, *, keys: Collection[str] = ()) -> Document:
    """The document in `text`, the file `name`'s; its value is None if there is none.

    Raises ConfigError, each problem with file, line and column: text that is no YAML, more than one
    document, keys that are there twice, tags other than `!!str`, text over 1 MiB, nesting or
    aliases without end. A message never quotes a value, for it might be a secret, and of names
    only those in `keys`.
    """
    if len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
        raise ConfigError([write_problem(name, None, TOO_LARGE)])
    try:
        _check_shape(text)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return Document(name, None)
            problems = sorted(_find_oddities(loader, root))
            if problems:
                raise ConfigError([write_problem(name, *problem) for problem in problems])
            return Document(name, loader.construct_document(root), root)
        finally:
            loader.dispose()
    except _ShapeError as exc:
        raise ConfigError([write_problem(name, exc.place, exc.problem)]) from None
    except yaml.MarkedYAMLError as exc:
        raise ConfigError([write_problem(name, *explain(text, exc, keys))]) from None
    except (yaml.YAMLError, ValueError) as exc:
        # Characters that YAML does not have, or a number that Python does not.
        problem = (
            str(exc).splitlines()[0] if isinstance(exc, yaml.YAMLError) else "unreadable value"
        )
        raise ConfigError([write_problem(name, None, f"not readable as YAML: {problem}")]) from None


class _ShapeError(Exception):
    """What must not be built."""

    def __init__(self, event: yaml.Event, problem: str) -> None:
        super().__init__(problem)
        assert event.start_mark is not None
        self.place = event.start_mark.line + 1, event.start_mark.column + 1
        self.problem = problem


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
                raise _ShapeError(
                    event,
                    "an alias without a finished anchor;"
                    " put a value that begins with '*' in quotes",
                )
            _grow(branches, nodes=aliased.nodes, height=aliased.height, event=event)
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.tag is not None and event.tag not in _STRING_TAGS:
                raise _ShapeError(
                    event,
                    "tags are not supported; put a value that begins with '!' in quotes",
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
        raise _ShapeError(event, f"nested over {MAX_DEPTH} levels deep")
    if innermost.nodes > MAX_NODES:
        raise _ShapeError(event, f"aliases grow to over {MAX_NODES} values")


def _find_oddities(loader: _Loader, document: yaml.Node) -> Iterator[tuple[Place, str]]:
    """Keys that are there twice, and characters that only look like spaces."""
    seen: set[int] = set()
    waiting = [document]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # another alias led here
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            # In quotes it is meant.
            if not node.style and (odd := odd_space_in(node.value)) is not None:
                yield place_of_node(node), f"there is {odd}: type a plain space in its place"
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            waiting.extend(part for pair in node.value for part in pair)
            yield from _duplicate_keys(loader, node)


def _duplicate_keys(loader: _Loader, mapping: yaml.MappingNode) -> Iterator[tuple[Place, str]]:
    first: dict[Hashable, Place] = {}
    for node, _ in mapping.value:
        if not isinstance(node, yaml.ScalarNode):
            continue  # refused when it is built
        key = node.value if node.tag == _MERGE_TAG else loader.construct_object(node)
        if key in first:
            line, column = first[key]
            shown = node.value if is_plainly_a_name(node.value) else "a key"
            yield (
                place_of_node(node),
                f"{shown} is there twice (first on line {line}, column {column})",
            )
        first.setdefault(key, place_of_node(node))
