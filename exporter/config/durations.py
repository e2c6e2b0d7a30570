"""Durations as Prometheus writes them (`500ms`, `30s`, `1h30m`, `7d`)."""

import re

# Prometheus' own grammar (model.ParseDuration): units in this order, each at most once.
_DURATION = re.compile(
    r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII
)
_UNIT_SECONDS = (365 * 86_400, 7 * 86_400, 86_400, 3_600, 60, 1, 0.001)
_UNIT_NAMES = ("y", "w", "d", "h", "m", "s", "ms")


def parse_duration(text: str) -> float:
    """Seconds of a duration as Prometheus writes it (`1h30m`); ValueError if it is none."""
    if text == "0":
        return 0.0
    match = _DURATION.fullmatch(text)
    # The length keeps the numbers finite; Prometheus itself holds no more than 292 years.
    if not text or match is None or len(text) > 64:
        raise ValueError("not a duration")
    return sum(
        int(number) * seconds
        for number, seconds in zip(match.groups(), _UNIT_SECONDS, strict=True)
        if number is not None
    )


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration, as Prometheus does: 5400 is `1h30m`."""
    rest = round(seconds * 1000)
    parts = []
    for name, unit in zip(_UNIT_NAMES[2:], _UNIT_SECONDS[2:], strict=True):
        count, rest = divmod(rest, round(unit * 1000))
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"
