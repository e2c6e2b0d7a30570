"""The right numbers, computed from the simulated rows and the words of the contract.

Nothing of the exporter is used. A listing takes time and comes in pages, so a row that changes
while a query runs may be published as it was at any moment of it; all others must be exact. What
the contract leaves to the next listing of the whole window is allowed until then, and no longer:

- rows that the API deletes further back than what is new begins are counted until then;
- rows that were hidden, or appear late, and lie further back than what is new begins are missed
  until then. It begins an hour before the latest end that was published, or, where the API
  filters by begin_time, the longest duration that was known for certain. Where all answers were
  right, those among the 43 latest of the last five hours are seen a quarter of an hour later.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import floor, fsum, inf, isclose
from typing import Any

from hypothesis import currently_in_test_context, event

from exporter.simulator import Knobs
from tests.properties.world import Cloud, Row
from tests.support.virtual_time import HOUR, NOON

ABSENT, RUNNING, FINISHED = "absent", "running", "finished"
LATEST = "incremental_backup_latest_end_timestamp_seconds"
MAX_INTERVAL = "incremental_backup_max_interval_seconds"
MOST_VARIANTS = 4_000
# Silences after a 429, back-offs after refused logins and before listings end by then.
LONGEST_BACKOFF = 900.0
# Pages, and the first rows after a start, may be so old when the window that they are in is known.
OLDEST_PAGE = 4_600.0
# Times are cut to the second, and bounds may not count.
ROUNDING = 3.0
# A longer look shows so many rows, so far back, and comes so soon.
LONG_LOOK_ROWS, LONG_LOOK_REACH, LONG_LOOK_INTERVAL = 43, 5 * HOUR, 900.0
Band = tuple[float, float]


def note(what: str) -> None:
    """For the statistics, where there are some."""
    if currently_in_test_context():
        event(what)


@dataclass
class Truth:
    """What a correct full listing of one instance shows at some moment."""

    cloud: Cloud
    knobs: Knobs

    def rows(self) -> list[Row]:
        return [row for row in self.cloud.rows if self.cloud.offsite or not row.offsite]

    @property
    def filters_by_begin(self) -> bool:
        return self.knobs.filter_meaning == "begin"

    @property
    def hides_running(self) -> bool:
        return self.knobs.hide_running or (
            self.knobs.filter_meaning == "end" and self.knobs.running_under_end_filter == "hidden"
        )

    def state(self, row: Row, at: float) -> str:
        if at < row.appears or (row.deleted is not None and at >= row.deleted):
            return ABSENT
        if row.end is not None and row.end <= at:
            return FINISHED
        return ABSENT if self.hides_running else RUNNING

    def states(self, row: Row, since: float, until: float) -> set[str]:
        """All that a row is from `since` to `until`."""
        turns = [row.appears, row.end, row.deleted]
        moments = [since, *(turn for turn in turns if turn is not None and since < turn <= until)]
        return {self.state(row, moment) for moment in moments}

    def moment_of(self, row: Row, state: str) -> float:
        """By what the API filters such a row; infinite where it shows it in any case."""
        if state == FINISHED:
            assert row.end is not None
            return row.begin if self.filters_by_begin else row.end
        if self.filters_by_begin or (
            self.knobs.filter_meaning == "end" and self.knobs.running_under_end_filter == "by_begin"
        ):
            return row.begin
        return inf

    def numbers(self, listed: Iterable[tuple[Row, str]], at: float) -> dict[str, Any]:
        """The definitions of the contract, word for word. `at` is the exporter's time."""
        since = at - self.cloud.lookback
        finished: list[tuple[float, float]] = []
        running: list[float] = []
        ever: list[float] = []
        latest, latest_sizes = -inf, set[float]()
        for row, state in listed:
            size = row.size or 0.0
            if state == RUNNING and since <= floor(NOON + row.begin) <= at:
                running.append(size)
            if state != FINISHED or row.end is None:
                continue
            end = floor(NOON + row.end)
            if end > at:
                continue
            ever.append(end)
            if end > latest:
                latest, latest_sizes = end, set()
            if end == latest:
                latest_sizes.add(size)
            if since <= end:
                finished.append((end, size))
        ends = sorted(end for end, _ in finished)
        return {
            "incremental_backups": len(finished) + len(running),
            "incremental_backups_size_kilobytes": fsum(running) + fsum(s for _, s in finished),
            "incremental_backups_running": len(running),
            LATEST: latest if latest > -inf else None,
            "latest_sizes": latest_sizes,
            "incremental_backup_oldest_end_timestamp_seconds": ends[0] if ends else None,
            MAX_INTERVAL: max(
                (b - a for a, b in itertools.pairwise(sorted(ever)) if b >= since), default=None
            ),
        }

    def moments(self, span: Band, bands: Iterable[Band]) -> list[float]:
        """The exporter's times that stand for all in a span: borders, and between them."""
        found: set[float] = set()
        for low, high in bands:
            first, last = NOON + span[0] + low, NOON + span[1] + high
            borders = {first, last}
            for row in self.rows():
                turns = [floor(NOON + row.begin)]
                if row.end is not None:
                    turns.append(floor(NOON + row.end))
                for turn in turns:
                    borders |= {
                        border
                        for border in (turn, turn + self.cloud.lookback)
                        if first < border < last
                    }
            ordered = sorted(borders)
            found.update(ordered, ((a + b) / 2 for a, b in itertools.pairwise(ordered)))
        return sorted(found)


