"""Which instances are shown: a search, a state, and one page of those that match."""

from dataclasses import dataclass
from urllib.parse import urlencode

from exporter.page.state import Judged, State

ROWS_PER_PAGE = 100
# No state: instances in whose window a hole is drawn, whatever their state.
WITH_HOLE = "with-a-hole"
_SHORTEST_REFRESH, _LONGEST_REFRESH = 5, 86_400


@dataclass(frozen=True, slots=True)
class Selection:
    """What a person has asked for, as far as it makes sense."""

    query: str = ""
    state: str = ""  # a state's slug, WITH_HOLE, or empty: every state
    refresh: int = 0  # seconds until the page loads itself again; 0: it does not

    def href(
        self,
        *,
        page: int = 1,
        query: str | None = None,
        state: str | None = None,
        refresh: int | None = None,
    ) -> str:
        """The link to another selection. Relative, so that it holds behind a proxy's prefix."""
        named = {
            "q": self.query if query is None else query,
            "state": self.state if state is None else state,
            "page": page if page > 1 else 0,
            "refresh": self.refresh if refresh is None else refresh,
        }
        given = {name: value for name, value in named.items() if value}
        return "./?" + urlencode(given, errors="replace") if given else "./"

    def takes(self, judged: Judged) -> bool:
        """Whether the instance is in the wanted state, and all words of the query are found."""
        if self.state == WITH_HOLE:
            if not judged.shows_hole:
                return False
        elif self.state and judged.state.slug != self.state:
            return False
        words = set(self.query.casefold().split())
        if not words:
            return True
        haystack = _searched_text(judged)
        return all(word in haystack for word in words)


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


def parse_selection(query: str, state: str, refresh: str) -> Selection:
    """What makes no sense is taken for the default."""
    slug = state.strip().casefold().replace(" ", "-")
    known = {WITH_HOLE, *(each.slug for each in State)}
    seconds = _parse_number(refresh)
    return Selection(
        query=query.strip(),
        state=slug if slug in known else "",
        refresh=min(max(seconds, _SHORTEST_REFRESH), _LONGEST_REFRESH) if seconds > 0 else 0,
    )


def build_pages(matching: int, page: str, selection: Selection) -> Pages:
    total = max(-(-matching // ROWS_PER_PAGE), 1)
    number = min(max(_parse_number(page), 1), total)
    first = (number - 1) * ROWS_PER_PAGE
    return Pages(
        number=number,
        total=total,
        first=min(first + 1, matching),
        last=min(first + ROWS_PER_PAGE, matching),
        matching=matching,
        previous_href=selection.href(page=number - 1) if number > 1 else "",
        next_href=selection.href(page=number + 1) if number < total else "",
    )


def _parse_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def _searched_text(judged: Judged) -> str:
    result = judged.result
    instance = result.instance
    return "\n".join(
        (
            instance.name,
            instance.id,
            instance.project_name,
            instance.project_id,
            instance.region,
            *judged.words,
            *(state.value for state in judged.states),
            result.failure.reason.value if result.failure else "",
        )
    ).casefold()
