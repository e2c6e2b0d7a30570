"""The status page for people: one snapshot as HTML, worst instances first.

Server-rendered and complete in one response: no script, no further file, no API request. The page
does not reload itself, although a reload would cost nothing: it would throw away what is being
typed into the search box, the scroll position and the keyboard's focus.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlencode, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from exporter.errors import Reason
from exporter.models import InstanceResult, ProjectResult, Snapshot
from exporter.page.picture import WIDTH, Picture, build_picture, has_hole
from exporter.page.words import (
    format_count,
    format_duration,
    format_exact_size,
    format_iso,
    format_size,
    format_time,
)

ROWS_PER_PAGE = 100
# Prometheus itself takes a series for gone when it was not scraped for five minutes.
OLD_AFTER_SECONDS = 300.0
# A cloud's or a proxy's message can be a whole page.
_MESSAGE_CHARACTERS = 500

_ENVIRONMENT = Environment(
    loader=PackageLoader("exporter.page", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_TEMPLATE = _ENVIRONMENT.get_template("status.html")
_STYLE = _ENVIRONMENT.get_template("status.css").render()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The header to send with the page: it may show itself and send its own search form, no more."""


class State(StrEnum):
    """What is the matter with an instance, worst first; the value is the word that people read."""

    FAILING = "failing"
    STALE = "stale"
    NO_BACKUPS = "no backups"
    LISTING = "listing"
    OK = "ok"

    @property
    def slug(self) -> str:
        return self.value.replace(" ", "-")


_RANK: Mapping[State, int] = {state: rank for rank, state in enumerate(State)}
# No state of its own: an instance that is ok now, but cannot be restored to every moment.
_HOLE = "hole"


@dataclass(frozen=True, slots=True)
class Judged:
    """An instance's result and what is to be thought of it."""

    result: InstanceResult
    state: State
    has_hole: bool

    @property
    def order(self) -> tuple[int, bool, str, str, str]:
        instance = self.result.instance
        name = (instance.name or instance.id).casefold()
        return _RANK[self.state], not self.has_hole, name, instance.project_id, instance.id


@dataclass(frozen=True, slots=True)
class Moment:
    """A time for people and for machines, and how long ago it was (or in how long it will be)."""

    text: str
    iso: str
    distance: str


@dataclass(frozen=True, slots=True)
class Size:
    """An amount of storage: rounded for reading, and exact."""

    text: str
    exact: str


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


