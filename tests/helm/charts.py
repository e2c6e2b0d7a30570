"""The chart as the tests see it: value sets, and what they look for in what is rendered.

`chart_values/` holds combinations of values: each feature is on in one of them, off in another.
"""

import base64
import copy
import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import helm_python as helm
import pytest
import yaml

from tests.support.paths import ROOT

CHART = ROOT / "helm" / "gaussdb-mysql-backup-exporter"
NAME = "backups-gaussdb-mysql-backup-exporter"
# The chart's own examples: a way in each.
WAYS_IN = {
    path.stem.removesuffix("-values"): path for path in sorted((CHART / "ci").glob("*.yaml"))
}
CASES = WAYS_IN | {
    path.stem: path for path in sorted((Path(__file__).parent / "chart_values").glob("*.yaml"))
}
FOLDER = "/etc/gaussdb-mysql-backup-exporter"

Values = dict[str, Any]
Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]  # of values, and where not the usual: name, namespace


class KubernetesLoader(yaml.CSafeLoader):
    """Reads scalars as Kubernetes does: 1e3 and 0o17 are numbers to it, y and n booleans.

    In C: a rendered chart takes 9 ms instead of 136.
    """

    bool_values: ClassVar[dict[str, bool]] = {
        **yaml.SafeLoader.bool_values,
        "y": True,
        "n": False,
    }


for tag, pattern, first in (
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("int", r"0o[0-7]+", "0"),
    ("bool", r"[yYnN]", "yYnN"),
):
    KubernetesLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first)
    )


def values_of(case: str) -> Values:
    return yaml.load(CASES[case].read_text(encoding="utf-8"), yaml.CSafeLoader) or {}


def with_values(case: str, changes: Values) -> Values:
    """The values of a case with some of them changed, at any depth."""
    return merged(values_of(case), changes)


def merged(values: Values, changes: Values) -> Values:
    """As Helm lays one file of values over another."""
    both = {**values}
    for key, value in changes.items():
        deep = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if deep else copy.deepcopy(value)
    return both


def refusal(chart: helm.Chart, values: Values) -> str:
    with pytest.raises(helm.HelmError) as refused:
        chart.render(values, name="backups", namespace="databases")
    return str(refused.value)


def manifests_of(rendered: dict[str, str]) -> list[Manifest]:
    documents = (
        document
        for path, text in rendered.items()
        if path.endswith(".yaml")
        for document in yaml.load_all(text, KubernetesLoader)
    )
    return [document for document in documents if document]


def with_file(folder: Path, file: str, text: str) -> Path:
    """A copy of the chart in which one of its files is another."""
    copied = folder / CHART.name
    shutil.copytree(CHART, copied)
    (copied / "files" / file).write_text(text, encoding="utf-8")
    return copied


def notes_of(chart: helm.Chart, values: Values) -> str:
    rendered = chart.render(values, name="backups", namespace="databases")
    (notes,) = (text for path, text in rendered.items() if path.endswith("NOTES.txt"))
    return notes


def find(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    (found,) = (
        item
        for item in manifests
        if item["kind"] == kind and name in ("", item["metadata"]["name"])
    )
    return found


def workload_of(manifests: list[Manifest]) -> Manifest:
    (found,) = (item for item in manifests if item["kind"] in ("Deployment", "StatefulSet"))
    return found


def pod_of(manifests: list[Manifest]) -> Manifest:
    pod: Manifest = workload_of(manifests)["spec"]["template"]
    return pod


def container_of(manifests: list[Manifest]) -> Manifest:
    container, *_ = pod_of(manifests)["spec"]["containers"]
    assert container["name"] == "exporter"
    return container  # type: ignore[no-any-return]


def kinds(manifests: list[Manifest]) -> set[str]:
    return {item["kind"] for item in manifests}


def own(manifests: list[Manifest]) -> list[Manifest]:
    """Without those that are the user's (`extraManifests`)."""
    return [
        item
        for item in manifests
        if item["metadata"]["name"] not in ("backups-own", "backups-text")
    ]


def config_of(manifests: list[Manifest]) -> str:
    text: str = find(manifests, "ConfigMap", NAME)["data"]["config.yaml"]
    return text


def secret_file(manifests: list[Manifest], secret: str, file: str) -> str:
    return base64.b64decode(find(manifests, "Secret", secret)["data"][file]).decode()


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def endpoint_of(manifests: list[Manifest]) -> Manifest:
    (endpoint,) = find(manifests, "ServiceMonitor")["spec"]["endpoints"]
    return endpoint  # type: ignore[no-any-return]


@functools.cache
def operator_types() -> dict[str, Any]:
    """Kinds of the Prometheus operator to its types, as somebody else has written them down.

    Two seconds to import: only for whom it is about.
    """
    from cloudcoil.models.prometheus_operator import v1, v1alpha1

    types = (v1.PodMonitor, v1.PrometheusRule, v1.ServiceMonitor, v1alpha1.ScrapeConfig)
    return {each.__name__: each for each in types}


def rules_of(manifests: list[Manifest]) -> list[Manifest]:
    groups = find(manifests, "PrometheusRule")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def shipped_rules() -> list[Manifest]:
    text = (CHART / "files" / "alerts.yaml").read_text(encoding="utf-8")
    return [
        rule for group in yaml.load(text, yaml.CSafeLoader)["groups"] for rule in group["rules"]
    ]
