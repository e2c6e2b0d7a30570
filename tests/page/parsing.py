"""The page read back: elements, their attributes and their text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID_TAGS = {"meta", "link", "input"}
INLINE_TAGS = {"a", "b", "bdi", "code", "i", "span", "strong", "time"}


@dataclass
class Element:
    """A parsed element; `text` is all text inside, white space made single."""

    tag: str
    attributes: dict[str, str]
    parts: list["str | Element"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self._texts()).split())

    def _texts(self) -> Iterator[str]:
        for part in self.parts:
            if isinstance(part, str):
                yield part
            elif part.tag != "style":
                space = "" if part.tag in INLINE_TAGS else " "
                yield space
                yield from part._texts()
                yield space

    def walk(self) -> "Iterator[Element]":
        for part in self.parts:
            if isinstance(part, Element):
                yield part
                yield from part.walk()

    def all(self, tag: str, class_name: str = "") -> "list[Element]":
        return [
            each
            for each in self.walk()
            if each.tag == tag
            and (not class_name or class_name in each.attributes.get("class", "").split())
        ]

    def one(self, tag: str, class_name: str = "") -> "Element":
        found = self.all(tag, class_name)
        assert len(found) == 1, (tag, class_name, found)
        return found[0]


class Parser(HTMLParser):
    """A strict reader: what is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("root", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), attrs
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].parts.append(element)
        if tag not in VOID_TAGS:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID_TAGS:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].parts.append(data)

    def close(self) -> None:
        super().close()
        assert self._open == [self.root]


def parse(html: str) -> Element:
    parser = Parser()
    parser.feed(html)
    parser.close()
    return parser.root


def spans(path: str) -> list[tuple[float, float]]:
    """The strokes of path data that moves relatively, read as SVG defines it."""
    pen = 0.0
    found = []
    for move, line in re.findall(r"m(-?[\d.]+) 0h(-?[\d.]+)", path):
        start = pen + float(move)
        pen = start + float(line)
        found.append((start, pen))
    return found
