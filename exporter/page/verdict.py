"""The whole in a sentence, and how many instances are in which state."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from exporter.page.navigation import WITH_HOLE, Selection
from exporter.page.state import Judged, Severity, State
from exporter.page.words import format_count


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of all instances are in a state, and where to see them."""

    word: str
    slug: str
    count: int
    is_selected: bool
    href: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to think of all instances together, and how bad the worst of them is."""

    text: str
    severity: Severity


def build_verdict(counts: Mapping[State, int], *, old: str = "", is_asked: bool = True) -> Verdict:
    """`old`: how long nobody has looked, where that is too long; not asked: no scrape yet."""
    total = sum(counts.values())
    bad = [state for state in State if state.severity.needs_attention and counts.get(state)]
    unknown = counts.get(State.NOT_ASKED, 0) + counts.get(State.LISTING, 0)
    suspended = counts.get(State.SUSPENDED, 0)
    if not total:
        return Verdict("no instances", Severity.UNKNOWN)
    everyone = "the only instance" if total == 1 else f"all {total:,} instances"
    if not is_asked:
        return Verdict(
            f"no scrape yet, {format_count(total, 'instance')} {'waits' if total == 1 else 'wait'}",
            Severity.UNKNOWN,
        )
    if bad:
        count = sum(counts[state] for state in bad)
        of = everyone if count == total else f"{count:,} of {total:,} instances"
        need = "needs" if total == 1 else "need"
        return Verdict(f"{of} {need} attention", bad[0].severity)
    if unknown:
        of = everyone if unknown == total else f"{unknown:,} of {total:,} instances"
        return Verdict(f"not enough is known yet of {of}", Severity.UNKNOWN)
    how = "well" if not suspended else "suspended" if suspended == total else "well or suspended"
    if old:
        was = "was" if total == 1 else "were"
        return Verdict(f"{everyone} {was} {how} {old} ago", Severity.UNKNOWN)
    return Verdict(f"{everyone} {'is' if total == 1 else 'are'} {how}", Severity.GOOD)


def build_tallies(
    judged: Sequence[Judged], counts: Mapping[State, int], selection: Selection
) -> Iterator[Tally]:
    """All, each state that occurs, and the instances with a hole where those are more."""

    def tally(word: str, slug: str, count: int) -> Tally:
        return Tally(word, slug, count, selection.state == slug, selection.href(state=slug))

    yield tally("all", "", len(judged))
    for state in State:
        if counts.get(state) or selection.state == state.slug:
            yield tally(state.value, state.slug, counts.get(state, 0))
    holes = sum(each.shows_hole for each in judged)
    if holes > counts.get(State.HOLE, 0) or selection.state == WITH_HOLE:
        yield tally("with a hole", WITH_HOLE, holes)
