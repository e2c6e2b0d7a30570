"""The configuration: its shape, its rules, and every problem of a text at once.

`parse_config` is pure; `load_config` reads the file. docs/configuration.md lists every key.
"""

import os
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from exporter.config.durations import parse_duration
from exporter.config.regions import KNOWN_REGIONS, default_endpoint, default_iam_endpoint
from exporter.config.yaml_text import load_yaml
from exporter.errors import ConfigError
from exporter.models import Instance

KeyPath = tuple[str | int, ...]
Problem = tuple[KeyPath, str]


def _problem(message: str) -> PydanticCustomError:
    return PydanticCustomError("config", "{message}", {"message": message})


# Scalars --------------------------------------------------------------------------------------


def _duration(minimum: str, maximum: str) -> BeforeValidator:
    """The annotation of a duration between two bounds, both allowed."""
    bounds = f"from {minimum} to {maximum}"

    def to_seconds(value: object) -> float:
        example = f"must be a duration such as 500ms, 30s, 5m, 1h30m or 7d, {bounds}"
        if isinstance(value, int) and value != 0 and not isinstance(value, bool):
            raise _problem(f"{example} (a unit is missing)")
        try:
            seconds = parse_duration("0" if value == 0 else _text_of(value))
        except ValueError:
            raise _problem(example) from None
        if not parse_duration(minimum) <= seconds <= parse_duration(maximum):
            raise _problem(f"must be {bounds}")
        return seconds

    return BeforeValidator(to_seconds)


def _number(minimum: int, maximum: int, *, whole: bool) -> BeforeValidator:
    """The annotation of a number between two bounds, both allowed."""
    message = f"must be a {'whole ' if whole else ''}number from {minimum} to {maximum}"

    def to_number(value: object) -> float:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
            value = float(value)  # out of the environment
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise _problem(message)
        # In this order: neither infinity nor a thousand digits become an integer or a float.
        if not minimum <= value <= maximum or (whole and value != int(value)):
            raise _problem(message)
        return int(value) if whole else float(value)

    return BeforeValidator(to_number)


