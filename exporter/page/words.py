"""Durations, times and sizes as people read them."""

from dataclasses import dataclass
from datetime import UTC, datetime

_BINARY_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# Hours up to two days: "24 h" and "36 h" are how lookbacks and ages are thought of.
_DAYS_FROM_SECONDS = 172_800


def format_duration(seconds: float) -> str:
    """The two largest units, cut off, never rounded up: `4 min 12 s`, `26 h`, `3 d 4 h`.

    Hours count up to two days. A negative duration (clocks that differ) is `0 s`.
    """
    if 0 < seconds < 1:
        return "under 1 s"
    whole = max(int(seconds), 0)
    if whole >= _DAYS_FROM_SECONDS:
        parts = [(whole // 86_400, "d"), (whole % 86_400 // 3_600, "h")]
    elif whole >= 3_600:
        parts = [(whole // 3_600, "h"), (whole % 3_600 // 60, "min")]
    else:
        parts = [(whole // 60, "min"), (whole % 60, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


def format_clock(timestamp: float, now: float, *, seconds: bool = False) -> str:
    """UTC as it is spoken of at `now`: `11:58`, of another day `19 Nov 02:11`, `1 May 2025 08:00`.

    The zone is written once on a page, not at each time.
    """
    when, today = _utc(timestamp), _utc(now)
    clock = when.strftime("%H:%M:%S" if seconds else "%H:%M")
    return clock if when.date() == today.date() else f"{_format_day(when, today)} {clock}"


def format_day(timestamp: float, now: float) -> str:
    """The day alone: `19 Nov`, of another year `19 Nov 2025`."""
    return _format_day(_utc(timestamp), _utc(now))


def format_exact_time(timestamp: float) -> str:
    """UTC to the second and with its zone: `2026-07-05 02:10:00 UTC`."""
    return _utc(timestamp).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_iso(timestamp: float) -> str:
    """UTC to the second in ISO 8601, for machines: `2026-07-05T02:10:00Z`."""
    return _utc(timestamp).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_span(start: float, end: float, now: float) -> str:
    """From and to, the day once if it is the same: `4 Jul 02:10 to 06:20`."""
    first, last, today = _utc(start), _utc(end), _utc(now)
    if first.date() == last.date():
        return f"{format_clock(start, now)} to {last:%H:%M}"
    return f"{format_clock(start, now)} to {_format_day(last, today)} {last:%H:%M}"


def _utc(timestamp: float) -> datetime:
    return datetime.fromtimestamp(int(timestamp), UTC)


def _format_day(day: datetime, today: datetime) -> str:
    return f"{day.day} {day:%b}" if day.year == today.year else f"{day.day} {day:%b %Y}"


def format_size(size_bytes: float) -> str:
    """Binary units, three digits or so: `4.1 MiB`, `112 bytes`."""
    amount, unit = size_bytes, "bytes"
    for larger_unit in _BINARY_UNITS:
        if amount < 1_024:
            break
        amount, unit = amount / 1_024, larger_unit
    decimals = 0 if unit == "bytes" or amount >= 100 else 1
    return f"{amount:,.{decimals}f} {unit}"


def format_exact_size(size_kilobytes: float) -> str:
    """Bytes and the API's own unit: `112 bytes (0.109375 KB)`."""
    return f"{size_kilobytes * 1_024:,.0f} bytes ({size_kilobytes:,.15g} KB)"


def format_count(count: int, noun: str) -> str:
    """`1 backup`, `2,016 backups`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Moment:
    """A time for people and for machines, and how long ago it was (or in how long it will be)."""

    text: str
    exact: str
    iso: str
    distance: str


@dataclass(frozen=True, slots=True)
class Size:
    """An amount of storage: rounded for reading, and exact."""

    text: str
    exact: str


def build_moment(timestamp: float, now: float) -> Moment:
    return Moment(
        format_clock(timestamp, now, seconds=True),
        format_exact_time(timestamp),
        format_iso(timestamp),
        format_duration(abs(now - timestamp)),
    )


def build_size(size_kilobytes: float) -> Size:
    return Size(format_size(size_kilobytes * 1_024), format_exact_size(size_kilobytes))
