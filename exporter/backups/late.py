"""What is listed late, or has gone, further back than what is new begins.

What is new is asked for from an hour before the latest end on, about a dozen rows, and a page has
room for fifty. So now and then it is asked for as far back as one page surely holds: that costs
the same single request, and what it shows is compared with what is known of that time. Of settled
rows no id is known, but their ends and sizes are.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from exporter.backups.listing import PAGE_ROWS
from exporter.backups.resync import Retry
from exporter.backups.window import SECOND, Filter, Window, find_vanished, with_settled
from exporter.models import Backup, InstanceKey
from exporter.transport.spread import next_due

_INTERVAL_SECONDS = 900.0
# Of a page; the others are for what is new, or late.
_KNOWN_ROWS = PAGE_ROWS - 4
# Nobody's retention ends so early: what has gone from there was deleted, or the instance restored.
_MOST_SECONDS = 6 * 3_600.0


@dataclass(slots=True)
class LateCheck:
    """When a listing goes further back for what is late. Not all instances' are due at once."""

    key: InstanceKey
    due_at: float | None = None

    def begin(self, window: Window, narrow: float, now: float) -> float:
        """Where the listing of what is new begins that would begin at `narrow`."""
        due_at, self.due_at = self.due_at, next_due(self.key, now, _INTERVAL_SECONDS)
        if due_at is None:
            return narrow
        if now < due_at <= now + _INTERVAL_SECONDS:
            self.due_at = due_at
            return narrow
        return min(narrow, max(_begin_of_page(window), narrow - _MOST_SECONDS))


def _begin_of_page(window: Window) -> float:
    running = sum(row.end is None for row in window.recent.values())
    known = min(len(window.ends), _KNOWN_ROWS - running)
    return max(window.ends[-known], window.covered_from) if known > 0 else float("inf")


def compare(
    window: Window, rows: Mapping[str, Backup], begin: float, end: float
) -> tuple[Window, Backup | None]:
    """`window` with the settled backups that a complete listing from `begin` to `end` shows and
    nobody knew; and a known one that it lacks, if there is one.

    It counts only where the listing shows it whatever the API filters by. Of a settled one, end
    and size alone are told.
    """
    vanished = find_vanished(window, rows, begin, end)
    longest = 0.0 if window.filter is Filter.NOT_BY_BEGIN else window.longest_seconds
    low = max(begin + longest + SECOND, window.covered_from)
    high = min(window.settled_before, end - SECOND)
    if low >= high:
        return window, vanished
    first, last = bisect_left(window.ends, low), bisect_left(window.ends, high)
    known = Counter(zip(window.ends[first:last], window.sizes[first:last], strict=True))
    late: list[Backup] = []
    for row in rows.values():
        if row.end is None or not low <= row.end < high:
            continue
        if known[pair := (row.end, row.size_kilobytes)] > 0:
            known[pair] -= 1
        else:
            late.append(row)
    lost = next(known.elements(), None)
    if lost is not None:
        # What is new may be what is lacking, changed: it is not counted beside it.
        return window, vanished or Backup("", None, *lost)
    return (with_settled(window, late) if late else window), vanished


@dataclass(slots=True)
class Vanishing:
    """A known backup that is not listed any more, for which the whole window is listed anew.

    An API that lists it again is not believed at once the next time.
    """

    doubt: Retry
    backup: Backup | None = None

    def copy(self) -> "Vanishing":
        return replace(self, doubt=replace(self.doubt))

    def is_believed(self, now: float) -> bool:
        return self.doubt.is_due(now)

    def judge(self, listed: Mapping[str, Backup], now: float) -> None:
        """After the whole window was listed."""
        backup, self.backup = self.backup, None
        if backup is not None and _is_among(backup, listed):
            self.doubt.fail(now)
        elif backup is not None:
            self.doubt.succeed()


def _is_among(row: Backup, listed: Mapping[str, Backup]) -> bool:
    if row.id:
        return row.id in listed
    return any((o.end, o.size_kilobytes) == (row.end, row.size_kilobytes) for o in listed.values())
