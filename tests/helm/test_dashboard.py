"""The dashboard as a file: its form, its layout, and that it asks only for what is exported."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

from exporter.errors import Reason
from tests.helm.test_rules import EXPORTED_METRICS, METRIC, RECORDS
from tests.support.paths import ROOT

DASHBOARD = ROOT / "helm/gaussdb-mysql-backup-exporter/files/dashboard.json"

EXPORTED = EXPORTED_METRICS | {
    # The client library's
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    # Prometheus' own, about each target
    "up",
    "scrape_duration_seconds",
}
# Not on the page, each for a reason: the same in another unit or of one type of backup; the
# per-scrape error count, of which the counter by reason says more; what the buckets of the
# histogram tell, too; what a restore's alerts read and the exporter's page shows.
NOT_SHOWN = {
    "gaussdb_mysql_incremental_backups_size_kilobytes",
    "gaussdb_mysql_incremental_backup_oldest_end_timestamp_seconds",
    "gaussdb_mysql_scrape_api_errors",
    "gaussdb_mysql_api_request_duration_seconds_count",
    "gaussdb_mysql_api_request_duration_seconds_sum",
    "gaussdb_mysql_full_backups",
    "gaussdb_mysql_full_backup_latest_duration_seconds",
    "gaussdb_mysql_full_backup_latest_size_bytes",
    "gaussdb_mysql_restorable_since_timestamp_seconds",
    "gaussdb_mysql_source_last_success_timestamp_seconds",
    # Read by alerts alone
    "gaussdb_mysql_backup_retention_seconds",
    "gaussdb_mysql_full_backup_latest_failed",
    "gaussdb_mysql_full_backup_oldest_end_timestamp_seconds",
    "gaussdb_mysql_full_backup_stale_after_seconds",
    "gaussdb_mysql_restorable_max_gap_seconds",
}
BUILT_IN_VARIABLES = {
    *("__rate_interval", "__range", "__url_time_range"),
    *("__data", "__value", "__all"),
}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Panel = dict[str, Any]


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return loaded


def every_panel(dashboard: dict[str, Any]) -> Iterator[Panel]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def data_panels(dashboard: dict[str, Any]) -> list[Panel]:
    return [panel for panel in every_panel(dashboard) if panel["type"] != "row"]


def queries(dashboard: dict[str, Any]) -> list[str]:
    panels = [t["expr"] for panel in data_panels(dashboard) for t in panel["targets"]]
    variables = [
        variable["query"]["query"]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]
    return panels + variables


def metric_names(expression: str) -> set[str]:
    """The metrics of a PromQL expression: names before a selector, or in a `__name__` matcher."""
    inside_matchers = re.findall(r'__name__=~?"([^"]*)"', expression)
    named = {name for names in inside_matchers for name in names.split("|")}
    before_selector = set(re.findall(r"([a-zA-Z_:][\w:]*)\s*\{", expression))
    return named | before_selector - {"and", "or", "unless"}


def read_metrics(queries: list[str]) -> set[str]:
    """The metrics that queries read, by themselves or through the recording rules."""
    read, left = set[str](), {name for query in queries for name in METRIC.findall(query)}
    left |= {name for query in queries for name in metric_names(query)}
    while left:
        name = left.pop()
        if name in read:
            continue
        read.add(name)
        if name in RECORDS:
            left |= set(METRIC.findall(RECORDS[name]["expr"]))
    return read - RECORDS.keys() - {"ALERTS"}


def selectors(expression: str) -> list[str]:
    return re.findall(r"\{([^}]*=~?\"[^}]*)\}", expression)


def test_metric_names_are_found_in_selectors_and_name_matchers() -> None:
    expression = 'sum by (a) (rate(x_total{b="c"}[5m])) / on (a) up {b="c"} or {__name__=~"y|z"}'
    assert metric_names(expression) == {"x_total", "up", "y", "z"}


def test_the_file_is_tidy_json(dashboard: dict[str, Any]) -> None:
    tidy = json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"
    assert DASHBOARD.read_text(encoding="utf-8") == tidy


def test_it_can_be_provisioned_anywhere(dashboard: dict[str, Any]) -> None:
    assert dashboard["uid"] == "gaussdb-mysql-backups"
    assert dashboard["id"] is None
    assert dashboard["editable"] is True
    # Grafana 10.4 and 11.0; later ones migrate it
    assert dashboard["schemaVersion"] == 39
    # Inputs are asked for by the import form only: a provisioned dashboard would keep them unset
    assert "__inputs" not in dashboard
    assert "__requires" not in dashboard


def test_panel_ids_are_unique(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in every_panel(dashboard)]
    assert len(ids) == len(set(ids))
    assert all(isinstance(panel_id, int) for panel_id in ids)


def test_panel_titles_are_unique(dashboard: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in every_panel(dashboard)]
    assert len(titles) == len(set(titles))


def test_panels_do_not_overlap_and_stay_on_the_grid(dashboard: dict[str, Any]) -> None:
    boxes = {panel["id"]: panel["gridPos"] for panel in dashboard["panels"]}
    for box in boxes.values():
        assert 0 <= box["x"] < box["x"] + box["w"] <= 24
    overlaps = [
        (one, other)
        for (one, a), (other, b) in combinations(boxes.items(), 2)
        if a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    ]
    assert overlaps == []


def test_the_verdict_comes_first_and_the_exporter_last_and_closed(
    dashboard: dict[str, Any],
) -> None:
    assert dashboard["panels"][0]["title"] == "Fresh and complete?"
    rows = [panel for panel in dashboard["panels"] if panel["type"] == "row"]
    assert [row["title"].split(":")[0] for row in rows] == ["In detail", "The exporter itself"]
    assert [row["collapsed"] for row in rows] == [False, True]


def test_every_panel_explains_itself(dashboard: dict[str, Any]) -> None:
    for panel in data_panels(dashboard):
        assert panel["title"], panel["id"]
        assert len(panel["description"]) > 30, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]


def test_every_panel_and_query_uses_the_chosen_data_source(dashboard: dict[str, Any]) -> None:
    for panel in data_panels(dashboard):
        assert panel["datasource"] == DATASOURCE, panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == DATASOURCE, panel["title"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            assert variable["datasource"] == DATASOURCE


def test_ref_ids_are_unique_within_a_panel(dashboard: dict[str, Any]) -> None:
    for panel in data_panels(dashboard):
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs)), panel["title"]


def test_every_metric_asked_for_is_exported(dashboard: dict[str, Any]) -> None:
    assert read_metrics(queries(dashboard)) <= EXPORTED


def test_every_exported_metric_is_shown(dashboard: dict[str, Any]) -> None:
    assert read_metrics(queries(dashboard)) == EXPORTED - NOT_SHOWN


def test_what_the_exporter_says_is_bound_to_the_chosen_jobs(dashboard: dict[str, Any]) -> None:
    """Records have no job but for the memory, which narrows the states to the chosen ones."""
    for query in queries(dashboard):
        for name, selector in re.findall(r"\b([a-zA-Z_:][\w:]*)\{([^}]*)\}", query):
            if name != "ALERTS" and (":" not in name or "last_seen" in name):
                assert 'job=~"$job"' in selector, query


def test_the_variables_are_there_and_every_reference_is_to_one(dashboard: dict[str, Any]) -> None:
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert variables == ["datasource", "job", "project", "instance", "exporter"]
    text = DASHBOARD.read_text(encoding="utf-8")
    referenced = set(re.findall(r"\$\{?([A-Za-z_]\w*)", text))
    assert referenced <= {*variables, *BUILT_IN_VARIABLES}
    assert set(variables) <= referenced


def test_a_variable_refers_only_to_those_before_it(dashboard: dict[str, Any]) -> None:
    before: set[str] = set()
    for variable in dashboard["templating"]["list"]:
        own = json.dumps({**variable, "name": None})
        assert set(re.findall(r"\$\{?([A-Za-z]\w*)", own)) <= before, variable["name"]
        before.add(variable["name"])


def test_what_shows_the_present_asks_for_the_present(dashboard: dict[str, Any]) -> None:
    """A range query's last value may be hours old: "last not null" would show it as fresh."""
    for panel in data_panels(dashboard):
        if panel["type"] in {"stat", "table"}:
            for target in panel["targets"]:
                assert (target["instant"], target["range"]) == (True, False), panel["title"]


