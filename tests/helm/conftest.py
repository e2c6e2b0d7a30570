"""The chart, loaded once for all tests."""

from collections.abc import Iterator

import helm_python as helm
import pytest

from tests.helm.charts import CHART, Manifest, Render, Values, manifests_of


@pytest.fixture(scope="session")
def chart() -> Iterator[helm.Chart]:
    with helm.Chart.load(CHART) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def render(chart: helm.Chart) -> Render:
    def manifests(
        values: Values, *, name: str = "backups", namespace: str = "databases"
    ) -> list[Manifest]:
        return manifests_of(chart.render(values, name=name, namespace=namespace))

    return manifests
