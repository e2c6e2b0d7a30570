"""The dashboard on a real Prometheus, asked as Grafana asks; its form by Grafana's own types."""

import copy
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.programs import (
    eventually,
    free_port,
    get,
    require,
    running,
    running_prometheus,
)

pytestmark = pytest.mark.e2e

GRAFANA = Path(__file__).parent / "grafana_schema"
DASHBOARD = ROOT / "helm/gaussdb-mysql-backup-exporter/files/dashboard.json"
BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [p for p in BOARD["panels"] if p["type"] != "row"]
BY_TITLE = {panel["title"]: panel for panel in PANELS}
DETAIL_FROM = next(p["gridPos"]["y"] for p in BOARD["panels"] if p["title"].startswith("In detail"))
STATES = {"ok": 0, "no backups": 1, "stale": 2, "failing": 3, "not reported": 4}

Row = dict[str, Any]  # one sample: its labels, and "value"


# ---------------------------------------------------------------- an exposition made by hand

HOUR, DAY = 3600.0, 86400.0
REASONS = [
    "auth", "forbidden", "not_found", "bad_request", "throttled",
    "server", "timeout", "network", "bad_response", "deadline",
]  # fmt: skip
PROJECT = "97b026aa9cc4417888c14c84a1ad9860"


@dataclass(frozen=True)
class Db:
    """An instance of the hand-made exposition; ages in seconds, None where there is no sample."""

    id: str
    name: str = ""
    success: bool = True
    latest_age: float | None = 120.0
    max_interval: float | None = 300.0
    count: int = 288
    lookback: float = DAY
    stale_after: float = HOUR
    complete: bool = True
    reason: str = ""


FLEET = (
    Db("db-healthy", "orders"),
    Db("db-busy", "ledger", count=2016, lookback=7 * DAY),
    Db("db-stale", "invoices", latest_age=3 * HOUR, count=252),
    Db("db-hole", "carts", max_interval=5 * HOUR, complete=False),
    Db("db-empty", "archive", latest_age=None, max_interval=None, count=0),
    Db("db-failing", success=False, reason="forbidden"),
)
STATES_OF_FLEET = {
    "db-healthy": "ok",
    "db-busy": "ok",
    "db-stale": "stale",
    "db-hole": "ok",
    "db-empty": "no backups",
    "db-failing": "failing",
}


def render(fleet: tuple[Db, ...], *, scrapes: int, now: float, discovery: bool = False) -> str:
    """The exposition of DESIGN's metrics; what a failed query leaves out is left out."""
    lines: list[str] = []

    def sample(name: str, value: float, **labels: str) -> None:
        text = ",".join(f'{key}="{label}"' for key, label in labels.items())
        lines.append(f"gaussdb_mysql_{name}{{{text}}} {value!r}")

    for db in fleet:
        own = {"project": PROJECT, "instance": db.id}
        info = {"project_name": "production", "instance_name": db.name, "region": "cn-north-4"}
        sample("instance_info", 1, **own, **info)
        sample("scrape_success", float(db.success), **own)
        sample("scrape_duration_seconds", 0.1, **own)
        sample("scrape_api_requests", 1, **own)
        sample("scrape_api_errors", float(not db.success), **own)
        sample("api_requests_total", scrapes, **own)
        for reason in REASONS:
            errors = scrapes if reason == db.reason else 0
            sample("api_errors_total", errors, **own, reason=reason)
        sample("incremental_backup_stale_after_seconds", db.stale_after, **own)
        sample("incremental_backup_lookback_seconds", db.lookback, **own)
        if not db.success:
            continue
        sample("last_success_timestamp_seconds", now, **own)
        sample("incremental_backups", db.count, **own)
        sample("incremental_backups_size_kilobytes", db.count * 1000, **own)
        sample("incremental_backups_size_bytes", db.count * 1_024_000, **own)
        sample("incremental_backups_running", 1, **own)
        sample("incremental_backups_listing_complete", float(db.complete), **own)
        if db.latest_age is not None:
            sample("incremental_backup_latest_end_timestamp_seconds", now - db.latest_age, **own)
            sample("incremental_backup_latest_size_bytes", 1_024_000, **own)
            sample("incremental_backup_oldest_end_timestamp_seconds", now - db.lookback, **own)
        if db.max_interval is not None:
            sample("incremental_backup_max_interval_seconds", db.max_interval, **own)
    sample("token_expiry_timestamp_seconds", now + 20 * HOUR, project=PROJECT)
    if discovery:
        sample("discovery_success", 1, project=PROJECT)
        sample("discovered_instances", 6, project=PROJECT)
        sample("unmonitored_instances", 2, project=PROJECT)
    for le, count in (("0.1", scrapes), ("1.0", 2 * scrapes), ("+Inf", 2 * scrapes)):
        sample("api_request_duration_seconds_bucket", count, operation="list", le=le)
    sample("exporter_build_info", 1, version="1.2.3", revision="abc", python_version="3.11.7")
    sample("exporter_config_last_reload_successful", 1)
    sample("exporter_config_last_reload_success_timestamp_seconds", now - HOUR)
    lines += [
        f"process_cpu_seconds_total {scrapes / 100!r}",
        "process_resident_memory_bytes 50000000",
        f"process_start_time_seconds {now - DAY!r}",
    ]
    return "\n".join(lines) + "\n"