def _text_of(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _to_bool(value: object) -> bool:
    # As text: out of the environment.
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise _problem("must be true or false")
    return value


_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NETWORK_LOCATION = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


def _check_id(value: str) -> str:
    # The id becomes a part of the API's path.
    if not _ID.fullmatch(value):
        raise _problem("must be 1 to 64 letters, digits, '-' or '_'")
    return value


def _is_http_url(value: str, *, userinfo: bool = False) -> bool:
    """Whether this is `http(s)://host[:port]`, with `user:password@` where that is allowed."""
    try:
        parts = urlsplit(value)
        location = parts.netloc.rpartition("@")[2] if userinfo else parts.netloc
        return (
            parts.scheme in ("http", "https")
            and _NETWORK_LOCATION.fullmatch(location) is not None
            and parts.port != 0
            and parts.path in ("", "/")
            and not parts.query
            and not parts.fragment
            and value.isprintable()
            and " " not in value
        )
    except ValueError:
        return False


def _check_endpoint(value: str) -> str:
    if not _is_http_url(value):
        raise _problem("must be a URL like https://host or https://host:port, without a path")
    return value.rstrip("/")


def _check_proxy(value: SecretStr) -> SecretStr:
    # A proxy's URL may hold its password: kept as a secret.
    if not _is_http_url(value.get_secret_value(), userinfo=True):
        raise _problem("must be a URL like http://host:port or http://user:password@host:port")
    return value


def _to_path(value: object, info: ValidationInfo) -> Path:
    """Relative paths start at the folder of the configuration, as in Prometheus."""
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        raise _problem("must be the path of a file")
    folder = (info.context or {}).get("folder") or Path()
    return Path(folder) / value


def _check_secret(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value()
    if not secret:
        raise _problem("must not be empty")
    if "\n" in secret or "\r" in secret:
        raise _problem("must be one line: it holds a line break")
    return value


def _check_header(value: SecretStr) -> SecretStr:
    # What a header cannot carry would fail at each request.
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise _problem("must be printable ASCII characters without spaces")
    return value


def _check_access_key(value: str) -> str:
    _check_header(SecretStr(value))
    return value


Id = Annotated[str, AfterValidator(_check_id)]
Boolean = Annotated[bool, BeforeValidator(_to_bool)]
Endpoint = Annotated[str, AfterValidator(_check_endpoint)]
FilePath = Annotated[Path, BeforeValidator(_to_path)]
Secret = Annotated[SecretStr, AfterValidator(_check_secret)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_check_secret), AfterValidator(_check_header)]
AccessKey = Annotated[str, AfterValidator(_check_access_key)]
Text = Annotated[str, Field(min_length=1)]
Lookback = Annotated[float, _duration("5m", "732d")]
StaleAfter = Annotated[float, _duration("1s", "732d")]

# Sections -------------------------------------------------------------------------------------


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_is_empty(cls, value: object) -> object:
        """A key without a value (`ca_file:` or `null`) is a key left out."""
        if value is None:
            return {}
        if isinstance(value, dict):
            known = cls.model_fields
            return {
                key: item for key, item in value.items() if item is not None or key not in known
            }
        return value


class Overrides(Section):
    lookback: Lookback | None = None
    stale_after: StaleAfter | None = None
    offsite: Boolean | None = None


class Defaults(Section):
    lookback: Lookback = 86_400.0
    stale_after: StaleAfter = 3_600.0
    offsite: Boolean = False


class ApiConfig(Section):
    timeout: Annotated[float, _duration("1ms", "10m")] = 10.0
    retries: Annotated[int, _number(0, 10, whole=True)] = 2
    max_connections: Annotated[int, _number(1, 10_000, whole=True)] = 50
    rate_limit: Annotated[float, _number(0, 100_000, whole=False)] = 50.0
    resync_interval: Annotated[float, _duration("1s", "732d")] = 21_600.0
    ca_file: FilePath | None = None
    proxy_url: Annotated[SecretStr, AfterValidator(_check_proxy)] | None = None


class ScrapeConfig(Section):
    timeout: Annotated[float, _duration("1ms", "1h")] = 30.0
    timeout_offset: Annotated[float, _duration("0s", "1h")] = 0.5
    min_interval: Annotated[float, _duration("0s", "1d")] = 0.0


class PasswordAuth(Section):
    type: Literal["password"]
    domain: Text
    username: Text
    password: Secret | None = None
    password_file: FilePath | None = None


class AkskAuth(Section):
    type: Literal["aksk"]
    access_key: AccessKey
    secret_key: Secret | None = None
    secret_key_file: FilePath | None = None
    security_token: HeaderSecret | None = None


class EcsAgencyAuth(Section):
    type: Literal["ecs-agency"]
    metadata_endpoint: Endpoint = "http://169.254.169.254"


class StaticTokenAuth(Section):
    type: Literal["token"]
    token: HeaderSecret | None = None
    token_file: FilePath | None = None


class EnvAuth(Section):
    type: Literal["env"] = "env"


def _default_auth_type(value: object) -> object:
    if isinstance(value, dict) and value.get("type") is None:
        return {**value, "type": "env"}
    return value


AuthConfig = Annotated[
    Annotated[
        PasswordAuth | AkskAuth | EcsAgencyAuth | StaticTokenAuth | EnvAuth,
        Field(discriminator="type"),
    ],
    BeforeValidator(_default_auth_type),
]
# Of two keys, exactly one is needed.
ONE_OF = {
    "password": ("password", "password_file"),
    "aksk": ("secret_key", "secret_key_file"),
    "token": ("token", "token_file"),
}
AUTH_TYPES = ("password", "aksk", "ecs-agency", "token", "env")


class InstanceConfig(Overrides):
    id: Id
    name: str = ""


def _id_alone(value: object) -> object:
    return {"id": value} if isinstance(value, (str, int, float)) else value


class DiscoveryConfig(Section):
    enabled: Boolean = True
    refresh_interval: Annotated[float, _duration("1s", "7d")] = 600.0
    name: Text | None = None
    tags: dict[str, str] = {}
    exclude: list[Text] = []

    def wants(self, *, name: str, tags: Mapping[str, str]) -> bool:
        """Whether an instance of this name and these tags passes the filters."""
        return (self.name is None or fnmatchcase(name, self.name)) and all(
            tags.get(key) == value for key, value in self.tags.items()
        )

    def excludes(self, *, instance_id: str, name: str) -> bool:
        return any(instance_id == item or fnmatchcase(name, item) for item in self.exclude)


class ProjectConfig(Overrides):
    id: Id
    name: str = ""
    region: str = ""
    endpoint: Endpoint = ""
    iam_endpoint: Endpoint = ""
    auth: AuthConfig = EnvAuth()
    instances: list[Annotated[InstanceConfig, BeforeValidator(_id_alone)]] = []
    discovery: DiscoveryConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_endpoints(cls, value: object) -> object:
        """The known regions' endpoints, where none is given."""
        if not isinstance(value, dict):
            return value
        region = value.get("region")
        if not isinstance(region, str):
            return value
        filled = dict(value)
        if filled.get("endpoint") is None and (endpoint := default_endpoint(region)):
            filled["endpoint"] = endpoint
        if filled.get("iam_endpoint") is None and (iam := default_iam_endpoint(region)):
            filled["iam_endpoint"] = iam
        return filled

    @property
    def discovers(self) -> bool:
        return self.discovery is not None and self.discovery.enabled


class Config(Section):
    defaults: Defaults = Defaults()
    api: ApiConfig = ApiConfig()
    scrape: ScrapeConfig = ScrapeConfig()
    projects: Annotated[list[ProjectConfig], Field(min_length=1)]

    def instance(self, project: ProjectConfig, instance: InstanceConfig) -> Instance:
        """An instance with what it, its project and the defaults say of it, in that order."""

        def setting(name: str) -> Any:
            for section in (instance, project):
                if (value := getattr(section, name)) is not None:
                    return value
            return getattr(self.defaults, name)

        return Instance(
            project_id=project.id,
            id=instance.id,
            project_name=project.name,
            name=instance.name,
            region=project.region,
            lookback_seconds=setting("lookback"),
            stale_after_seconds=setting("stale_after"),
            offsite=setting("offsite"),
        )

    def discovered_instance(self, project: ProjectConfig, instance_id: str, name: str) -> Instance:
        """An instance that discovery found, with its project's settings."""
        return self.instance(project, InstanceConfig(id=instance_id, name=name))

    def configured_instances(self) -> list[Instance]:
        """All instances that are named, in the order of the text."""
        return [
            self.instance(project, instance)
            for project in self.projects
            for instance in project.instances
        ]


# Rules between keys ---------------------------------------------------------------------------

_REGION_SHAPE = re.compile(r"[a-z]{2,6}(-[a-z]{2,12})+-[0-9]{1,3}")


def _check_relations(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """The problems that lie between keys. Of the plain tree: told even where a key is wrong."""
    projects = tree.get("projects")
    if not isinstance(projects, list):
        return
    yield from _check_repeated(projects, ("projects",), "project")
    for i, project in enumerate(projects):
        if isinstance(project, dict):
            yield from _check_project(project, ("projects", i))


def _check_project(project: Mapping[str, Any], path: KeyPath) -> Iterator[Problem]:
    auth, auth_path = project.get("auth"), (*path, "auth")
    auth_type = auth.get("type") if isinstance(auth, dict) else None
    yield from _check_endpoints(project, path, needs_iam=auth_type == "password")
    if isinstance(auth, dict) and isinstance(auth_type, str) and auth_type in ONE_OF:
        given = [name for name in ONE_OF[auth_type] if auth.get(name) is not None]
        if len(given) != 1:
            either = " and ".join(ONE_OF[auth_type])
            yield auth_path, f"needs one of {either}" + (", not both" if given else "")
    instances, discovery = project.get("instances"), project.get("discovery")
    if instances is None or instances == []:
        if discovery is None:
            yield path, "needs instances, discovery, or both"
        elif isinstance(discovery, dict) and discovery.get("enabled") in (False, "false"):
            yield path, "needs instances: discovery is not enabled"
    if isinstance(instances, list):
        yield from _check_repeated(instances, (*path, "instances"), "instance")


def _check_endpoints(
    project: Mapping[str, Any], path: KeyPath, *, needs_iam: bool
) -> Iterator[Problem]:
    region = project.get("region")
    if region is not None and not isinstance(region, str):
        return
    missing = []
    if project.get("endpoint") is None and not default_endpoint(region or ""):
        missing.append("endpoint")
    if needs_iam and project.get("iam_endpoint") is None and not default_iam_endpoint(region or ""):
        missing.append("iam_endpoint")
    if not missing:
        return
    wanted, known = " and ".join(missing), ", ".join(KNOWN_REGIONS)
    if not region:
        problem = f"is required, unless {wanted} {'is' if len(missing) == 1 else 'are'} set"
    else:
        # Whatever else stands here might be a secret.
        shown = f" for {region}" if _REGION_SHAPE.fullmatch(region) else ""
        problem = f"no default is known{shown}: set {wanted}"
    yield (*path, "region"), f"{problem} (regions with a default: {known})"


def _check_repeated(items: list[Any], path: KeyPath, what: str) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for i, item in enumerate(items):
        id_ = item.get("id") if isinstance(item, dict) else item
        if isinstance(id_, str) and _ID.fullmatch(id_):
            if id_ in first:
                earlier = _written((*path, first[id_]))
                yield (*path, i), f"{what} {id_} is listed twice, first as {earlier}"
            first.setdefault(id_, i)


# Reading --------------------------------------------------------------------------------------

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
        problems.sort(key=lambda problem: _place(tree, problem[0]))
        raise ConfigError(
            [f"{_written(path)}: {message}" if path else message for path, message in problems]
        )
    return config


def _validate(tree: dict[str, Any], folder: Path | None) -> tuple[Config | None, list[Problem]]:
    relations = list(_check_relations(tree))
    try:
        return Config.model_validate(tree, context={"folder": folder}), relations
    except ValidationError as exc:
        return None, [*_describe(exc), *relations]


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
            (name := _key_text(key)): _expand(item, environment, (*path, name), unset)
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


def _key_text(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, (int, float)) and not isinstance(key, bool):
        return str(key) if abs(key) < 1e15 else "number"
    return "null" if key is None else str(key).lower()


def _place(tree: Any, path: KeyPath) -> list[int]:
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


def _written(path: KeyPath) -> str:
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


def _describe(error: ValidationError) -> Iterator[Problem]:
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
