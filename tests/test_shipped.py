"""The shipped files: the same from a checkout, from a wheel, and on standard output."""

import json
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from exporter.cli import main
from exporter.shipped import read_dashboard, read_rules, read_runbook, runbook_names
from tests.support.paths import ROOT

CHART_FILES = ROOT / "helm/gaussdb-mysql-backup-exporter/files"
RULES = (CHART_FILES / "alerts.yaml").read_text(encoding="utf-8")
DASHBOARD = (CHART_FILES / "dashboard.json").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (built,) = folder.glob("*.whl")
    return built


def alerts_of(rules: str) -> dict[str, str]:
    """The runbook's link of each alert."""
    return {
        rule["alert"]: rule["annotations"]["runbook_url"]
        for group in yaml.safe_load(rules)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def test_a_wheel_carries_them_and_reads_its_own(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    program = (
        "import json; from exporter import shipped as s;"
        "print(json.dumps([s.__file__, s.read_rules(), s.read_dashboard(),"
        " {name: s.read_runbook(name) for name in s.runbook_names()}]))"
    )
    done = subprocess.run(
        [tmp_path / "venv/bin/python", "-I", "-c", program],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=60,
    )
    place, rules, dashboard, runbooks = json.loads(done.stdout)
    assert Path(place).is_relative_to(tmp_path)
    assert (rules, dashboard) == (RULES, DASHBOARD)
    assert runbooks == {
        path.stem: path.read_text(encoding="utf-8")
        for path in (ROOT / "docs/runbooks").glob("*.md")
        if path.stem != "README"
    }


def test_the_rules_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-rules"]) == 0
    assert capsys.readouterr() == (RULES, "")


def test_the_dashboard_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-dashboard"]) == 0
    assert capsys.readouterr() == (DASHBOARD, "")


@pytest.mark.parametrize("url", ["https://dba.example/backups", "https://dba.example/backups/"])
def test_with_an_external_url_the_links_lead_to_the_exporters_own_pages(
    capsys: pytest.CaptureFixture[str], url: str
) -> None:
    assert main(["--print-rules", "--web.external-url", url]) == 0
    printed = capsys.readouterr().out
    assert alerts_of(printed) == {
        name: f"https://dba.example/backups/runbooks/{name}" for name in alerts_of(RULES)
    }
    # Nothing else differs: comments and expressions stay.
    without_links = re.compile(r"runbook_url: .*")
    assert without_links.sub("", printed) == without_links.sub("", RULES)


def test_every_alert_has_a_runbook() -> None:
    assert set(runbook_names()) == set(alerts_of(read_rules()))
    for name in runbook_names():
        assert read_runbook(name).startswith(f"# {name}\n")
    assert json.loads(read_dashboard())["title"]


@pytest.mark.parametrize(
    "name", ["README", "", ".", "../decisions", "GaussDBMySQLBackupStale.md", "/etc/passwd", "a\0"]
)
def test_no_other_name_is_a_runbook(name: str) -> None:
    with pytest.raises(KeyError):
        read_runbook(name)