@dataclass
class HandMade:
    """A server of a hand-made exposition; while it is not `up` its scrapes fail."""

    fleet: tuple[Db, ...] = FLEET
    discovery: bool = False
    up: bool = True
    scrapes: int = 0
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self) -> str | None:
        with self.lock:
            self.scrapes += 1
            if not self.up:
                return None
            return render(
                self.fleet, scrapes=self.scrapes, now=time.time(), discovery=self.discovery
            )


@contextmanager
def serving(made: HandMade) -> Iterator[HandMade]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = made.answer()
            self.send_response(503 if text is None else 200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# ---------------------------------------------------------------- a real Prometheus


@dataclass(frozen=True)
class Prometheus:
    address: str

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"{self.address}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            return json.loads(get(url))["data"]
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
        pytest.fail(f"{answer['errorType']}: {answer['error']}\n{parameters}")

    def rows(self, expression: str) -> list[Row]:
        """The samples of an instant query, without those that are no number."""
        result = self.ask("/api/v1/query", query=expression)["result"]
        rows = [{**r["metric"], "value": float(r["value"][1])} for r in result]
        return [row for row in rows if not math.isnan(row["value"])]

    def lines(self, expression: str) -> list[list[float]]:
        """The numbers of a range query over the last seconds, line by line."""
        now = time.time()
        result = self.ask(
            "/api/v1/query_range", query=expression, start=str(now - 5), end=str(now), step="1"
        )["result"]
        lines = [[float(value) for _, value in r["values"] if value != "NaN"] for r in result]
        return [line for line in lines if line]


@contextmanager
def scraping(folder: Path, *targets: str, pods: bool = False) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the targets every second, as the project's scrape job says."""
    job = {
        "job_name": "gaussdb-mysql-backup-exporter",
        "honor_labels": True,
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [
            {"targets": [target], "labels": {"pod": f"exporter-{n}"} if pods else {}}
            for n, target in enumerate(targets)
        ],
    }
    with running_prometheus(folder, json.dumps({"scrape_configs": [job]})) as address:
        prometheus = Prometheus(address)
        until(
            "four good scrapes of each target",
            lambda: prometheus.rows("min(sum_over_time(up[1m])) >= 4"),
        )
        yield prometheus


def until(what: str, ready: Callable[[], object]) -> None:
    eventually(lambda: ready() or None, what=what)


# ---------------------------------------------------------------- as Grafana does it


def choices(
    prometheus: Prometheus, variable: dict[str, Any], chosen: dict[str, str]
) -> dict[str, str]:
    """A query variable's options: value to shown text, in their order.

    Grafana's `metricFindQuery` and `metricNamesToVariableValues`: `query_result` gives a line of
    text per sample, from which the named groups of the regex take text and value.
    """
    query = substituted(variable["query"]["query"], chosen)
    if values := re.fullmatch(r"label_values\((.+), *(\w+)\)", query):
        names = prometheus.ask(f"/api/v1/label/{values[2]}/values", **{"match[]": values[1]})
        return {name: name for name in names}
    result = re.fullmatch(r"query_result\((.+)\)", query, re.DOTALL)
    assert result, query
    pattern = variable["regex"].removeprefix("/").removesuffix("/g").replace("(?<", "(?P<")
    options: dict[str, str] = {}
    for row in prometheus.rows(result[1]):
        labels = ",".join(f'{k}="{v}"' for k, v in row.items() if k != "value")
        text = value = ""
        for match in re.finditer(pattern, f"{{{labels}}} {row['value']} 0"):
            text = text or match["text"] or ""
            value = value or match["value"] or ""
        options[value or text] = text or value
    if variable["sort"] == 1:
        return dict(sorted(options.items(), key=lambda option: option[1]))
    return options


def regex_escaped(value: str) -> str:
    """Grafana's `prometheusSpecialRegexEscape`: the backslash doubled for PromQL's string."""
    return re.sub(r"([$^*{}\[\]'+?.()|])", r"\\\\\1", value)


def substituted(expression: str, chosen: dict[str, str]) -> str:
    return re.sub(
        r"\$(\w+)", lambda match: chosen.get(match[1], match[0]), expression, flags=re.ASCII
    )


def opened(prometheus: Prometheus) -> dict[str, str]:
    """What each variable holds when the dashboard is opened: All, or the first choice."""
    chosen = {"__rate_interval": "10s", "__range": "1m", "datasource": "unused"}
    for variable in BOARD["templating"]["list"]:
        if variable["type"] != "query":
            continue
        options = choices(prometheus, variable, chosen)
        assert options, f"no choice for {variable['name']}"
        if not variable["includeAll"]:
            chosen[variable["name"]] = next(iter(options))
        elif "allValue" in variable:
            chosen[variable["name"]] = variable["allValue"]
        else:
            chosen[variable["name"]] = f"({'|'.join(map(regex_escaped, options))})"
    return chosen


def variable(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(v for v in BOARD["templating"]["list"] if v["name"] == name)
    return found


def target(title: str, ref: str = "A") -> str:
    expression: str = next(t["expr"] for t in BY_TITLE[title]["targets"] if t["refId"] == ref)
    return expression


def ask(prometheus: Prometheus, title: str, ref: str = "A", **other: str) -> list[Row]:
    """The samples that a panel's query gives right now."""
    chosen = {**opened(prometheus), **other}
    return prometheus.rows(substituted(target(title, ref), chosen))


def number(prometheus: Prometheus, title: str, ref: str = "A", **other: str) -> float:
    (row,) = ask(prometheus, title, ref, **other)
    value: float = row["value"]
    return value


def answer(prometheus: Prometheus, query: dict[str, Any], chosen: dict[str, str]) -> object:
    expression = substituted(query["expr"], chosen)
    return prometheus.rows(expression) if query["instant"] else prometheus.lines(expression)


EVERY_QUERY = [
    pytest.param(panel, query, id=f"{panel['id']} {panel['title']} {query['refId']}")
    for panel in PANELS
    for query in panel["targets"]
]


# ---------------------------------------------------------------- one exporter, everything on


@pytest.fixture(scope="module")
def hand_made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with (
        serving(HandMade(discovery=True)) as made,
        scraping(tmp_path_factory.mktemp("hand-made"), made.address) as prometheus,
    ):
        yield prometheus


@pytest.mark.parametrize(("panel", "query"), EVERY_QUERY)
def test_every_query_answers_where_every_metric_is_exported(
    hand_made: Prometheus, panel: dict[str, Any], query: dict[str, Any]
) -> None:
    chosen = {**opened(hand_made), "detail": "db-healthy"}
    assert answer(hand_made, query, chosen), panel["title"]


def test_variables_offer_names_and_hold_ids(hand_made: Prometheus) -> None:
    chosen = opened(hand_made)
    assert choices(hand_made, variable("job"), chosen) == {
        "gaussdb-mysql-backup-exporter": "gaussdb-mysql-backup-exporter"
    }
    assert choices(hand_made, variable("project"), chosen) == {PROJECT: "production"}
    assert choices(hand_made, variable("instance"), chosen) == {
        "db-empty": "archive",
        "db-hole": "carts",
        "db-failing": "db-failing",  # no name known: its id
        "db-stale": "invoices",
        "db-busy": "ledger",
        "db-healthy": "orders",
    }


def test_the_detail_opens_on_the_worst_instance(hand_made: Prometheus) -> None:
    offered = choices(hand_made, variable("detail"), opened(hand_made))
    assert list(offered.items())[:3] == [
        ("db-failing", "db-failing"),
        ("db-stale", "invoices"),
        ("db-empty", "archive"),
    ]
    assert set(offered) == {db.id for db in FLEET}


def test_the_table_tells_each_state(hand_made: Prometheus) -> None:
    states = {row["instance"]: row["value"] for row in ask(hand_made, "Instances", "B")}
    assert states == {db: STATES[state] for db, state in STATES_OF_FLEET.items()}


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("OK", 3),
        ("Stale", 1),
        ("No backups", 1),
        ("Failing", 1),
        ("Not reported", 0),
        ("With a hole", 1),
        ("Incomplete listings", 1),
        ("Scrape targets down", 0),
    ],
)
def test_the_overview_counts(hand_made: Prometheus, title: str, expected: int) -> None:
    assert number(hand_made, title) == expected


