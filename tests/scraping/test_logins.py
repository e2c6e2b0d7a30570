"""Logins in whole scrapes: few of them, whatever fails."""

import itertools
from pathlib import Path
from typing import Any

from exporter.simulator import Fault
from tests.support.clouds import (
    TEN_SECONDS,
    assert_failed,
    backup_requests,
    make_many,
    make_many_settings,
    make_one,
    seconds_of,
)
from tests.support.factories import (
    PASSWORD,
    instance_id,
    make_config,
    running_exporter,
    samples,
)
from tests.support.virtual_time import DAY, NOON, Clock


async def test_one_wrong_password_is_one_login_in_each_step_of_the_back_off(clock: Clock) -> None:
    simulator = make_many(50, clock=clock)
    wrong = {
        "type": "password",
        "domain": "my-account",
        "username": "backup-reader",
        "password": "a wrong password",
    }
    config = make_config(projects=[make_many_settings(50, auth=wrong)])
    async with running_exporter(simulator, config) as exporter:
        for number in range(1, 4):
            published = await samples(exporter)
            assert set(published.by_instance("scrape_success").values()) == {0}
            assert published.errors(instance_id(49)) == {"auth": number}
            await clock.advance(15)
        while clock() < NOON + 62 * 60:
            await exporter.scraper.scrape(TEN_SECONDS)
            await clock.advance(60 if clock() >= NOON + 60 else 15)
    assert {request.operation for request in simulator.requests} == {"login"}
    gaps = [b - a for a, b in itertools.pairwise(seconds_of(simulator.requests_of("login")))]
    assert gaps == [60, 120, 240, 480, 900, 900, 900]
    assert not simulator.is_locked("my-account/backup-reader")


async def test_a_password_file_that_changes_ends_the_back_off_at_once(
    clock: Clock, tmp_path: Path
) -> None:
    simulator = make_many(20, clock=clock)
    secret = tmp_path / "password"
    secret.write_text("a wrong password\n")
    auth = {
        "type": "password",
        "domain": "my-account",
        "username": "backup-reader",
        "password_file": str(secret),
    }
    config = make_config(projects=[make_many_settings(20, auth=auth)])
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter)
        await clock.advance(5)
        secret.write_text(PASSWORD)
        published = await samples(exporter)
    assert set(published.by_instance("scrape_success").values()) == {1}
    assert seconds_of(simulator.requests_of("login")) == [0.0, 5.0]


async def test_a_changed_password_in_a_reload_ends_the_back_off_at_once(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    passwords = iter(["a wrong password", PASSWORD])

    def load() -> Any:
        auth = {
            "type": "password",
            "domain": "my-account",
            "username": "backup-reader",
            "password": next(passwords),
        }
        return make_config(auth=auth)

    async with running_exporter(simulator, load) as exporter:
        assert_failed(await samples(exporter), "auth")
        await clock.advance(5)
        await exporter.reload()
        published = await samples(exporter)
    assert published.of("scrape_success") == 1


async def test_a_wrong_secret_key_is_one_request_in_each_step_of_the_back_off(
    clock: Clock,
) -> None:
    simulator = make_many(50, clock=clock)
    wrong = {"type": "aksk", "access_key": "AKEXAMPLEEXAMPLE0001", "secret_key": "wrong"}
    config = make_config(projects=[make_many_settings(50, auth=wrong)])
    async with running_exporter(simulator, config) as exporter:
        while clock() < NOON + 8 * 60:
            published = await samples(exporter)
            assert set(published.by_instance("scrape_success").values()) == {0}
            await clock.advance(15)
    assert seconds_of(backup_requests(simulator)) == [0, 60, 180, 420]
    assert not simulator.is_locked("AKEXAMPLEEXAMPLE0001")


async def test_token_is_renewed_once_when_requests_fail_together(clock: Clock) -> None:
    simulator = make_many(50, clock=clock, latency_seconds=0.5)
    config = make_config(projects=[make_many_settings(50, auth="password")])
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter)
        await clock.advance(60)
        simulator.revoke_tokens()
        simulator.requests.clear()
        published = await samples(exporter)
    assert set(published.by_instance("scrape_success").values()) == {1}
    assert len(simulator.requests_of("login")) == 1
    refused = [request for request in backup_requests(simulator) if request.status == 401]
    assert len(refused) < 50  # those that waited for a slot are not shown the dead token
    assert published.errors(instance_id(0)) == {"auth": 1}


async def test_a_token_that_the_cloud_never_takes_is_tried_once_more_and_then_not(
    clock: Clock,
) -> None:
    simulator = make_many(50, clock=clock)
    simulator.add_fault(Fault(status=401, form="gateway"), "list_backups", times=None)
    config = make_config(projects=[make_many_settings(50, auth="password")])
    async with running_exporter(simulator, config) as exporter:
        for _ in range(3):
            published = await samples(exporter)
            assert set(published.by_instance("scrape_success").values()) == {0}
            await clock.advance(15)
    assert len(simulator.requests_of("login")) == 2


async def test_tokens_that_expire_are_renewed_before_their_end(clock: Clock) -> None:
    simulator = make_many(5, clock=clock, token_lifetime_seconds=600.0)
    config = make_config(projects=[make_many_settings(5, auth="password")])
    async with running_exporter(simulator, config) as exporter:
        for _ in range(60):
            published = await samples(exporter)
            assert set(published.by_instance("scrape_success").values()) == {1}
            await clock.advance(60)
    assert {request.status for request in simulator.requests} == {200, 201}
    assert 6 <= len(simulator.requests_of("login")) <= 9


async def test_a_token_that_expired_while_nobody_asked_is_renewed(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    async with running_exporter(simulator, make_config(auth="password")) as exporter:
        await samples(exporter)
        await clock.advance(2 * DAY)
        published = await samples(exporter)
    assert published.of("scrape_success") == 1
    assert published.errors() == {}
