"""One mistake, one problem: keys that are misspelt, not indented, or lack their `type`."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from exporter.config.auth import AUTH_TYPES
from exporter.config.document import KeyPath, Problem
from exporter.config.names import nearest
from exporter.config.problems import sections_in
from exporter.config.schema import Config, ProjectConfig
from exporter.config.section import Section

_AUTH_SECTIONS = {
    get_args(section.model_fields["type"].annotation)[0]: section
    for section in sections_in(ProjectConfig.model_fields["auth"].annotation)
}


def find_misplaced(
    tree: object, section: type[Section] = Config, path: KeyPath = ()
) -> Iterator[tuple[Problem, frozenset[KeyPath]]]:
    """Each problem with the paths of the unknown keys that it explains."""
    if isinstance(tree, list):
        for i, item in enumerate(tree):
            yield from find_misplaced(item, section, (*path, i))
    if not isinstance(tree, dict):
        return
    unknown = [key for key in tree if key not in section.model_fields]
    for name, field in section.model_fields.items():
        sections, here = sections_in(field.annotation), (*path, name)
        if not sections or name not in tree:
            continue
        if tree[name] is None:
            known = {key for inner in sections for key in inner.model_fields}
            if strayed := [key for key in unknown if key in known]:
                problem = f"is empty: indent {_listed(strayed)} below it further than itself"
                yield Problem(here, problem), frozenset((*path, key) for key in strayed)
        elif name == "auth":
            yield from _find_missing_type(tree[name], here)
        else:
            yield from find_misplaced(tree[name], sections[0], here)


def _find_missing_type(auth: object, path: KeyPath) -> Iterator[tuple[Problem, frozenset[KeyPath]]]:
    if not isinstance(auth, dict) or auth.get("type") is not None:
        return
    strayed = [key for key in auth if key not in _AUTH_SECTIONS["env"].model_fields]
    fitting = {
        type_: [key for key in strayed if key in _AUTH_SECTIONS[type_].model_fields]
        for type_ in AUTH_TYPES
    }
    most = max(map(len, fitting.values()))
    if most == 0:
        return
    types = [type_ for type_, keys in fitting.items() if len(keys) == most]
    problem = f"is required: {_listed(fitting[types[0]])} belong to type {' or '.join(types)}"
    yield Problem((*path, "type"), problem), frozenset((*path, key) for key in strayed)


def correct_names(tree: Any, section: type[Section] | None = Config) -> Any:
    """The tree as it was probably meant: a misspelt key counts as the one that is nearest."""
    if isinstance(tree, list):
        return [correct_names(item, section) for item in tree]
    if not isinstance(tree, dict) or section is None:
        return tree
    missing = [name for name in section.model_fields if name not in tree]
    corrected = {}
    for key, value in tree.items():
        is_known = key in section.model_fields or value is None
        name = key if is_known else nearest(key, missing) or key
        corrected[name] = correct_names(value, _section_of(section, name, value))
    return corrected


def _section_of(parent: type[Section], name: str, value: object) -> type[Section] | None:
    if name not in parent.model_fields:
        return None
    sections = sections_in(parent.model_fields[name].annotation)
    if name == "auth":
        return _AUTH_SECTIONS.get(str(value.get("type"))) if isinstance(value, dict) else None
    return sections[0] if sections else None


def has_value(tree: Any, path: KeyPath) -> bool:
    for part in path:
        keys = range(len(tree)) if isinstance(tree, list) else tree
        if not isinstance(keys, (Mapping, range)) or part not in keys:
            return False
        tree = tree[part]
    return tree is not None


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
