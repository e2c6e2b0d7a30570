"""Tokens, signatures and temporary keys open what they should, and nothing else."""

import math
from typing import Any

import pytest

from exporter.simulator import (
    Simulator,
)
from exporter.simulator.access import IncomingRequest, build_canonical_request, compute_signature
from tests.support.simulated_cloud import (
    BACKUPS,
    FAR_PROJECT,
    NOON,
    OTHER_PROJECT,
    PROJECT,
    VECTORS,
    Clock,
    connect,
    fetch,
    ids,
    log_in,
    make_backup,
    make_simulator,
    sign,
)


async def test_login_gives_a_token_that_opens_its_project_alone() -> None:
    simulator = make_simulator(make_backup("a", "10:00", "10:04"))

    answer = await log_in(simulator, query="?nocatalog=true")
    headers = {"X-Auth-Token": answer.headers["x-subject-token"]}

    assert answer.status_code == 201
    token = answer.json()["token"]
    assert token["expires_at"] == "2023-07-29T12:00:00.000000Z"
    assert token["project"]["id"] == PROJECT
    assert "catalog" not in token
    assert ids(await fetch(simulator, headers=headers)) == ["a"]
    statuses = {
        project: (await fetch(simulator, f"/v3/{project}/instances", headers)).json()["error_code"]
        for project in (OTHER_PROJECT, FAR_PROJECT)
    }
    assert statuses == {OTHER_PROJECT: "APIGW.0301", FAR_PROJECT: "APIGW.0307"}


async def test_login_with_a_wrong_password_is_refused_in_iams_form() -> None:
    answer = await log_in(make_simulator(), "wrong")

    assert answer.status_code == 401
    assert answer.json() == {
        "error": {
            "code": 401,
            "message": "The username or password is wrong.",
            "title": "Unauthorized",
        }
    }


@pytest.mark.parametrize("status", [401, 404])
async def test_login_to_an_unknown_project_is_refused_as_the_knob_says(status: int) -> None:
    simulator = make_simulator(unknown_project_status=status)

    answer = await log_in(simulator, project_id="nowhere")

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, status)


async def test_login_finds_a_project_by_its_name() -> None:
    simulator = make_simulator()
    user = {"name": "reader", "password": "right", "domain": {"name": "my-account"}}
    auth: dict[str, Any] = {
        "identity": {"methods": ["password"], "password": {"user": user}},
        "scope": {"project": {"name": "eu-west-101"}},
    }
    async with connect(simulator) as client:
        found = await client.post("/v3/auth/tokens", json={"auth": auth})
        auth["scope"]["project"]["name"] = "nowhere"
        lost = await client.post("/v3/auth/tokens", json={"auth": auth})

    assert found.json()["token"]["project"]["id"] == FAR_PROJECT
    assert lost.status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"auth": {}}',
        b'{"auth": {"identity": {"methods": ["token"]}}}',
        b'{"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "u", '
        b'"password": 1, "domain": {"name": "d"}}}}, "scope": {"project": {"id": "p"}}}}',
    ],
)
async def test_malformed_login_is_a_bad_request(body: bytes) -> None:
    async with connect(make_simulator()) as client:
        answer = await client.post("/v3/auth/tokens", content=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)


async def test_five_failed_logins_lock_the_user_for_a_quarter_of_an_hour() -> None:
    clock = Clock()
    simulator = make_simulator(clock=clock)

    tries = [(await log_in(simulator, "wrong")).status_code for _ in range(5)]
    assert simulator.is_locked("my-account/reader")
    tries.append((await log_in(simulator)).status_code)
    clock.now += 899
    tries.append((await log_in(simulator)).status_code)
    clock.now += 1
    tries.append((await log_in(simulator)).status_code)

    assert tries == [401] * 7 + [201]


async def test_successful_login_forgets_the_failures_before_it() -> None:
    simulator = make_simulator()

    tries = []
    for password in ["wrong"] * 4 + ["right"] + ["wrong"] * 4 + ["right"]:
        tries.append((await log_in(simulator, password)).status_code)

    assert tries == [401] * 4 + [201] + [401] * 4 + [201]


@pytest.mark.parametrize("headers", [{}, {"X-Auth-Token": "guessed"}])
async def test_call_without_a_known_token_is_refused_in_the_gateways_form(
    headers: dict[str, str],
) -> None:
    answer = await fetch(make_simulator(), headers=headers)

    assert answer.status_code == 401
    assert answer.json()["error_code"] == "APIGW.0301"
    assert set(answer.json()) == {"error_code", "error_msg", "request_id"}


