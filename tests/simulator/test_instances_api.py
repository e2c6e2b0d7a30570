"""The listing of instances keeps to the documentation."""

import pytest

from tests.support.simulated_cloud import ORDERS, PROJECT, TOKEN, fetch, make_fleet, make_simulator


@pytest.mark.parametrize("version", ["v3", "v3.1"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["orders", "orders-eu", "test-orders"]),
        ({"limit": "2"}, ["orders", "orders-eu"]),
        ({"offset": "2", "limit": "2"}, ["test-orders"]),
        ({"name": "orders"}, ["orders"]),
        ({"name": "*orders-"}, ["orders-eu"]),
        ({"tags": "env=prod"}, ["orders", "orders-eu"]),
        ({"tags": "env=prod,team=a"}, ["orders-eu"]),
        ({"id": ORDERS}, ["orders"]),
    ],
)
async def test_instances_are_listed_by_page_name_and_tags(
    version: str, query: dict[str, str], expected: list[str]
) -> None:
    answer = await fetch(make_fleet(), f"/{version}/{PROJECT}/instances", TOKEN, **query)

    assert [instance["name"] for instance in answer.json()["instances"]] == expected


async def test_instance_has_the_documented_fields() -> None:
    answer = await fetch(make_simulator(), f"/v3.1/{PROJECT}/instances")

    instance = answer.json()["instances"][0]
    expected = {
        "id": ORDERS,
        "name": "orders",
        "status": "normal",
        "type": "Cluster",
        "region": "cn-north-4",
        "enterprise_project_id": "0",
        "tags": [{"key": "env", "value": "prod"}],
        "backup_strategy": {"start_time": "16:00-17:00", "keep_days": "7"},
    }
    assert {name: instance[name] for name in expected} == expected
    assert answer.json()["total_count"] == 1


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "101"}, {"tags": "prod"}])
async def test_instance_listing_checks_its_parameters(query: dict[str, str]) -> None:
    simulator = make_fleet(parameter_error_form="gateway")

    answer = await fetch(simulator, f"/v3/{PROJECT}/instances", TOKEN, **query)

    assert (answer.status_code, answer.json()["error_code"]) == (400, "APIGW.0201")


async def test_newer_instance_api_may_not_exist() -> None:
    simulator = make_simulator(v31_available=False)

    newer = await fetch(simulator, f"/v3.1/{PROJECT}/instances")
    older = await fetch(simulator, f"/v3/{PROJECT}/instances")

    assert (newer.status_code, newer.json()["error_code"]) == (404, "APIGW.0101")
    assert older.status_code == 200
