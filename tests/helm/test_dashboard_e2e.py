"""The dashboard and the states over a past that is known, on a real Prometheus.

The past of tests/support/past.py becomes a database, the recording rules are evaluated over it,
and each query is asked as Grafana asks it. The form of the file is held against Grafana's types.
"""

import copy
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.command.report import build_report, render_json
from exporter.command.table import render_table
from exporter.models import InstanceResult, Snapshot, View
from exporter.page.status import render_status
from tests.page.making import instance_rows
from tests.page.parsing import parse
from tests.support.backfill import backfill, load_history, prometheus_on
from tests.support.past import (
    FLEET,
    HOUR,
    JOB,
    MINUTE,
    NOW,
    PROJECT,
    SINCE,
    STALE_AFTER,
    as_scraped,
    exposition,
)
from tests.support.paths import ROOT
from tests.support.programs import get, require
from tests.support.prometheus import find_release

pytestmark = pytest.mark.e2e

GRAFANA = Path(__file__).parent / "grafana_schema"
FILES = ROOT / "helm/gaussdb-mysql-backup-exporter/files"
RULES = FILES / "alerts.yaml"
BOARD: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [
    panel
    for outer in BOARD["panels"]
    for panel in (outer, *outer.get("panels", ()))
    if panel["type"] != "row"
]
BY_TITLE = {panel["title"]: panel for panel in PANELS}
TABLE = "Instances, worst first"
# The values of gaussdb_mysql:state
STATES = {
    "ok": 0,
    "listing": 1,
    "suspended": 2,
    "not reported": 3,
    "incomplete": 4,
    "hole": 5,
    "failing": 6,
    "not restorable": 7,
    "no backups": 8,
    "stale": 9,
}
# After the exporter's last word, and what is remembered of restores. Records that are made up end
# without a mark, so each that reads another lasts five minutes longer.
OUTAGE = NOW + 40 * MINUTE

Row = dict[str, Any]  # one sample: its labels, and "value"


@dataclass(frozen=True)
class Past:
    """A Prometheus on the made-up past; what is asked of it is asked at a moment."""

    address: str

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"{self.address}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            return json.loads(get(url))["data"]
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
        pytest.fail(f"{answer['errorType']}: {answer['error']}\n{parameters}")

    def rows(self, expression: str, at: float = NOW) -> list[Row]:
        """The samples of an instant query, without those that are no number."""
        result = self.ask("/api/v1/query", query=expression, time=str(at))["result"]
        rows = [{**r["metric"], "value": float(r["value"][1])} for r in result]
        return [row for row in rows if not math.isnan(row["value"])]

    def lines(self, expression: str, at: float = NOW) -> list[list[float]]:
        """The numbers of a range query over the last hours, line by line."""
        result = self.ask(
            "/api/v1/query_range",
            query=expression,
            start=str(at - 6 * HOUR),
            end=str(at),
            step="60",
        )["result"]
        lines = [[float(value) for _, value in r["values"] if value != "NaN"] for r in result]
        return [line for line in lines if line]


# What a pair on the newer release shows, one exporter there shows as well.
PASTS = {"one": ("2", ("",)), "pair": ("2", ("a", "b")), "pair-prometheus3": ("3", ("a", "b"))}


@pytest.fixture(scope="module", params=PASTS)
def past(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Past]:
    """As one exporter reported it, and as two did that watch the same."""
    major, replicas = PASTS[request.param]
    release = find_release(major)
    folder = tmp_path_factory.mktemp(request.param)
    history, data = folder / "history.om", folder / "data"
    history.write_text(exposition(replicas=replicas))
    load_history(history, data, release)
    backfill(RULES, data, folder, release, start=SINCE, end=OUTAGE + MINUTE)
    with prometheus_on(data, folder, release) as address:
        yield Past(address)


# ---------------------------------------------------------------- as Grafana does it


