"""What is wrong with a configuration, in words for the person who wrote it."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from exporter.config.auth import AUTH_TYPES, KEYLESS_TYPES
from exporter.config.document import KeyPath, Problem, is_plainly_a_name, write_path
from exporter.config.names import nearest
from exporter.config.schema import Config
from exporter.config.section import Section
from exporter.config.yaml_mistakes import lumped_key

_MESSAGES = {
    "missing": "is required",
    "string_type": "must be text; put it in quotes if it looks like a number or a truth value",
    "string_too_short": "must not be empty",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "too_short": "needs at least one entry",
}


def describe_validation(error: ValidationError) -> Iterator[Problem]:
    for details in error.errors(include_url=False):
        path, auth_type = details["loc"], None
        if path[2:3] == ("auth",) and len(path) > 3:
            # pydantic's path goes through the type: projects, 0, auth, password, domain.
            path, auth_type = (*path[:3], *path[4:]), path[3]
        yield _describe_one(details, path, auth_type)


def _describe_one(details: ErrorDetails, path: KeyPath, auth_type: str | int | None) -> Problem:
    given = details["input"]
    if details["type"] == "union_tag_invalid":
        meant = _meant(given.get("type") if isinstance(given, dict) else None, AUTH_TYPES)
        return Problem((*path, "type"), f"must be one of {', '.join(AUTH_TYPES)}{meant}")
    if details["type"] == "extra_forbidden":
        return _describe_unknown(path, auth_type, given)
    message = _MESSAGES.get(details["type"], details["msg"])
    if message == "must be a mapping" and isinstance(given, str):
        if (key := lumped_key(given, ALL_KEYS)) is not None:
            message += f": a space is missing after '{key}:'"
    elif message == "must be a list":
        message += ": begin each of its entries with '- '"
    return Problem(path, message)


def _describe_unknown(path: KeyPath, auth_type: str | int | None, given: object) -> Problem:
    where = f" for auth type {auth_type}" if auth_type else " here"
    keys = keys_at(path[:-1], auth_type)
    allowed = f"allowed{where}: {', '.join(keys)}"
    name = str(path[-1])
    if given is None:
        # `{type: password, hunter2}`: a value whose key is missing looks like a key.
        problem = f"unknown key without a value (it is not shown); {allowed}"
        if (key := lumped_key(name, ALL_KEYS)) is not None:
            problem = f"a space is missing after '{key}:'"
        return Problem(path[:-1], problem, at=path)
    if name == "assume_agency" and auth_type in KEYLESS_TYPES:
        return Problem(path, f"auth type {auth_type} has no keys to assume an agency with")
    meant = _meant(name, keys)
    if not meant and not is_plainly_a_name(name):
        return Problem(path[:-1], f"unknown key (it is not shown); {allowed}", at=path)
    if not meant and (homes := homes_of(name)):
        meant = f"; it belongs to {' or '.join(homes)}"
    return Problem(path, f"unknown key; {allowed}{meant}")


def _meant(name: object, allowed: tuple[str, ...]) -> str:
    near = nearest(name, allowed) if isinstance(name, str) else None
    return f"; did you mean {near}?" if near is not None else ""


def keys_at(path: KeyPath, auth_type: object = None) -> tuple[str, ...]:
    """The keys that are allowed at a path."""
    current: type[Section] = Config
    for part in path:
        if isinstance(part, int):
            continue
        choices = sections_in(current.model_fields[part].annotation)
        current = next(
            (
                choice
                for choice in choices
                if "type" in choice.model_fields
                and auth_type in get_args(choice.model_fields["type"].annotation)
            ),
            choices[0],
        )
    return tuple(current.model_fields)


def sections_in(annotation: Any) -> tuple[type[Section], ...]:
    """The sections that a key of this type may hold; none for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return (annotation,)
    if get_origin(annotation) in (Union, UnionType, Annotated, list):
        return tuple(model for argument in get_args(annotation) for model in sections_in(argument))
    return ()


def _walk(section: type[Section], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Each key of the configuration with the path of its section."""
    for name, field in section.model_fields.items():
        yield path, name
        for inner in sections_in(field.annotation):
            yield from _walk(inner, (*path, name))


_HOMES: dict[str, dict[str, None]] = {}
for _path, _name in _walk(Config, ()):
    _HOMES.setdefault(_name, {})[write_path(_path)] = None
ALL_KEYS = frozenset(_HOMES)
"""Every name that a configuration may hold: what a message may show."""


def homes_of(key: str) -> tuple[str, ...]:
    """The sections that know a key: what to say of one that is in the wrong place."""
    return tuple(home or "the top" for home in _HOMES.get(key, ()))
