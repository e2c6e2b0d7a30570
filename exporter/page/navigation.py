"""Which instances are shown: a search, a state, and one page of those that match."""

from dataclasses import dataclass
from urllib.parse import urlencode

from exporter.page.state import Judged, State

ROWS_PER_PAGE = 100
# No state: instances in whose window a hole is drawn, whatever their state.
WITH_HOLE = "with-a-hole"


@dataclass(frozen=True, slots=True)
class Pages:
    """Where in the list of matching instances this page is; rows count from 1."""

    number: int
    total: int
    first: int
    last: int
    matching: int
    previous_href: str
    next_href: str


def parse_state(text: str) -> str:
    """The slug that a person means by a word or a slug; empty where it is none."""
    slug = text.strip().casefold().replace(" ", "-")
    return slug if slug in {WITH_HOLE, *(state.slug for state in State)} else ""


def is_wanted(judged: Judged, query: str, wanted: str) -> bool:
    """Whether the instance is in the wanted state, and all words of the query are found in it."""
    if wanted == WITH_HOLE:
        if not judged.shows_hole:
            return False
    elif wanted and judged.state.slug != wanted:
        return False
    result = judged.result
    instance = result.instance
    haystack = "\n".join(
        (
            instance.name,
            instance.id,
            instance.project_name,
            instance.project_id,
            instance.region,
            *(state.value for state in judged.states),
            result.failure.reason.value if result.failure else "",
        )
    ).casefold()
    return all(word in haystack for word in set(query.casefold().split()))


def build_pages(matching: int, page: int | str, query: str, wanted: str) -> Pages:
    total = max(-(-matching // ROWS_PER_PAGE), 1)
    try:
        number = min(max(int(page), 1), total)
    except ValueError:
        number = 1
    first = (number - 1) * ROWS_PER_PAGE
    return Pages(
        number=number,
        total=total,
        first=min(first + 1, matching),
        last=min(first + ROWS_PER_PAGE, matching),
        matching=matching,
        previous_href=build_href(query, wanted, number - 1) if number > 1 else "",
        next_href=build_href(query, wanted, number + 1) if number < total else "",
    )


def build_href(query: str = "", wanted: str = "", page: int = 1) -> str:
    """Relative, so that it holds behind a proxy that adds a prefix."""
    named = {"q": query, "state": wanted, "page": str(page) if page > 1 else ""}
    given = {name: value for name, value in named.items() if value}
    return "./?" + urlencode(given, errors="replace") if given else "./"
