"""One instance over HTTP, and the list of all that can be probed."""

import json

import pytest

from exporter.config.schema import Config
from exporter.simulator import Fault, Simulator
from tests.support.clients import client_on
from tests.support.factories import (
    BILLING,
    ORDERS,
    PROJECT,
    make_backup,
    make_config,
    make_instance,
    make_project,
    make_project_settings,
    make_simulator,
    parse_samples,
)
from tests.support.virtual_time import Clock

OTHER_PROJECT = "0483b6b16e954cb88930a360d2c4e663"
EXPORTER_WIDE = (
    "gaussdb_mysql_exporter_",
    "gaussdb_mysql_api_request_duration_seconds",
    "gaussdb_mysql_token_expiry_timestamp_seconds",
    "gaussdb_mysql_discover",
    "gaussdb_mysql_unmonitored_instances",
    "process_",
    "python_",
)


# /probe ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("project", [PROJECT, "production"])
@pytest.mark.parametrize("instance", [ORDERS, "orders"])
async def test_a_probe_names_its_instance_by_id_or_by_name(
    two_named: tuple[Simulator, Config], project: str, instance: str
) -> None:
    async with client_on(*two_named) as client:
        answer = await client.get("/probe", params={"project": project, "instance": instance})
    assert answer.status_code == 200
    found = parse_samples(answer.text)
    assert found.by_instance("incremental_backups") == {ORDERS: 2.0}
    assert found.by_instance("scrape_success") == {ORDERS: 1.0}


async def test_a_probe_asks_for_its_instance_alone(two_named: tuple[Simulator, Config]) -> None:
    simulator, config = two_named
    async with client_on(simulator, config) as client:
        await client.get("/probe", params={"project": PROJECT, "instance": ORDERS})
    assert {request.instance_id for request in simulator.requests_of("list_backups")} == {ORDERS}


async def test_a_probe_has_no_metric_of_the_exporter_or_a_project(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    settings = make_project_settings(ORDERS, auth="password", discovery={"enabled": True})
    async with client_on(simulator, make_config(projects=[settings])) as client:
        text = (await client.get(f"/probe?project={PROJECT}&instance={ORDERS}")).text
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[:1] != "#"}
    assert "gaussdb_mysql_scrape_success" in names
    assert not [name for name in names if name.startswith(EXPORTER_WIDE)]


async def test_a_probe_of_a_failing_instance_is_200_and_says_so(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    simulator.add_fault(Fault(status=403), "list_backups", times=None)
    async with client_on(simulator) as client:
        answer = await client.get(f"/probe?project={PROJECT}&instance={ORDERS}")
    assert answer.status_code == 200
    found = parse_samples(answer.text)
    assert found.of("scrape_success") == 0.0
    assert found.errors() == {"forbidden": 1.0}
    assert found.backup_gauges() == {}


@pytest.mark.parametrize(
    "query",
    [
        "",
        f"project={PROJECT}",
        f"instance={ORDERS}",
        f"project=&instance={ORDERS}",
        f"project={PROJECT}&instance=",
    ],
)
async def test_a_probe_without_a_whole_name_is_400_with_how_to_ask(
    two_named: tuple[Simulator, Config], query: str
) -> None:
    simulator, config = two_named
    async with client_on(simulator, config) as client:
        answer = await client.get(f"/probe?{query}")
    assert answer.status_code == 400
    assert answer.text == ("name the instance: /probe?project=ID&instance=ID (or their names)\n")
    assert not simulator.requests


@pytest.mark.parametrize(
    ("project", "instance"),
    [
        (PROJECT, "nobody"),
        ("nobody", ORDERS),
        (OTHER_PROJECT, ORDERS),
        (PROJECT, ORDERS.upper()),
        (PROJECT, "<script>alert(1)</script>"),
        (PROJECT, "x" * 10_000),
    ],
)
async def test_a_probe_of_an_unknown_instance_is_400_and_asks_nobody(
    two_named: tuple[Simulator, Config], project: str, instance: str
) -> None:
    simulator, config = two_named
    async with client_on(simulator, config) as client:
        answer = await client.get("/probe", params={"project": project, "instance": instance})
    assert answer.status_code == 400
    assert answer.text.startswith("unknown instance")
    assert len(answer.text) < 500
    assert answer.headers["content-type"].startswith("text/plain")
    assert not simulator.requests


async def test_a_name_of_two_instances_is_400(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), make_instance(id=BILLING), clock=clock)
    config = make_config({"id": ORDERS, "name": "same"}, {"id": BILLING, "name": "same"})
    async with client_on(simulator, config) as client:
        ambiguous = await client.get(f"/probe?project={PROJECT}&instance=same")
        by_id = await client.get(f"/probe?project={PROJECT}&instance={ORDERS}")
    assert ambiguous.status_code == 400
    assert "its name is not unique" in ambiguous.text
    assert by_id.status_code == 200