def test_a_failing_instance_has_a_state_and_a_reason_but_no_numbers(hand_made: Prometheus) -> None:
    numbers = [
        query["refId"]
        for query in BY_TITLE["Instances"]["targets"]
        if any(
            row["instance"] == "db-failing" for row in ask(hand_made, "Instances", query["refId"])
        )
    ]
    # Name, state, threshold, lookback, reason
    assert numbers == ["A", "B", "D", "H", "K"]
    (reason,) = ask(hand_made, "Instances", "K")
    assert (reason["instance"], reason["reason"]) == ("db-failing", "forbidden")


@pytest.mark.parametrize(
    "title",
    [
        "Last backup, age",
        "Longest interval",
        "Last good query, age",
        "Backups",
        "Size",
        "Oldest in the lookback, age",
        "Listing complete",
    ],
)
def test_the_detail_of_a_failing_instance_is_empty_not_old(
    hand_made: Prometheus, title: str
) -> None:
    assert ask(hand_made, title, detail="db-failing") == []
    assert ask(hand_made, title, detail="db-healthy") != []


def test_the_detail_of_an_instance_has_its_numbers(hand_made: Prometheus) -> None:
    assert number(hand_made, "State", detail="db-stale") == STATES["stale"]
    age = number(hand_made, "Last backup, age", detail="db-stale")
    assert age == pytest.approx(3 * HOUR, abs=60)
    assert number(hand_made, "Stale after", detail="db-stale") == HOUR
    assert number(hand_made, "Longest interval", detail="db-hole") == 5 * HOUR
    assert number(hand_made, "Lookback", detail="db-busy") == 7 * DAY
    # 2,016 backups of 1,000 KB in seven days
    assert number(hand_made, "Size per day", detail="db-busy") == 288 * 1_024_000


