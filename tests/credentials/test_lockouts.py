"""However secrets go wrong, no account and no key is locked: refusals are counted at the cloud."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.assembly import Exporter
from exporter.config.schema import Config
from exporter.simulator import Fault, RecordedRequest, Simulator
from tests.support.clients import Settings
from tests.support.factories import (
    ACCESS_KEY,
    DOMAIN,
    PASSWORD,
    SECRET_KEY,
    TOKEN,
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
from tests.support.faults import StreamingTransport
from tests.support.virtual_time import HOUR, NOON, Clock

TEN_SECONDS = 10.5  # less what is kept back
BY_PASSWORD = {"type": "password", "domain": DOMAIN, "username": USER, "password": PASSWORD}
BY_KEY = {"type": "aksk", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
# Each type that a cloud of projects lets in, with the section that it needs.
TYPES: Mapping[str, Mapping[str, str]] = {
    "password": BY_PASSWORD,
    "aksk": BY_KEY,
    "env": {"type": "env"},
    "ecs-agency": {"type": "ecs-agency"},
    "token": {"type": "token", "token": f"{TOKEN}-project-0"},
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_AK", ACCESS_KEY)
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", SECRET_KEY)


def make_cloud(clock: Clock, *, projects: int = 1, instances: int = 5, **knobs: Any) -> Simulator:
    """Projects `project-0` and so on; their instances count on from one to the next."""
    return make_simulator(
        *(
            make_project(
                *(
                    make_instance(make_backup(), id=instance_id(project * instances + number))
                    for number in range(instances)
                ),
                id=f"project-{project}",
            )
            for project in range(projects)
        ),
        clock=clock,
        **knobs,
    )


def make_settings(
    auth: Mapping[str, str],
    *,
    projects: int = 1,
    instances: int = 5,
    more: Callable[[int], Mapping[str, Any]] = lambda number: {},
    **sections: Any,
) -> Config:
    return make_config(
        projects=[
            make_project_settings(
                *(instance_id(number * instances + i) for i in range(instances)),
                id=f"project-{number}",
                auth=auth,
                **more(number),
            )
            for number in range(projects)
        ],
        **sections,
    )


def refused(simulator: Simulator) -> list[RecordedRequest]:
    return [request for request in simulator.requests if request.status == 401]


async def scrape(exporter: Exporter, clock: Clock, *, times: int, every: float = 15.0) -> int:
    """How many of the instances' queries succeeded, over all scrapes."""
    successes = 0
    for _ in range(times):
        successes += int(sum((await scrape_success(exporter)).values()))
        await clock.advance(every)
    return successes


def refuse_everything(simulator: Simulator) -> None:
    simulator.add_fault(Fault(status=401, form="gateway"), "list_backups", times=None)


