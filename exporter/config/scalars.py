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


def invalid(message: str) -> PydanticCustomError:
    return PydanticCustomError("config", "{message}", {"message": message})


def duration_between(minimum: str, maximum: str) -> BeforeValidator:
    """The annotation of a duration between two bounds, both allowed."""
    bounds = f"from {minimum} to {maximum}"

    def to_seconds(value: object) -> float:
        example = f"must be a duration such as 500ms, 30s, 5m, 1h30m or 7d, {bounds}"
        if isinstance(value, int) and value != 0 and not isinstance(value, bool):
            raise invalid(f"{example} (a unit is missing)")
        try:
            seconds = parse_duration("0" if value == 0 else _text_of(value))
        except ValueError:
            raise invalid(example) from None
        if not parse_duration(minimum) <= seconds <= parse_duration(maximum):
            raise invalid(f"must be {bounds}")
        return seconds

    return BeforeValidator(to_seconds)


def number_between(minimum: int, maximum: int, *, whole: bool) -> BeforeValidator:
    """The annotation of a number between two bounds, both allowed."""
    message = f"must be a {'whole ' if whole else ''}number from {minimum} to {maximum}"

    def to_number(value: object) -> float:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
            value = float(value)  # out of the environment
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise invalid(message)
        # In this order: neither infinity nor a thousand digits become an integer or a float.
        if not minimum <= value <= maximum or (whole and value != int(value)):
            raise invalid(message)
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
        raise invalid("must be true or false")
    return value


def _check_id(value: str) -> str:
    # The id becomes a part of the API's path.
    if not ID_PATTERN.fullmatch(value):
        raise invalid("must be 1 to 64 letters, digits, '-' or '_'")
    return value


def is_http_url(value: str, *, userinfo: bool = False) -> bool:
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
    if not is_http_url(value):
        raise invalid("must be a URL like https://host or https://host:port, without a path")
    return value.rstrip("/")


def check_proxy(value: SecretStr) -> SecretStr:
    # A proxy's URL may hold its password: kept as a secret.
    if not is_http_url(value.get_secret_value(), userinfo=True):
        raise invalid("must be a URL like http://host:port or http://user:password@host:port")
    return value


def _to_path(value: object, info: ValidationInfo) -> Path:
    """Relative paths start at the folder of the configuration, as in Prometheus."""
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        raise invalid("must be the path of a file")
    folder = (info.context or {}).get("folder") or Path()
    return Path(folder) / value


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
Secret = Annotated[SecretStr, AfterValidator(_check_secret)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_check_secret), AfterValidator(_check_header)]
AccessKey = Annotated[str, AfterValidator(_check_access_key)]
Text = Annotated[str, Field(min_length=1)]
Lookback = Annotated[float, duration_between("5m", "732d")]
StaleAfter = Annotated[float, duration_between("1s", "732d")]
