"""In which form a client wants the numbers (RFC 9110, 12.5): pure, and true of what is sent."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

OPENMETRICS, TEXT = "application/openmetrics-text", "text/plain"
# How names that are no classic ones may be written; ours all are.
ESCAPINGS = ("allow-utf-8", "underscores", "dots", "values")
_DEFAULT_ESCAPING = "underscores"
# The versions that the encoders write. Who asks for none of them gets the oldest text.
_VERSIONS = {OPENMETRICS: ("1.0.0",), TEXT: ("0.0.4", "1.0.0")}


@dataclass(frozen=True, slots=True)
class Format:
    """`escaping` is told where the client has asked for a version that knows it."""

    media_type: str = TEXT
    version: str = "0.0.4"
    escaping: str | None = None

    @property
    def content_type(self) -> str:
        escaping = "" if self.escaping is None else f"; escaping={self.escaping}"
        return f"{self.media_type}; version={self.version}; charset=utf-8{escaping}"


def choose_format(accept: str) -> Format:
    """The one with the greatest weight that we have, else the plain text that everybody reads."""
    best, weight = Format(), 0.0
    for name, parameters in _parse_list(accept):
        offered = _offer(name, parameters)
        if offered is not None and _weight(parameters) > weight:
            best, weight = offered, _weight(parameters)
    return best


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether gzip is wanted at least as much as the plain body."""
    weights: dict[str, float] = {}
    for name, parameters in _parse_list(accept_encoding):
        weights.setdefault(name, _weight(parameters))
    gzip = weights.get("gzip", weights.get("*", 0.0))
    return gzip > 0.0 and gzip >= weights.get("identity", 0.0)


def _offer(name: str, parameters: Mapping[str, str]) -> Format | None:
    if name in ("*/*", "text/*"):
        return Format()
    versions = _VERSIONS.get(name)
    if versions is None:
        return None
    version = parameters.get("version")
    if version is None:
        return Format(name, versions[0])
    if version not in versions:
        return None
    if version == "0.0.4":
        return Format()
    escaping = parameters.get("escaping")
    return Format(name, version, escaping if escaping in ESCAPINGS else _DEFAULT_ESCAPING)


def _parse_list(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each member's name and parameters, in small letters and without quotes."""
    for member in header.lower().replace('"', "").split(","):
        name, *pairs = (part.strip() for part in member.split(";"))
        parameters = (pair.partition("=") for pair in pairs)
        yield name, {key.strip(): value.strip() for key, _, value in parameters}


def _weight(parameters: Mapping[str, str]) -> float:
    """1 where there is none, and where it makes no sense."""
    text = parameters.get("q", "1")
    return float(text) if re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", text, re.ASCII) else 1.0