@pytest.mark.parametrize("auth", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("worked_for", [0, 4], ids=["never worked", "worked before"])
async def test_what_is_refused_is_shown_once_in_each_step_of_the_back_off(
    clock: Clock, auth: Mapping[str, str], worked_for: int
) -> None:
    """Something else may be tried in its place: a token or keys that were renewed."""
    simulator = make_cloud(clock, instances=12)
    async with running_exporter(simulator, make_settings(auth, instances=12)) as exporter:
        assert await scrape(exporter, clock, times=worked_for) == 12 * worked_for
        refuse_everything(simulator)
        begun = clock()
        simulator.requests.clear()
        assert await scrape(exporter, clock, times=16, every=30.0) == 0
    steps: dict[int, int] = {}
    for request in refused(simulator):
        minute = round((request.at - begun) // 60)
        steps[minute] = steps.get(minute, 0) + 1
    # A password's token is renewed and shown once more.
    once = 2 if auth["type"] == "password" else 1
    # Tokens lock nothing: they are trusted from one scrape to the next, and shown a burst of them.
    burst = 7 if worked_for and auth["type"] in ("token", "password") else once
    assert steps.pop(0) <= burst
    assert steps == {1: once, 3: once, 7: once}


async def test_an_agencys_keys_that_are_refused_after_a_renewal_are_shown_once(
    clock: Clock,
) -> None:
    simulator = make_cloud(clock)
    async with running_exporter(simulator, make_settings({"type": "ecs-agency"})) as exporter:
        assert await scrape(exporter, clock, times=60, every=60.0) == 5 * 60  # renewed
        keys = len(simulator.requests_of("metadata"))
        assert keys >= 4
        simulator.projects["project-0"].agency = False
        refuse_everything(simulator)
        simulator.requests.clear()
        assert await scrape(exporter, clock, times=6) == 0
    assert len(refused(simulator)) <= 3  # at once and a minute later, and newer keys


async def test_a_key_that_is_withdrawn_while_requests_are_on_their_way_is_asked_about_once(
    clock: Clock,
) -> None:
    simulator = make_cloud(clock, instances=60, latency_seconds=0.5)
    config = make_settings(BY_KEY, instances=60, api={"max_connections": 10})
    async with running_exporter(simulator, config) as exporter:
        assert await scrape(exporter, clock, times=1) == 60
        simulator.requests.clear()
        scraping = asyncio.create_task(samples(exporter))
        await clock.advance(1.7)
        simulator.projects["project-0"].access_keys.clear()
        published = await scraping
        assert 1 <= sum(published.by_instance("scrape_success").values()) <= 30
        # What was on its way, and one to be sure.
        assert len(refused(simulator)) <= 10 + 1
        assert await scrape(exporter, clock, times=3) == 0
        assert len(refused(simulator)) <= 10 + 1


@pytest.mark.parametrize("type_", ["password", "aksk"])
async def test_one_account_in_six_regions_is_refused_once(clock: Clock, type_: str) -> None:
    """The account is one, whatever the IAM endpoint: five failed logins would lock it."""
    auth = {**TYPES[type_], **({"password": "wrong"} if type_ == "password" else {})}
    if type_ == "aksk":
        auth["secret_key"] = "wrong"
    simulator = make_cloud(clock, projects=6, instances=1, latency_seconds=0.2)
    config = make_settings(
        auth,
        projects=6,
        instances=1,
        more=lambda number: {"iam_endpoint": f"https://iam.region-{number}.example"},
    )
    async with running_exporter(simulator, config) as exporter:
        assert await scrape(exporter, clock, times=3) == 0
    assert len(refused(simulator)) == 1


@pytest.mark.parametrize(
    ("latency", "seconds"),
    [(1.0, [0, 60, 180, 420]), (2.0, [0, 1.5, 180, 420]), (6.0, [0, 1.5, 3, 4.5])],
)
@pytest.mark.parametrize(
    "wrong", [{**BY_PASSWORD, "password": "wrong"}, BY_KEY], ids=["password", "key"]
)
async def test_a_cloud_that_takes_its_time_to_refuse_locks_nothing(
    clock: Clock, wrong: Mapping[str, str], latency: float, seconds: list[float]
) -> None:
    """The next one goes before the first is refused: those count as if they had waited."""
    simulator = make_cloud(clock, projects=8, instances=1, latency_seconds=latency)
    for project in simulator.projects.values():
        project.access_keys.clear()
    config = make_settings(wrong, projects=8, instances=1)
    async with running_exporter(simulator, config) as exporter:
        while clock() < NOON + 14 * 60:
            await exporter.scraper.scrape(9.5)
            await clock.advance(10.0)
    asked = [request.at - NOON for request in refused(simulator)]
    assert asked == pytest.approx(seconds, abs=20.0)  # of a scrape
    assert not simulator.is_locked(f"{DOMAIN}/{USER}")
    assert not simulator.is_locked(ACCESS_KEY)


@pytest.mark.parametrize("auth", [BY_KEY, {"type": "ecs-agency"}, BY_PASSWORD])
async def test_projects_that_hang_do_not_keep_out_one_that_shares_their_key(
    clock: Clock, auth: Mapping[str, str]
) -> None:
    simulator = make_cloud(clock, projects=6, instances=1, latency_seconds=0.2)
    for number in range(5):
        hang = Fault(hang=True)
        simulator.add_fault(hang, "list_backups", instance_id=instance_id(number), times=None)
    async with running_exporter(
        simulator, make_settings(auth, projects=6, instances=1)
    ) as exporter:
        for _ in range(4):
            published = await samples(exporter, timeout=TEN_SECONDS)
            assert published.by_instance("scrape_success")[instance_id(5)] == 1
            await clock.advance(5)


async def test_a_login_that_hangs_does_not_keep_out_other_projects_of_the_account(
    clock: Clock,
) -> None:
    simulator = make_cloud(clock, projects=6, instances=1, latency_seconds=0.2)
    hang = Fault(hang=True)
    simulator.fault_script = lambda request: (
        hang if request.operation == "login" and len(simulator.requests_of("login")) <= 5 else None
    )
    config = make_settings(BY_PASSWORD, projects=6, instances=1)
    async with running_exporter(simulator, config) as exporter:
        published = await samples(exporter, timeout=TEN_SECONDS)
    assert sum(published.by_instance("scrape_success").values()) >= 1


async def test_a_withdrawn_key_that_comes_back_is_found_by_one_request(clock: Clock) -> None:
    simulator = make_cloud(clock, instances=20)
    keys = simulator.projects["project-0"].access_keys
    async with running_exporter(simulator, make_settings(BY_KEY, instances=20)) as exporter:
        assert await scrape(exporter, clock, times=1) == 20
        secret = keys.pop(ACCESS_KEY)
        await scrape(exporter, clock, times=2)
        keys[ACCESS_KEY] = secret
        assert await scrape(exporter, clock, times=2) == 0
        assert await scrape(exporter, clock, times=2) == 40
    assert len(refused(simulator)) == 1


async def test_a_secret_file_that_was_corrected_ends_the_back_off_at_once(
    clock: Clock, tmp_path: Path
) -> None:
    """Also within the same second and size, where a file system tells the time to the second."""
    file = tmp_path / "secret"
    file.write_text("a wrong secret KEY")
    os.utime(file, ns=(1, 1))
    auth = {"type": "aksk", "access_key": ACCESS_KEY, "secret_key_file": str(file)}
    simulator = make_cloud(clock)
    async with running_exporter(simulator, make_settings(auth)) as exporter:
        assert await scrape(exporter, clock, times=1, every=1.0) == 0
        file.write_text(SECRET_KEY)
        os.utime(file, ns=(1, 1))
        assert await scrape(exporter, clock, times=1) == 5
    assert len(refused(simulator)) == 1


async def test_an_access_key_is_one_wherever_it_is_written(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the configuration, the environment and two profiles: four refusals a minute lock it."""
    simulator = make_cloud(clock, projects=4, instances=1)
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "wrong")
    (tmp_path / "a").write_text(f"[basic]\nak = {ACCESS_KEY}\nsk = wrong\n")
    (tmp_path / "b").write_text(f"[other]\nak = {ACCESS_KEY}\nsk = wrong\n")
    ways: list[dict[str, str]] = [
        {**BY_KEY, "secret_key": "wrong"},
        {"type": "env"},
        {"type": "profile", "file": str(tmp_path / "a")},
        {"type": "profile", "file": str(tmp_path / "b"), "section": "other"},
    ]
    config = make_config(
        projects=[
            make_project_settings(instance_id(number), id=f"project-{number}", auth=auth)
            for number, auth in enumerate(ways)
        ]
    )
    async with running_exporter(simulator, config) as exporter:
        assert await scrape(exporter, clock, times=8, every=30.0) == 0
    assert [round(request.at - NOON) for request in refused(simulator)] == [0, 60, 180]


async def test_a_corrected_part_of_a_key_ends_the_back_off_at_once(
    clock: Clock, tmp_path: Path
) -> None:
    """Not the secret alone may be what was wrong."""
    file = tmp_path / "credentials"
    file.write_text(f"[basic]\nak = AKMISTYPED\nsk = {SECRET_KEY}\n")
    simulator = make_cloud(clock)
    config = make_settings({"type": "profile", "file": str(file)})
    async with running_exporter(simulator, config) as exporter:
        assert await scrape(exporter, clock, times=1) == 0
        file.write_text(f"[basic]\nak = {ACCESS_KEY}\nsk = {SECRET_KEY}\n")
        assert await scrape(exporter, clock, times=1) == 5


async def test_a_corrected_security_token_ends_the_back_off_at_once(clock: Clock) -> None:
    simulator = make_cloud(clock)
    simulator.add_fault(Fault(status=401, form="gateway"), "list_backups")
    settings = Settings(make_settings({**BY_KEY, "security_token": "of-yesterday"}))
    async with running_exporter(simulator, settings) as exporter:
        assert await scrape(exporter, clock, times=1) == 0
        settings.config = make_settings({**BY_KEY, "security_token": "of-today"})
        await exporter.reload()
        assert await scrape(exporter, clock, times=1) == 5


async def test_keys_that_worked_for_hours_are_forgiven_nothing(clock: Clock) -> None:
    simulator = make_cloud(clock, instances=10)
    async with running_exporter(simulator, make_settings(BY_KEY, instances=10)) as exporter:
        await scrape(exporter, clock, times=6, every=HOUR)
        simulator.projects["project-0"].access_keys.clear()
        simulator.requests.clear()
        await scrape(exporter, clock, times=4)
    assert len(refused(simulator)) == 1
    assert not simulator.is_locked(ACCESS_KEY)


async def test_keys_that_one_project_saw_refused_are_not_shown_by_another(clock: Clock) -> None:
    """Each project holds the server's keys for itself, and they are the same."""
    simulator = make_cloud(clock, projects=3, instances=1)
    config = make_settings({"type": "ecs-agency"}, projects=3, instances=1)
    async with running_exporter(simulator, config) as exporter:
        assert await scrape(exporter, clock, times=1) == 3
        refuse_everything(simulator)
        simulator.requests.clear()
        assert await scrape(exporter, clock, times=3) == 0
    assert len(refused(simulator)) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=503, form="empty"), "server"),
        (Fault(status=500, form="html"), "server"),
        (Fault(status=302, headers={"Location": "https://portal.example"}), "bad_response"),
        (Fault(body=b"<html>a portal</html>", content_type="text/html"), "bad_response"),
        (Fault(status=404, form="html"), "bad_response"),
        (Fault(status=401, form="iam"), "auth"),
        (Fault(status=403, form="iam"), "auth"),
    ],
    ids=["503", "500", "redirect", "html", "404 page", "401", "403"],
)
async def test_only_a_refused_login_is_auth(clock: Clock, fault: Fault, reason: str) -> None:
    simulator = make_cloud(clock, instances=2)
    simulator.add_fault(fault, "login", times=None)
    async with running_exporter(simulator, make_settings(BY_PASSWORD, instances=2)) as exporter:
        published = await samples(exporter)
    assert published.errors(instance_id(0)) == {reason: 1}
    assert published.errors(instance_id(1)) == {reason: 1}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx.ConnectError("refused"), "network"),
        (OSError("no route to host"), "network"),
        (None, "timeout"),
    ],
    ids=["refused", "no route", "silence"],
)
async def test_an_iam_that_cannot_be_reached_is_not_auth(
    clock: Clock, error: Exception | None, reason: str
) -> None:
    simulator = make_cloud(clock, instances=2)

    def before(request: httpx.Request) -> Exception | None:
        return error if request.url.host == "iam.example" else None

    if error is None:
        simulator.add_fault(Fault(hang=True), "login", times=None)
    transport = StreamingTransport(simulator)
    transport.before = before
    config = make_settings(BY_PASSWORD, instances=2, api={"timeout": "2s", "retries": 1})
    async with running_exporter(simulator, config, transport=transport) as exporter:
        published = await samples(exporter)
    assert published.errors(instance_id(0)) == {reason: 1}


async def test_one_503_of_iam_fails_no_scrape(clock: Clock) -> None:
    simulator = make_cloud(clock, instances=2)
    simulator.add_fault(Fault(status=503, form="empty"), "login")
    async with running_exporter(simulator, make_settings(BY_PASSWORD, instances=2)) as exporter:
        assert await scrape(exporter, clock, times=1) == 2
    assert len(simulator.requests_of("login")) == 2
