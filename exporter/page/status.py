"""The status page for people: what is known now as HTML, the verdict first and the worst on top.

Server-rendered and complete in one response: no script, no further file, no API request. The page
does not reload itself unless it is asked to (`?refresh=60`, for a screen on a wall): it would throw
away what is being typed into the search box, the scroll position and the keyboard's focus.
"""

from collections import Counter
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from exporter.models import ConfigurationState, View
from exporter.page.environment import ENVIRONMENT
from exporter.page.navigation import build_pages, parse_selection
from exporter.page.notices import build_notices
from exporter.page.policy import content_security_policy
from exporter.page.projects import build_project
from exporter.page.rows import build_row
from exporter.page.state import Severity, judge
from exporter.page.strokes import WIDTH
from exporter.page.troubles import tell_causes
from exporter.page.verdict import build_tallies, build_verdict
from exporter.page.words import build_moment, format_duration

# Prometheus itself takes a series for gone when it was not scraped for five minutes.
OLD_AFTER_SECONDS = 300.0
_MOST_NOTICES = 6

_STYLE = ENVIRONMENT.get_template("status.css").render()
_TEMPLATE = ENVIRONMENT.get_template(
    "status.html",
    globals={"style": _STYLE, "picture_width": WIDTH, "most_notices": _MOST_NOTICES},
)
_ICON_COLOURS: Mapping[Severity, str] = {
    Severity.CRITICAL: "#d92d20",
    Severity.WARNING: "#e08a00",
    Severity.UNKNOWN: "#4a7ab5",
    Severity.GOOD: "#2f8f57",
}

CONTENT_SECURITY_POLICY = content_security_policy(_STYLE)
"""The header to send with the page: it may show itself and send its own search form, no more."""


def render_status(
    view: View,
    *,
    now: float,
    version: str,
    query: str = "",
    state: str = "",
    page: str = "1",
    refresh: str = "",
    telemetry_path: str = "/metrics",
    docs_url: str = "",
    configuration: ConfigurationState | None = None,
    old_after_seconds: float = OLD_AFTER_SECONDS,
) -> str:
    """The page for `view` as of `now` (seconds since the epoch).

    `query`, `state`, `page` and `refresh` are the request's parameters as they came: words that
    must all be found in an instance's names, ids, region, states or reason; a state's word or slug,
    or `with-a-hole`; a page's number; seconds.
    """
    selection = parse_selection(query, state, refresh)
    judged = sorted((judge(each, now=now) for each in view.results), key=lambda each: each.order)
    matching = [each for each in judged if selection.takes(each)]
    pages = build_pages(len(matching), page, selection)
    counts = Counter(each.state for each in judged)
    per_project = Counter(result.instance.project_id for result in view.results)
    causes, shared = tell_causes(judged, selection)
    projects = [build_project(each, per_project[each.id], now) for each in view.projects]
    scraped = view.finished
    old_scrape = scraped if scraped is not None and now - scraped > old_after_seconds else None
    shown = matching[max(pages.first - 1, 0) : pages.last]
    rows = [build_row(each, shared=shared) for each in shown]
    old = format_duration(now - old_scrape) if old_scrape is not None else ""
    verdict = build_verdict(counts, old=old, is_asked=scraped is not None)
    html = _TEMPLATE.render(
        icon=_draw_icon(verdict.severity),
        version=version,
        metrics_href="./" + telemetry_path.lstrip("/"),
        docs_url=docs_url if urlsplit(docs_url).scheme in ("http", "https") else "",
        now=build_moment(now, now),
        scraped=build_moment(scraped, now) if scraped is not None else None,
        scrape_duration=format_duration((view.finished or 0.0) - (view.started or 0.0)),
        verdict=verdict,
        notices=list(build_notices(projects, configuration, old_scrape, now, view.results)),
        causes=causes,
        total=len(judged),
        tallies=list(build_tallies(judged, counts, selection)),
        selection=selection,
        pages=pages,
        rows=rows,
        has_restores=any(row.restores is not None for row in rows),
        projects=projects,
        loaded=build_moment(configuration.loaded_at, now) if configuration else None,
    )
    # Names come from elsewhere and may hold half a surrogate pair, which no response can carry.
    return html.encode("utf-8", "replace").decode("utf-8")


def _draw_icon(severity: Severity) -> str:
    """The verdict's colour in the browser's tab."""
    colour = _ICON_COLOURS[severity]
    circle = f"<circle cx='8' cy='8' r='7' fill='{colour}'/>"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>{circle}</svg>"
    return "data:image/svg+xml," + quote(svg, safe="/:=' ")
