"""The recording rules over a past that was made up, in the database of a real Prometheus.

`promtool tsdb create-blocks-from rules` evaluates one rule after the other over the whole time, so
a rule that reads another's records must come in a later run, and one that reads its own past must
be told it in another way: as a subquery over what it would have recorded.
"""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.programs import free_port, running, until_ready
from tests.support.prometheus import Release

_RECORD = re.compile(r"\bgaussdb_mysql[a-z0-9_]*(?::[a-z0-9_]+)+")
MEMORY = "6h"
_FEW_BLOCKS = "--max-block-duration=54h"
# Where the memory is not what came before its `or`.
_REMEMBERED = {
    "gaussdb_mysql:instance_info:known": (
        f"last_over_time(gaussdb_mysql:instance_info:reported[{MEMORY}])"
    ),
    "gaussdb_mysql:project_info:known": "vector(0) < 0",
}


def load_records(rules: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load(rules.read_text())
    return [rule for group in document["groups"] for rule in group["rules"] if "record" in rule]


def told_its_past(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule with its own past put in words: what came before its memory, remembered."""
    name, expression = rule["record"], rule["expr"].rstrip()
    own = f"last_over_time({name}[1h])"
    if own not in expression:
        return rule
    if name in _REMEMBERED:
        return {**rule, "expr": expression.replace(own, _REMEMBERED[name])}
    if expression.lstrip().startswith(("(\n  last_over_time(" + name, "last_over_time(" + name)):
        # The first that was seen: as far back as the memory goes.
        return {**rule, "expr": expression.split("\nor\n", 1)[1]}
    now = expression.split("\nor\n(\n", 1)[0].split(f"\nor\n({own}", 1)[0]
    return {**rule, "expr": expression.replace(own, f"last_over_time((\n{now}\n)[{MEMORY}:1m])")}


def in_turns(rules: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rules, each in a later turn than those that it reads."""
    left = {rule["record"]: rule for rule in rules}
    while left:
        turn = [
            rule
            for name, rule in left.items()
            if not (set(_RECORD.findall(rule["expr"])) - {name}) & left.keys()
        ]
        assert turn, f"rules read each other: {sorted(left)}"
        yield turn
        for rule in turn:
            del left[rule["record"]]


@contextmanager
def prometheus_on(data: Path, folder: Path, release: Release) -> Iterator[str]:
    """A Prometheus that scrapes nothing, on a database that is there."""
    port = free_port()
    config = folder / "prometheus-nothing.yml"
    config.write_text("scrape_configs: []\n")
    log = folder / "prometheus.log"
    address = f"http://127.0.0.1:{port}"
    with running(
        release.prometheus,
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=10y",
        f"--web.listen-address=127.0.0.1:{port}",
        log=log,
    ) as process:
        until_ready(process, address, log)
        yield address


def load_history(openmetrics: Path, data: Path, release: Release) -> None:
    # The text is read once for each block.
    command = ("tsdb", "create-blocks-from", _FEW_BLOCKS, "openmetrics")
    subprocess.run(
        (release.promtool, *command, str(openmetrics), str(data)), check=True, capture_output=True
    )


def backfill(
    rules: Path, data: Path, folder: Path, release: Release, *, start: float, end: float
) -> None:
    """The records of `rules` from `start` to `end`, put beside the samples in `data`."""
    for n, turn in enumerate(in_turns([told_its_past(rule) for rule in load_records(rules)])):
        path = folder / f"turn-{n}.yaml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "turn", "rules": turn}]}))
        with prometheus_on(data, folder, release) as address:
            done = subprocess.run(
                (
                    release.promtool,
                    *("tsdb", "create-blocks-from", _FEW_BLOCKS, "rules", f"--url={address}"),
                    *(f"--start={start:.0f}", f"--end={end:.0f}", "--eval-interval=60s"),
                    *(f"--output-dir={data}", str(path)),
                ),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr


def ask(address: str, query: str, at: float) -> list[dict[str, Any]]:
    """The samples of an instant query: their labels, and `value`."""
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query, 'time': at})}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        result = json.load(answer)["data"]["result"]
    return [{**row["metric"], "value": float(row["value"][1])} for row in result]
