"""What is known of one instance's backups. All pure.

A `Window` holds every finished backup that can still matter as two arrays (16 bytes a backup).
Ids are kept only for rows that the API may list again: running backups, and those that ended
at or after `settled_before`. A row that ended earlier is settled: the next full listing alone
can change it.
"""

import enum
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from exporter.models import Backup

# How far behind the latest known end_time each scrape asks again: late rows are seen.
OVERLAP_SECONDS = 3_600.0
# How much wider than the lookback a full listing asks. The API may filter by begin_time, and the
# example of its documentation is a backup that takes a day and four minutes.
LISTING_MARGIN_SECONDS = 129_600.0
# The API's bounds may count or not, and times are cut to the second.
SECOND = 1.0
# The cloud's clock may be a little ahead of ours.
AHEAD_SECONDS = 60.0
# Settled rows are kept this long after they left the lookback: the clock may be set back a little.
_KEPT_SECONDS = 3_600.0


class Filter(enum.Enum):
    """Whether the API shows a backup that ended within what is asked, and began before it."""

    UNKNOWN = enum.auto()
    BY_BEGIN = enum.auto()  # it does not
    NOT_BY_BEGIN = enum.auto()  # it does


@dataclass(frozen=True, slots=True)
class Window:
    """The backups of an instance, as far as they are known. Never written to: replaced."""

    lookback_seconds: float
    covered_from: float  # every backup that ended since is known
    # The latest backup is known if it ended since. So is the last one before the lookback if it
    # ended since `shown_from`, unless another took longer than all that are known.
    known_from: float
    shown_from: float
    listed_to: float  # the moment of the last listing: what has ended since may be unknown
    settled_before: float  # rows that ended before have no id in `recent`
    complete: bool  # the full listing matched the API's total_count
    ends: "array[float]" = field(repr=False)  # of all finished backups, ascending
    sizes: "array[float]" = field(repr=False)  # KB, in the same order
    recent: Mapping[str, Backup] = field(repr=False)
    longest: Backup | None = field(default=None, repr=False)  # the one that took longest
    filter: Filter = Filter.UNKNOWN

    def covers(self, now: float) -> bool:
        """False where the clock was set back so far that part of the window is not known."""
        return now - self.lookback_seconds >= self.covered_from

    def latest(self, now: float) -> int:
        """The index of the last backup that ended by `now`; -1 if there is none."""
        return bisect_right(self.ends, now) - 1

    def latest_end(self, now: float) -> float:
        latest = self.latest(now)
        return self.ends[latest] if latest >= 0 else float("-inf")

    def previous_end(self, now: float) -> float:
        """The end of the last backup before the lookback, as far as it is known."""
        first = bisect_left(self.ends, now - self.lookback_seconds)
        return self.ends[first - 1] if first else float("-inf")

    def knows_latest(self, now: float) -> bool:
        """Whether no other backup can have ended later."""
        return self.latest_end(now) >= self.known_from

    def knows_previous(self, now: float) -> bool:
        """Whether no other backup has ended between that one and the lookback."""
        return self.previous_end(now) >= self.shown_from

    def lacks_previous(self, now: float) -> bool:
        """Whether nothing but the begin of the first interval in the lookback is unknown."""
        is_within = self.latest_end(now) >= now - self.lookback_seconds
        return self.covers(now) and is_within and not self.knows_previous(now)

    @property
    def longest_seconds(self) -> float:
        """The longest duration, as far as a full listing would show such a backup."""
        return min(_duration(self.longest), LISTING_MARGIN_SECONDS) if self.longest else 0.0

    @property
    def filter_matters(self) -> bool:
        """Whether it must be known how the API filters: a backup took longer than the overlap."""
        return self.filter is Filter.UNKNOWN and self.longest_seconds >= OVERLAP_SECONDS


def _duration(row: Backup) -> float:
    return row.end - row.begin if row.end is not None and row.begin is not None else 0.0


