"""A simulated cloud of one instance by name, and a client for it, for the simulator's own tests."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.algorithm import SigningAlgorithm

from exporter.simulator import (
    Knobs,
    SimulatedBackup,
    SimulatedInstance,
    SimulatedProject,
    Simulator,
)
from tests.support.paths import TESTDATA

NOON = 1_690_545_600.0  # 2023-07-28T12:00:00Z, 20:00 in the cloud's zone
HOUR = 3_600.0
DAY = 86_400.0
PROJECT = "97b026aa9cc4417888c14c84a1ad9860"
OTHER_PROJECT = "0483b6b16e954cb88930a360d2c4e663"
FAR_PROJECT = "11111b16e954cb88930a360d2c4e6630"
ORDERS = "61a4ea66210545909d74a05c27a7179ein07"
BACKUPS = f"/v3/{PROJECT}/instances/{ORDERS}/incremental-backups"
TOKEN = {"X-Auth-Token": "a-static-token"}
VECTORS = json.loads((TESTDATA / "signing_vectors.json").read_text())


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def at(text: str) -> float:
    """Seconds since the epoch of a time of NOON's day, UTC."""
    hours, minutes, *seconds = map(int, text.split(":"))
    return NOON - 12 * HOUR + hours * HOUR + minutes * 60 + sum(seconds)


def make_backup(id_: str, begin: str, end: str | None, **more: Any) -> SimulatedBackup:
    return SimulatedBackup(id_, at(begin), None if end is None else at(end), 0.109375, **more)


def make_simulator(
    *backups: SimulatedBackup, clock: Clock | None = None, **knobs: Any
) -> Simulator:
    instance = SimulatedInstance(ORDERS, "orders", list(backups), tags={"env": "prod"})
    project = SimulatedProject(
        PROJECT,
        users={("my-account", "reader"): "right"},
        access_keys={"AKEXAMPLE": "SKexample"},
        instances={ORDERS: instance},
        tokens={"a-static-token"},
    )
    other = SimulatedProject(OTHER_PROJECT, users={("my-account", "reader"): "right"})
    far = SimulatedProject(FAR_PROJECT, "eu-west-101", users={("my-account", "reader"): "right"})
    return Simulator([project, other, far], clock=clock or Clock(), knobs=Knobs(**knobs))


def make_fleet(**knobs: Any) -> Simulator:
    simulator = make_simulator(**knobs)
    instances = simulator.projects[PROJECT].instances
    for name, tags, hidden in (
        ("orders-eu", {"env": "prod", "team": "a"}, False),
        ("test-orders", {"env": "test"}, False),
        ("secret", {}, True),
    ):
        id_ = f"{len(instances):032x}in07"
        instances[id_] = SimulatedInstance(id_, name, tags=tags, hidden_from_discovery=hidden)
    return simulator


def connect(simulator: Simulator) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=simulator), base_url="https://cloud.example"
    )


async def fetch(
    simulator: Simulator, url: str = BACKUPS, headers: Mapping[str, str] = TOKEN, **query: object
) -> httpx.Response:
    params = {name: str(value) for name, value in query.items()}
    async with connect(simulator) as client:
        return await client.get(url, headers=headers, params=params or None)


async def log_in(
    simulator: Simulator, password: str = "right", project_id: str = PROJECT, query: str = ""
) -> httpx.Response:
    user = {"name": "reader", "password": password, "domain": {"name": "my-account"}}
    body = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"id": project_id}},
        }
    }
    async with connect(simulator) as client:
        return await client.post(f"/v3/auth/tokens{query}", json=body)


def sign(
    *,
    date: str = "20230728T120000Z",
    secret: str = "SKexample",
    access: str = "AKEXAMPLE",
    security_token: str | None = None,
    project_id: str | None = PROJECT,
    path: str = BACKUPS,
) -> dict[str, str]:
    """The headers that the vendor's own signer sends along."""
    credentials = BasicCredentials(access, secret, project_id)
    credentials.security_token = security_token
    request = SdkRequest(
        method="GET",
        schema="https",
        host="cloud.example",
        resource_path=path,
        query_params=[],
        header_params={"X-Sdk-Date": date},
        body="",
        signing_algorithm=SigningAlgorithm.HMAC_SHA256,
    )
    headers: dict[str, str] = credentials.sign_request(request).header_params
    return headers


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["backups"]]


def utc(text: str) -> str:
    return f"2023-07-28T{text}+0000"
