"""docs/architecture.md speaks of files and names that are there."""

import ast
import re

import pytest

from tests.support.paths import ROOT

TEXT = (ROOT / "docs/architecture.md").read_text()
MENTIONED = sorted(set(re.findall(r"`((?:exporter|tests|docs|helm)/[\w./-]*)(?::(\w+))?`", TEXT)))


@pytest.mark.parametrize(("path", "name"), MENTIONED)
def test_what_the_architecture_mentions_is_there(path: str, name: str) -> None:
    assert (ROOT / path).exists(), f"docs/architecture.md names {path}, which is not there"
    if name:
        names = {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        }
        assert name in names, f"docs/architecture.md names {name} of {path}, which is not there"


def test_every_room_stands_in_the_picture() -> None:
    rooms = {
        path.name
        for path in (ROOT / "exporter").iterdir()
        if path.is_dir() and (path / "__init__.py").exists()
    }
    picture = TEXT.split("```mermaid", 1)[1].split("```", 1)[0]
    assert {room for room in rooms if f"{room}/" not in picture} == set()
