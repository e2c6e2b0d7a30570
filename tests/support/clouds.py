"""A few shapes of a simulated cloud, and what to look at after a scrape of them."""

from collections.abc import Sequence
from typing import Any

from exporter.simulator import RecordedRequest, Simulator
from tests.support.factories import (
    ORDERS,
    Samples,
    instance_id,
    make_backup,
    make_instance,
    make_project_settings,
    make_simulator,
)
from tests.support.virtual_time import NOON, Clock

TEN_SECONDS = 10.0  # Prometheus' own default of scrape_timeout


def make_many(count: int, *, clock: Clock, **knobs: Any) -> Simulator:
    """One project with so many instances, each with two backups, and one before the lookback."""
    instances = [
        make_instance(
            *(make_backup(age_hours=age) for age in (1.0, 2.0, 26.0)), id=instance_id(number)
        )
        for number in range(count)
    ]
    return make_simulator(*instances, clock=clock, **knobs)


def make_many_settings(count: int, **more: Any) -> dict[str, Any]:
    return make_project_settings(*map(instance_id, range(count)), **more)


def make_one(*, clock: Clock, **knobs: Any) -> Simulator:
    """ORDERS with backups of 1024 and 512 KB, one and two hours old, and one of the day before."""
    return make_simulator(
        make_instance(
            make_backup(age_hours=1.0, size=1024.0),
            make_backup(age_hours=2.0, size=512.0),
            make_backup(age_hours=26.0),
        ),
        clock=clock,
        **knobs,
    )


def assert_failed(published: Samples, reason: str, instance: str = ORDERS) -> None:
    """Not one number, and why."""
    assert published.of("scrape_success", instance) == 0
    assert published.backup_gauges(instance) == {}
    assert published.errors(instance).keys() == {reason}


def backup_requests(simulator: Simulator, instance: str | None = None) -> list[RecordedRequest]:
    """Those for what is recent. Another one may look for what was two years ago and since."""
    requests = simulator.requests_of("list_backups", instance)
    return [request for request in requests if request.query["begin_time"][:4] >= "2023"]


def seconds_of(requests: Sequence[RecordedRequest]) -> list[float]:
    """When they came, in seconds since noon."""
    return [request.at - NOON for request in requests]