async def test_token_ends_with_its_time_or_when_it_is_revoked() -> None:
    clock = Clock()
    simulator = make_simulator(clock=clock, token_lifetime_seconds=600.0)
    codes = []
    headers = {"X-Auth-Token": (await log_in(simulator)).headers["x-subject-token"]}

    for _ in range(2):
        codes.append((await fetch(simulator, headers=headers)).json().get("error_code"))
        clock.now += 600
    headers = {"X-Auth-Token": (await log_in(simulator)).headers["x-subject-token"]}
    simulator.revoke_tokens(OTHER_PROJECT)
    codes.append((await fetch(simulator, headers=headers)).json().get("error_code"))
    simulator.revoke_tokens(PROJECT)
    codes.append((await fetch(simulator, headers=headers)).json().get("error_code"))
    codes.append((await fetch(simulator)).json().get("error_code"))  # the static one

    assert codes == [None, "APIGW.0307", None, "APIGW.0301", "APIGW.0301"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_signature_is_that_of_the_vendors_signer(vector: dict[str, Any]) -> None:
    path, _, query = vector["request_uri"].partition("?")
    headers = {name.lower(): value for name, value in vector["sent_headers"].items()}
    body = vector.get("body", "").encode()
    names = vector["canonical_request"].rsplit("\n", 2)[1].split(";")

    canonical = build_canonical_request(
        IncomingRequest(vector["method"], path, query, headers, body), names
    )

    assert canonical == vector["canonical_request"]
    signature = compute_signature(canonical, headers["x-sdk-date"], vector["sk"])
    assert vector["authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize("date", ["20230728T120000Z", "20230728T114500Z", "20230728T121500Z"])
async def test_signature_of_the_vendor_opens_the_project(date: str) -> None:
    assert (await fetch(make_simulator(), headers=sign(date=date))).status_code == 200


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        (sign(secret="SKwrong"), "verify aksk signature fail"),
        (sign(access="AKUNKNOWN"), "not known"),
        (sign(date="20230728T114459Z"), "too far from our clock"),
        (sign(date="20230728T121501Z"), "too far from our clock"),
        (sign(path=f"{BACKUPS}x"), "verify aksk signature fail"),
        (sign(project_id=OTHER_PROJECT), "does not name the project"),
        ({**sign(), "X-Sdk-Date": "2023-07-28T12:00:00Z"}, "X-Sdk-Date is malformed"),
        ({**sign(), "Authorization": "SDK-HMAC-SHA256 Access=AKEXAMPLE"}, "malformed"),
        ({**sign(), "X-Security-Token": "unsigned"}, "not signed or not sent: x-security-token"),
        ({**sign(project_id=None), "X-Project-Id": PROJECT}, "not sent: x-project-id"),
        (
            {
                **sign(),
                "Authorization": sign()["Authorization"].replace(
                    "host;x-project-id;x-sdk-date", "x-sdk-date;host;x-project-id"
                ),
            },
            "not sorted",
        ),
        (
            {
                **sign(),
                "Authorization": sign()["Authorization"].replace("host;x-project-id;", ""),
            },
            "not signed or not sent: host, x-project-id",
        ),
    ],
)
async def test_doubtful_signature_is_refused(headers: dict[str, str], problem: str) -> None:
    answer = await fetch(make_simulator(), headers=headers)

    assert (answer.status_code, answer.json()["error_code"]) == (401, "APIGW.0301")
    assert problem in answer.json()["error_msg"]


@pytest.mark.parametrize(("required", "status"), [(True, 401), (False, 200)])
async def test_project_header_is_needed_with_a_signature_if_the_knob_says_so(
    required: bool, status: int
) -> None:
    simulator = make_simulator(require_project_header=required)

    assert (await fetch(simulator, headers=sign(project_id=None))).status_code == status


async def test_key_does_not_open_a_foreign_project() -> None:
    path = f"/v3/{OTHER_PROJECT}/instances"

    answer = await fetch(make_simulator(), path, sign(path=path, project_id=None))

    assert (answer.status_code, answer.json()["error_code"]) == (403, "DBS.200010")


@pytest.mark.parametrize("echo", [True, False])
async def test_refused_signature_echoes_the_request_if_the_knob_says_so(echo: bool) -> None:
    simulator = make_simulator(echo_refused_signature=echo)
    headers = sign(secret="SKwrong", security_token="a-security-token")

    message = (await fetch(simulator, headers=headers)).json()["error_msg"]

    assert ("x-security-token:a-security-token" in message) == echo
    assert (headers["Authorization"] in message) == echo