def listing_begin(now: float, lookback_seconds: float) -> float:
    """Where a full listing begins."""
    return now - lookback_seconds - LISTING_MARGIN_SECONDS


def increment_begin(window: Window, now: float) -> float:
    """Where the listing of what is new begins: before the latest end or the oldest running one.

    An API that filters by begin_time shows a backup that has just ended only to who asks for the
    time at which it began. So where that may be, the longest duration counts.
    """
    latest = window.latest(now + AHEAD_SECONDS)
    if latest < 0:
        return listing_begin(now, window.lookback_seconds)
    # An end ahead of the clock, as it was when that was listed, says nothing of others before it.
    known_to = min(window.ends[latest], window.listed_to)
    # No further back than before, where the clock was set back.
    begin = max(known_to - OVERLAP_SECONDS, window.settled_before)
    if window.filter is not Filter.NOT_BY_BEGIN:
        begin = min(begin, known_to - window.longest_seconds - SECOND)
    for row in window.recent.values():
        if row.end is None and row.begin is not None and row.begin - SECOND < begin:
            begin = row.begin - SECOND
    return begin


def reaches_settled(window: Window, begin: float) -> bool:
    """Whether a listing from `begin` shows rows that count, and are known without their ids."""
    first = bisect_left(window.ends, max(begin, window.covered_from))
    return first < len(window.ends) and window.ends[first] < window.settled_before


def find_vanished(
    window: Window, rows: Mapping[str, Backup], begin: float, end: float
) -> Backup | None:
    """A finished backup that a complete listing from `begin` to `end` lacks, if there is one.

    It counts only where the listing shows it whatever the API filters by.
    """
    for id_, row in window.recent.items():
        if (
            id_ not in rows
            and row.begin is not None
            and row.end is not None
            and row.begin > begin + SECOND
            and row.end < end - SECOND
        ):
            return row
    return None


def build_window(
    rows: Collection[Backup],
    *,
    now: float,
    lookback_seconds: float,
    complete: bool,
    begin: float | None = None,
    listed_to: float | None = None,
) -> Window:
    """The window that a full listing at `now` shows, or a part of it that begins at `begin`.

    What is later than `listed_to` was listed before that moment.
    """
    overlap = max(OVERLAP_SECONDS, *(_duration(row) for row in rows), 0.0)
    if begin is None:
        covered_from = known_from = now - lookback_seconds - _KEPT_SECONDS
        shown_from = listing_begin(now, lookback_seconds) + overlap
    else:
        covered_from, known_from, shown_from = float("inf"), begin + overlap, begin + overlap
    empty = Window(
        lookback_seconds=lookback_seconds,
        covered_from=covered_from,
        known_from=known_from,
        shown_from=shown_from,
        listed_to=now if listed_to is None else listed_to,
        settled_before=float("-inf"),
        complete=complete,
        ends=array("d"),
        sizes=array("d"),
        recent={},
    )
    return merge(empty, rows, now=now, listed_to=empty.listed_to)


def merge(
    window: Window,
    rows: Collection[Backup],
    *,
    now: float,
    complete: bool = False,
    listed_to: float | None = None,
) -> Window:
    """`window` with the rows of a listing since `increment_begin`; itself if they say nothing new.

    `listed_to`: as far as that went, else until now.

    A row that is known by its id replaces what was known. One that is not known counts unless
    it is settled: then it is known without its id. A running one that a complete listing does not
    show has gone.
    """
    running_since = listing_begin(now, window.lookback_seconds)
    recent: dict[str, Backup] | None = None
    added: list[tuple[float, float]] = []
    removed: list[tuple[float, float]] = []
    known = window.recent
    for row in rows:
        before = known.get(row.id)
        if before == row:
            continue
        if row.end is None:
            if row.begin is None or row.begin < running_since:
                continue
        elif before is None and row.end < window.settled_before:
            continue
        if recent is None:
            known = recent = dict(window.recent)
        if before is not None and before.end is not None:
            removed.append((before.end, before.size_kilobytes))
        if row.end is not None:
            added.append((row.end, row.size_kilobytes))
        recent[row.id] = row
    if complete:
        running = {row.id for row in known.values() if row.end is None}
        for gone in running.difference(row.id for row in rows) if running else ():
            if recent is None:
                recent = dict(window.recent)
            del recent[gone]
    if recent is None:
        return window
    ends, sizes = _splice(window.ends, window.sizes, added, removed)
    longest = max(filter(None, (window.longest, *rows)), key=_duration, default=None)
    window = replace(
        window,
        listed_to=max(window.listed_to, now) if listed_to is None else listed_to,
        ends=ends,
        sizes=sizes,
        recent=recent,
        longest=longest,
    )
    return _settle(window, now)