def choices(past: Past, variable: dict[str, Any], chosen: dict[str, str]) -> dict[str, str]:
    """A query variable's options: value to shown text, in their order.

    Grafana's `metricFindQuery` and `metricNamesToVariableValues`: `query_result` gives a line of
    text per sample, from which the named groups of the regex take text and value.
    """
    query = substituted(variable["query"]["query"], chosen)
    if values := re.fullmatch(r"label_values\((.+), *(\w+)\)", query):
        names = past.ask(f"/api/v1/label/{values[2]}/values", **{"match[]": values[1]})
        return {name: name for name in names}
    result = re.fullmatch(r"query_result\((.+)\)", query, re.DOTALL)
    assert result, query
    pattern = variable["regex"].removeprefix("/").removesuffix("/g").replace("(?<", "(?P<")
    options: dict[str, str] = {}
    for row in past.rows(result[1]):
        labels = ",".join(f'{k}="{v}"' for k, v in row.items() if k != "value")
        text = value = ""
        for match in re.finditer(pattern, f"{{{labels}}} {row['value']} 0"):
            text = text or match["text"] or ""
            value = value or match["value"] or ""
        options[value or text] = text or value
    if variable["sort"] == 1:
        return dict(sorted(options.items(), key=lambda option: option[1]))
    return options


def substituted(expression: str, chosen: dict[str, str]) -> str:
    return re.sub(
        r"\$(\w+)", lambda match: chosen.get(match[1], match[0]), expression, flags=re.ASCII
    )


CHOSEN = {
    "job": JOB,
    "project": ".+",
    "instance": "db-stale",
    "__rate_interval": "5m",
    "__range": "6h",
}


