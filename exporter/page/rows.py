"""One instance as the page shows it."""

from dataclasses import dataclass

from exporter.page.picture import Picture, build_picture
from exporter.page.state import Judged
from exporter.page.words import (
    Moment,
    Size,
    build_moment,
    build_size,
    format_count,
    format_duration,
)

# A cloud's or a proxy's message can be a whole page.
_MESSAGE_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Row:
    """One instance as the template shows it; numbers only where the last scrape read them."""

    judged: Judged
    lookback: str
    stale_after: str
    latest: Moment | None = None
    size: Size | None = None
    latest_size: Size | None = None
    longest_gap: str = ""
    picture: Picture | None = None
    reason: str = ""
    message: str = ""
    hint: str = ""
    effort: str = ""
    last_success: Moment | None = None


def build_row(judged: Judged, *, now: float) -> Row:
    """What the page shows of an instance: a failed query's row has no numbers, old or new."""
    result = judged.result
    instance, reading, failure = result.instance, result.reading, result.failure
    lookback = format_duration(instance.lookback_seconds)
    stale_after = format_duration(instance.stale_after_seconds)
    message = failure.message if failure else ""
    if reading is None:
        errors = format_count(result.api_errors, "error")
        took = format_duration(result.duration_seconds)
        return Row(
            judged,
            lookback,
            stale_after,
            reason=failure.reason.value if failure else "",
            message=_shorten(message),
            hint=_shorten(failure.hint) if failure else "",
            effort=f"{format_count(result.api_requests, 'request')}, {errors}, {took}",
            last_success=build_moment(result.last_success, now)
            if result.last_success is not None
            else None,
        )
    size, latest_size = reading.size_kilobytes, reading.latest_size_kilobytes
    gap = reading.max_interval_seconds
    return Row(
        judged,
        lookback,
        stale_after,
        latest=build_moment(reading.latest_end, now) if reading.latest_end is not None else None,
        size=build_size(size) if size is not None else None,
        latest_size=build_size(latest_size) if latest_size is not None else None,
        longest_gap=format_duration(gap) if gap is not None else "",
        picture=build_picture(reading, instance, now=now),
        reason=failure.reason.value if failure else "",
        message=_shorten(message),
        hint=_shorten(failure.hint) if failure else "",
    )


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE_CHARACTERS else text[: _MESSAGE_CHARACTERS - 1] + "…"