def test_the_overview_narrows_to_the_chosen_instances(hand_made: Prometheus) -> None:
    assert number(hand_made, "OK", instance="(db-busy|db-stale)") == 1
    assert number(hand_made, "Failing", instance="(db-busy|db-stale)") == 0
    assert len(ask(hand_made, "Instances", "B", instance="(db-busy|db-stale)")) == 2


# ---------------------------------------------------------------- the demo

# Rightly empty on the demo, which has no discovery; above they answer where there is one.
EMPTY_ON_THE_DEMO = {("Projects", "D"), ("Projects", "E"), ("Projects", "F")}
# The demo's instances and what their states are, from what the demo says of them:
# healthy, a week of backups, stopped three hours ago, four hours without, none at all, failing.
STATES_OF_DEMO = {
    "orders": "ok",
    "billing": "ok",
    "shipping": "stale",
    "sessions": "ok",
    "sandbox": "no backups",
    "legacy-crm": "failing",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("demo")
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "exporter", "--demo", "--web.listen-address", address]
    with (
        running(*command, log=folder / "exporter.log"),
        scraping(folder, address) as prometheus,
    ):
        yield prometheus


@pytest.mark.parametrize(("panel", "query"), EVERY_QUERY)
def test_every_query_answers_on_the_demo(
    demo: Prometheus, panel: dict[str, Any], query: dict[str, Any]
) -> None:
    chosen = opened(demo)
    names = choices(demo, variable("instance"), chosen)
    chosen["detail"] = next(db for db, name in names.items() if name == "orders")
    if (panel["title"], query["refId"]) in EMPTY_ON_THE_DEMO:
        assert not answer(demo, query, chosen)
    else:
        assert answer(demo, query, chosen)


