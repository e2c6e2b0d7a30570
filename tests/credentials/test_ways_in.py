"""Each way in against the simulated cloud: it logs in, renews, survives a rotation, backs off."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from exporter.assembly import Exporter
from exporter.config.schema import ApiConfig
from exporter.credentials.accounts import Accounts
from exporter.credentials.local import create_local_client
from exporter.credentials.values import Keys
from exporter.credentials.ways_in import build_auth
from exporter.errors import LoginError, Reason
from exporter.reporting.redaction import RedactSecrets, SecretRegistry
from exporter.simulator import Fault, RecordedRequest, SimulatedAgency, Simulator, serve
from exporter.transport.wire import connect
from tests.support.factories import (
    SECRET_KEY,
    instance_id,
    running_exporter,
    samples,
    scrape_success,
)
from tests.support.faults import StreamingTransport
from tests.support.virtual_time import HOUR, Clock
from tests.support.ways_in import (
    FIRST_TOKEN,
    IAM_ENDPOINT,
    NAMES,
    SECOND_TOKEN,
    STS_ENDPOINT,
    WayIn,
    distrust,
    make_agency,
    make_cloud,
    make_settings,
    make_ways_in,
    refuse_backups,
    trust,
)

ALL = 3  # instances


def shows_a_token(name: str) -> bool:
    return name.startswith(("pod-identity", "oidc", "identity provider"))


@pytest.fixture
def agency() -> SimulatedAgency:
    return make_agency()


@pytest.fixture
def ways(
    tmp_path: Path, agency: SimulatedAgency, monkeypatch: pytest.MonkeyPatch
) -> Mapping[str, WayIn]:
    return make_ways_in(tmp_path, agency)


@pytest.fixture(params=NAMES)
def way(
    request: pytest.FixtureRequest, ways: Mapping[str, WayIn], monkeypatch: pytest.MonkeyPatch
) -> WayIn:
    found = ways[request.param]
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found


async def scrape(exporter: Exporter, clock: Clock, *, times: int, every: float = 15.0) -> int:
    """How many queries succeeded, over all scrapes."""
    successes = 0
    for _ in range(times):
        successes += int(sum((await scrape_success(exporter)).values()))
        await clock.advance(every)
    return successes


def asked(simulator: Simulator, way: WayIn) -> Sequence[RecordedRequest]:
    return [request for request in simulator.requests if request.operation in way.asks]


def refused(simulator: Simulator) -> Sequence[RecordedRequest]:
    return [request for request in simulator.requests if request.status in (401, 403)]


async def test_it_logs_in_and_renews_across_its_end(
    clock: Clock, agency: SimulatedAgency, way: WayIn
) -> None:
    simulator = make_cloud(agency, clock)
    async with running_exporter(simulator, make_settings(way)) as exporter:
        assert await scrape(exporter, clock, times=1) == ALL
        assert [request.operation for request in asked(simulator, way)] == list(way.asks)
        every = 3_600.0 if "id_token_login" in way.asks else 600.0  # they live six times as long
        assert await scrape(exporter, clock, times=20, every=every) == ALL * 20
    assert refused(simulator) == []
    assert len(asked(simulator, way)) >= 4 * len(way.asks)
    assert len(asked(simulator, way)) <= 8 * len(way.asks)


async def test_keys_that_end_early_are_renewed_within_the_scrape_that_meets_it(
    clock: Clock, agency: SimulatedAgency, way: WayIn
) -> None:
    simulator = make_cloud(agency, clock)
    async with running_exporter(simulator, make_settings(way)) as exporter:
        assert await scrape(exporter, clock, times=1) == ALL
        simulator.end_agency_keys()
        assert await scrape(exporter, clock, times=2) == ALL * 2
    # The keys, and where an agency is assumed with keys of its own, those too.
    assert len(refused(simulator)) <= 2


async def test_a_token_file_that_was_rotated_is_read_at_the_next_renewal(
    clock: Clock, agency: SimulatedAgency, way: WayIn, tmp_path: Path
) -> None:
    simulator = make_cloud(agency, clock)
    async with running_exporter(simulator, make_settings(way)) as exporter:
        assert await scrape(exporter, clock, times=1) == ALL
        (tmp_path / "token").write_text(SECOND_TOKEN)
        trust(agency, SECOND_TOKEN)
        every = 3_600.0 if "id_token_login" in way.asks else 600.0
        assert await scrape(exporter, clock, times=7, every=every) == ALL * 7
    assert refused(simulator) == []


async def test_an_exchange_that_is_refused_is_asked_for_once_in_each_step_of_the_back_off(
    clock: Clock, agency: SimulatedAgency, way: WayIn
) -> None:
    simulator = make_cloud(agency, clock)
    distrust(agency)
    async with running_exporter(simulator, make_settings(way)) as exporter:
        begun = clock()
        assert await scrape(exporter, clock, times=16, every=30.0) == 0
        published = await samples(exporter)
    at = [round(request.at - begun) for request in refused(simulator)]
    assert at == [0, 60, 180, 420]
    assert published.errors(instance_id(0)).keys() == {"auth"}


async def test_keys_that_the_cloud_refuses_are_shown_once_in_each_step_of_the_back_off(
    clock: Clock, agency: SimulatedAgency, way: WayIn
) -> None:
    """And newer ones, which the exchange gives, once too."""
    simulator = make_cloud(agency, clock)
    async with running_exporter(simulator, make_settings(way)) as exporter:
        assert await scrape(exporter, clock, times=1) == ALL
        refuse_backups(simulator)
        begun = clock()
        simulator.requests.clear()
        assert await scrape(exporter, clock, times=16, every=30.0) == 0
    at = [round(request.at - begun) for request in refused(simulator)]
    assert at == [0, 0, 60, 60, 180, 180, 420, 420]


@pytest.mark.parametrize("way", [n for n in NAMES if shows_a_token(n)], indirect=True)
async def test_a_refusal_ends_at_once_where_the_token_file_changes(
    clock: Clock, agency: SimulatedAgency, way: WayIn, tmp_path: Path
) -> None:
    simulator = make_cloud(agency, clock)
    trust(agency, SECOND_TOKEN)
    async with running_exporter(simulator, make_settings(way)) as exporter:
        assert await scrape(exporter, clock, times=1) == 0
        (tmp_path / "token").write_text(SECOND_TOKEN)
        assert await scrape(exporter, clock, times=1) == ALL
    assert len(refused(simulator)) == 1


async def test_an_exchange_that_hangs_keeps_nobody_waiting_while_the_keys_are_good(
    clock: Clock, agency: SimulatedAgency, way: WayIn
) -> None:
    simulator = make_cloud(agency, clock)
    async with running_exporter(simulator, make_settings(way)) as exporter:
        assert await scrape(exporter, clock, times=1) == ALL
        life = 6 * HOUR if "id_token_login" in way.asks else HOUR
        await clock.advance(0.7 * life)
        for operation in way.asks:
            simulator.add_fault(Fault(hang=True), operation, times=None)
        for _ in range(int(0.25 * life / 300)):
            begun = clock()
            assert await scrape(exporter, clock, times=1, every=0.0) == ALL
            assert clock() - begun < 1
            await clock.advance(300.0)
        await clock.advance(0.1 * life)
        published = await samples(exporter)
        # What held is over: now it fails, and says why.
        assert sum(published.by_instance("scrape_success").values()) == 0
        assert published.errors(instance_id(0)).keys() <= {"timeout", "deadline"}
        simulator.clear_faults()
        await clock.advance(120)
        assert await scrape(exporter, clock, times=1) == ALL


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=503, form="html"), "server"),
        (Fault(body=b"<html>a portal</html>", content_type="text/html"), "bad_response"),
        (Fault(body=b'{"credential": {"access": "a b", "secret": 5}}'), "bad_response"),
        (Fault(status=302, headers={"Location": "https://elsewhere.example"}), "bad_response"),
    ],
    ids=["503", "html", "nonsense", "redirect"],
)
async def test_an_exchange_without_a_usable_answer_has_its_own_reason(
    clock: Clock, agency: SimulatedAgency, way: WayIn, fault: Fault, reason: str
) -> None:
    simulator = make_cloud(agency, clock)
    simulator.add_fault(fault, way.asks[-1], times=None)
    async with running_exporter(simulator, make_settings(way)) as exporter:
        published = await samples(exporter)
        assert published.errors(instance_id(0)) == {reason: 1}
        simulator.clear_faults()
        await clock.advance(61)
        assert await scrape(exporter, clock, times=1) == ALL


async def test_one_503_of_an_exchange_is_retried_like_any_request(
    clock: Clock, agency: SimulatedAgency, way: WayIn
) -> None:
    simulator = make_cloud(agency, clock)
    for operation in way.asks:
        simulator.add_fault(Fault(status=503, form="empty"), operation)
    async with running_exporter(simulator, make_settings(way)) as exporter:
        assert await scrape(exporter, clock, times=1) == ALL


async def test_no_token_and_no_key_is_told_even_where_a_service_echoes_it(
    clock: Clock, agency: SimulatedAgency, way: WayIn
) -> None:
    simulator, registry = make_cloud(agency, clock), SecretRegistry()
    with structlog.testing.capture_logs() as logs:
        async with running_exporter(simulator, make_settings(way), registry=registry) as exporter:
            await scrape(exporter, clock, times=1)
            # The gateway echoes the headers, the exchange its headers and the token.
            refuse = Fault(status=401, form="gateway", leak=True, message="sign: ")
            simulator.add_fault(refuse, "list_backups", times=None)
            echo = (
                FIRST_TOKEN if way.has_token_file else SECRET_KEY if "ecs" not in way.name else ""
            )
            for operation in way.asks:
                refuse = Fault(status=401, form="service", leak=True, message=f"{echo} ")
                simulator.add_fault(refuse, operation, times=None)
            await scrape(exporter, clock, times=2)
            results = exporter.scraper.view()
            published = await samples(exporter)
    hide = RedactSecrets(registry)
    written = [hide(None, "", dict(entry)) for entry in logs]
    shown = repr((published, results, written))
    assert "HTTP 401" in shown
    for secret in (FIRST_TOKEN, SECRET_KEY, "simulated-security-token-"):
        assert secret not in shown, secret


async def test_the_endpoints_of_the_environment_are_asked(
    clock: Clock, agency: SimulatedAgency, way: WayIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the SDK does: STS for all, the older IAM where the type reads the environment."""
    hosts: set[str] = set()
    simulator = make_cloud(agency, clock)

    async def record(scope, receive, send):  # type: ignore[no-untyped-def]
        if scope["path"].startswith(("/v5/", "/v3.0/")):
            hosts.update(value.decode() for name, value in scope["headers"] if name == b"host")
        await simulator(scope, receive, send)

    async with running_exporter(
        simulator, make_settings(way), transport=StreamingTransport(record)
    ) as exporter:
        assert await scrape(exporter, clock, times=1) == ALL
    if any(operation.startswith("assume") for operation in way.asks):
        assert hosts == {STS_ENDPOINT.removeprefix("https://")}
    elif "identity provider" in way.name:
        assert hosts == {IAM_ENDPOINT.removeprefix("https://")}
    elif "older IAM" in way.name:
        assert hosts == {"iam.example"}