def agrees(published: dict[str, float], right: dict[str, Any], *, knows_hole: bool) -> bool:
    for name, value in right.items():
        if name == "latest_sizes":
            size = published.get("incremental_backup_latest_size_bytes")
            if (size is None) != (not value):
                return False
            if size is not None and size / 1024 not in value:
                return False
        elif name == "incremental_backups_size_kilobytes":
            if not isclose(published[name], value, rel_tol=1e-12, abs_tol=1e-9):
                return False
            if published["incremental_backups_size_bytes"] != published[name] * 1024:
                return False
        elif name == MAX_INTERVAL and published.get(name) is None and not knows_hole:
            continue
        elif published.get(name) != value:
            return False
    return True


@dataclass
class Query:
    """One scrape as it went for one instance. Times are the cloud's, in seconds after noon."""

    since: float  # when the query began, which may be in an earlier scrape
    begun: float
    ended: float
    success: bool
    latest: float | None  # as it was published
    complete: bool
    listed: bool  # there are numbers of the whole window
    calm: bool  # no fault of any kind, and not at its deadline
    quiet: bool  # nor did any go before for so long that its back-off may last
    steady: bool  # no row changed


@dataclass
class History:
    """What has been published of an instance by one exporter, since it knew nothing."""

    truth: Truth
    resync_interval: int
    queries: list[Query] = field(default_factory=list)
    excused_at: float = -inf
    is_listed: bool = False
    failing_since: float | None = None  # whole windows cannot be listed
    tried_at: float | None = None  # by then, in vain

    def check_numbers(self, gauges: dict[str, float], bands: Sequence[Band]) -> None:
        query = self.queries[-1]
        is_calm = all(earlier.calm for earlier in self.queries)
        fixed: list[tuple[Row, str]] = []
        kept: list[tuple[float, Row, str]] = []
        open_: list[tuple[Row, set[str]]] = []
        for row in self.truth.rows():
            states = self.possible_states(row)
            if len(states) == 1:
                fixed.append((row, states.pop()))
            elif is_calm and self.is_only_remembered(row) and len(states) == 2:
                assert row.deleted is not None
                kept.append((row.deleted, row, max(states - {ABSENT})))
            else:
                open_.append((row, states))
        moments = self.truth.moments((query.begun, query.ended), bands)
        # What is remembered was deleted since the window was listed; nothing before is.
        listed_at = sorted({-inf, *(deleted for deleted, _, _ in kept)})
        variants = len(listed_at) * len(moments)
        for _, states in open_:
            variants *= len(states)
        if variants > MOST_VARIANTS:
            note("too many variants to check")
            return
        for since in listed_at:
            known = [*fixed, *((row, state) for deleted, row, state in kept if deleted > since)]
            for choice in itertools.product(*(sorted(states) for _, states in open_)):
                listed = [
                    *known,
                    *((row, state) for (row, _), state in zip(open_, choice, strict=True)),
                ]
                for moment in moments:
                    right = self.truth.numbers(listed, moment)
                    if agrees(gauges, right, knows_hole=is_calm):
                        return
        right = self.truth.numbers(
            [(row, self.truth.state(row, query.ended)) for row in self.truth.rows()], moments[-1]
        )
        raise AssertionError(
            f"scrape from {query.begun} to {query.ended} (query since {query.since}):\n"
            f"published {gauges}\nright at its end {right}\nopen: {open_} {kept}"
        )

    def check_latest(self, gauges: dict[str, float], bands: Sequence[Band]) -> None:
        """All that is told before the window is listed."""
        query = self.queries[-1]
        left = dict(gauges)
        assert left.pop("incremental_backups_listing_complete") == 0
        latest = left.pop(LATEST, -inf)
        size = left.pop("incremental_backup_latest_size_bytes", None)
        assert not left, f"published before the window was listed: {left}"
        possible: dict[float, set[float | None]] = {-inf: {None}}
        certain = -inf
        moments = self.truth.moments((query.begun, query.ended), bands)
        for row in self.truth.rows():
            states = self.possible_states(row)
            if FINISHED not in states or row.end is None:
                continue
            end = floor(NOON + row.end)
            if end > moments[-1]:
                continue
            possible.setdefault(end, set()).add((row.size or 0.0) * 1024)
            # Nobody knows yet how long backups take.
            if len(states) == 1 and row.duration <= HOUR and end <= moments[0]:
                certain = max(certain, end)
        assert latest >= certain, f"a later backup than {latest} is known: {certain}"
        assert size in possible[latest]

    def check_overdue(self) -> None:
        """Whole windows cannot be listed: for an interval that is no news, for three it fails."""
        query = self.queries[-1]
        if self.tried_at is None or not query.listed:
            return
        overdue = query.begun - self.tried_at
        if overdue > self.resync_interval + ROUNDING:
            note("overdue")
            assert not query.complete, f"complete, though overdue since {overdue}"
        assert overdue <= 3 * self.resync_interval + ROUNDING, f"believed for {overdue}"

    def possible_states(self, row: Row) -> set[str]:
        query = self.queries[-1]
        states = self.truth.states(row, query.since, query.ended) | self.remembered(row)
        if states != {ABSENT} and self.may_miss(row):
            states.add(ABSENT)
        return states

    def is_only_remembered(self, row: Row) -> bool:
        """Whether it was gone before the query began."""
        query = self.queries[-1]
        return self.truth.states(row, query.since, query.ended) == {ABSENT}

    def is_listed_since(self, moment: float) -> bool:
        """Whether the whole window must have been listed anew since a moment."""
        wait = self.resync_interval
        if not all(query.calm for query in self.queries):
            wait += int(OLDEST_PAGE)
        return any(
            query.begun >= moment + wait + ROUNDING for query in self.queries if is_sure(query)
        )

    def remembered(self, row: Row) -> set[str]:
        """What a deleted row may still be published as: what it was when it was last listed."""
        if row.deleted is None or row.deleted > self.queries[-1].ended:
            return set()
        if self.is_listed_since(row.deleted) or self.is_found_gone(row):
            return set()
        states: set[str] = set()
        for query in self.queries[:-1]:
            if query.since < row.deleted:
                until = min(query.ended, row.deleted)
                states |= self.truth.states(row, query.since, until)
        return states

    def is_found_gone(self, row: Row) -> bool:
        """Whether an answer that must have shown it was complete without it."""
        assert row.deleted is not None
        return any(
            query.complete
            and query.listed
            and query.since >= row.deleted
            and latest is not None
            and row.end is not None
            and row.begin > latest - HOUR + ROUNDING
            for query, latest in self.with_latest()
        )

    def with_latest(self) -> Iterator[tuple[Query, float | None]]:
        """Each query, and the latest end that was published before it."""
        latest: float | None = None
        for query in self.queries:
            yield query, latest
            if query.latest is not None:
                latest = query.latest if latest is None else max(latest, query.latest)

    def may_miss(self, row: Row) -> bool:
        """Whether it lies further back than what was asked for since it can be seen."""
        if self.is_beyond_listings(row):
            return True
        finishes = row.appears if row.end is None else max(row.appears, row.end)
        if self.is_listed_since(finishes) or self.is_looked_at_since(row, finishes):
            return False
        longest = self.known_longest()
        for query, latest in self.with_latest():
            states = self.truth.states(row, query.since, query.ended)
            if not query.success or ABSENT in states:
                continue
            if latest is None:
                if query.calm or row.appears <= self.queries[0].since:
                    return False  # the first one has listed all
                continue
            overlap = max(HOUR, longest) if self.truth.filters_by_begin else HOUR
            moment = min(self.truth.moment_of(row, state) for state in states)
            if moment > latest - overlap + ROUNDING:
                return False
        return row.appears > self.queries[0].since or self.truth.hides_running

    def is_looked_at_since(self, row: Row, moment: float) -> bool:
        """Whether a longer look for what is new must have shown a finished row."""
        if row.end is None or self.truth.knobs.total_count != "true":
            return False
        if not all(is_sure(query) and query.complete for query in self.queries):
            return False
        query = self.queries[-1]
        longest = max((other.duration for other in self.truth.rows()), default=0.0)
        far = row.end - longest - ROUNDING
        at_least = max(query.begun - self.truth.cloud.lookback, query.begun - LONG_LOOK_REACH)
        later = [
            other
            for other in self.truth.rows()
            if (other.end is None or other.end >= far)
            and self.truth.states(other, moment, query.ended) != {ABSENT}
        ]
        return (
            far > at_least
            and len(later) <= LONG_LOOK_ROWS
            and self.queries[0].ended < moment
            and query.begun >= moment + LONG_LOOK_INTERVAL + ROUNDING
        )

    def known_longest(self) -> float:
        """The longest duration in the window, of backups that the first listing has shown."""
        begun = self.queries[0].since
        return max(
            (
                row.duration
                for row in self.truth.rows()
                if row.end is not None
                and begun - self.truth.cloud.lookback < row.end <= begun
                and self.truth.states(row, begun, self.queries[-1].ended) == {FINISHED}
            ),
            default=0.0,
        )

    def is_beyond_listings(self, row: Row) -> bool:
        """Where an interval that begins before the lookback begins, unless another took longer."""
        window = self.queries[-1].begun - self.truth.cloud.lookback
        return (
            self.truth.filters_by_begin
            and row.end is not None
            and row.end < window + 60
            and row.begin < window - 30 * HOUR
        )


def is_sure(query: Query) -> bool:
    return query.success and query.listed and query.calm and query.quiet
