"""From the cloud to the person on call, each a real program: for the end-to-end tests of alerts."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest
import yaml

from exporter.shipped import link_runbooks
from tests.support.paths import ROOT
from tests.support.programs import (
    QuietHandler,
    eventually,
    post,
    query,
    running_alertmanager,
    running_exporter,
    running_prometheus,
    running_simulator,
    serving,
)

RULES = ROOT / "helm/gaussdb-mysql-backup-exporter/files/alerts.yaml"
EXAMPLES = ROOT / "docs/examples"
PATIENCE_SECONDS = 60.0


class Receiver:
    """What Alertmanager sent, alert by alert."""

    def __init__(self) -> None:
        self.url = ""
        self._alerts: Queue[dict[str, Any]] = Queue()

    def take_notification(self, body: bytes) -> None:
        for alert in json.loads(body)["alerts"]:
            self._alerts.put(alert)

    def next_alert(self) -> dict[str, Any]:
        try:
            return self._alerts.get(timeout=PATIENCE_SECONDS)
        except Empty:
            pytest.fail(f"no notification within {PATIENCE_SECONDS:.0f} s")

    def is_empty(self) -> bool:
        return self._alerts.empty()


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A webhook on loopback."""
    receiver = Receiver()

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            receiver.take_notification(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

    with serving(Handler) as address:
        receiver.url = f"http://{address}/"
        yield receiver


def alertmanager_config(receiver: Receiver) -> str:
    """The shipped example, but for the address, and for the waiting that collects alerts."""
    config = yaml.safe_load((EXAMPLES / "alertmanager.yml").read_text())
    config["route"] |= {"group_wait": "0s", "group_interval": "1s"}
    (webhook,) = config["receivers"][0]["webhook_configs"]
    webhook["url"] = receiver.url
    return yaml.safe_dump(config)


def prometheus_config(exporter: str, alertmanager: str, rules: Path) -> str:
    """The shipped example, but for addresses and intervals."""
    config = yaml.safe_load((EXAMPLES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(rules)]
    (to,) = config["alerting"]["alertmanagers"][0]["static_configs"]
    to["targets"] = [alertmanager.removeprefix("http://")]
    (job,) = config["scrape_configs"]
    assert job["honor_labels"] is True
    job["scrape_timeout"] = "1s"
    (of,) = job["static_configs"]
    of["targets"] = [exporter.removeprefix("http://")]
    return yaml.safe_dump(config)


def shorten_alerts(folder: Path, patience: Mapping[str, str], **spans: str) -> Path:
    """The shipped rules, but for the `for` of these alerts, and for some spans in their expressions
    (`_1h="5s"`)."""
    document = yaml.safe_load(RULES.read_text())
    shipped = {rule["alert"]: rule for rule in document["groups"][0]["rules"] if "alert" in rule}
    for alert, seconds in patience.items():
        rule = shipped[alert]
        rule["for"] = seconds
        for span, shorter in spans.items():
            rule["expr"] = rule["expr"].replace(f"[{span[1:]}]", f"[{shorter}]")
    path = folder / "alerts.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@dataclass(frozen=True)
class Pipeline:
    """From the cloud to the person on call."""

    simulator: str
    prometheus: str
    receiver: Receiver
    exporter: str

    def control(self, command: str, document: object) -> None:
        post(f"{self.simulator}/_simulator/{command}", document)

    def wait_for(self, expression: str) -> None:
        eventually(
            lambda: query(self.prometheus, expression) or None,
            seconds=PATIENCE_SECONDS,
            what=expression,
        )


@contextmanager
def running_pipeline(
    folder: Path,
    config_of: Callable[[str], str],
    rules: Path,
    *simulator_arguments: str,
    prometheus: str = "prometheus",
) -> Iterator[Pipeline]:
    """`config_of` gives the exporter's configuration for the simulator's address.

    The rules' links lead to the exporter, as `--print-rules --web.external-url` prints them.
    """
    with (
        receiving() as receiver,
        running_simulator(folder, *simulator_arguments) as simulator,
        running_exporter(folder, config_of(simulator)) as exporter,
        running_alertmanager(folder, alertmanager_config(receiver)) as alertmanager,
    ):
        rules.write_text(link_runbooks(rules.read_text(), exporter))
        config = prometheus_config(exporter, alertmanager, rules)
        with running_prometheus(folder, config, prometheus) as address:
            yield Pipeline(simulator, address, receiver, exporter)
