"""The status page for people: one snapshot as HTML, worst instances first.

Server-rendered and complete in one response: no script, no further file, no API request. The page
does not reload itself, although a reload would cost nothing: it would throw away what is being
typed into the search box, the scroll position and the keyboard's focus.
"""

import base64
import hashlib
from collections import Counter
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from exporter.models import Snapshot
from exporter.page.navigation import build_pages, is_wanted, parse_state
from exporter.page.picture import WIDTH
from exporter.page.projects import build_project
from exporter.page.rows import build_row
from exporter.page.state import judge
from exporter.page.verdict import build_headline, build_tallies
from exporter.page.words import build_moment, format_duration

# Prometheus itself takes a series for gone when it was not scraped for five minutes.
OLD_AFTER_SECONDS = 300.0

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
    wanted = parse_state(state)
    results = snapshot.results if snapshot else ()
    judged = sorted((judge(result, now=now) for result in results), key=lambda each: each.order)
    matching = [each for each in judged if is_wanted(each, query, wanted)]
    pages = build_pages(len(matching), page, query, wanted)
    counts = Counter(each.state for each in judged)
    per_project = Counter(result.instance.project_id for result in results)
    html = _TEMPLATE.render(
        style=_STYLE,
        picture_width=WIDTH,
        version=version,
        metrics_href="./" + telemetry_path.lstrip("/"),
        docs_url=docs_url if urlsplit(docs_url).scheme in ("http", "https") else "",
        now=build_moment(now, now),
        scraped=build_moment(snapshot.finished, now) if snapshot else None,
        scrape_duration=format_duration(snapshot.finished - snapshot.started) if snapshot else "",
        is_old=snapshot is not None and now - snapshot.finished > old_after_seconds,
        headline=build_headline(counts),
        total=len(judged),
        tallies=list(build_tallies(judged, counts, wanted)),
        query=query,
        wanted=wanted,
        pages=pages,
        rows=[build_row(each, now=now) for each in matching[max(pages.first - 1, 0) : pages.last]],
        projects=[
            build_project(project, per_project[project.id], now)
            for project in (snapshot.projects if snapshot else ())
        ],
    )
    # Names come from elsewhere and may hold half a surrogate pair, which no response can carry.
    return html.encode("utf-8", "replace").decode("utf-8")