@dataclass(frozen=True, slots=True)
class Project:
    """One project as the template shows it."""

    result: ProjectResult
    instances: int
    token_expiry: Moment | None
    is_token_expired: bool


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of all instances are in a state, and where to see them."""

    word: str
    slug: str
    count: int
    is_selected: bool
    href: str


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


def render_status(
    snapshot: Snapshot | None,
    *,
    now: float,
    version: str,
    query: str = "",
    state: str = "",
    page: int | str = 1,
    telemetry_path: str = "/metrics",
    docs_url: str = "",
    old_after_seconds: float = OLD_AFTER_SECONDS,
) -> str:
    """The page for `snapshot` as of `now` (seconds since the epoch); None is: no scrape yet.

    `query`, `state` and `page` are the request's parameters as they came: words that must all be
    found in an instance's names, ids, region, state or reason; a state's word or slug, or `hole`;
    a page's number. What makes no sense among the last two is taken for the default.
    """
    query = query.strip()
    wanted = _parse_state(state)
    results = snapshot.results if snapshot else ()
    judged = sorted((judge(result, now=now) for result in results), key=lambda each: each.order)
    matching = [each for each in judged if _is_wanted(each, query, wanted)]
    pages = _build_pages(len(matching), page, query, wanted)
    counts = Counter(each.state for each in judged)
    per_project = Counter(result.instance.project_id for result in results)
    html = _TEMPLATE.render(
        style=_STYLE,
        picture_width=WIDTH,
        version=version,
        metrics_href="./" + telemetry_path.lstrip("/"),
        docs_url=docs_url if urlsplit(docs_url).scheme in ("http", "https") else "",
        now=_build_moment(now, now),
        scraped=_build_moment(snapshot.finished, now) if snapshot else None,
        scrape_duration=format_duration(snapshot.finished - snapshot.started) if snapshot else "",
        is_old=snapshot is not None and now - snapshot.finished > old_after_seconds,
        headline=_build_headline(counts, len(judged)),
        total=len(judged),
        tallies=list(_build_tallies(judged, counts, wanted)),
        query=query,
        wanted=wanted,
        pages=pages,
        rows=[build_row(each, now=now) for each in matching[max(pages.first - 1, 0) : pages.last]],
        projects=[
            _build_project(project, per_project[project.id], now)
            for project in (snapshot.projects if snapshot else ())
        ],
    )
    # Names come from elsewhere and may hold half a surrogate pair, which no response can carry.
    return html.encode("utf-8", "replace").decode("utf-8")


def judge(result: InstanceResult, *, now: float) -> Judged:
    """The state of an instance as of `now`, which is the time that its ages are told at."""
    reading = result.reading
    if reading is None:
        is_listing = (
            result.progress is not None
            and result.failure is not None
            and result.failure.reason is Reason.DEADLINE
        )
        return Judged(result, State.LISTING if is_listing else State.FAILING, has_hole=False)
    limit = result.instance.stale_after_seconds
    if reading.latest_end is None:
        return Judged(result, State.NO_BACKUPS, has_hole=False)
    state = State.STALE if now - reading.latest_end > limit else State.OK
    return Judged(result, state, has_hole(reading, limit))


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
            message=_shorten(message) or "The query gave no result.",
            hint=_shorten(failure.hint) if failure else "",
            effort=f"{format_count(result.api_requests, 'request')}, {errors}, {took}",
            last_success=_build_moment(result.last_success, now)
            if result.last_success is not None
            else None,
        )
    latest_size = reading.latest_size_kilobytes
    gap = reading.max_interval_seconds
    return Row(
        judged,
        lookback,
        stale_after,
        latest=_build_moment(reading.latest_end, now) if reading.latest_end is not None else None,
        size=_build_size(reading.size_kilobytes),
        latest_size=_build_size(latest_size) if latest_size is not None else None,
        longest_gap=format_duration(gap) if gap is not None else "",
        picture=build_picture(reading, instance, now=now),
        reason=failure.reason.value if failure else "",
        message=_shorten(message),
        hint=_shorten(failure.hint) if failure else "",
    )


def _parse_state(text: str) -> str:
    slug = text.strip().casefold().replace(" ", "-")
    return slug if slug in {_HOLE, *(state.slug for state in State)} else ""


def _is_wanted(judged: Judged, query: str, wanted: str) -> bool:
    if wanted == _HOLE:
        if not judged.has_hole:
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
            judged.state.value,
            _HOLE if judged.has_hole else "",
            result.failure.reason.value if result.failure else "",
        )
    ).casefold()
    return all(word in haystack for word in set(query.casefold().split()))


def _build_pages(matching: int, page: int | str, query: str, wanted: str) -> Pages:
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
        previous_href=_build_href(query, wanted, number - 1) if number > 1 else "",
        next_href=_build_href(query, wanted, number + 1) if number < total else "",
    )


def _build_href(query: str = "", wanted: str = "", page: int = 1) -> str:
    """Relative, so that it holds behind a proxy that adds a prefix."""
    named = {"q": query, "state": wanted, "page": str(page) if page > 1 else ""}
    given = {name: value for name, value in named.items() if value}
    return "./?" + urlencode(given, errors="replace") if given else "./"


def _build_tallies(
    judged: Sequence[Judged], counts: Mapping[State, int], wanted: str
) -> Iterator[Tally]:
    yield Tally("all", "all", len(judged), not wanted, _build_href())
    for state in State:
        href = _build_href(wanted=state.slug)
        yield Tally(state.value, state.slug, counts[state], wanted == state.slug, href)
    holes = sum(each.has_hole for each in judged)
    yield Tally("with a hole", _HOLE, holes, wanted == _HOLE, _build_href(wanted=_HOLE))


def _build_headline(counts: Mapping[State, int], total: int) -> str:
    bad = (State.FAILING, State.STALE, State.NO_BACKUPS)
    troubles = [f"{counts[state]:,} {state.value}" for state in bad if counts[state]]
    if troubles:
        return ", ".join(troubles)
    if counts[State.LISTING]:
        return f"{counts[State.LISTING]:,} listing"
    return "all ok" if total else "no instances"


def _build_project(project: ProjectResult, instances: int, now: float) -> Project:
    expiry = project.token_expiry
    return Project(
        result=project,
        instances=instances,
        token_expiry=_build_moment(expiry, now) if expiry is not None else None,
        is_token_expired=expiry is not None and expiry <= now,
    )


def _build_moment(timestamp: float, now: float) -> Moment:
    return Moment(
        format_time(timestamp), format_iso(timestamp), format_duration(abs(now - timestamp))
    )


def _build_size(size_kilobytes: float) -> Size:
    return Size(format_size(size_kilobytes * 1_024), format_exact_size(size_kilobytes))


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE_CHARACTERS else text[: _MESSAGE_CHARACTERS - 1] + "…"
