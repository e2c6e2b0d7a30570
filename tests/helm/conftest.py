"""The chart, loaded once for all tests, and rendered once for the same values."""

import functools
import pickle
from collections.abc import Iterator

import helm_python as helm
import kubernetes_validate.utils
import pytest

from tests.helm.charts import CHART, Manifest, Render, Values, manifests_of


@pytest.fixture(scope="session")
def chart() -> Iterator[helm.Chart]:
    with helm.Chart.load(CHART) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def render(chart: helm.Chart) -> Render:
    known: dict[str, bytes] = {}  # pickled, so that each test has its own

    def manifests(
        values: Values, *, name: str = "backups", namespace: str = "databases"
    ) -> list[Manifest]:
        what = repr((values, name, namespace))
        if what not in known:
            rendered = chart.render(values, name=name, namespace=namespace)
            known[what] = pickle.dumps(manifests_of(rendered))
        found: list[Manifest] = pickle.loads(known[what])
        return found

    return manifests


@pytest.fixture(scope="session", autouse=True)
def _schemas_are_read_once() -> Iterator[None]:
    """`kubernetes_validate` reads a megabyte of JSON for each manifest."""
    reading = kubernetes_validate.utils.schema_contents
    kubernetes_validate.utils.schema_contents = functools.cache(reading)
    yield
    kubernetes_validate.utils.schema_contents = reading
