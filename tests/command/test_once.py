"""`--once` is the only scrape: what it prints is all that is told."""

import json

import pytest
import structlog.testing

from exporter.command.flags import parse_arguments
from exporter.command.once import scrape_once
from exporter.simulator import Fault, SimulatedFullBackup
from tests.support.factories import (
    ORDERS,
    fill,
    make_config,
    make_instance,
    make_simulator,
    running_exporter,
)
from tests.support.virtual_time import HOUR, NOON, Clock


async def test_once_waits_for_the_restore_window(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A later scrape would tell it; there is none."""
    instance = fill(make_instance(id=ORDERS), count=12)
    instance.full_backups = [SimulatedFullBackup("full", NOON - HOUR - 600, NOON - HOUR)]
    simulator = make_simulator(instance, clock=clock)
    simulator.fault_script = lambda request: (
        Fault(delay_seconds=7) if request.operation == "show_restore_time" else None
    )
    config = make_config(ORDERS, defaults={"restore_window": True})
    options = parse_arguments(["--once", "--output", "json"])
    async with running_exporter(simulator, config) as exporter:
        capsys.readouterr()  # the log of the start
        with structlog.testing.capture_logs():
            assert await scrape_once(exporter, options)
        printed = capsys.readouterr().out
    (found,) = json.loads(printed)["instances"]
    assert found["restores"]["restore_window"]["ranges"] == 1