async def test_an_id_goes_before_another_instances_name(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), make_instance(id=BILLING), clock=clock)
    config = make_config(ORDERS, {"id": BILLING, "name": ORDERS})
    async with client_on(simulator, config) as client:
        answer = await client.get(f"/probe?project={PROJECT}&instance={ORDERS}")
    assert parse_samples(answer.text).by_instance("scrape_success") == {ORDERS: 1.0}


async def test_the_first_probe_finds_what_only_discovery_knows(clock: Clock) -> None:
    simulator = make_simulator(make_instance(make_backup(), name="found"), clock=clock)
    config = make_config(projects=[make_project_settings(discovery={"enabled": True})])
    async with client_on(simulator, config) as client:
        answer = await client.get(f"/probe?project={PROJECT}&instance=found")
    assert answer.status_code == 200
    assert parse_samples(answer.text).by_instance("incremental_backups") == {ORDERS: 1.0}


# /sd ------------------------------------------------------------------------------------------


async def test_service_discovery_lists_every_instance_as_a_probe(
    two_named: tuple[Simulator, Config],
) -> None:
    simulator, config = two_named
    async with client_on(simulator, config) as client:
        answer = await client.get("/sd")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == [
        {
            "targets": ["exporter.example:10042"],
            "labels": {
                "__metrics_path__": "/probe",
                "__param_project": PROJECT,
                "__param_instance": id_,
                "project": PROJECT,
                "instance": id_,
                "__meta_gaussdb_mysql_project": PROJECT,
                "__meta_gaussdb_mysql_project_name": "production",
                "__meta_gaussdb_mysql_instance": id_,
                "__meta_gaussdb_mysql_instance_name": name,
                "__meta_gaussdb_mysql_region": "cn-north-4",
            },
        }
        for id_, name in ((ORDERS, "orders"), (BILLING, ""))
    ]
    assert not simulator.requests  # nothing but what discovery needs


async def test_targets_behind_tls_are_probed_over_tls(two_named: tuple[Simulator, Config]) -> None:
    async with client_on(*two_named) as client:
        groups = (await client.get("https://exporter.example/sd")).json()
    assert {group["labels"]["__scheme__"] for group in groups} == {"https"}
    assert {target for group in groups for target in group["targets"]} == {"exporter.example"}


async def test_each_target_of_service_discovery_can_be_probed(
    two_named: tuple[Simulator, Config],
) -> None:
    async with client_on(*two_named) as client:
        for group in (await client.get("/sd")).json():
            labels = group["labels"]
            answer = await client.get(
                labels["__metrics_path__"],
                params={
                    name.removeprefix("__param_"): value
                    for name, value in labels.items()
                    if name.startswith("__param_")
                },
            )
            assert parse_samples(answer.text).by_instance("scrape_success") == {
                labels["instance"]: 1.0
            }


async def test_service_discovery_has_what_the_cloud_lists(clock: Clock) -> None:
    simulator = make_simulator(
        make_instance(name="prod-orders"), make_instance(id=BILLING, name="test"), clock=clock
    )
    config = make_config(projects=[make_project_settings(discovery={"name": "prod-*"})])
    async with client_on(simulator, config) as client:
        groups = (await client.get("/sd")).json()
    assert [group["labels"]["instance"] for group in groups] == [ORDERS]
    assert groups[0]["labels"]["__meta_gaussdb_mysql_instance_name"] == "prod-orders"


async def test_service_discovery_is_503_until_every_project_was_listed(clock: Clock) -> None:
    """An empty list would take all targets from Prometheus, and their alerts with them."""
    simulator = make_simulator(make_instance(), make_project(id=OTHER_PROJECT), clock=clock)
    simulator.add_fault(Fault(status=403), "list_instances", times=1)
    config = make_config(
        projects=[
            make_project_settings(discovery={"enabled": True}, name="production"),
            make_project_settings(id=OTHER_PROJECT, discovery={"enabled": True}),
        ]
    )
    async with client_on(simulator, config) as client:
        answer = await client.get("/sd")
        assert answer.status_code == 503
        assert "not listed yet of: " in answer.text
        await clock.advance(60)
        assert len((await client.get("/sd")).json()) == 1
        # What was listed once stays, though it cannot be listed any more.
        simulator.add_fault(Fault(status=403), "list_instances", times=None)
        await clock.advance(3600)
        assert len((await client.get("/sd")).json()) == 1


async def test_service_discovery_answers_before_prometheus_gives_up(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    simulator.add_fault(Fault(hang=True), "list_instances")
    config = make_config(projects=[make_project_settings(discovery={"enabled": True})])
    async with client_on(simulator, config) as client:
        begun = clock()
        answer = await client.get("/sd", headers={"X-Prometheus-Refresh-Interval-Seconds": "5"})
    assert answer.status_code == 503
    assert 4.0 < clock() - begun <= 4.5


async def test_service_discovery_of_nothing_is_an_empty_list(clock: Clock) -> None:
    simulator = make_simulator(clock=clock)
    config = make_config(projects=[make_project_settings(discovery={"enabled": True})])
    async with client_on(simulator, config) as client:
        assert json.loads((await client.get("/sd")).text) == []
