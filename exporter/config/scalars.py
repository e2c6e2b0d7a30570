"""The values of the configuration: durations, numbers, ids, addresses, secrets."""

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError

from exporter.config.durations import parse_duration

ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NETWORK_LOCATION = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


# What may be shown of a value that is wrong: a number, with a unit or what was taken for one.
_NUMBER_LIKE = re.compile(
    r"[-+]?[0-9]{1,12}([.,:][0-9]{1,9})?"
    r"( ?(ms|[smhdwy]|sec|secs|seconds?|min|mins|minutes?|hrs?|hours?|days?|weeks?|years?|%))?"
    r"|([0-9]{1,9}(ms|[smhdwy]))+|[-+]?inf|nan",
    re.IGNORECASE,
)


def invalid(message: str, value: object = None) -> PydanticCustomError:
    """The error; the value is shown with it where it cannot be a secret."""
    if isinstance(value, bool):
        shown = f", not {str(value).lower()}"
    else:
        text = str(value) if isinstance(value, (str, float)) or _is_short(value) else ""
        shown = f", not {text}" if _NUMBER_LIKE.fullmatch(text) else ""
    return PydanticCustomError("config", "{message}", {"message": message + shown})


def _is_short(value: object) -> bool:
    return isinstance(value, int) and abs(value) < 10**12


def duration_between(minimum: str, maximum: str) -> BeforeValidator:
    """The annotation of a duration between two bounds, both allowed."""
    bounds = f"from {minimum} to {maximum}"

    def to_seconds(value: object) -> float:
        example = f"must be a duration such as 500ms, 30s, 5m, 1h30m or 7d, {bounds}"
        if isinstance(value, int) and value != 0 and not isinstance(value, bool):
            raise invalid(f"{example} (a unit is missing)", value)
        try:
            seconds = parse_duration("0" if value == 0 else _text_of(value))
        except ValueError:
            raise invalid(example, value) from None
        if not parse_duration(minimum) <= seconds <= parse_duration(maximum):
            raise invalid(f"must be {bounds}", value)
        return seconds

    return BeforeValidator(to_seconds)


def number_between(minimum: int, maximum: int, *, whole: bool) -> BeforeValidator:
    """The annotation of a number between two bounds, both allowed."""
    message = f"must be a {'whole ' if whole else ''}number from {minimum} to {maximum}"

    def to_number(given: object) -> float:
        value = given
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
            value = float(value)  # out of the environment
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise invalid(message, given)
        # In this order: neither infinity nor a thousand digits become an integer or a float.
        if not minimum <= value <= maximum or (whole and value != int(value)):
            raise invalid(message, given)
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
        raise invalid("must be true or false", value)
    return value


def _check_id(value: str) -> str:
    # The id becomes a part of the API's path.
    if not ID_PATTERN.fullmatch(value):
        raise invalid(f"must be 1 to 64 letters, digits, '-' or '_': {_id_fault(value)}")
    return value


def _id_fault(value: str) -> str:
    if not value:
        return "it is empty"
    if (odd := re.search(r"[^A-Za-z0-9_-]", value)) is None:
        return f"it has {len(value)} characters"
    if not odd[0].isspace():
        return f"it holds {odd[0]!a}"
    where = (
        "ends with" if odd.end() == len(value) else "begins with" if not odd.start() else "holds"
    )
    return f"it {where} {'a space' if odd[0] == ' ' else f'white space ({odd[0]!a})'}"


def url_fault(value: str, *, userinfo: bool = False) -> str | None:
    """Why this is no `http(s)://host[:port]`, with `user:password@` where that is allowed."""
    try:
        parts = urlsplit(value)
        location = parts.netloc.rpartition("@")[2] if userinfo else parts.netloc
        port = parts.port
    except ValueError:
        return "its host or its port is not right"
    if not value.isprintable() or " " in value:
        return "it holds white space"
    if parts.scheme not in ("http", "https"):
        return "it does not begin with https:// or http://"
    if "@" in location:
        return "it holds a user"
    if not _NETWORK_LOCATION.fullmatch(location) or port == 0:
        return "its host or its port is not right"
    if parts.path not in ("", "/"):
        return "it has a path"
    return "it has a query or a fragment" if parts.query or parts.fragment else None


def _check_endpoint(value: str) -> str:
    if (fault := url_fault(value)) is not None:
        raise invalid(f"must be a URL like https://host or https://host:port: {fault}")
    return value.rstrip("/")


def check_proxy(value: SecretStr) -> SecretStr:
    # A proxy's URL may hold its password: kept as a secret.
    if (fault := url_fault(value.get_secret_value(), userinfo=True)) is not None:
        example = "must be a URL like http://host:port or http://user:password@host:port"
        raise invalid(f"{example}: {fault}")
    return value


def _to_path(value: object, info: ValidationInfo) -> Path:
    """Relative paths start at the folder of the configuration, as in Prometheus."""
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        raise invalid("must be the path of a file")
    folder = (info.context or {}).get("folder") or Path()
    return Path(folder) / value


def _strip(value: object) -> object:
    """White space at the ends is never meant: it comes from files, pipes and copying."""
    return value.strip() if isinstance(value, str) else value


def _check_secret(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value()
    if not secret:
        raise invalid("must not be empty")
    if "\n" in secret or "\r" in secret:
        raise invalid("must be one line: it holds a line break")
    return value


def _check_header(value: SecretStr) -> SecretStr:
    # What a header cannot carry would fail at each request.
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise invalid("must be printable ASCII characters without spaces")
    return value


def _check_access_key(value: str) -> str:
    _check_header(SecretStr(value))
    return value


Id = Annotated[str, AfterValidator(_check_id)]
Boolean = Annotated[bool, BeforeValidator(_to_bool)]
Endpoint = Annotated[str, AfterValidator(_check_endpoint)]
FilePath = Annotated[Path, BeforeValidator(_to_path)]
Secret = Annotated[SecretStr, BeforeValidator(_strip), AfterValidator(_check_secret)]
HeaderSecret = Annotated[Secret, AfterValidator(_check_header)]
AccessKey = Annotated[str, BeforeValidator(_strip), AfterValidator(_check_access_key)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[Text, BeforeValidator(_strip)]
Lookback = Annotated[float, duration_between("5m", "732d")]
StaleAfter = Annotated[float, duration_between("1s", "732d")]
