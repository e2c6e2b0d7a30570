"""To which moments an instance can be restored: drawn below the picture of its window, and told.

The strip is of the same span as the picture above it. What lies before that is in the words alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.models import BackupState, FullBackup, FullBackups, InstanceResult, RestoreWindow
from exporter.page.strokes import Scale, draw_runs
from exporter.page.words import build_moment, format_clock, format_count, format_duration

_MARK_WIDTH = 3.0
# A range of a moment is seen, too.
_RANGE_MIN_WIDTH = 1.0


@dataclass(frozen=True, slots=True)
class Restores:
    """The words, and path data of strokes along one line, in the picture's units."""

    window_text: str
    full_backups_text: str
    ranges: str
    full_backups: str  # the usable ones, at their end
    failed: str
    needs_full_backup: bool  # the latest failed, is too old, or there is none

    @property
    def description(self) -> str:
        return "; ".join(filter(None, (self.window_text, self.full_backups_text)))


def build_restores(result: InstanceResult, *, now: float) -> Restores | None:
    """What is known, and the part of it that lies in the lookback; None where nothing is known."""
    window = result.restore_window.reading if result.restore_window is not None else None
    full_backups = result.full_backups.reading if result.full_backups is not None else None
    if window is None and full_backups is None:
        return None
    limit = result.instance.full_stale_after_seconds
    scale = Scale(now - result.instance.lookback_seconds, now)
    backups = full_backups.backups if full_backups is not None else ()
    return Restores(
        window_text=describe_window(window, now=now) if window is not None else "",
        full_backups_text=(
            describe_full_backups(full_backups, now=now, stale_after_seconds=limit)
            if full_backups is not None
            else ""
        ),
        ranges=draw_runs(
            scale.clip(each.start, each.end, _RANGE_MIN_WIDTH)
            for each in (window.ranges if window is not None else ())
            if each.end >= scale.start and each.start <= now
        ),
        full_backups=_draw_marks(backups, BackupState.USABLE, scale),
        failed=_draw_marks(backups, BackupState.FAILED, scale),
        needs_full_backup=full_backups is not None
        and (bool(full_backups.latest_failed) or _is_old(full_backups, limit, now)),
    )


def describe_window(window: RestoreWindow, *, now: float) -> str:
    """`restorable to 11:58, since 19 Nov 02:11`, and what there is before that."""
    if window.until is None or window.since is None or window.oldest is None:
        return "nothing to restore to"
    until, since = format_clock(window.until, now), format_clock(window.since, now)
    text = f"restorable to {until}, since {since}"
    if window.max_gap_seconds is None:
        return text
    oldest = format_clock(window.oldest, now)
    longest = format_duration(window.max_gap_seconds)
    gaps = format_count(len(window.gaps), "gap")
    most = f"the longest of {longest}" if len(window.gaps) > 1 else f"of {longest}"
    return f"{text}; before that from {oldest} with {gaps}, {most}"


def describe_full_backups(
    full_backups: FullBackups, *, now: float, stale_after_seconds: float
) -> str:
    """`full backup 7 h ago (auto), 3 usable`; first what is the matter with them."""
    latest = _latest(full_backups)
    texts = ["the latest full backup failed"] if full_backups.latest_failed else []
    if latest is None or latest.end is None:
        texts.append("no usable full backup")
    else:
        ended = build_moment(latest.end, now)
        usable = f"{sum(full_backups.usable.values()):,} usable"
        text = f"full backup {ended.distance} ago ({latest.backup_type}), {usable}"
        if _is_old(full_backups, stale_after_seconds, now):
            text += f", stale after {format_duration(stale_after_seconds)}"
        texts.append(text)
    return "; ".join(texts)


def _latest(full_backups: FullBackups) -> FullBackup | None:
    """Of either type, a usable one."""
    return max(full_backups.latest.values(), key=lambda each: each.end or 0.0, default=None)


def _is_old(full_backups: FullBackups, limit: float, now: float) -> bool:
    latest = _latest(full_backups)
    return latest is None or latest.end is None or now - latest.end > limit


def _draw_marks(backups: Sequence[FullBackup], state: BackupState, scale: Scale) -> str:
    ends = (each.end for each in backups if each.state is state and each.end is not None)
    return draw_runs(
        scale.clip(end, end, _MARK_WIDTH) for end in ends if scale.start <= end <= scale.end
    )


def has_restorable_range(result: InstanceResult) -> bool:
    window = result.restore_window.reading if result.restore_window is not None else None
    return window is not None and bool(window.ranges)
