"""What publishes a version: pinned actions, existing targets, no address of a registry."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hatch_build import ProjectUrls
from tests.support.paths import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_hash_and_say_their_version(path: Path) -> None:
    text = path.read_text()
    used = re.findall(r"uses: (\S+)(.*)", text)
    loose = [
        name
        for name, comment in used
        if not name.startswith("./")
        and not (re.search(r"@[0-9a-f]{40}$", name) and re.match(r" # v\d+\.\d+\.\d+$", comment))
    ]
    assert loose == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_have_a_time_limit_and_the_fewest_rights(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    endless = [
        name
        for name, job in workflow["jobs"].items()
        if "uses" not in job and "timeout-minutes" not in job
    ]
    assert endless == []


def test_workflows_call_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {
        target
        for path in WORKFLOWS
        for target in re.findall(r"run: make ([a-z0-9-]+)", path.read_text())
    }
    assert called
    assert called <= targets


def test_no_file_of_a_release_names_a_registry() -> None:
    known = re.compile(r"\b(?:ghcr|docker|quay|pypi|pythonhosted)\.(?:io|org|com)\b")
    files = [*WORKFLOWS, *(ROOT / ".ci").iterdir(), ROOT / "Makefile", ROOT / "pyproject.toml"]
    assert [path.name for path in files if known.search(path.read_text())] == []


def test_a_release_asks_for_all_its_variables_before_it_publishes() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text()
    asked = re.search(r"for name in ([A-Z_ ]+); do", text)
    assert asked is not None
    used = set(re.findall(r"\bvars\.([A-Z_]+)", text))
    assert set(asked[1].split()) == used
    assert set(re.findall(r"^#   ([A-Z_]+) ", text, re.MULTILINE)) == used


def test_every_lock_is_made_by_make_lock() -> None:
    made = re.findall(r"-o (requirements\S*\.lock)", (ROOT / "Makefile").read_text())
    assert sorted(made) == sorted(path.name for path in ROOT.glob("*.lock"))


def test_the_package_index_gets_a_readme_whose_links_lead_somewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROJECT_URL", "https://git.example/team/exporter/")
    metadata: dict[str, Any] = {}
    ProjectUrls(str(ROOT), {}).update(metadata)
    targets = re.findall(r"\]\(([^)]*)\)", metadata["readme"]["text"])
    here = "https://git.example/team/exporter"

    assert f"{here}/raw/main/docs/status-page.png" in targets
    assert f"{here}/blob/main/docs/configuration.md" in targets
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


def test_without_an_address_the_readme_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROJECT_URL", raising=False)
    metadata: dict[str, Any] = {}
    ProjectUrls(str(ROOT), {}).update(metadata)

    assert metadata["readme"]["text"] == (ROOT / "README.md").read_text()
    assert metadata["urls"] == {}


def test_git_leaves_alone_what_the_steps_of_the_readme_make() -> None:
    """Among it a password: neither a commit nor an sdist may pick it up."""
    made = ["password", "config.yaml", "values.yaml", "venv/", "alerts.yaml", "dashboard.json"]
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert [name for name in made if f"/{name}" not in ignored] == []
