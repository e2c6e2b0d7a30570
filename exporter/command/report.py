"""What one scrape says: judged, in the order of what is worst, and as JSON for scripts."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.models import Failure, Instance, InstanceResult, ProjectResult, Snapshot
from exporter.page.causes import Cause, group_causes
from exporter.page.rows import Advice, find_advice
from exporter.page.state import Judged, State, judge
from exporter.page.verdict import Verdict, build_verdict
from exporter.page.words import format_iso


@dataclass(frozen=True, slots=True)
class Report:
    """One scrape, judged as of `now`."""

    snapshot: Snapshot
    now: float
    verdict: Verdict
    counts: Mapping[State, int]
    instances: Sequence[Judged]  # worst first
    causes: Sequence[Cause]  # of all failures, those that concern most instances first

    @property
    def advice(self) -> Mapping[tuple[State, str], tuple[Advice, Sequence[Instance]]]:
        """What to do about the states that are no failures, once for all instances in each."""
        found: dict[tuple[State, str], tuple[Advice, list[Instance]]] = {}
        for each in self.instances:
            if (advice := find_advice(each)) is not None:
                entry = found.setdefault((advice.state, advice.text), (advice, []))
                entry[1].append(each.result.instance)
        return found

    @property
    def is_failed(self) -> bool:
        """An instance failed, a project's discovery did, or took none of what it found."""
        return any(result.failure is not None for result in self.snapshot.results) or any(
            project.discovery_success is False or project.takes_none
            for project in self.snapshot.projects
        )


def build_report(snapshot: Snapshot, *, now: float) -> Report:
    judged = [judge(result, now=now) for result in snapshot.results]
    judged.sort(key=lambda each: each.order)
    counts = Counter(each.state for each in judged)
    failing = (each.result for each in judged if each.result.failure is not None)
    return Report(
        snapshot,
        now,
        build_verdict(counts),
        counts,
        judged,
        group_causes(failing),
    )


def render_json(report: Report) -> str:
    """The facts of the table for scripts; docs/operations.md describes them."""
    cause_of = {
        result.instance.key: number
        for number, cause in enumerate(report.causes)
        for result in cause.results
    }
    document = {
        "verdict": report.verdict.text,
        "severity": report.verdict.severity.value,
        "failed": report.is_failed,
        "scraped_at": format_iso(report.snapshot.finished),
        "duration_seconds": round(report.snapshot.finished - report.snapshot.started, 3),
        "states": {state.value: report.counts[state] for state in State if report.counts[state]},
        "instances": [
            _instance_facts(each) | {"cause": cause_of.get(each.result.instance.key)}
            for each in report.instances
        ],
        "causes": [_cause_facts(cause) for cause in report.causes],
        "projects": [_project_facts(project) for project in report.snapshot.projects],
    }
    return json.dumps(document, indent=2) + "\n"


def _instance_facts(judged: Judged) -> dict[str, Any]:
    result, reading = judged.result, judged.result.reading
    instance, latest_end = result.instance, reading.latest_end if reading is not None else None
    facts: dict[str, Any] = {
        "project_id": instance.project_id,
        "project_name": instance.project_name,
        "id": instance.id,
        "name": instance.name,
        "region": instance.region,
        "state": judged.state.value,
        "severity": judged.state.severity.value,
        "states": [state.value for state in judged.states],
        "latest_end": _time(latest_end),
        "age_seconds": round(judged.now - latest_end, 3) if latest_end is not None else None,
        "stale_after_seconds": instance.stale_after_seconds,
        "lookback_seconds": instance.lookback_seconds,
        "backups": None,
        "running": None,
        "size_bytes": None,
        "latest_size_bytes": None,
        "oldest_end": None,
        "longest_interval_seconds": None,
        "listing_complete": None,
    }
    if reading is not None:
        facts |= {
            "backups": reading.count,
            "running": reading.running,
            "size_bytes": _bytes(reading.size_kilobytes),
            "latest_size_bytes": _bytes(reading.latest_size_kilobytes),
            "oldest_end": _time(reading.oldest_end),
            "longest_interval_seconds": reading.max_interval_seconds,
            "listing_complete": reading.listing_complete,
        }
    advice = find_advice(judged)
    return facts | {
        "restores": _restore_facts(result),
        "advice": advice.text if advice is not None else None,
        "failure": _failure_facts(result.failure),
    }


def _restore_facts(result: InstanceResult) -> dict[str, Any]:
    """What is asked beside the backups; null where the setting is off."""
    facts: dict[str, Any] = {"restore_window": None, "full_backups": None}
    if (asked := result.restore_window) is not None:
        window = asked.reading
        facts["restore_window"] = {
            "restorable_until": _time(window.until) if window is not None else None,
            "restorable_since": _time(window.since) if window is not None else None,
            "restorable_oldest": _time(window.oldest) if window is not None else None,
            "ranges": len(window.ranges) if window is not None else None,
            "max_gap_seconds": window.max_gap_seconds if window is not None else None,
            "failure": _failure_facts(asked.failure),
        }
    if (listed := result.full_backups) is not None:
        backups = listed.reading
        latest = backups.latest if backups is not None else {}
        facts["full_backups"] = {
            "usable": sum(backups.usable.values()) if backups is not None else None,
            "latest_end": {kind: _time(backup.end) for kind, backup in latest.items()},
            "latest_failed": backups.latest_failed if backups is not None else None,
            "failure": _failure_facts(listed.failure),
        }
    return facts


def _failure_facts(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "reason": failure.reason.value,
        "message": failure.message,
        "hint": failure.hint,
        "operation": failure.operation,
        "host": failure.host,
        "status": failure.status,
        "error_code": failure.error_code,
        "request_id": failure.request_id,
        "tried": failure.tried,
    }


def _cause_facts(cause: Cause) -> dict[str, Any]:
    instances = [instance.id for instance in cause.instances]
    project_id = cause.instances[0].project_id
    return {
        **(_failure_facts(cause.failure) or {}),
        "project_id": project_id,
        "instances": instances,
    }


def _project_facts(project: ProjectResult) -> dict[str, Any]:
    discovery = None
    if project.discovery_success is not None:
        discovery = {
            "success": project.discovery_success,
            "failure": _failure_facts(project.discovery_failure),
            "found": project.found_instances,
            "taken": project.discovered_instances,
            "unmonitored": project.unmonitored_instances,
            "unusable_ids": list(project.unusable_ids),
        }
    return {
        "id": project.id,
        "name": project.name,
        "region": project.region,
        "token_expires_at": _time(project.token_expiry),
        "discovery": discovery,
    }


def _time(timestamp: float | None) -> str | None:
    return format_iso(timestamp) if timestamp is not None else None


def _bytes(kilobytes: float | None) -> int | None:
    return round(kilobytes * 1024) if kilobytes is not None else None
