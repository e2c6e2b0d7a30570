"""What several of the tests of the web share."""

from pathlib import Path

import pytest

from exporter.config.schema import Config
from exporter.simulator import Simulator
from tests.support.certificates import Authority
from tests.support.factories import (
    BILLING,
    ORDERS,
    make_backup,
    make_config,
    make_instance,
    make_project_settings,
    make_simulator,
)
from tests.support.virtual_time import Clock


@pytest.fixture
def two_named(clock: Clock) -> tuple[Simulator, Config]:
    simulator = make_simulator(
        make_instance(make_backup(age_hours=1), make_backup(age_hours=2)),
        make_instance(make_backup(age_hours=3), id=BILLING),
        clock=clock,
    )
    config = make_config(
        projects=[
            make_project_settings({"id": ORDERS, "name": "orders"}, BILLING, name="production")
        ]
    )
    return simulator, config


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)
