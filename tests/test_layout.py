"""The borders of the modules: who may know whom, and which library ends where."""

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

from exporter import __version__
from tests.support.paths import ROOT

PACKAGE = ROOT / "exporter"

# The floors of the house, docs/architecture.md: a room imports from the floors below its own, and
# from itself. A room is a folder of the package or a module beside the folders.
FLOORS: dict[str, int] = {
    "__main__": 11,
    "cli": 10,
    "command": 10,
    "demo": 10,
    "web": 9,
    "assembly": 8,
    "scraping": 7,
    "cloud": 6,
    "backups": 5,
    "restores": 5,
    "credentials": 5,
    "transport": 4,
    "config": 3,
    "exposition": 3,
    "page": 3,
    "models": 2,
    "errors": 1,
    "reporting": 1,
    "shipped": 1,
    "": 0,  # the package itself: its version
}
# Rooms on one floor that may use each other, one way.
NEIGHBOURS = {
    ("__main__", "cli"),
    ("cli", "command"),
    ("command", "demo"),
    ("reporting", "errors"),
}
# Who may start the simulated cloud; it is loaded by `--demo` alone, tests/test_demo.py.
HOSTS = {"demo"}

# A library stays behind the modules that are its border.
BORDERS = {
    "aiohttp": {
        "transport.connections",
        "transport.exchange",
        "transport.names",
        "transport.persistent",
        "transport.unanswered",
    },
    "bcrypt": {"web.basic_auth"},
    "httpx": {
        "assembly",
        "cloud.api",
        "credentials.accounts",
        "credentials.exchange",
        "credentials.http_auth",
        "credentials.iam_keys",
        "credentials.local",
        "credentials.login",
        "credentials.metadata",
        "credentials.pod_agent",
        "credentials.sources",
        "credentials.sts",
        "credentials.ways_in",
        "transport.bodies",
        "transport.connections",
        "transport.exchange",
        "transport.failures",
        "transport.unanswered",
        "transport.wire",
    },
    "jinja2": {"page.environment"},
    "markdown_it": {"page.runbook"},
    "msgspec": {
        "cloud.answers",
        "cloud.restore_answers",
        "credentials.exchange",
        "credentials.login",
        "credentials.temporary_keys",
        "transport.failures",
        "transport.json_body",
    },
    "prettytable": {"command.table"},
    "prometheus_client": {"exposition.lines", "exposition.metrics"},
    "pydantic": {
        "config.auth",
        "config.load",
        "config.problems",
        "config.scalars",
        "config.schema",
        "config.section",
        "credentials.accounts",
        "web.web_config",
    },
    "pydantic_core": {"config.problems", "config.scalars", "web.web_config"},
    "starlette": {
        "web.app",
        "web.answers",
        "web.basic_auth",
        "web.deadlines",
        "web.guard",
        "web.lifecycle",
        "web.pages",
        "web.routing",
        "web.scrapes",
        "web.server",
        "web.targets",
    },
    "uvicorn": {"web.connection", "web.server"},
    "uvloop": {"command.running"},
    "wcwidth": {"command.table"},
    "yaml": {"config.document", "config.yaml_mistakes", "config.yaml_text"},
}
# What speaks HTTP; these rooms know nothing of it.
HTTP = {"aiohttp", "httpx", "starlette", "uvicorn", "http", "urllib3"}
WITHOUT_HTTP = {"backups", "exposition", "page", "restores"}
# These decide and do nothing else: no clock, no loop, no file, no network.
PURE = {
    "backups.reading",
    "backups.window",
    "config.durations",
    "config.regions",
    "exposition.negotiation",
    "models",
    "page.axis",
    "page.causes",
    "page.navigation",
    "page.notices",
    "page.picture",
    "page.projects",
    "page.restores",
    "page.rows",
    "page.state",
    "page.strokes",
    "page.troubles",
    "page.verdict",
    "page.words",
    "reporting.redaction",
    "restores.full_backups",
    "restores.ranges",
    "scraping.shard",
    "transport.json_body",
    "transport.pages",
    "transport.permissions",
    "transport.spread",
    "web.client_hello",
    "web.request_head",
}
DOING = {"asyncio", "os", "pathlib", "socket", "ssl", "subprocess", "threading", "time"}


