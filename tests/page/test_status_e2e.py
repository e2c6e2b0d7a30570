"""The status page in a real Chromium.

`STATUS_PAGE_PNG=FILE` in the environment takes the picture of the README, docs/status-page.png
(which pngquant has made small).
"""

import os
import random
import shutil
import sys
import threading
from array import array
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from exporter.errors import Reason
from exporter.models import (
    BackupState,
    ConfigurationState,
    Failure,
    Instance,
    InstanceResult,
    Progress,
    ProjectResult,
    Reading,
    View,
)
from exporter.page.status import CONTENT_SECURITY_POLICY, render_status
from exporter.simulator import DEMO_INSTANCES
from tests.page.browser import DESKTOP, Browser
from tests.page.making import make_full, make_full_backups, make_window, with_sources
from tests.support.programs import eventually, free_port, get, running, until_ready

pytestmark = pytest.mark.e2e

NOW = 1_783_246_387.0  # 2026-07-05 10:13:07 UTC
HOUR = 3_600.0
DAY = 86_400.0
PROJECT_ID = "97b026aa9cc4417888c14c84a1ad9860"

PHONE = (375, 812)
NARROWEST = (320, 640)

# Every element that sticks out to the right of the page, deepest first.
OVERFLOWING = """
[document.documentElement.scrollWidth > innerWidth ? 'page' : '',
 ...[...document.querySelectorAll('body *:not(.unseen, .skip, thead, thead *, .defs *)')]
   .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)
   .map(e => e.tagName + '.' + e.getAttribute('class'))].filter(Boolean)
"""


class PageServer(ThreadingHTTPServer):
    """Answers `/` with the status page of `view`, as the exporter's web application does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PageHandler)
        self.view = View([], [])
        self.now = NOW

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class PageHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, PageServer)
        url = urlsplit(self.path)
        given = {name: values[0] for name, values in parse_qs(url.query).items()}
        html = render_status(
            self.server.view,
            now=self.server.now,
            version="1.0.0",
            query=given.get("q", ""),
            state=given.get("state", ""),
            page=given.get("page", ""),
            refresh=given.get("refresh", ""),
            docs_url="https://example.invalid/docs",
            configuration=ConfigurationState(NOW - 5 * HOUR),
        )
        body = html.encode()
        self.send_response(200 if url.path == "/" else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    assert executable, "these tests need Chromium: apt-get install chromium"
    running = Browser(executable, tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def make_ends(
    *, every: float, age: float, until_age: float = 100.0, jitter: float = 20.0, seed: int = 1
) -> list[float]:
    """Backups' ends from `age` seconds ago until `until_age` seconds ago, not quite regular."""
    generator = random.Random(seed)
    ends = []
    end = NOW - age
    while end <= NOW - until_age:
        ends.append(end)
        end += every + generator.uniform(-jitter, jitter)
    return ends


def make_reading(
    ends: list[float],
    *,
    lookback: float = DAY,
    kilobytes: float = 3_200.0,
    running: int = 0,
    at: float = NOW - 9,
) -> Reading:
    inside = array("d", sorted(end for end in ends if end >= NOW - lookback))
    return Reading(
        at=at,
        count=len(inside) + running,
        size_kilobytes=kilobytes * len(inside),
        running=running,
        listing_complete=True,
        latest_end=inside[-1] if inside else None,
        latest_size_kilobytes=kilobytes if inside else None,
        oldest_end=inside[0] if inside else None,
        max_interval_seconds=max((b - a for a, b in pairwise(inside)), default=None),
        ends=inside,
    )


def make_result(
    name: str,
    number: int,
    reading: Reading | None,
    failure: Failure | None = None,
    *,
    lookback: float = DAY,
    stale_after: float = HOUR,
    progress: Progress | None = None,
    last_reading: Reading | None = None,
) -> InstanceResult:
    return InstanceResult(
        instance=Instance(
            project_id=PROJECT_ID,
            id=f"{number:02x}a4ea66210545909d74a05c27a7179ein07",
            project_name="production",
            name=name,
            region="cn-north-4",
            lookback_seconds=lookback,
            stale_after_seconds=stale_after,
        ),
        reading=reading,
        failure=failure,
        duration_seconds=0.31,
        api_requests=1,
        api_errors=1 if failure else 0,
        api_requests_total=400,
        api_errors_total={reason: 0 for reason in Reason},
        last_success=NOW - (47 * 60 if failure else 9),
        progress=progress,
        last_reading=reading or last_reading,
    )


def make_view(*results: InstanceResult) -> View:
    project = ProjectResult(
        PROJECT_ID,
        name="production",
        region="cn-north-4",
        token_expiry=NOW + 21.4 * HOUR,
        discovery_success=True,
        discovered_instances=8,
        unmonitored_instances=2,
    )
    return View(results, [project], NOW - 9.8, NOW - 9)