def test_the_table_shows_the_demos_six_instances(grafana: Path, demo: Prometheus) -> None:
    (rows,) = drawn(grafana, demo, "Instances")["tables"]
    assert {row["Instance"]: row["State"] for row in rows} == STATES_OF_DEMO
    assert [row["Instance"] for row in rows[:3]] == ["legacy-crm", "shipping", "sandbox"]
    shown = {row["Instance"]: row for row in rows}
    assert shown["legacy-crm"]["Failing because"] == "server"
    assert (shown["billing"]["Lookback"], shown["billing"]["Backups"]) == ("1 week", "2,016")
    assert shown["sandbox"]["Backups"] == "0"
    assert (shown["shipping"]["Project"], shown["shipping"]["Region"]) == ("demo", "cn-north-4")
    assert number(demo, "With a hole") == 1


def test_the_detail_opens_on_the_demos_failing_instance(demo: Prometheus) -> None:
    offered = choices(demo, variable("detail"), opened(demo))
    assert list(offered.values())[:3] == ["legacy-crm", "shipping", "sandbox"]


# ---------------------------------------------------------------- a pair of exporters


def test_a_pair_of_exporters_counts_each_instance_once(tmp_path: Path) -> None:
    """The second of the pair fails for one more instance, and knows an older name of another."""
    second = (
        Db("db-healthy", "orders", success=False, reason="network"),
        Db("db-busy", "old-ledger", count=2016, lookback=7 * DAY),
        *FLEET[2:],
    )
    with (
        serving(HandMade(discovery=True)) as one,
        serving(HandMade(second, discovery=True)) as other,
        scraping(tmp_path, one.address, other.address, pods=True) as prometheus,
    ):
        chosen = {**opened(prometheus), "detail": "db-healthy"}
        for panel in PANELS:
            for query in panel["targets"]:
                assert answer(prometheus, query, chosen), (panel["title"], query["refId"])
        for query in BY_TITLE["Instances"]["targets"]:
            instances = [row["instance"] for row in ask(prometheus, "Instances", query["refId"])]
            assert len(instances) == len(set(instances)), query["refId"]
        counts = {title: number(prometheus, title) for title in ("OK", "Failing", "Stale")}
        assert counts == {"OK": 3, "Failing": 1, "Stale": 1}
        assert len(ask(prometheus, "Exporters", "A")) == 2
        for panel in PANELS:
            if panel["type"] == "stat":
                number(prometheus, panel["title"], detail="db-healthy")

        # One of the two stops: said so, and nothing else changes but what only it knew
        one.up = False
        until("one exporter is down", lambda: number(prometheus, "Scrape targets down") == 1)
        counts = {title: number(prometheus, title) for title in ("OK", "Failing", "Not reported")}
        assert counts == {"OK": 2, "Failing": 2, "Not reported": 0}


def test_an_exporter_that_is_gone_leaves_names_and_a_state_but_no_numbers(tmp_path: Path) -> None:
    with serving(HandMade()) as made, scraping(tmp_path, made.address) as prometheus:
        assert number(prometheus, "Not reported") == 0
        made.up = False
        until("the exporter is down", lambda: number(prometheus, "Scrape targets down") == 1)

        assert number(prometheus, "Not reported") == 6
        assert number(prometheus, "OK") == 0
        states = {row["instance"]: row["value"] for row in ask(prometheus, "Instances", "B")}
        assert states == {db.id: STATES["not reported"] for db in FLEET}
        left = [
            q["refId"]
            for q in BY_TITLE["Instances"]["targets"]
            if ask(prometheus, "Instances", q["refId"])
        ]
        assert left == ["A", "B", "L"]  # the name, the state, the last backup known
        assert number(prometheus, "State") == STATES["not reported"]
        assert ask(prometheus, "Last backup, age") == []
        (exporter,) = ask(prometheus, "Exporters", "A")
        assert exporter["value"] == 0