def modules() -> dict[str, Path]:
    """All modules by their name within the package; `simulator.app` and the like too."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts).removesuffix("__init__").removesuffix(".")] = path
    return found


MODULES = modules()


def room_of(name: str) -> str:
    return name.split(".")[0]


SIMULATOR = {name for name in MODULES if room_of(name) == "simulator"}
OURS = MODULES.keys() - SIMULATOR


@functools.cache
def imported(path: Path) -> Sequence[str]:
    """The full names of what a module imports, wherever in it."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            name = node.module.removeprefix("exporter").removeprefix(".")
            for alias in node.names:
                # `from exporter.reporting import logs` names a module, `__version__` is none
                within = f"{name}.{alias.name}".removeprefix(".")
                is_ours = node.module.split(".")[0] == "exporter" and within in MODULES
                yield f"exporter.{within}" if is_ours else node.module


def imported_from_package(name: str) -> set[str]:
    """What a module imports of the package, named as in MODULES."""
    return {
        full.removeprefix("exporter").removeprefix(".")
        for full in imported(MODULES[name])
        if full.split(".")[0] == "exporter"
    }


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(name) for name in OURS}
    assert rooms == set(FLOORS), (
        f"give {sorted(rooms ^ set(FLOORS))} a floor in FLOORS and a line in docs/architecture.md"
    )


@pytest.mark.parametrize("name", sorted(OURS))
def test_imports_go_down_or_stay_in_the_room(name: str) -> None:
    room = room_of(name)
    for used in sorted(imported_from_package(name)):
        other = room_of(used)
        if other in (room, "simulator") or (room, other) in NEIGHBOURS:
            continue
        assert FLOORS[other] < FLOORS[room], (
            f"exporter.{name} (floor {FLOORS[room]}) imports exporter.{used} (floor"
            f" {FLOORS[other]}): what it needs of it belongs further down, or it belongs higher up"
        )


@pytest.mark.parametrize("name", sorted(SIMULATOR))
def test_the_simulator_is_a_stranger(name: str) -> None:
    """What it shared with the client could be wrong on both sides without anybody noticing."""
    shared = imported_from_package(name) - SIMULATOR
    assert not shared, f"exporter.{name} imports {sorted(shared)}: write its own, on purpose"
    libraries = {full.split(".")[0] for full in imported(MODULES[name])} - {"exporter"}
    assert libraries - sys.stdlib_module_names <= {"starlette", "uvicorn"}


def test_only_the_demo_knows_the_simulator() -> None:
    users = {name for name in OURS if imported_from_package(name) & SIMULATOR}
    assert users <= HOSTS, f"{sorted(users - HOSTS)} import the simulator: only --demo may"


def test_there_is_no_circle() -> None:
    graph = {name: imported_from_package(name) - {name} for name in MODULES}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as exc:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(exc.args[1])}")
    assert set(order) == set(MODULES)


@pytest.mark.parametrize("name", sorted(n for n in OURS if room_of(n) in WITHOUT_HTTP))
def test_numbers_and_pages_know_no_http(name: str) -> None:
    known = {full.split(".")[0] for full in imported(MODULES[name])} & HTTP
    assert not known, f"exporter.{name} imports {sorted(known)}: HTTP ends in transport/ and web/"


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
        "markdown_it": "markdown-it-py",
        "prometheus_client": "prometheus-client",
        "pydantic_core": "pydantic",
        "yaml": "pyyaml",
    }
    roots = {full.split(".")[0] for path in MODULES.values() for full in imported(path)}
    used = {names.get(root, root) for root in roots if root not in sys.stdlib_module_names} - {
        "exporter"
    }
    assert used | {"httptools"} == declared  # uvicorn parses with it


MOST_LINES = {"module": 400, "class": 250, "function": 60}
# What reads better whole: a line of docs/decisions.md says why.
WHOLE = {"build_parser"}


def sizes() -> Iterator[tuple[str, str, int]]:
    """Kind, name and lines of each module, class and function."""
    for name, path in MODULES.items():
        text = path.read_text()
        yield "module", name, text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                kind = "class" if isinstance(node, ast.ClassDef) else "function"
                assert node.end_lineno is not None
                yield kind, node.name, node.end_lineno - node.lineno + 1


def test_nothing_is_too_long_to_be_read() -> None:
    long = [
        f"{kind} {name}: {lines} lines, at most {MOST_LINES[kind]}: split it by noun"
        for kind, name, lines in sizes()
        if lines > MOST_LINES[kind] and name not in WHOLE
    ]
    assert long == []


def test_what_stays_whole_has_its_reason() -> None:
    decisions = (ROOT / "docs/decisions.md").read_text()
    assert {name for name in WHOLE if f"`{name}`" not in decisions} == set()


def test_no_file_of_tests_is_too_long() -> None:
    files = (ROOT / "tests").rglob("*.py")
    assert [path.name for path in files if path.read_text().count("\n") > 800] == []


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