def make_demo() -> View:
    """Six instances, each with another story."""
    week = make_ends(every=300, age=8 * DAY, jitter=100)
    week += make_ends(every=60, age=3 * DAY, until_age=2.6 * DAY, jitter=10, seed=2)
    with_hole = [
        end
        for end in make_ends(every=300, age=25 * HOUR, until_age=31, seed=3)
        if not NOW - 15 * HOUR < end < NOW - 10.6 * HOUR
    ]
    until_failing = make_reading(
        make_ends(every=300, age=25 * HOUR, until_age=48 * 60, seed=4), at=NOW - 47 * 60
    )
    forbidden = Failure(
        Reason.FORBIDDEN,
        "GET incremental-backups answered 403 DBS.200010: Operation not permitted",
        "Give the account the permission gaussdbformysql:backup:list in this project.",
    )
    return make_view(
        with_sources(
            make_result("orders", 1, make_reading(make_ends(every=300, age=25 * HOUR))),
            make_window((7 * DAY, 20 * HOUR), (19 * HOUR, 300)),
            make_full_backups(make_full(9 * HOUR), make_full(HOUR, BackupState.FAILED)),
        ),
        make_result(
            "billing",
            2,
            make_reading(week, lookback=7 * DAY, kilobytes=18_000, running=1),
            lookback=7 * DAY,
        ),
        make_result(
            "ledger",
            3,
            make_reading(make_ends(every=300, age=25 * HOUR, until_age=2.2 * HOUR), kilobytes=840),
            stale_after=HOUR / 2,
        ),
        make_result("inventory", 4, make_reading(with_hole, kilobytes=912)),
        make_result("archive", 5, make_reading([])),
        make_result("reports", 6, None, forbidden, last_reading=until_failing),
    )


def make_unasked() -> View:
    """The same before the first scrape."""
    demo = make_demo()
    return View([InstanceResult.unasked(each.instance) for each in demo.results], demo.projects)


def make_hostile() -> View:
    """Long words without a place to break, and markup, wherever the page shows a text."""
    long = "<script>document.title='owned'</script>" + "x" * 300
    failure = Failure(Reason.SERVER, "M" * 5_000, "<img src=//example.invalid/x onerror=alert(1)>")
    deadline = Failure(Reason.DEADLINE, "the scrape's time was over")
    listing = Progress(pages_done=12, pages_total=41)
    return make_view(
        make_result(long, 1, make_reading(make_ends(every=300, age=25 * HOUR))),
        make_result(long, 2, None, failure),
        make_result(long, 3, None, deadline, progress=listing),
        make_result(long, 4, make_reading(make_ends(every=7_000, age=25 * HOUR))),
        make_result(long, 5, make_reading([])),
        make_result(long, 6, None, failure),
    )


@pytest.mark.parametrize("size", [(1920, 1080), DESKTOP, (900, 700), PHONE, NARROWEST])
@pytest.mark.parametrize(
    "view", [make_demo(), make_hostile(), make_unasked()], ids=["demo", "hostile", "unasked"]
)
def test_nothing_sticks_out_at_any_width(
    browser: Browser, server: PageServer, size: tuple[int, int], view: View
) -> None:
    server.view = view
    server.now = NOW + 3_000  # the warning about an old scrape is there too
    browser.open(server.url, size=size)
    assert browser.evaluate("innerWidth") == size[0]
    assert browser.evaluate(OVERFLOWING) == []


def test_page_is_one_request_and_obeys_its_own_policy(browser: Browser, server: PageServer) -> None:
    server.view = make_hostile()
    browser.open(server.url)
    assert browser.evaluate("getComputedStyle(document.querySelector('table')).borderSpacing")
    assert browser.requested_urls() == [server.url]
    assert browser.complaints() == []
    assert "owned" not in browser.evaluate("document.title")


def test_style_is_applied_under_the_policy(browser: Browser, server: PageServer) -> None:
    server.view = make_demo()
    browser.open(server.url)
    assert browser.evaluate("getComputedStyle(document.body).maxWidth") == "1480px"


def test_worst_instances_are_on_the_first_screen_in_order(
    browser: Browser, server: PageServer
) -> None:
    server.view = make_demo()
    browser.open(server.url)
    on_screen = browser.evaluate(
        "[...document.querySelectorAll('#instances tbody')]"
        ".filter(r => r.getBoundingClientRect().bottom < innerHeight)"
        ".map(r => r.querySelector('.name').innerText)"
    )
    assert on_screen[:4] == ["ledger", "archive", "reports", "inventory"]


