"""What is shipped beside the program: the alert rules, the dashboard and the runbooks.

Each has one source, where people and the chart look for it; the build copies it into the wheel.
"""

import re
from pathlib import Path

# Where a wheel has them, and where a checkout (an editable install) does.
INSTALLED = Path(__file__).with_name("files")
SOURCES = {
    "alerts.yaml": "helm/gaussdb-mysql-backup-exporter/files/alerts.yaml",
    "dashboard.json": "helm/gaussdb-mysql-backup-exporter/files/dashboard.json",
    "runbooks": "docs/runbooks",
}


def read_rules(external_url: str | None = None) -> str:
    """The alert rules; with `external_url` their links lead to the exporter's own runbook pages."""
    rules = _locate("alerts.yaml").read_text(encoding="utf-8")
    return link_runbooks(rules, external_url) if external_url else rules


def link_runbooks(rules: str, external_url: str) -> str:
    """The rules with each runbook where the exporter has it."""
    base = external_url.rstrip("/")
    return re.sub(
        r"(?m)^( +runbook_url: )docs/runbooks/(\w+)\.md$",
        lambda match: f"{match[1]}{base}/runbooks/{match[2]}",
        rules,
    )


def read_dashboard() -> str:
    return _locate("dashboard.json").read_text(encoding="utf-8")


def runbook_names() -> tuple[str, ...]:
    """The alerts that have a runbook, in the order of their names."""
    pages = _locate("runbooks").glob("*.md")
    return tuple(sorted(page.stem for page in pages if page.stem != "README"))


def read_runbook_index() -> str:
    """The table of all runbooks, as Markdown."""
    return (_locate("runbooks") / "README.md").read_text(encoding="utf-8")


def read_runbook(name: str) -> str:
    """The runbook of an alert, as Markdown; KeyError where there is none by this name."""
    if name not in runbook_names():  # a name from outside must not become a path
        raise KeyError(name)
    return (_locate("runbooks") / f"{name}.md").read_text(encoding="utf-8")


def _locate(name: str) -> Path:
    if INSTALLED.is_dir():
        return INSTALLED / name
    return Path(__file__).parents[1] / SOURCES[name]
