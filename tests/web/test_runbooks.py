"""The runbooks as pages."""

import json
import re

import pytest

from exporter.config.schema import Config
from exporter.page.runbook import render_runbook
from exporter.shipped import read_dashboard, runbook_names
from exporter.simulator import Simulator
from tests.support.clients import client_on

Named = tuple[Simulator, Config]


@pytest.mark.parametrize("name", runbook_names())
async def test_each_runbook_is_a_page_that_leads_only_to_others(
    two_named: Named, name: str
) -> None:
    simulator, config = two_named
    async with client_on(simulator, config) as client:
        page = await client.get(f"/runbooks/{name}")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert f"<h1>{name}</h1>" in page.text
        links = re.findall(r'<a href="([^"]*)"', page.text)
        assert "../" in links
        for link in links:
            assert (await client.get(f"/runbooks/{link}")).status_code == 200, link
    assert not simulator.requests


async def test_the_dashboards_link_leads_to_the_table_of_all_runbooks(two_named: Named) -> None:
    (link,) = (
        each for each in json.loads(read_dashboard())["links"] if each["title"] == "Runbooks"
    )
    async with client_on(*two_named) as client:
        page = await client.get(link["url"].removeprefix("${exporter}"))
        assert page.status_code == 200
        assert "<h1>Runbooks</h1>" in page.text
        links = re.findall(r'<a href="./(\w+)"', page.text)
        assert sorted(links) == list(runbook_names())
        assert (await client.get(f"/runbooks/{links[0]}")).status_code == 200


async def test_a_runbook_may_load_and_run_nothing(two_named: Named) -> None:
    async with client_on(*two_named) as client:
        page = await client.get(f"/runbooks/{runbook_names()[0]}")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script" not in policy
    assert "<script" not in page.text
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["Nothing", "README", "..%2f..%2fREADME", "x.md", "%00"])
async def test_a_runbook_that_is_none_is_404_with_those_that_there_are(
    two_named: Named, name: str
) -> None:
    async with client_on(*two_named) as client:
        answer = await client.get(f"/runbooks/{name}")
    assert answer.status_code == 404


async def test_who_misspells_a_runbook_is_told_their_names(two_named: Named) -> None:
    async with client_on(*two_named) as client:
        answer = await client.get("/runbooks/gaussdbmysqlbackupstale")
    assert answer.status_code == 404
    assert "GaussDBMySQLBackupStale" in answer.text


def body_of(markdown: str) -> str:
    page = render_runbook("A", markdown, names=("A", "B"))
    return page[page.index("<main>") : page.index("</main>")]


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("[B](B.md)", '<a href="./B" rel="noreferrer">B</a>'),
        ("[`B` and *more*](B.md)", '<a href="./B" rel="noreferrer"><code>B</code> and'),
        (
            "[x](https://example.com/?a&b)",
            '<a href="https://example.com/?a&amp;b" rel="noreferrer">',
        ),
        ("[*x*](../operations.md) y", "<p><em>x</em> y</p>"),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
        ("[x](data:text/html,y)", "<p>[x](data:text/html,y)</p>"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a <b onclick=x>b</b>", "a &lt;b onclick=x&gt;b&lt;/b&gt;"),
        ("```promql\na < b\n```", '<pre><code class="language-promql">a &lt; b\n</code></pre>'),
        ("| a | b |\n| --- | --- |\n| `c` | d |", "<td><code>c</code></td>"),
    ],
)
def test_markdown_becomes_html_and_html_stays_text(markdown: str, html: str) -> None:
    assert html in body_of(markdown)


def test_a_picture_is_a_link_for_nobody_is_to_be_told_who_reads() -> None:
    body = body_of("![x](https://example.com/x.png)")
    assert "<img" not in body
    assert '<a href="https://example.com/x.png"' in body