async def test_five_failed_signatures_lock_the_key_for_five_minutes() -> None:
    clock = Clock()
    simulator = make_simulator(clock=clock)

    for _ in range(5):
        await fetch(simulator, headers=sign(secret="SKwrong"))
    locked = await fetch(simulator, headers=sign())
    clock.now += 300

    assert "locked" in locked.json()["error_msg"]
    assert (await fetch(simulator, headers=sign())).status_code == 200


async def test_projects_are_listed_by_name_to_a_key_and_to_a_token() -> None:
    simulator = make_simulator()
    signed = await fetch(simulator, "/v3/projects", sign(path="/v3/projects", project_id=None))
    named = await fetch(simulator, "/v3/projects", name="cn-north-4")
    elsewhere = await fetch(simulator, "/v3/projects", name="eu-west-101")
    refused = await fetch(simulator, "/v3/projects", {"X-Auth-Token": "guessed"})

    assert [project["id"] for project in signed.json()["projects"]] == [PROJECT]
    assert [project["name"] for project in named.json()["projects"]] == ["cn-north-4"]
    assert elsewhere.json()["projects"] == []
    assert refused.json()["error"]["code"] == 401


async def test_identity_api_names_its_versions() -> None:
    simulator = make_simulator()

    assert (await fetch(simulator, "/v3")).json()["version"]["id"] == "v3.6"
    assert (await fetch(simulator, "/")).status_code == 300


async def ask_for_key(simulator: Simulator) -> dict[str, str]:
    async with connect(simulator) as client:
        token = await client.put(
            "/meta-data/latest/api/token", headers={"X-Metadata-Token-Ttl-Seconds": "21600"}
        )
        answer = await client.get(
            "/openstack/latest/securitykey", headers={"X-Metadata-Token": token.text}
        )
    credential: dict[str, str] = answer.json()["credential"]
    return credential


def sign_with(key: dict[str, str], **more: Any) -> dict[str, str]:
    return sign(access=key["access"], secret=key["secret"], **more)


async def test_agency_key_with_its_security_token_opens_the_project() -> None:
    simulator = make_simulator()
    key = await ask_for_key(simulator)

    right = await fetch(simulator, headers=sign_with(key, security_token=key["securitytoken"]))
    wrong = await fetch(simulator, headers=sign_with(key, security_token="another"))
    without = await fetch(simulator, headers=sign_with(key))

    assert [right.status_code, wrong.status_code, without.status_code] == [200, 401, 401]


async def test_agency_key_changes_ten_minutes_before_its_end() -> None:
    start = NOON - 600  # a multiple of 50 minutes: a key's first second
    clock = Clock(start)
    simulator = make_simulator(clock=clock, max_clock_skew_seconds=math.inf)
    first = await ask_for_key(simulator)
    accepted = []

    clock.now = start + 2_999
    assert await ask_for_key(simulator) == first
    clock.now = start + 3_000
    assert (await ask_for_key(simulator))["access"] != first["access"]
    for age in (3_000, 3_599, 3_600):
        clock.now = start + age
        headers = sign_with(first, security_token=first["securitytoken"])
        accepted.append((await fetch(simulator, headers=headers)).status_code)

    assert first["expires_at"] == "2023-07-28T12:50:00.000000Z"
    assert accepted == [200, 200, 401]


async def test_agency_key_needs_the_metadata_token_where_there_is_one() -> None:
    key = "/openstack/latest/securitykey"

    assert (await fetch(make_simulator(), key)).status_code == 401
    for status in (404, 405, 503):
        simulator = make_simulator(metadata_token_status=status)
        async with connect(simulator) as client:
            assert (await client.put("/meta-data/latest/api/token")).status_code == status
        assert (await fetch(simulator, key)).status_code == 200


async def test_metadata_token_needs_a_lifetime() -> None:
    async with connect(make_simulator()) as client:
        answer = await client.put("/meta-data/latest/api/token")

    assert answer.status_code == 400


async def test_server_without_an_agency_has_no_key() -> None:
    simulator = make_simulator(metadata_token_status=404)
    for project in simulator.projects.values():
        project.agency = False

    answer = await fetch(simulator, "/openstack/latest/securitykey")

    assert answer.status_code == 401
    assert "Please configure Cloud Service Agency first" in answer.text
