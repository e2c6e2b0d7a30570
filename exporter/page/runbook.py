"""The runbook of an alert as a page: Markdown in, HTML out, no script and no other site's file."""

from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from exporter.page.environment import ENVIRONMENT
from exporter.page.policy import content_security_policy

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_TEMPLATE = ENVIRONMENT.get_template("runbook.html")
_STYLE = ENVIRONMENT.get_template("runbook.css").render()

RUNBOOK_SECURITY_POLICY = content_security_policy(_STYLE)


def render_runbook(name: str, text: str, *, names: Collection[str]) -> str:
    """The page for the alert `name`; `names` are those that have a page like it, beside it.

    HTML in the text is shown as it is written. A link that leads to another document than these
    is left out: nobody knows where they are read.
    """
    markdown = _parser()
    tokens = markdown.parse(text)
    for token in tokens:
        if token.children is not None:
            token.children[:] = _resolve_links(token.children, names)
    body = markdown.renderer.render(tokens, markdown.options, {})
    # Our parser's output, in which nothing of the text is markup.
    return _TEMPLATE.render(name=name, style=_STYLE, body=body)


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt  # 40 ms that only a reader needs

    return MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def _resolve_links(tokens: "list[Token]", names: Collection[str]) -> "list[Token]":
    kept: list[Token] = []
    is_open: list[bool] = []  # of the links around: whether it stays
    for token in tokens:
        if token.type == "link_open":
            href = _resolve(str(token.attrGet("href") or ""), names)
            is_open.append(href is not None)
            if href is not None:
                token.attrSet("href", href)
                token.attrSet("rel", "noreferrer")
        if token.type not in ("link_open", "link_close") or is_open[-1]:
            kept.append(token)
        if token.type == "link_close":
            is_open.pop()
    return kept


def _resolve(href: str, names: Collection[str]) -> str | None:
    if urlsplit(href).scheme in ("http", "https") or href.startswith("#"):
        return href
    name = href.removesuffix(".md")
    return f"./{name}" if name in names else None