def test_gaps_stay_gaps(dashboard: dict[str, Any]) -> None:
    for panel in data_panels(dashboard):
        if panel["type"] == "timeseries":
            assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False


def test_only_identities_and_times_are_remembered(dashboard: dict[str, Any]) -> None:
    """An old time is true at any time; an old number would look fresh."""
    allowed = {"gaussdb_mysql_exporter_build_info", "gaussdb_mysql_last_success_timestamp_seconds"}
    for query in queries(dashboard):
        assert set(re.findall(r"last_over_time\(\s*(\w+)", query)) <= allowed


def test_a_legend_gives_no_last_value(dashboard: dict[str, Any]) -> None:
    """Of a line that has ended, "last" is an old value beside the living ones."""
    for panel in data_panels(dashboard):
        if panel["type"] == "timeseries":
            assert set(panel["options"]["legend"]["calcs"]) <= {"mean", "max"}


def mappings_of_states(node: object) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        options = node.get("options")
        if node.get("type") == "value" and isinstance(options, dict) and "9" in options:
            yield options
        for value in node.values():
            yield from mappings_of_states(value)
    elif isinstance(node, list):
        for value in node:
            yield from mappings_of_states(value)


def test_states_have_the_words_of_the_page_and_a_colour_each(dashboard: dict[str, Any]) -> None:
    words = [
        *("ok", "listing", "suspended", "not reported", "incomplete", "hole", "failing"),
        *("not restorable", "no backups", "stale"),
    ]
    mappings = list(mappings_of_states(dashboard))
    assert len(mappings) == 3  # the table, the timeline, the stat
    for mapping in mappings:
        assert {int(key): option["text"] for key, option in mapping.items()} == dict(
            enumerate(words)
        )
        assert len({option["color"] for option in mapping.values()}) == len(words)