def _splice(
    ends: "array[float]",
    sizes: "array[float]",
    added: list[tuple[float, float]],
    removed: list[tuple[float, float]],
) -> tuple["array[float]", "array[float]"]:
    """The two arrays with pairs put in and taken out, still sorted. Only their tail is touched."""
    if not added and not removed:
        return ends, sizes
    start = bisect_left(ends, min(end for end, _ in (*added, *removed)))
    tail = list(zip(ends[start:], sizes[start:], strict=True))
    for pair in removed:
        # A row may have been added and replaced within the same listing.
        (added if pair in added else tail).remove(pair)
    tail.extend(added)
    tail.sort()
    return (
        ends[:start] + array("d", (end for end, _ in tail)),
        sizes[:start] + array("d", (size for _, size in tail)),
    )


def _settle(window: Window, now: float) -> Window:
    """Forget ids that no listing will show again, and backups that left the lookback for good."""
    settled_before = max(window.settled_before, increment_begin(window, now))
    kept_since = now - window.lookback_seconds - _KEPT_SECONDS
    # A running backup stays as long as a full listing would show it when it ends.
    running_since = listing_begin(now, window.lookback_seconds)
    recent = {
        row.id: row
        for row in window.recent.values()
        if (row.end >= settled_before if row.end is not None else (row.begin or 0) >= running_since)
    }
    # What still has its id stays, and so does the last backup before, however old: an interval
    # may begin with it, or it is the latest of all.
    gone = max(bisect_left(window.ends, min(kept_since, settled_before)) - 1, 0)
    return replace(
        window,
        covered_from=max(window.covered_from, kept_since),
        settled_before=settled_before,
        ends=window.ends[gone:] if gone else window.ends,
        sizes=window.sizes[gone:] if gone else window.sizes,
        recent=recent,
    )


def with_settled(window: Window, rows: Collection[Backup]) -> Window:
    """`window` with finished backups that are settled, and were not known."""
    pairs = [(row.end, row.size_kilobytes) for row in rows if row.end is not None]
    ends, sizes = _splice(window.ends, window.sizes, pairs, [])
    longest = max(filter(None, (window.longest, *rows)), key=_duration, default=None)
    return replace(window, ends=ends, sizes=sizes, longest=longest)


def with_previous(window: Window, backup: Backup | None, *, now: float) -> Window:
    """`window` with the last of all backups that ended before its lookback; None: there is none."""
    if backup is None or backup.end is None:
        return replace(window, known_from=float("-inf"), shown_from=float("-inf"))
    previous, latest = window.previous_end(now), window.latest_end(now)
    last = max(backup.end, previous)
    window = replace(
        window,
        known_from=min(window.known_from, last),
        shown_from=min(window.shown_from, last),
    )
    if backup.end < previous or (backup.end == previous and backup.id not in window.recent):
        return window
    if backup.end > latest:
        # The next listing begins before it, and shows it again.
        settled_before = min(window.settled_before, backup.end - OVERLAP_SECONDS)
        window = replace(window, settled_before=settled_before)
    if backup.end >= window.settled_before:
        return merge(window, [backup], now=now, listed_to=window.listed_to)
    ends, sizes = _splice(window.ends, window.sizes, [(backup.end, backup.size_kilobytes)], [])
    return replace(window, ends=ends, sizes=sizes)