def variable(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(v for v in BOARD["templating"]["list"] if v["name"] == name)
    return found


def ask(
    past: Past, title: str, ref: str = "A", *, at: float = NOW, instance: str = "db-stale"
) -> list[Row]:
    """The samples that a panel's query gives at a moment."""
    expression: str = next(t["expr"] for t in BY_TITLE[title]["targets"] if t["refId"] == ref)
    return past.rows(substituted(expression, {**CHOSEN, "instance": instance}), at)


def number(
    past: Past, title: str, ref: str = "A", *, at: float = NOW, instance: str = "db-stale"
) -> float:
    (row,) = ask(past, title, ref, at=at, instance=instance)
    value: float = row["value"]
    return value


def by_instance(rows: list[Row]) -> dict[str, float]:
    found = {row["instance"]: row["value"] for row in rows}
    assert len(found) == len(rows), "an instance is there twice"
    return found


# ---------------------------------------------------------------- one state, everywhere the same


def test_each_instance_is_in_its_true_state(past: Past) -> None:
    assert by_instance(ask(past, TABLE, "B")) == {db.id: STATES[db.state] for db in FLEET}


def test_the_tiles_count_the_states(past: Past) -> None:
    counts = Counter(db.state for db in FLEET)
    shown = {
        query["legendFormat"].lower(): number(past, "Instances by state", query["refId"])
        for query in BY_TITLE["Instances by state"]["targets"]
    }
    assert shown == {state: counts[state] for state in STATES}


def test_the_verdict_counts_what_needs_attention(past: Past) -> None:
    assert number(past, "Fresh and complete?") == sum(STATES[db.state] >= 3 for db in FLEET)


def test_in_an_outage_nothing_is_reported_and_nothing_is_well(past: Past) -> None:
    assert number(past, "Fresh and complete?", at=OUTAGE) == -1
    states = by_instance(ask(past, TABLE, "B", at=OUTAGE))
    # What was known to be stale stays so; the frozen one was not, and is not.
    kept = {db.id: STATES["stale"] for db in FLEET if db.state == "stale"}
    assert states == {db.id: STATES["not reported"] for db in FLEET} | kept
    assert number(past, "Instances by state", "J", at=OUTAGE) == 0
    for ref in "CDEFGIK":
        if ref != "C":
            assert ask(past, TABLE, ref, at=OUTAGE) == [], ref


def test_nothing_is_claimed_before_the_first_word(past: Past) -> None:
    before = SINCE - HOUR
    assert number(past, "Fresh and complete?", at=before) == -1
    for query in BY_TITLE["Instances by state"]["targets"]:
        assert ask(past, "Instances by state", query["refId"], at=before) == []


@pytest.mark.parametrize("hours_ago", [0, 0.5, 1.5, 2.6, 5])
def test_page_and_once_judge_as_the_rules_do(past: Past, hours_ago: float) -> None:
    at = NOW - hours_ago * HOUR
    recorded = by_instance(past.rows("gaussdb_mysql:state", at))
    results = [as_scraped(db, at) for db in FLEET if db.is_reported(at)]
    names = {number: name for name, number in STATES.items()}
    of_rules = {each.instance.name: names[int(recorded[each.instance.id])] for each in results}
    assert shown_by_page(results, at) == of_rules
    assert printed_by_once(results, at) == of_rules


def shown_by_page(results: Sequence[InstanceResult], at: float) -> dict[str, str]:
    """Each instance's state, by the colour of its row."""
    view = View(results, (), at - 1, at)
    page = parse(render_status(view, now=at, version="0"))
    return {
        row.one("bdi", "name").text: row.attributes["class"].replace("-", " ")
        for row in instance_rows(page)
    }


def printed_by_once(results: Sequence[InstanceResult], at: float) -> dict[str, str]:
    report = build_report(Snapshot(at - 1, at, results, ()), now=at)
    document = json.loads(render_json(report))
    # The table's first word may say why an instance is suspended.
    rows = render_table(report).split("\n\n")[1].splitlines()[1:]
    for row, facts in zip(rows, document["instances"], strict=True):
        word = "frozen" if facts["state"] == "suspended" else facts["state"]
        assert re.match(rf"{word} +{facts['name']} ", row)
    return {facts["name"]: facts["state"] for facts in document["instances"]}


ALERTS_OF_STATES = {
    "GaussDBMySQLBackupStale": "stale",
    "GaussDBMySQLBackupNone": "no backups",
    "GaussDBMySQLBackupNotRestorable": "not restorable",
    "GaussDBMySQLBackupWindowHole": "hole",
    "GaussDBMySQLBackupInstanceSuspended": "suspended",
}


@pytest.mark.parametrize("alert", ALERTS_OF_STATES)
def test_alerts_and_states_agree(past: Past, alert: str) -> None:
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    (rule,) = (rule for rule in rules if rule.get("alert") == alert)
    alarmed = by_instance(past.rows(rule["expr"])).keys()
    assert alarmed == {db.id for db in FLEET if db.state == ALERTS_OF_STATES[alert]}


# ---------------------------------------------------------------- the numbers

# What the past has nothing of.
EMPTY = {
    ("Backups", "B"),
    ("Restorable", "A"),
    ("Restorable", "B"),
    ("Full backup", "A"),
    ("Failed requests by reason", "A"),
    ("Restorable until, age", "A"),
    (TABLE, "F"),
}
EVERY_QUERY = [
    pytest.param(panel, query, id=f"{panel['id']} {panel['title']} {query['refId']}")
    for outer in BOARD["panels"]
    if outer["type"] != "row"
    for panel in [outer]
    for query in panel["targets"]
    if (panel["title"], query["refId"]) not in EMPTY and panel["title"] != "Firing alerts"
]


@pytest.mark.parametrize(("panel", "query"), EVERY_QUERY)
def test_every_query_answers(past: Past, panel: dict[str, Any], query: dict[str, Any]) -> None:
    expression = substituted(query["expr"], CHOSEN)
    assert past.rows(expression) if query["instant"] else past.lines(expression)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_query_is_promql_and_gives_each_instance_once(
    past: Past, panel: dict[str, Any]
) -> None:
    for query in panel["targets"]:
        expression = substituted(query["expr"], CHOSEN)
        if not query["instant"]:
            past.lines(expression)
        elif panel["title"] == TABLE:
            by_instance(past.rows(expression))
        else:
            past.rows(expression)


def test_the_table_tells_ages_holes_and_reasons(past: Past) -> None:
    ages = by_instance(ask(past, TABLE, "C"))
    assert ages["db-stale"] == 3 * HOUR
    assert ages["db-dead"] == 3 * HOUR  # though its queries fail
    assert "db-empty" not in ages
    assert by_instance(ask(past, TABLE, "D"))["db-late"] == pytest.approx(50 * MINUTE / STALE_AFTER)
    assert by_instance(ask(past, TABLE, "E")) == {"db-hole": 5 * HOUR}
    reasons = {row["instance"]: row["reason"] for row in ask(past, TABLE, "G")}
    assert reasons == {"db-dead": "forbidden", "db-failing": "server"}
    good = by_instance(ask(past, TABLE, "H"))
    assert good["db-failing"] == 41 * MINUTE
    assert by_instance(ask(past, TABLE, "I"))["db-empty"] == 0


def test_what_fails_or_is_listed_has_no_count_nor_size(past: Past) -> None:
    unknown = {"db-dead", "db-failing", "db-fresh", "db-gone"}
    for ref in "IK":
        assert by_instance(ask(past, TABLE, ref)).keys() == {db.id for db in FLEET} - unknown


def test_the_detail_is_of_the_chosen_instance(past: Past) -> None:
    assert number(past, "State") == STATES["stale"]
    assert number(past, "Last backup", instance="db-dead") == 3 * HOUR
    assert number(past, "Longest interval", instance="db-hole") == 5 * HOUR
    assert number(past, "Backups", instance="db-healthy") == 288
    assert ask(past, "Backups", instance="db-failing") == []
    assert number(past, "Thresholds") == STALE_AFTER


def test_the_age_goes_on_while_nothing_can_be_read(past: Past) -> None:
    """Of the one whose queries have failed for hours: the line that an on-call person looks at."""
    query = BY_TITLE["Age of the last backup against its threshold"]["targets"][0]
    chosen = {**CHOSEN, "instance": "db-dead"}
    (line,) = past.lines(substituted(query["expr"], chosen))
    assert line[-1] == 3 * HOUR
    assert max(b - a for a, b in zip(line[-150:], line[-149:], strict=False)) == MINUTE


def test_the_timeline_has_those_that_were_not_ok(past: Past) -> None:
    (query,) = BY_TITLE["Not ok within the chosen time"]["targets"]
    result = past.ask(
        "/api/v1/query_range",
        query=substituted(query["expr"], CHOSEN),
        start=str(NOW - 6 * HOUR),
        end=str(NOW),
        step="60",
    )["result"]
    # A past of rules has no marks of staleness: a name that changed stands there twice for a while.
    shown = {line["metric"]["display"] for line in result}
    assert shown == {db.name for db in FLEET if db.state != "ok"}


def test_variables_offer_names_worst_first_and_hold_ids(past: Past) -> None:
    assert choices(past, variable("job"), CHOSEN) == {JOB: JOB}
    assert choices(past, variable("project"), CHOSEN) == {PROJECT: "production"}
    offered = choices(past, variable("instance"), CHOSEN)
    assert offered == {db.id: db.name for db in FLEET}
    of_state = {db.id: STATES[db.state] for db in FLEET}
    states = [of_state[db] for db in offered]
    assert states == sorted(states, reverse=True)


# ---------------------------------------------------------------- Grafana's own types and code


@pytest.fixture(scope="session")
def grafana() -> Path:
    """A folder with Grafana's npm packages, kept between runs outside the repository."""
    npm = require("npm")
    manifest = (GRAFANA / "package.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "gaussdb-mysql-backup-exporter" / hashlib.sha256(manifest).hexdigest()[:16]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent))
        (fresh / "package.json").write_bytes(manifest)
        install = [npm, "install", "--ignore-scripts", "--legacy-peer-deps", "--no-audit"]
        done = subprocess.run(install, cwd=fresh, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        try:
            fresh.rename(folder)
        except OSError:  # another run was faster
            shutil.rmtree(fresh)
    return folder


def type_errors(grafana: Path, folder: Path, board: dict[str, Any], schema: str) -> list[str]:
    """What the TypeScript compiler says against a dashboard of Grafana's type `Dashboard`."""
    folder.mkdir(exist_ok=True)
    (folder / "node_modules").symlink_to(grafana / "node_modules")
    shutil.copy(GRAFANA / "check.ts", folder)
    board = copy.deepcopy(board)
    for annotation in board["annotations"]["list"]:
        # The data source's own keys, which the core's type does not know.
        for key in ("expr", "titleFormat", "textFormat", "tagKeys", "step"):
            annotation.pop(key)
    literal = json.dumps(board, indent=2)
    (folder / "dashboard.ts").write_text(
        f"import type {{ Board }} from './check';\nexport const board: Board = {literal};\n"
    )
    options = {
        "noEmit": True,
        "strict": True,
        "skipLibCheck": True,  # their types' errors are theirs
        "module": "esnext",
        "moduleResolution": "bundler",
        "target": "es2022",
        "types": [],
        "paths": {
            "@grafana/schema": [f"./node_modules/{schema}"],
            "@grafana/schema/*": [f"./node_modules/{schema}/*"],
        },
    }
    settings = {"compilerOptions": options, "files": ["dashboard.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        ["node", "node_modules/typescript/bin/tsc", "--pretty", "false"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    errors = [line for line in done.stdout.splitlines() if ": error " in line]
    assert bool(errors) == bool(done.returncode), done.stdout + done.stderr
    return errors


@pytest.mark.parametrize("schema", ["grafana-schema-10", "@grafana/schema", "grafana-schema-12"])
def test_the_dashboard_has_the_form_of_grafanas_types(
    grafana: Path, tmp_path: Path, schema: str
) -> None:
    assert type_errors(grafana, tmp_path, BOARD, schema) == []


def test_the_check_of_the_form_finds_mistakes(grafana: Path, tmp_path: Path) -> None:
    broken = copy.deepcopy(BOARD)
    panels = {panel["title"]: panel for panel in broken["panels"]}
    broken["schemaVersion"] = "39"
    broken["templating"]["list"][1]["refresh"] = 7
    panels["Exporters up"]["options"]["colourMode"] = "value"
    panels["State"]["options"]["colorMode"] = "blue"
    panels["Instances, worst first"]["transformation"] = []
    panels["Each backup"]["fieldConfig"]["defaults"]["custom"]["lineWidht"] = 1
    panels["Size"]["targets"][0]["expression"] = "up"
    panels["Longest interval"]["fieldConfig"]["defaults"]["thresholds"]["mode"] = "relative"
    assert len(type_errors(grafana, tmp_path, broken, "@grafana/schema")) == 8


def drawn(grafana: Path, past: Past, *titles: str) -> Any:
    """The tables with these titles as Grafana's own code joins, orders and words them."""
    asked = [
        {
            "panel": BY_TITLE[title],
            "answers": {
                query["refId"]: past.rows(substituted(query["expr"], CHOSEN))
                for query in BY_TITLE[title]["targets"]
            },
        }
        for title in titles
    ]
    done = subprocess.run(
        ["node", "-e", (GRAFANA / "tables.cjs").read_text()],
        cwd=grafana,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_unit_is_one_of_grafanas(grafana: Path, past: Past) -> None:
    known = set(drawn(grafana, past)["units"])
    used = set(re.findall(r'"unit": "([^"]+)"', json.dumps(BOARD))) | {
        set_by["value"]
        for panel in PANELS
        for override in panel["fieldConfig"]["overrides"]
        for set_by in override["properties"]
        if set_by["id"] == "unit"
    }
    assert {"s", "bytes", "percentunit"} <= used <= known | {"suffix: need attention"}


def test_the_table_reads_as_meant(grafana: Path, past: Past) -> None:
    (rows,) = drawn(grafana, past, TABLE)["tables"]
    order = [STATES[row["State"]] for row in rows]
    assert order == sorted(order, reverse=True)
    shown = {row["Instance"]: row for row in rows}
    assert {name: row["State"] for name, row in shown.items()} == {
        db.name: db.state for db in FLEET
    }
    assert shown["crm"] == {
        "State": "stale",
        "Instance": "crm",
        "Project": "production",
        "Last backup": "3.0 hours",
        "Age / stale_after": "300%",
        "Hole of": " ",
        "Failing because": "forbidden",
        "Last good query": "3 hours",
        "Backups": "-",
        "Size": "-",
        "Region": "cn-north-4",
        "Instance ID": "db-dead",
    }
    assert (shown["carts"]["Hole of"], shown["carts"]["Backups"]) == ("5.0 hours", "288")
    assert (shown["archive"]["Last backup"], shown["archive"]["Size"]) == ("-", "0 B")
