"""The whole in a sentence, and how many instances are in which state."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from exporter.page.navigation import WITH_HOLE, build_href
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


def build_tallies(
    judged: Sequence[Judged], counts: Mapping[State, int], wanted: str
) -> Iterator[Tally]:
    yield Tally("all", "all", len(judged), not wanted, build_href())
    for state in State:
        href = build_href(wanted=state.slug)
        yield Tally(state.value, state.slug, counts[state], wanted == state.slug, href)
    holes = sum(each.shows_hole for each in judged)
    yield Tally("with a hole", WITH_HOLE, holes, wanted == WITH_HOLE, build_href(wanted=WITH_HOLE))


def build_headline(counts: Mapping[State, int]) -> str:
    """`2 of 6 instances need attention`, or what else there is to say of the whole."""
    total = sum(counts.values())
    bad = sum(count for state, count in counts.items() if state.severity.needs_attention)
    unknown = sum(count for state, count in counts.items() if state.severity is Severity.UNKNOWN)
    if not total:
        return "no instances"
    if bad:
        need = "instance needs" if total == 1 else "instances need"
        return f"{bad:,} of {total:,} {need} attention"
    if unknown:
        return f"nothing is known yet of {unknown:,} of {format_count(total, 'instance')}"
    return "all is well" if total == 1 else f"all {total:,} instances are well"