def test_red_is_critical_and_orange_or_yellow_a_warning(dashboard: dict[str, Any]) -> None:
    for mapping in mappings_of_states(dashboard):
        colours = {option["text"]: option["color"] for option in mapping.values()}
        for critical in ("stale", "no backups", "not restorable"):
            assert colours[critical].endswith("red")
        assert colours["failing"] == "orange"
        assert colours["hole"].endswith("yellow")
        assert colours["incomplete"].endswith("yellow")


def test_every_override_names_a_field_that_the_panel_has(dashboard: dict[str, Any]) -> None:
    for panel in data_panels(dashboard):
        fields = {target["legendFormat"] for target in panel["targets"]}
        if fields == {"{{reason}}"}:
            fields = {reason.value for reason in Reason}
        for transformation in panel.get("transformations", ()):
            fields |= set(transformation["options"].get("renameByName", {}).values())
        for override in panel["fieldConfig"]["overrides"]:
            matcher = override["matcher"]
            if matcher["id"] == "byName":
                assert matcher["options"] in fields, panel["title"]


def test_a_table_sorts_by_a_column_that_it_has(dashboard: dict[str, Any]) -> None:
    for panel in data_panels(dashboard):
        if panel["type"] == "table":
            (_, organize) = panel["transformations"]
            columns = set(organize["options"]["renameByName"].values())
            assert {by["displayName"] for by in panel["options"]["sortBy"]} <= columns


@pytest.mark.parametrize(
    "title", ["Failed requests by reason", "API errors of all instances by reason, per minute"]
)
def test_each_reason_has_a_colour_of_its_own_and_none_is_green(
    dashboard: dict[str, Any], title: str
) -> None:
    (panel,) = (panel for panel in every_panel(dashboard) if panel["title"] == title)
    colours = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
    }
    assert colours.keys() == {reason.value for reason in Reason}
    assert len(set(colours.values())) == len(Reason)
    assert not [colour for colour in colours.values() if "green" in colour]


def test_a_panel_without_data_claims_nothing_good(dashboard: dict[str, Any]) -> None:
    """It is what each shows while nothing is reported at all."""
    for panel in data_panels(dashboard):
        told = panel["fieldConfig"]["defaults"]["noValue"]
        assert not re.search(r"every|all the time|^ok$|^0$|^no (backups|failed requests)$", told)