@pytest.mark.parametrize("name", ["demo", "one cause"])
def test_on_a_phone_the_first_instance_stands_on_the_first_screen(
    browser: Browser, server: PageServer, name: str
) -> None:
    refused = Failure(Reason.AUTH, "the login was refused: wrong account or password", "Check both")
    known = make_reading(make_ends(every=300, age=25 * HOUR))
    alike = [
        make_result(f"db-{number:03}", number, None, refused, last_reading=known)
        for number in range(300)
    ]
    server.view = make_demo() if name == "demo" else make_view(*alike)
    browser.open(server.url, size=(360, 740))
    bottom = browser.evaluate(
        "document.querySelector('#instances tbody').getBoundingClientRect().bottom"
    )
    assert bottom <= 740


def test_the_link_to_a_folded_cause_unfolds_it(browser: Browser, server: PageServer) -> None:
    def failing(number: int, message: str) -> InstanceResult:
        return make_result(f"db-{number}", number, None, Failure(Reason.SERVER, message))

    server.view = make_view(*(failing(i, "this" if i % 2 else "that") for i in range(6)))
    browser.open(server.url)
    causes = "[...document.querySelectorAll('details')].map(e => e.open)"
    assert browser.evaluate(causes) == [False, False]
    browser.evaluate("document.querySelector('tbody .message a').click()")
    assert sorted(browser.evaluate(causes)) == [False, True]


def test_search_works_with_the_keyboard_alone(browser: Browser, server: PageServer) -> None:
    server.view = make_demo()
    browser.open(server.url)
    browser.evaluate("document.querySelector('input[name=q]').focus()")
    browser.call("Input.insertText", text="cn-north-4 ledger")
    browser.events.clear()
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent",
            type=kind,
            key="Enter",
            code="Enter",
            windowsVirtualKeyCode=13,
            text="\r",
        )
    while not any(event.get("method") == "Page.loadEventFired" for event in browser.events):
        browser.events.append(browser.receive())
    assert browser.evaluate("location.search") == "?q=cn-north-4+ledger"
    names = browser.evaluate(
        "[...document.querySelectorAll('#instances tbody .name')].map(e => e.innerText)"
    )
    assert names == ["ledger"]
    assert browser.evaluate("document.querySelector('input[name=q]').value") == "cn-north-4 ledger"


# Each text against the first ground behind it that is not see-through, as WCAG 2 defines contrast.
LOW_CONTRAST = """
(() => {
  const parse = c => (c.match(/[0-9.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = c => c.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *:not(svg, svg *, .unseen, .skip)')]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => {
      const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
      return [e.tagName, e.getAttribute('class'), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
    }).filter(([tag, name, ratio]) => ratio < 4.5);
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_text_has_contrast(
    browser: Browser,
    server: PageServer,
    tmp_path: Path,
    size: tuple[int, int],
    dark: bool,
) -> None:
    for name, view, now in (
        ("demo", make_demo(), NOW),
        ("hostile", make_hostile(), NOW + 3_000),
        ("unasked", make_unasked(), NOW),
    ):
        server.view, server.now = view, now
        browser.open(server.url, size=size, dark=dark)
        path = tmp_path / f"{name}.png"
        browser.screenshot(path)
        assert path.stat().st_size > 10_000
        assert browser.evaluate(LOW_CONTRAST) == [], name
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(15, 20, 26)" if dark else "rgb(244, 246, 248)")


def test_holes_can_be_told_from_backups_in_the_picture(
    browser: Browser, server: PageServer, tmp_path: Path
) -> None:
    server.view = make_demo()
    browser.open(server.url)
    drawn = browser.evaluate(
        "[...document.querySelectorAll('svg.window rect.gap')]"
        ".map(e => [getComputedStyle(e).fill, e.getBoundingClientRect().width > 1])"
    )
    opened, ended = [['url("#hatch-open")', True], ['url("#hatch")', True]]
    # Stale, without backups, and a hole that a backup has ended.
    assert drawn == [opened, opened, ended]


def test_the_demo_has_a_page_to_show_before_anybody_scrapes(
    browser: Browser, tmp_path: Path
) -> None:
    address, log = f"127.0.0.1:{free_port()}", tmp_path / "log"
    command = (sys.executable, "-m", "exporter", "--demo", "--web.listen-address", address)
    with running(*command, log=log) as process:
        until_ready(process, f"http://{address}", log)
        eventually(
            lambda: "not asked yet" not in get(f"http://{address}/") or None,
            what="the demo's own scrape",
        )
        browser.open(f"http://{address}/")
        shown = browser.evaluate(
            "[...document.querySelectorAll('#instances tbody .name')].map(e => e.innerText)"
        )
        assert sorted(shown) == sorted(instance.name for instance in DEMO_INSTANCES)
        assert browser.complaints() == []
        if path := os.environ.get("STATUS_PAGE_PNG"):
            browser.screenshot(Path(path))
