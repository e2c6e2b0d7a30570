import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from exporter.assembly import Exporter
from exporter.config.schema import Config
from exporter.credentials.accounts import Accounts
from exporter.errors import ConfigError
from exporter.exposition.metrics import OwnMetrics
from exporter.models import ConfigurationState
from exporter.reporting.redaction import SecretRegistry
from exporter.simulator import Fault, Simulator
from tests.support.factories import (
    ACCESS_KEY,
    AUTH,
    BILLING,
    DOMAIN,
    ORDERS,
    OTHER_PROJECT,
    PASSWORD,
    PROJECT,
    SECRET_KEY,
    TOKEN,
    USER,
    make_backup,
    make_config,
    make_instance,
    make_project,
    make_project_settings,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.faults import StreamingTransport
from tests.support.virtual_time import NOON, Clock


def make_cloud(clock: Clock) -> Simulator:
    """Two projects with an instance each, and one more in the first."""
    return make_simulator(
        make_project(
            make_instance(make_backup(), id=ORDERS, name="orders"),
            make_instance(make_backup(), id=BILLING, name="billing"),
        ),
        make_project(make_instance(make_backup(), id=ORDERS), id=OTHER_PROJECT),
        clock=clock,
    )


class Loader:
    """The configuration, to be changed between reloads."""

    def __init__(self, config: Config | ConfigError | None = None, **more: Any) -> None:
        self.config: Config | ConfigError = config or make_config(**more)

    def __call__(self) -> Config:
        if isinstance(self.config, ConfigError):
            raise self.config
        return self.config


class Transports:
    """Those that were opened."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self.opened: list[StreamingTransport] = []

    def __call__(self) -> StreamingTransport:
        self.opened.append(StreamingTransport(self._simulator))
        return self.opened[-1]


async def start(simulator: Simulator, load: Loader) -> tuple[Exporter, Transports]:
    transports = Transports(simulator)
    exporter = Exporter(
        load,
        own=OwnMetrics(clock=simulator.clock),
        registry=SecretRegistry(),
        transport=transports,
        clock=simulator.clock,
    )
    await exporter.reload()
    return exporter, transports


# Every way in ----------------------------------------------------------------------------------


def in_files(folder: Path) -> dict[str, dict[str, str]]:
    """Each type whose secret may be in a file, with the secret there."""
    files = {"password": PASSWORD, "secret_key": SECRET_KEY, "token": f"{TOKEN}-{PROJECT}"}
    for name, secret in files.items():
        (folder / name).write_text(f"{secret}\n")
    return {
        "password": {
            "type": "password",
            "domain": DOMAIN,
            "username": USER,
            "password_file": "password",
        },
        "aksk": {"type": "aksk", "access_key": ACCESS_KEY, "secret_key_file": "secret_key"},
        "token": {"type": "token", "token_file": "token"},
    }


@pytest.mark.parametrize(
    "auth",
    [
        "token",
        "password",
        "aksk",
        {"type": "ecs-agency"},
        {"type": "ecs-agency", "metadata_endpoint": "http://metadata.example"},
    ],
)
async def test_each_way_in_opens_the_cloud(clock: Clock, auth: str | Mapping[str, str]) -> None:
    async with running_exporter(make_cloud(clock), make_config(ORDERS, auth=auth)) as exporter:
        assert (await samples(exporter)).of("scrape_success") == 1


@pytest.mark.parametrize("kind", ["password", "aksk", "token"])
async def test_each_way_in_opens_the_cloud_with_a_secret_from_a_file(
    clock: Clock, tmp_path: Path, kind: str
) -> None:
    config = make_config(ORDERS, auth=in_files(tmp_path)[kind], folder=tmp_path)
    async with running_exporter(make_cloud(clock), config) as exporter:
        assert (await samples(exporter)).of("scrape_success") == 1


async def test_the_environments_keys_are_read_when_they_are_needed(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(ORDERS, auth={"type": "env"})
    async with running_exporter(make_cloud(clock), config) as exporter:
        before = await samples(exporter)
        assert before.errors() == {"auth": 1}
        assert before.of("api_requests_total") == 0
        monkeypatch.setenv("HUAWEICLOUD_SDK_AK", ACCESS_KEY)
        monkeypatch.setenv("HUAWEICLOUD_SDK_SK", SECRET_KEY)
        assert (await samples(exporter)).of("scrape_success") == 1


async def test_a_temporary_key_is_shown_with_its_token(clock: Clock) -> None:
    simulator = make_cloud(clock)
    headers: list[str | None] = []
    transport = StreamingTransport(
        simulator, before=lambda r: headers.append(r.headers.get("X-Security-Token"))
    )
    auth = {**AUTH["aksk"], "security_token": "temporary"}
    config = make_config(ORDERS, auth=auth)
    async with running_exporter(simulator, config, transport=transport) as exporter:
        await samples(exporter)
    assert set(headers) == {"temporary"}


@pytest.mark.parametrize(
    ("auth", "secrets"),
    [
        ({"type": "token", "token": "token-secret"}, ["token-secret"]),
        ({**AUTH["password"], "password": "password-secret"}, ["password-secret"]),
        (
            {**AUTH["aksk"], "secret_key": "key-secret", "security_token": "token-secret"},
            ["key-secret", "token-secret"],
        ),
    ],
)
async def test_secrets_are_hidden_before_the_first_request(
    clock: Clock, auth: Mapping[str, str], secrets: list[str]
) -> None:
    registry = SecretRegistry()
    config = make_config(ORDERS, auth=auth)
    async with running_exporter(make_cloud(clock), config, registry=registry):
        assert registry.redact(" ".join(secrets)) == " ".join(["[redacted]"] * len(secrets))


@pytest.mark.parametrize("user", ["me:p%40ss-secret", "p%40ss-secret"])
async def test_what_opens_the_proxy_is_hidden(clock: Clock, user: str) -> None:
    """A proxy may say it again in the answer that refuses it."""
    registry = SecretRegistry()
    config = make_config(ORDERS, api={"proxy_url": f"http://{user}@proxy.example:3128"})
    async with running_exporter(make_cloud(clock), config, registry=registry):
        told = registry.redact("no user has p@ss-secret or p%40ss-secret")
    assert told == "no user has [redacted] or [redacted]"


async def test_what_the_cloud_gives_is_hidden_as_well(clock: Clock) -> None:
    registry = SecretRegistry()
    simulator = make_cloud(clock)
    seen: list[str] = []
    transport = StreamingTransport(
        simulator,
        before=lambda r: seen.extend(
            r.headers[name] for name in ("X-Auth-Token", "X-Security-Token") if name in r.headers
        ),
    )
    config = make_config(
        projects=[
            make_project_settings(ORDERS, auth="password"),
            make_project_settings(ORDERS, id=OTHER_PROJECT, auth={"type": "ecs-agency"}),
        ]
    )
    async with running_exporter(
        simulator, config, registry=registry, transport=transport
    ) as exporter:
        await samples(exporter)
    assert len(set(seen)) == 2
    for secret in seen:
        assert secret not in registry.redact(f"a {secret} b", max_chars=10_000)


@pytest.mark.parametrize(
    ("auth", "who"),
    [
        ({**AUTH["password"], "password": "wrong"}, f"{DOMAIN}/{USER}"),
        ({"type": "token", "token": "wrong-token"}, f"the token of project {PROJECT}"),
        ({**AUTH["aksk"], "secret_key": "wrong"}, f"access key {ACCESS_KEY[:4]}…"),
        ({"type": "env"}, "access key of the environment"),
    ],
)
async def test_who_was_refused_is_named_in_the_log(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, auth: Mapping[str, str], who: str
) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_AK", ACCESS_KEY)
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "wrong")
    async with running_exporter(make_cloud(clock), make_config(ORDERS, auth=auth)) as exporter:
        with structlog.testing.capture_logs() as logs:
            assert (await samples(exporter)).errors()["auth"] >= 1
    refused = [entry for entry in logs if entry["event"] == "login failed"]
    assert [entry["who"] for entry in refused] == [who]
    assert "HTTP 401" in refused[0]["error"]
    assert "wrong-token" not in str(logs)


async def test_a_password_file_that_is_corrected_ends_the_back_off(
    clock: Clock, tmp_path: Path
) -> None:
    auth = in_files(tmp_path)["password"]
    (tmp_path / "password").write_text("a wrong one")
    simulator = make_cloud(clock)
    config = make_config(ORDERS, auth=auth, folder=tmp_path)
    async with running_exporter(simulator, config) as exporter:
        for _ in range(3):
            assert (await samples(exporter)).errors().keys() == {"auth"}
        assert len(simulator.requests) == 1
        (tmp_path / "password").write_text(PASSWORD)
        assert (await samples(exporter)).of("scrape_success") == 1


def test_accounts_outlive_reloads_by_name() -> None:
    accounts = Accounts(SecretRegistry())
    first = accounts.refusals_of("one", shown="o…")
    assert accounts.refusals_of("one") is first
    assert accounts.refusals_of("two") is not first


# Reload ----------------------------------------------------------------------------------------


async def test_a_reload_without_changes_costs_one_request_and_no_login(clock: Clock) -> None:
    simulator = make_cloud(clock)
    exporter, transports = await start(simulator, Loader(auth="password"))
    await samples(exporter)
    client = exporter.scraper.projects[PROJECT].client
    simulator.requests.clear()
    await exporter.reload()
    assert exporter.scraper.projects[PROJECT].client is client
    assert (await samples(exporter)).of("scrape_api_requests") == 1
    assert [request.operation for request in simulator.requests] == ["list_backups"]
    assert not transports.opened[-1].closed
    await exporter.aclose()
    assert all(transport.closed for transport in transports.opened)


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": "https://elsewhere.example"},
        {"iam_endpoint": "https://elsewhere.example"},
        {"auth": {**AUTH["password"], "password": "another"}},
        {"auth": AUTH["aksk"]},
    ],
)
async def test_a_project_that_is_reached_differently_gets_a_new_client(
    clock: Clock, change: dict[str, Any]
) -> None:
    settings = {"auth": "password"}
    both = [OTHER_PROJECT, PROJECT]
    load = Loader(projects=[make_project_settings(ORDERS, id=id, **settings) for id in both])
    exporter, _ = await start(make_cloud(clock), load)
    await samples(exporter)
    before = {id: exporter.scraper.projects[id].client for id in both}
    load.config = make_config(
        projects=[
            make_project_settings(ORDERS, id=OTHER_PROJECT, **settings),
            make_project_settings(ORDERS, **{**settings, **change}),
        ]
    )
    await exporter.reload()
    after = {id: exporter.scraper.projects[id].client for id in both}
    assert after[OTHER_PROJECT] is before[OTHER_PROJECT]
    assert after[PROJECT] is not before[PROJECT]
    await exporter.aclose()


async def test_names_and_lookbacks_may_change_without_a_new_client(clock: Clock) -> None:
    load = Loader(auth="password")
    exporter, _ = await start(make_cloud(clock), load)
    client = exporter.scraper.projects[PROJECT].client
    load.config = make_config(
        {"id": ORDERS, "name": "shop", "lookback": "7d"}, BILLING, auth="password"
    )
    await exporter.reload()
    assert exporter.scraper.projects[PROJECT].client is client
    assert [(i.id, i.name, i.lookback_seconds) for i in exporter.scraper.instances] == [
        (ORDERS, "shop", 604_800.0),
        (BILLING, "", 86_400.0),
    ]
    await exporter.aclose()


async def test_other_limits_open_new_connections_and_close_the_old_ones(clock: Clock) -> None:
    simulator = make_cloud(clock)
    load = Loader()
    exporter, transports = await start(simulator, load)
    await samples(exporter)
    load.config = make_config(api={"max_connections": 7})
    await exporter.reload()
    assert (await samples(exporter)).of("scrape_api_requests") == 1  # what is known is kept
    await clock.advance(1)
    _, old, new = transports.opened  # the first is the metadata service's
    assert old.closed
    assert not new.closed
    await exporter.aclose()


async def test_a_project_that_is_gone_is_asked_no_more(clock: Clock) -> None:
    simulator = make_cloud(clock)
    load = Loader(
        projects=[make_project_settings(ORDERS, id=id) for id in (PROJECT, OTHER_PROJECT)]
    )
    exporter, _ = await start(simulator, load)
    await samples(exporter)
    load.config = make_config(projects=[make_project_settings(ORDERS)])
    await exporter.reload()
    simulator.requests.clear()
    published = await samples(exporter)
    assert {dict(labels).get("project") for _, labels in published} == {None, PROJECT}
    assert {request.project_id for request in simulator.requests} == {PROJECT}
    await exporter.aclose()


async def test_a_login_under_way_ends_with_its_project(clock: Clock) -> None:
    simulator = make_cloud(clock)
    simulator.add_fault(Fault(hang=True), "login", times=None)
    load = Loader(auth="password")
    exporter, _ = await start(simulator, load)
    await samples(exporter, timeout=1.0)
    load.config = make_config()
    await exporter.reload()
    assert (await samples(exporter)).of("scrape_success") == 1
    await clock.advance(60)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await exporter.aclose()


@pytest.mark.parametrize("hangs", [True, False])
async def test_stopping_just_after_a_reload_closes_the_old_connections(
    clock: Clock, hangs: bool
) -> None:
    simulator = make_cloud(clock)
    load = Loader()
    exporter, transports = await start(simulator, load)
    if hangs:
        simulator.add_fault(Fault(hang=True), times=None)
    await samples(exporter, timeout=1.0)
    load.config = make_config(api={"max_connections": 7})
    await exporter.reload()
    await exporter.aclose()
    assert [transport.closed for transport in transports.opened] == [True] * 3
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_broken_configuration_keeps_the_old_one(clock: Clock) -> None:
    load = Loader()
    exporter, transports = await start(make_cloud(clock), load)
    scraper = exporter.scraper
    load.config = ConfigError(["projects: is required"])
    with pytest.raises(ConfigError, match="projects: is required"):
        await exporter.reload()
    assert exporter.scraper is scraper
    assert len(transports.opened) == 2
    published = await samples(exporter)
    assert published.of("exporter_config_last_reload_successful", "") == 0
    assert published.of("scrape_success") == 1
    assert exporter.configuration == ConfigurationState(NOON, NOON, ("projects: is required",))
    load.config = make_config()
    await exporter.reload()
    assert exporter.configuration == ConfigurationState(exporter.clock())
    assert (await samples(exporter)).of("exporter_config_last_reload_successful", "") == 1
    await exporter.aclose()


@pytest.mark.parametrize("content", [None, "no certificate", ""])
async def test_a_ca_file_that_cannot_be_used_keeps_the_old_configuration(
    clock: Clock, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    load = Loader()
    exporter = Exporter(load, own=OwnMetrics(clock=clock), registry=SecretRegistry(), clock=clock)
    await exporter.reload()
    scraper = exporter.scraper
    load.config = make_config(api={"ca_file": str(file)})
    with pytest.raises(ConfigError) as caught:
        await exporter.reload()
    (problem,) = caught.value.problems
    assert problem.startswith(f"api.ca_file: cannot use {file}: ")
    assert exporter.scraper is scraper
    await exporter.aclose()


async def test_there_is_nothing_to_serve_before_the_first_configuration(clock: Clock) -> None:
    load = Loader(ConfigError(["nothing yet"]))
    exporter = Exporter(load, own=OwnMetrics(clock=clock), registry=SecretRegistry(), clock=clock)
    with pytest.raises(ConfigError):
        await exporter.reload()
    ready = [exporter.ready]
    with pytest.raises(AssertionError, match="not started"):
        _ = exporter.scraper
    load.config = make_config()
    await exporter.reload()
    ready.append(exporter.ready)
    exporter.stopping = True
    ready.append(exporter.ready)
    assert ready == [False, True, False]
    await exporter.aclose()


# Discovery across reloads ----------------------------------------------------------------------


def discovering(**more: Any) -> dict[str, Any]:
    return make_project_settings(discovery={"refresh_interval": "10m", **more})


async def test_discovered_instances_outlive_a_reload(clock: Clock) -> None:
    simulator = make_cloud(clock)
    load = Loader(projects=[discovering()])
    exporter, _ = await start(simulator, load)
    assert (await samples(exporter)).by_instance("scrape_success") == {ORDERS: 1, BILLING: 1}
    simulator.add_fault(Fault(status=500), "list_instances", times=None)
    load.config = make_config(projects=[discovering(name="ord*")])
    await exporter.reload()
    published = await samples(exporter)
    assert published.by_instance("scrape_success") == {ORDERS: 1}
    assert published.of("unmonitored_instances", "", project=PROJECT) == 1
    await exporter.aclose()


@pytest.mark.parametrize(
    "change",
    [
        lambda: {**discovering(), "endpoint": "https://elsewhere.example"},
        lambda: {**discovering(enabled=False), "instances": [ORDERS]},
    ],
)
async def test_what_another_endpoint_listed_is_not_taken_over(
    clock: Clock, change: Callable[[], dict[str, Any]]
) -> None:
    load = Loader(projects=[discovering()])
    exporter, _ = await start(make_cloud(clock), load)
    await samples(exporter)
    load.config = make_config(projects=[change()])
    await exporter.reload()
    expected = [ORDERS] if change()["instances"] else []
    assert [instance.id for instance in exporter.scraper.instances] == expected
    await exporter.aclose()


async def test_a_project_may_begin_to_discover(clock: Clock) -> None:
    load = Loader()
    exporter, _ = await start(make_cloud(clock), load)
    load.config = make_config(projects=[discovering()])
    await exporter.reload()
    assert (await samples(exporter)).by_instance("scrape_success") == {ORDERS: 1, BILLING: 1}
    await exporter.aclose()


# Shards ----------------------------------------------------------------------------------------


async def test_shards_together_serve_each_instance_once(clock: Clock) -> None:
    served: list[str] = []
    for shard in range(3):
        exporter = Exporter(
            Loader(
                make_config(*(f"instance-{number}" for number in range(30))),
            ),
            own=OwnMetrics(clock=clock),
            registry=SecretRegistry(),
            clock=clock,
            shard=shard,
            total_shards=3,
        )
        await exporter.reload()
        served.extend(instance.id for instance in exporter.scraper.instances)
        await exporter.aclose()
    assert sorted(served) == sorted(f"instance-{number}" for number in range(30))
