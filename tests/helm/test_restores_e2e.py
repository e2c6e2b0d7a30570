"""The alerts of restores on the real programs: from the cloud to the person on call, and back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.simulator import DEMO_PROJECT_ID
from tests.support.alerting import Pipeline, running_pipeline, shorten_alerts
from tests.support.demo_project import demo_config

pytestmark = pytest.mark.e2e

# The simulator names its instances by numbers.
ORDERS, BILLING, SHIPPING, CRM = (f"{number:032x}in07" for number in range(4))
NAMES = {ORDERS: "orders", BILLING: "billing", SHIPPING: "shipping", CRM: "crm"}
# Followed at a second's pace, the restorable time is some seconds behind at all times. Only where
# it is to fall behind does that count: the rules remember it for a quarter of an hour.
STALE_AFTER_SECONDS = 10
PATIENCE = {
    f"GaussDBMySQLBackup{alert}": seconds
    for alert, seconds in {
        "NotRestorable": "2s",
        "RestorableBehind": "2s",
        "ChainBroken": "2s",
        "FullFailed": "2s",
        "SourceFailing": "2s",
    }.items()
}
EXPECTED = {
    ("NotRestorable", "orders"),
    ("RestorableBehind", "billing"),
    ("ChainBroken", "billing"),
    ("FullFailed", "shipping"),
    ("SourceFailing", "crm"),
}


def exporter_config(simulator: str) -> str:
    limits = {id_: 3_600 for id_ in NAMES} | {BILLING: STALE_AFTER_SECONDS}
    instances = [
        {"id": id_, "name": name, "stale_after": f"{limits[id_]}s"} for id_, name in NAMES.items()
    ]
    return demo_config(
        simulator,
        instances,
        name="production",
        defaults={"lookback": "5m", "restore_window": True, "full_backups": True},
        api={"restore_window_interval": "1s", "full_backups_interval": "1s", "rate_limit": 0},
    )


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    rules = shorten_alerts(tmp_path, PATIENCE, _1h="5s")
    # A backup each second, and the daily full ones of a week.
    arguments = ("--instances", "4", "--every", "1", "--backups-per-instance", "120")
    with running_pipeline(tmp_path, exporter_config, rules, *arguments) as running:
        yield running


def named(alert: dict[str, Any]) -> tuple[str, str]:
    labels = alert["labels"]
    return labels["alertname"].removeprefix("GaussDBMySQLBackup"), labels["instance_name"]


def take_all(pipeline: Pipeline, status: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The alerts that are expected, each once and in that status, and no other."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    while len(found) < len(EXPECTED):
        alert = pipeline.receiver.next_alert()
        key = named(alert)
        # Alertmanager tells the whole group anew where one of it has changed.
        assert alert["status"] == status or key in found, alert
        assert key in EXPECTED, alert
        found[key] = alert
    return found


def test_alerts_of_restores_reach_the_receiver_and_resolve_when_the_cloud_is_well(
    pipeline: Pipeline,
) -> None:
    # Each has a full backup that the incremental ones go on from, and can be restored to now.
    pipeline.control("knobs", {"chain_breaks_after_seconds": 4})
    for id_ in NAMES:
        pipeline.control("full-backups", {"instance_id": id_})
    pipeline.wait_for(
        "count(time() - gaussdb_mysql:restorable_until_timestamp_seconds"
        f" < {STALE_AFTER_SECONDS}) == {len(NAMES)}"
    )
    pipeline.wait_for(f"count(gaussdb_mysql:older_than_a_day == 1) == {len(NAMES)}")
    assert pipeline.receiver.is_empty()

    pipeline.control("stop-backups", {"instance_id": BILLING})
    pipeline.control("full-backups", {"instance_id": SHIPPING, "status": "FAILED"})
    for id_, fault in ((ORDERS, {"body": '{"restore_times": []}'}), (CRM, {"status": 403})):
        script = {"fault": fault, "operation": "show_restore_time", "instance_id": id_}
        pipeline.control("faults", script | {"times": None})
    pipeline.wait_for(
        "time() - gaussdb_mysql_incremental_backup_latest_end_timestamp_seconds"
        f'{{instance="{BILLING}"}} > 5'
    )
    pipeline.control("resume-backups", {"instance_id": BILLING})

    firing = take_all(pipeline, "firing")
    for (alert, name), told in firing.items():
        labels, page = told["labels"], f"{pipeline.exporter}/runbooks/GaussDBMySQLBackup{alert}"
        assert labels["project"] == DEMO_PROJECT_ID
        assert NAMES[labels["instance"]] == name
        assert labels["project_name"] == "production"
        assert told["annotations"]["runbook_url"] == page
        assert (
            f"{name} ({labels['instance']}, project production)"
            in (told["annotations"]["description"])
        )
    assert {key[0]: told["labels"]["severity"] for key, told in firing.items()} == {
        "NotRestorable": "critical",
        "RestorableBehind": "critical",
        "ChainBroken": "critical",
        "FullFailed": "warning",
        "SourceFailing": "warning",
    }
    assert firing["SourceFailing", "crm"]["labels"]["source"] == "restore_window"
    missing = firing["SourceFailing", "crm"]["annotations"]["description"]
    assert (
        "the permission gaussdbformysql:backup:getRestoreTime in an identity policy, or"
        " gaussdb:backup:list and gaussdb:instance:list in a custom policy" in missing
    )

    # A full backup is what mends a broken chain, and what follows a failed one.
    pipeline.control("faults", [])
    for id_ in (BILLING, SHIPPING):
        pipeline.control("full-backups", {"instance_id": id_})
    resolved = take_all(pipeline, "resolved")
    assert {key: told["labels"] for key, told in resolved.items()} == {
        key: told["labels"] for key, told in firing.items()
    }