def test_nothing_is_claimed_where_nothing_was_ever_reported(tmp_path: Path) -> None:
    """No "0 failing" before the first word of an exporter: "no data" is the honest answer."""
    with serving(HandMade(fleet=())) as made, scraping(tmp_path, made.address) as prometheus:
        chosen = {"job": "gaussdb-mysql-backup-exporter", "project": ".+", "instance": ".+"}
        for title in ("OK", "Stale", "No backups", "Failing", "Not reported", "With a hole"):
            assert prometheus.rows(substituted(target(title), chosen)) == [], title


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
    panels["OK"]["options"]["colourMode"] = "value"
    panels["Stale"]["options"]["colorMode"] = "blue"
    panels["Instances"]["transformation"] = []
    panels["Instances by state"]["fieldConfig"]["defaults"]["custom"]["lineWidht"] = 1
    panels["Backups in the lookback"]["targets"][0]["expression"] = "up"
    panels["Size per day"]["fieldConfig"]["defaults"]["thresholds"]["mode"] = "relative"
    assert len(type_errors(grafana, tmp_path, broken, "@grafana/schema")) == 8


def drawn(grafana: Path, prometheus: Prometheus, *titles: str) -> Any:
    """The tables with these titles as Grafana's own code joins, orders and words them."""
    chosen = opened(prometheus)
    asked = [
        {
            "panel": BY_TITLE[title],
            "answers": {
                query["refId"]: prometheus.rows(substituted(query["expr"], chosen))
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


def test_every_unit_is_one_of_grafanas(grafana: Path, hand_made: Prometheus) -> None:
    known = set(drawn(grafana, hand_made)["units"])
    used = set(re.findall(r'"unit": "([^"]+)"', json.dumps(BOARD))) | {
        set_by["value"]
        for panel in PANELS
        for override in panel["fieldConfig"]["overrides"]
        for set_by in override["properties"]
        if set_by["id"] == "unit"
    }
    assert {"s", "bytes", "percentunit"} <= used <= known


def test_the_tables_read_as_meant(grafana: Path, hand_made: Prometheus) -> None:
    instances, exporters, projects = drawn(
        grafana, hand_made, "Instances", "Exporters", "Projects"
    )["tables"]

    # Worst first; what is unknown is a dash, not an old number
    assert [(row["State"], row["Instance"]) for row in instances[:3]] == [
        ("failing", "db-failing"),
        ("stale", "invoices"),
        ("no backups", "archive"),
    ]
    assert [row["State"] for row in instances[3:]] == ["ok", "ok", "ok"]
    assert instances[0] == {
        "State": "failing",
        "Instance": "db-failing",
        "Project": "production",
        "Last backup, age": "-",
        "Stale after": "1 hour",
        "Age / threshold": "-",
        "Backups": "-",
        "Size": "-",
        "Lookback": "1 day",
        "Longest interval": "-",
        "Last known backup": "-",
        "Last good query, age": "-",
        "Failing because": "forbidden",
        "Region": "cn-north-4",
        "Instance ID": "db-failing",
    }
    stale = {
        **instances[1],
        "Last known backup": "not compared",
        "Last good query, age": "not compared",
    }
    assert stale == {
        "State": "stale",
        "Instance": "invoices",
        "Project": "production",
        "Last backup, age": "3.0 hours",
        "Stale after": "1 hour",
        "Age / threshold": "300%",
        "Backups": "252",
        "Size": "246 MiB",
        "Lookback": "1 day",
        "Longest interval": "5.0 mins",
        "Last known backup": "not compared",
        "Last good query, age": "not compared",
        "Failing because": "-",
        "Region": "cn-north-4",
        "Instance ID": "db-stale",
    }

    (exporter,) = exporters
    assert list(exporter) == [
        "Up",
        "Exporter",
        "Job",
        "Version",
        "Configuration OK",
        "Configuration loaded, age",
        "Scrape takes",
        "Memory",
        "CPU",
        "Running for",
    ]
    assert (exporter["Up"], exporter["Version"]) == ("yes", "1.2.3")
    assert (exporter["Configuration OK"], exporter["Memory"]) == ("yes", "47.7 MiB")

    (project,) = projects
    assert project == {
        "Project": "production",
        "Instances": "6",
        "Failing": "1",
        "Token ends in": "20.0 hours",
        "Discovery OK": "yes",
        "Discovered": "6",
        "Not monitored": "2",
        "Project ID": PROJECT,
    }