async def test_what_is_sent_is_what_the_configuration_says(
    clock: Clock,
    agency: SimulatedAgency,
    ways: Mapping[str, WayIn],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = make_cloud(agency, clock)
    oidc = ways["oidc"]
    auth = {**oidc.auth, "session_name": "night-watch", "duration": "2h"}
    async with running_exporter(simulator, make_settings(replace(oidc, auth=auth))) as exporter:
        assert await scrape(exporter, clock, times=1) == ALL
    (request,) = asked(simulator, oidc)
    assert request.sent == {
        "provider_urn": "iam::0a1b2c3d4e5f:oidcProvider:cce-cluster",
        "agency_urn": "iam::0a1b2c3d4e5f:agency:backup-reader",
        "agency_session_name": "night-watch",
        "duration_seconds": 7200,
    }


async def test_only_what_leaves_the_machine_goes_through_the_proxy(
    agency: SimulatedAgency, ways: Mapping[str, WayIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens at the proxy: the pod's agent answers all the same, STS cannot be asked."""
    simulator = make_cloud(agency, time.time)
    wire = connect(ApiConfig.model_validate({"proxy_url": "http://127.0.0.1:9", "retries": 0}))
    local = create_local_client()
    async with serve(simulator) as address:
        for name, value in ways["pod-identity"].environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HC_CONTAINER_CREDENTIALS_FULL_URI", f"{address}/v1/credentials")
        auths = [
            build_auth(
                make_settings(replace(ways[name], auth=auth)).projects[0],
                wire,
                Accounts(SecretRegistry()),
                local=local,
            )
            for name, auth in (
                ("pod-identity", ways["pod-identity"].auth),
                ("oidc", {**ways["oidc"].auth, "sts_endpoint": address}),
            )
        ]
        keys = await auths[0].source.current()
        assert isinstance(keys, Keys)
        assert keys.access_key.startswith("HST")
        with pytest.raises(LoginError, match="proxy") as caught:
            await auths[1].source.current()
        assert caught.value.reason is Reason.NETWORK
    await local.aclose()
    await wire.aclose()
    assert simulator.requests_of("assume_agency_with_oidc") == []
