"""What is wrong with a configuration, in words for the person who wrote it."""

import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from exporter.config.schema import AUTH_TYPES, Config

KeyPath = tuple[str | int, ...]
Problem = tuple[KeyPath, str]
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


def key_text(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, (int, float)) and not isinstance(key, bool):
        return str(key) if abs(key) < 1e15 else "number"
    return "null" if key is None else str(key).lower()


def place_of(tree: Any, path: KeyPath) -> list[int]:
    """Sorts problems by where they are in the text."""
    place = []
    for part in path:
        if isinstance(tree, dict):
            keys = list(tree)
            place.append(keys.index(str(part)) if part in tree else len(keys))
            tree = tree.get(part)
        elif isinstance(tree, list) and isinstance(part, int):
            place.append(part)
            tree = tree[part] if part < len(tree) else None
    return place


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


def describe_validation(error: ValidationError) -> Iterator[Problem]:
    for details in error.errors(include_url=False):
        path, auth_type = details["loc"], None
        if path[2:3] == ("auth",) and len(path) > 3:
            # pydantic's path goes through the type: projects, 0, auth, password, domain.
            path, auth_type = (*path[:3], *path[4:]), path[3]
        yield _describe_one(details, path, auth_type)


def _describe_one(details: ErrorDetails, path: KeyPath, auth_type: str | int | None) -> Problem:
    if details["type"] == "union_tag_invalid":
        return (*path, "type"), f"must be one of {', '.join(AUTH_TYPES)}"
    if details["type"] != "extra_forbidden":
        return path, _MESSAGES.get(details["type"], details["msg"])
    where = f" for auth type {auth_type}" if auth_type else " here"
    allowed = f"allowed{where}: {', '.join(_keys_at(Config, path[:-1], auth_type))}"
    if details["input"] is None:
        # `{type: password, hunter2}`: a value whose key is missing looks like a key.
        return path[:-1], f"unknown key without a value (it is not shown); {allowed}"
    return path, f"unknown key; {allowed}"


def _keys_at(model: type[BaseModel], path: KeyPath, auth_type: object) -> list[str]:
    """The keys that are allowed at a path, for the message about one that is not."""
    current: type[BaseModel] = model
    for part in path:
        if isinstance(part, int):
            continue
        choices = list(_models_in(current.model_fields[part].annotation))
        current = next(
            (
                choice
                for choice in choices
                if "type" in choice.model_fields
                and auth_type in get_args(choice.model_fields["type"].annotation)
            ),
            choices[0],
        )
    return list(current.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, list):
        for argument in get_args(annotation):
            yield from _models_in(argument)
