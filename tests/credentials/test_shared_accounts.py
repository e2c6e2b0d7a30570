"""Several projects log in with one account or access key: no refusal is provoked twice."""

from collections.abc import Sequence
from typing import Any

import pytest

from exporter.simulator import Simulator
from tests.support.factories import (
    ACCESS_KEY,
    DOMAIN,
    PASSWORD,
    SECRET_KEY,
    USER,
    instance_id,
    make_backup,
    make_config,
    make_instance,
    make_project,
    make_project_settings,
    make_simulator,
    running_exporter,
    samples,
    scrape_success,
)
from tests.support.virtual_time import NOON, Clock

FIRST, SECOND = instance_id(0), instance_id(1)


def by_password(password: str) -> dict[str, str]:
    return {"type": "password", "domain": DOMAIN, "username": USER, "password": password}


def by_key(secret_key: str, access_key: str = ACCESS_KEY) -> dict[str, str]:
    return {"type": "aksk", "access_key": access_key, "secret_key": secret_key}


def make_cloud(count: int, *, clock: Clock, **knobs: Any) -> Simulator:
    """Projects `project-0` and so on, each with one instance that has a backup."""
    return make_simulator(
        *(
            make_project(
                make_instance(make_backup(), id=instance_id(number)), id=f"project-{number}"
            )
            for number in range(count)
        ),
        clock=clock,
        **knobs,
    )


def make_settings(*auths: dict[str, str]) -> Any:
    """The projects of `make_cloud`, each with its own section auth."""
    return make_config(
        projects=[
            make_project_settings(instance_id(number), id=f"project-{number}", auth=auth)
            for number, auth in enumerate(auths)
        ]
    )


async def scrape_for(exporter: Any, clock: Clock, *, minutes: int) -> Sequence[dict[str, float]]:
    """Whether each instance succeeded, every 15 seconds."""
    seen = []
    end = clock() + minutes * 60
    while clock() < end:
        seen.append(await scrape_success(exporter))
        await clock.advance(15)
    return seen


def refused_at(simulator: Simulator, project: str | None = None) -> list[float]:
    """When the cloud said 401, in seconds."""
    return [
        round(request.at - NOON)
        for request in simulator.requests
        if request.status == 401 and project in (None, request.project_id)
    ]


@pytest.mark.parametrize("auth", [by_password("wrong"), by_key("wrong")], ids=["password", "key"])
async def test_a_wrong_secret_of_eight_projects_is_tried_once_in_each_step_of_the_back_off(
    clock: Clock, auth: dict[str, str]
) -> None:
    simulator = make_cloud(8, clock=clock)
    async with running_exporter(simulator, make_settings(*[auth] * 8)) as exporter:
        seen = await scrape_for(exporter, clock, minutes=8)
        published = await samples(exporter)
    assert not any(value for success in seen for value in success.values())
    assert {request.status for request in simulator.requests} == {401}
    assert refused_at(simulator) == [0, 60, 180, 420]
    assert {published.errors(instance_id(n)).get("auth") for n in range(8)} == {33.0}


async def test_logins_of_one_account_go_one_at_a_time(clock: Clock) -> None:
    simulator = make_cloud(4, clock=clock, latency_seconds=1.0)
    async with running_exporter(simulator, make_settings(*[by_password(PASSWORD)] * 4)) as exporter:
        published = await samples(exporter)
    assert set(published.by_instance("scrape_success").values()) == {1}
    logins = simulator.requests_of("login")
    assert [round(request.at - NOON) for request in logins] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (by_password(PASSWORD), by_password("wrong")),
        (by_key(SECRET_KEY), by_key("wrong", access_key=ACCESS_KEY[:-1] + "2")),
    ],
    ids=["two passwords of one account", "two keys that begin alike"],
)
async def test_the_right_secret_of_one_project_does_not_end_the_back_off_of_a_wrong_one(
    clock: Clock, right: dict[str, str], wrong: dict[str, str]
) -> None:
    simulator = make_cloud(2, clock=clock)
    async with running_exporter(simulator, make_settings(right, wrong)) as exporter:
        seen = await scrape_for(exporter, clock, minutes=8)
    assert all(success == {FIRST: 1, SECOND: 0} for success in seen)
    assert refused_at(simulator) == [0, 60, 180, 420]


@pytest.mark.parametrize("auth", [by_password(PASSWORD), by_key(SECRET_KEY)])
async def test_a_project_that_refuses_a_shared_secret_keeps_the_others_out_for_a_minute_at_most(
    clock: Clock, auth: dict[str, str]
) -> None:
    simulator = make_cloud(2, clock=clock)
    simulator.projects["project-0"].users.clear()
    simulator.projects["project-0"].access_keys.clear()
    async with running_exporter(simulator, make_settings(auth, auth)) as exporter:
        await scrape_for(exporter, clock, minutes=1)
        await scrape_for(exporter, clock, minutes=1)
        seen = await scrape_for(exporter, clock, minutes=30)
    assert all(success == {FIRST: 0, SECOND: 1} for success in seen)
    assert len(refused_at(simulator)) <= 7  # 1, 2, 4, 8, 15 minutes apart
