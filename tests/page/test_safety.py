"""What comes from elsewhere is only text, and the page loads nothing."""

import base64
import hashlib
import re

from exporter.errors import Reason
from exporter.models import (
    ConfigurationState,
    Failure,
    InstanceResult,
    Progress,
    ProjectResult,
    Reading,
    View,
)
from exporter.page.status import CONTENT_SECURITY_POLICY, render_status
from tests.page.making import (
    HOUR,
    NOW,
    make_ok,
    make_reading,
    make_result,
    make_view,
    names,
)
from tests.page.parsing import parse

HOSTILE = (
    """<script>alert("1")</script>'"><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}</bdi></td>"""
)


def make_view_of(text: str) -> View:
    """Every state, with `text` in each field that holds one, and a project in trouble."""

    def named(
        reading: Reading | None, failure: Failure | None, progress: Progress | None = None
    ) -> InstanceResult:
        return make_result(
            text,
            reading,
            failure,
            instance_id=text,
            project_id=text,
            project_name=text,
            region=text,
            progress=progress,
        )

    failure = Failure(Reason.SERVER, text, text)
    deadline = Failure(Reason.DEADLINE, text, text)
    results = [
        named(make_reading(), failure),
        named(make_reading([3 * HOUR]), None),
        named(make_reading([]), None),
        named(None, failure),
        named(None, deadline, Progress(1, 2)),
        named(None, None),
    ]
    project = ProjectResult(
        text,
        text,
        text,
        NOW - 1,
        discovery_success=False,
        discovery_failure=failure,
        found_instances=3,
        unusable_ids=[text],
    )
    nameless = ProjectResult(text)
    return make_view(results, [project, nameless], finished=NOW - 900)


def test_markup_in_any_field_is_only_text() -> None:
    def shape(html: str) -> list[tuple[str, list[str]]]:
        return [(each.tag, sorted(each.attributes)) for each in parse(html).walk()]

    def render_all(view: View, text: str) -> str:
        return render_status(
            view,
            now=NOW,
            version=text,
            query=text,
            state=text,
            page=text,
            telemetry_path=text,
            docs_url=text,
            configuration=ConfigurationState(NOW - 60, NOW - 1, [text]),
        )

    html = render_all(make_view_of(HOSTILE), HOSTILE)
    assert "<script" not in html
    assert "<img" not in html
    # It is all there to read, and reads as it is.
    page = parse(html)
    assert names(page) == [HOSTILE] * 6
    assert page.all("p", "hint")[0].one("bdi").text == HOSTILE
    # The page is built of the same elements with the same attributes as with a harmless word.
    assert shape(html) == shape(render_all(make_view_of("orders"), "orders"))
    unasked = [make_view([make_result(text)], finished=None) for text in (HOSTILE, "orders")]
    assert shape(render_all(unasked[0], HOSTILE)) == shape(render_all(unasked[1], "orders"))


def test_half_a_surrogate_pair_does_not_break_the_response() -> None:
    html = render_status(make_view([make_ok("bad \ud800 name")]), now=NOW, version="1", query="bad")
    assert "bad ? name" in html
    assert html.encode("utf-8")
    render_status(make_view([]), now=NOW, version="1", query="\udfff").encode("utf-8")


def test_page_refers_to_nothing_that_a_browser_would_fetch() -> None:
    page = parse(render_status(make_view_of(HOSTILE), now=NOW, version="1"))
    fetched = [each for each in page.walk() if "src" in each.attributes or each.tag == "link"]
    assert [each.attributes["href"] for each in fetched] == [
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
        "%3Ccircle cx='8' cy='8' r='7' fill='%23d92d20'/%3E%3C/svg%3E"
    ]
    assert not [each for each in page.walk() if "style" in each.attributes]
    assert not [each for each in page.all("meta") if "http-equiv" in each.attributes]
    (style,) = page.all("style")
    css = "".join(part for part in style.parts if isinstance(part, str))
    assert "@import" not in css
    assert re.findall(r"url\(([^)]*)\)", css) == ["#hatch", "#hatch-open"]


def test_policy_allows_exactly_the_style_of_the_page() -> None:
    html = render_status(make_view_of(HOSTILE), now=NOW, version="1")
    (css,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'; ")
    assert "unsafe" not in CONTENT_SECURITY_POLICY
