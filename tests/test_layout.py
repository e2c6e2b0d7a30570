"""The borders of the modules: who may know whom, and which library ends where."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

from exporter import __version__

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "exporter"

# A module imports from the layers above its own, never from its own or from below.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "basic_auth",
            "connections",
            "durations",
            "errors",
            "lines",
            "redaction",
            "regions",
            "signing",
            "words",
        }
    ),
    frozenset({"auth", "limits", "logs", "metadata", "models", "yaml_text"}),
    frozenset({"answers", "config", "metrics", "picture", "shard", "webconfig", "window"}),
    frozenset({"demo", "exchange", "server", "status", "sync"}),
    frozenset({"api"}),
    frozenset({"discovery"}),
    frozenset({"scrape"}),
    frozenset({"assembly"}),
    frozenset({"web"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
# Everyone may: it holds the version alone.
EVERYONES = {"exporter"}
# Who may start the simulated cloud.
HOSTS = {"demo", "cli"}

# A library stays behind the modules that are its border.
BORDERS = {
    "aiohttp": {"connections", "exchange"},
    "bcrypt": {"basic_auth"},
    "httpx": {"answers", "api", "assembly", "auth", "connections", "exchange", "metadata"},
    "httpx_aiohttp": {"connections"},
    "jinja2": {"status"},
    "msgspec": {"answers", "metadata"},
    "prometheus_client": {"lines", "metrics"},
    "pydantic": {"assembly", "config", "webconfig"},
    "pydantic_core": {"config", "webconfig"},
    "starlette": {"basic_auth", "server", "web"},
    "uvicorn": {"server"},
    "uvloop": {"cli"},
    "yaml": {"yaml_text"},
}
# These decide and do nothing else: no clock, no loop, no file, no network.
PURE = {"durations", "models", "picture", "redaction", "regions", "shard", "window", "words"}
DOING = {"asyncio", "os", "pathlib", "socket", "ssl", "subprocess", "threading", "time"}


def modules() -> dict[str, Path]:
    """All modules by their name within the package; `simulator.app` and the like too."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()
SIMULATOR = {name for name in MODULES if name.split(".")[0] == "simulator"}
OURS = MODULES.keys() - SIMULATOR - {"__init__"}


def imported(path: Path) -> Iterator[str]:
    """The full names of what a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            if node.module == "exporter":
                # `from exporter import logs` names a module, `__version__` is none
                for alias in node.names:
                    is_module = alias.name in MODULES
                    yield f"exporter.{alias.name}" if is_module else "exporter"
            else:
                yield node.module


def imported_from_package(name: str) -> set[str]:
    """What a module imports of the package, named as in LAYERS."""
    found = set()
    for full in imported(MODULES[name]):
        if full == "exporter":
            found.add(full)
        elif full.startswith("exporter."):
            found.add(full.removeprefix("exporter."))
    return found


def test_every_module_has_its_layer() -> None:
    placed = [name for layer in LAYERS for name in layer]
    assert sorted(placed) == sorted(OURS)


@pytest.mark.parametrize("name", sorted(OURS))
def test_imports_point_one_way(name: str) -> None:
    above: set[str] = set()
    for layer in LAYERS:
        if name in layer:
            break
        above |= layer
    allowed = above | EVERYONES | ({"simulator"} if name in HOSTS else set())
    assert imported_from_package(name) <= allowed


@pytest.mark.parametrize("name", sorted(SIMULATOR))
def test_the_simulator_is_a_stranger(name: str) -> None:
    """What it shared with the client could be wrong on both sides without anybody noticing."""
    assert imported_from_package(name) <= SIMULATOR


def test_there_is_no_cycle() -> None:
    graph = {name: imported_from_package(name) - EVERYONES - {name} for name in MODULES}
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == set(MODULES)


@pytest.mark.parametrize("library", sorted(BORDERS))
def test_a_library_stays_behind_its_border(library: str) -> None:
    users = {
        name
        for name in OURS
        if any(full.split(".")[0] == library for full in imported(MODULES[name]))
    }
    assert users == BORDERS[library]


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_decides_does_nothing(name: str) -> None:
    assert not {full.split(".")[0] for full in imported(MODULES[name])} & DOING


def test_every_library_is_declared_and_every_declared_one_is_used() -> None:
    """Under the name that it is installed by; those that are only plugged in are named here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=\[ ]", line)[0].lower() for line in project["dependencies"]}
    names = {
        "httpx_aiohttp": "httpx-aiohttp",
        "prometheus_client": "prometheus-client",
        "pydantic_core": "pydantic",
        "yaml": "pyyaml",
        "multidict": "aiohttp",  # whose headers and URLs are made of these
        "yarl": "aiohttp",
    }
    roots = {full.split(".")[0] for path in MODULES.values() for full in imported(path)}
    used = {
        names.get(root, root) for root in roots if root not in sys.stdlib_module_names
    } - EVERYONES
    assert used | {"httptools"} == declared  # uvicorn parses with it


def test_the_version_is_one() -> None:
    heading = re.search(
        r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert heading
    assert heading[1] == __version__
    chart = yaml.safe_load(
        (ROOT / "helm" / "gaussdb-mysql-backup-exporter" / "Chart.yaml").read_text()
    )
    assert chart["appVersion"] == __version__


def test_links_in_the_documents_lead_somewhere() -> None:
    broken = []
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("helm/**/*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" in target:
                continue
            if not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []
