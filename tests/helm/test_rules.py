"""The alerting rules, their runbooks and their unit tests agree with each other."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from exporter.exposition.metrics import PREFIX, OwnMetrics, SnapshotCollector
from exporter.page.state import Severity, State
from tests.exposition.test_metrics import SNAPSHOT
from tests.support.paths import ROOT

RULES = ROOT / "helm/gaussdb-mysql-backup-exporter/files/alerts.yaml"
RUNBOOKS = ROOT / "docs/runbooks"
UNIT_TESTS = sorted((ROOT / "tests/helm/rules").glob("*.yaml"))

# Every metric of the exporter, by the names of its series, as the code makes them.
EXPORTED_METRICS = {
    sample.name
    for collector in (SnapshotCollector(SNAPSHOT), OwnMetrics().registry)
    for family in collector.collect()
    for sample in family.samples
    if sample.name.startswith(PREFIX)
}
# An exporter's metric has no colon, a recording rule's has: one pattern takes both whole.
METRIC = re.compile(r"\bgaussdb_mysql[a-z0-9_]*(?::[a-z0-9_]+)*")
RUNBOOK_SECTIONS = [
    "Meaning",
    "Impact",
    "On the page",
    "What to check",
    "What to do",
    "Ticket",
]


def load_rules() -> list[dict[str, Any]]:
    document = yaml.load(RULES.read_text(), yaml.CSafeLoader)
    return [rule for group in document["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in load_rules() if "alert" in rule}
RECORDS = {rule["record"]: rule for rule in load_rules() if "record" in rule}

every_alert = pytest.mark.parametrize("name", ALERTS)


@functools.cache
def load_unit_tests() -> list[dict[str, Any]]:
    documents = (yaml.load(path.read_text(), yaml.CSafeLoader) for path in UNIT_TESTS)
    return [test for document in documents for test in document["tests"]]


def find_alert_cases(name: str) -> Iterator[bool]:
    """Whether each unit-test case that names the alert expects it to fire."""
    for test in load_unit_tests():
        for case in test.get("alert_rule_test", []):
            if case["alertname"] == name:
                yield bool(case["exp_alerts"])


@every_alert
def test_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"]["summary"].strip()
    assert len(alert["annotations"]["description"]) > len(alert["annotations"]["summary"])
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
    assert alert["annotations"]["dashboard_url"].startswith("/d/gaussdb-mysql-backups")
    assert alert["for"]


@every_alert
def test_runbook_has_its_sections_in_order(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == RUNBOOK_SECTIONS
    for body in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        assert body.strip()


def section_of(name: str, heading: str) -> str:
    text = (RUNBOOKS / f"{name}.md").read_text()
    return re.split(rf"^## {heading}\n", text, flags=re.MULTILINE)[1].split("\n## ")[0]


@every_alert
def test_runbook_has_the_text_of_a_ticket_or_says_why_there_is_none(name: str) -> None:
    section = section_of(name, "Ticket")
    found = re.findall(r"^```text\n(.+?)^```$", section, re.MULTILINE | re.DOTALL)
    if not found:
        assert re.match(r"None(:| yet:|, unless) \w+", section), section
        return
    (ticket,) = found
    for asked in ("Subject: ", "Region: REGION\n", "(UTC)"):
        assert asked in ticket, asked
    assert re.search(r"\?$|^Please ", ticket, re.MULTILINE), "it asks for nothing"
    if name not in ABOUT_NO_INSTANCE:
        assert "Project id: PROJECT\nInstance id: INSTANCE\n" in ticket
    if name not in WITHOUT_AN_ANSWER:
        assert "REQUEST_ID" in ticket
        assert "`--once --log.level debug`" in section


# Tickets about an account or a project.
ABOUT_NO_INSTANCE = {
    "GaussDBMySQLBackupLoginFailing",
    "GaussDBMySQLBackupThrottled",
    "GaussDBMySQLBackupDiscoveryFailing",
}
# Nothing was asked of the API that a request id would be of.
WITHOUT_AN_ANSWER = {"GaussDBMySQLBackupInstanceSuspended"}


@pytest.mark.parametrize("state", [each for each in State if each.alert])
def test_runbook_of_a_state_names_it_as_the_page_does(state: State) -> None:
    on_the_page = section_of(state.alert, "On the page")
    colours = "red" if state.severity is Severity.CRITICAL else "orange|yellow"
    assert re.match(rf"The row is ({colours}) and says \*{state.value}\*", on_the_page)


def test_runbooks_and_alerts_are_the_same_set() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == set(ALERTS)


@every_alert
def test_runbook_index_names_the_alert_and_its_severity(name: str) -> None:
    index = (RUNBOOKS / "README.md").read_text()
    assert f"| [{name}]({name}.md) | {ALERTS[name]['labels']['severity']} |" in index


def test_runbook_links_lead_somewhere() -> None:
    for page in RUNBOOKS.glob("*.md"):
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            assert (RUNBOOKS / target).is_file(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    "rule", load_rules(), ids=lambda rule: rule.get("alert", rule.get("record"))
)
def test_rule_reads_only_metrics_that_exist(rule: dict[str, Any]) -> None:
    text = yaml.safe_dump([rule["expr"], rule.get("annotations", {})])
    unknown = set(METRIC.findall(text)) - EXPORTED_METRICS - set(RECORDS)
    assert not unknown


def test_runbooks_read_only_metrics_that_exist() -> None:
    for page in RUNBOOKS.glob("*.md"):
        for query in re.findall(r"```promql\n(.+?)```", page.read_text(), re.DOTALL):
            unknown = set(METRIC.findall(query)) - EXPORTED_METRICS - set(RECORDS)
            assert not unknown, page.name


def test_records_stand_before_the_rules_that_read_them() -> None:
    """Within a group the order is that of evaluation; only a record's own past may be read."""
    known: set[str] = set()
    for rule in load_rules():
        read = {name for name in METRIC.findall(rule["expr"]) if ":" in name}
        known |= {rule["record"]} if "record" in rule else set()
        assert read <= known


def test_all_rules_are_one_group() -> None:
    """Groups run side by side: a second one would read the records of the round before."""
    assert len(yaml.safe_load(RULES.read_text())["groups"]) == 1


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_is_read_by_a_later_rule(name: str) -> None:
    dashboard = (RULES.parent / "dashboard.json").read_text()
    readers = [
        rule
        for rule in load_rules()
        if rule.get("record") != name
        and name in METRIC.findall(rule["expr"] + str(rule.get("annotations")))
    ]
    assert readers or name in dashboard


@every_alert
def test_alert_has_a_case_that_fires_and_one_that_does_not(name: str) -> None:
    assert set(find_alert_cases(name)) == {True, False}
