"""The vendor's own SDK gets temporary keys from the simulator, each way that it knows."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.auth.provider import (
    EnvCredentialProvider,
    OidcStsCredentialProvider,
    PodIdentityCredentialProvider,
    ProfileCredentialProvider,
)
from huaweicloudsdkcore.exceptions.exceptions import SdkException
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.algorithm import SigningAlgorithm
from huaweicloudsdkgaussdb.v3 import GaussDBClient, ShowGaussMySqlIncrementalBackupListRequest

from exporter.simulator import Simulator, serve
from tests.support.factories import ACCESS_KEY, DOMAIN, SECRET_KEY, instance_id
from tests.support.ways_in import (
    FIRST_TOKEN,
    IDP_ID,
    PROVIDER_URN,
    make_agency,
    make_cloud,
)

pytestmark = [
    # huaweicloudsdkcore asks for the time in the way that Python 3.12 deprecates.
    pytest.mark.filterwarnings("ignore:.*utcnow.*:DeprecationWarning"),
]
AGENCY = make_agency()


@pytest.fixture
def simulator() -> Simulator:
    """The SDK signs with the machine's clock, so the cloud has it too."""
    return make_cloud(make_agency(), time.time)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(FIRST_TOKEN)
    return file


async def count_backups(
    simulator: Simulator, log_in: Callable[[str], BasicCredentials], status: int = 200
) -> None:
    """What the SDK gets from the cloud with the keys that `log_in` finds at its address."""

    def question(address: str) -> None:
        credentials = log_in(address).with_project_id("project-0")
        builder = GaussDBClient.new_builder().with_credentials(credentials)
        client = builder.with_region(Region("cn-north-4", address)).build()
        request = ShowGaussMySqlIncrementalBackupListRequest(instance_id=instance_id(0))
        client.show_gauss_my_sql_incremental_backup_list(request)

    async with serve(simulator) as address:
        await asyncio.to_thread(question, address)
    assert [r.status for r in simulator.requests_of("list_backups")] == [status]


@pytest.mark.parametrize("spelling", ["plain", "camel", "snake"])
async def test_vendor_sdk_gets_the_pods_keys(
    simulator: Simulator, token_file: Path, monkeypatch: pytest.MonkeyPatch, spelling: Any
) -> None:
    simulator.knobs = dataclasses.replace(simulator.knobs, pod_key_spelling=spelling)

    def log_in(address: str) -> BasicCredentials:
        monkeypatch.setenv("HC_CONTAINER_CREDENTIALS_FULL_URI", f"{address}/v1/credentials")
        monkeypatch.setenv("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token_file))
        return PodIdentityCredentialProvider.get_basic().get_credentials()

    await count_backups(simulator, log_in)
    assert len(simulator.requests_of("pod_identity")) == 1


async def test_vendor_sdk_is_refused_without_the_pods_token(
    simulator: Simulator, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_file.write_text("another token")

    def log_in(address: str) -> BasicCredentials:
        monkeypatch.setenv("HC_CONTAINER_CREDENTIALS_FULL_URI", f"{address}/v1/credentials")
        monkeypatch.setenv("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token_file))
        return PodIdentityCredentialProvider.get_basic().get_credentials()

    with pytest.raises(SdkException, match="401"):
        await count_backups(simulator, log_in)


async def test_vendor_sdk_assumes_an_agency_with_an_oidc_token(
    simulator: Simulator, token_file: Path
) -> None:
    def log_in(address: str) -> BasicCredentials:
        return OidcStsCredentialProvider(
            "basic",
            provider_urn=PROVIDER_URN,
            agency_urn=AGENCY.urn,
            id_token_file=str(token_file),
            sts_endpoint=address,
        ).get_credentials()

    await count_backups(simulator, log_in)
    (request,) = simulator.requests_of("assume_agency_with_oidc")
    assert request.sent == {
        "provider_urn": PROVIDER_URN,
        "agency_urn": AGENCY.urn,
        "agency_session_name": "oidc-sts-session",
        "duration_seconds": 3600,
    }


@pytest.mark.parametrize("where", ["environment", "profile"])
async def test_vendor_sdk_exchanges_an_identity_providers_token(
    simulator: Simulator,
    token_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    def log_in(address: str) -> BasicCredentials:
        monkeypatch.setenv("HUAWEICLOUD_SDK_IAM_ENDPOINT", address)
        if where == "environment":
            monkeypatch.setenv("HUAWEICLOUD_SDK_IDP_ID", IDP_ID)
            monkeypatch.setenv("HUAWEICLOUD_SDK_ID_TOKEN_FILE", str(token_file))
            return EnvCredentialProvider.get_basic().get_credentials()
        profile = tmp_path / "profile"
        profile.write_text(f"[basic]\nidp_id = {IDP_ID}\nid_token_file = {token_file}\n")
        monkeypatch.setenv("HUAWEICLOUD_SDK_CREDENTIALS_FILE", str(profile))
        return ProfileCredentialProvider.get_basic().get_credentials()

    await count_backups(simulator, log_in)
    (request,) = simulator.requests_of("agency_keys")
    assert request.sent == {"duration_seconds": 21_600}


def sign(url: str, body: str) -> dict[str, str]:
    """The headers that the vendor's signer makes for the access key."""
    parts = httpx.URL(url)
    request = SdkRequest(
        method="POST",
        schema="http",
        host=parts.netloc.decode(),
        resource_path=parts.path,
        query_params=[],
        header_params={"Content-Type": "application/json"},
        body=body,
        signing_algorithm=SigningAlgorithm.HMAC_SHA256,
    )
    credentials = BasicCredentials(ACCESS_KEY, SECRET_KEY, None)
    headers: dict[str, str] = credentials.sign_request(request).header_params
    return headers


async def post(simulator: Simulator, path: str, body: object) -> httpx.Response:
    async with serve(simulator) as address, httpx.AsyncClient() as client:
        text = json.dumps(body)
        url = f"{address}{path}"
        return await client.post(url, content=text, headers=sign(url, text))


def assume(**changes: object) -> dict[str, object]:
    return {
        "agency_urn": AGENCY.urn,
        "agency_session_name": "a-session",
        "duration_seconds": 3600,
        **changes,
    }


async def test_sts_gives_keys_to_whoever_the_agency_trusts(simulator: Simulator) -> None:
    answer = await post(simulator, "/v5/agencies/assume", assume())
    assert answer.status_code == 200
    assert answer.json()["credentials"].keys() == {
        "access_key_id",
        "secret_access_key",
        "security_token",
        "expiration",
    }


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"agency_urn": "iam::elsewhere:agency:other"}, 403),
        ({"agency_session_name": "with space"}, 400),
        ({"agency_session_name": "x"}, 400),
        ({"duration_seconds": 899}, 400),
        ({"duration_seconds": 43_201}, 400),
        ({"duration_seconds": "3600"}, 400),
    ],
)
async def test_sts_checks_what_it_is_sent(
    simulator: Simulator, changes: dict[str, object], status: int
) -> None:
    answer = await post(simulator, "/v5/agencies/assume", assume(**changes))
    assert answer.status_code == status


async def test_sts_wants_a_right_signature(simulator: Simulator) -> None:
    async with serve(simulator) as address, httpx.AsyncClient() as client:
        url = f"{address}/v5/agencies/assume"
        headers = sign(url, json.dumps(assume()))
        answer = await client.post(url, content=json.dumps(assume(tag=1)), headers=headers)
        assert answer.status_code == 401
        assert (await client.post(url, json=assume())).status_code == 401


async def test_sts_takes_the_token_of_a_provider_that_the_agency_trusts(
    simulator: Simulator,
) -> None:
    asked = assume(provider_urn=PROVIDER_URN, id_token=FIRST_TOKEN, duration_seconds=7200)
    async with serve(simulator) as address, httpx.AsyncClient() as client:
        url = f"{address}/v5/agencies/assume-with-oidc"
        assert (await client.post(url, json=asked)).status_code == 200
        for change in ({"id_token": "another"}, {"provider_urn": "iam::x:oidcProvider:other"}):
            assert (await client.post(url, json={**asked, **change})).status_code == 401


@pytest.mark.parametrize(
    ("domain", "status"),
    [
        ({"domain_name": DOMAIN}, 201),
        ({"domain_id": AGENCY.account_id}, 201),
        ({"domain_name": "another"}, 404),
        ({}, 404),
    ],
)
async def test_the_older_iam_gives_keys_of_an_agency(
    simulator: Simulator, domain: dict[str, str], status: int
) -> None:
    role = {"agency_name": AGENCY.name, **domain, "duration_seconds": 900}
    body = {"auth": {"identity": {"methods": ["assume_role"], "assume_role": role}}}
    answer = await post(simulator, "/v3.0/OS-CREDENTIAL/securitytokens", body)
    assert answer.status_code == status
    if status == 201:
        assert answer.json()["credential"].keys() == {
            "access",
            "secret",
            "securitytoken",
            "expires_at",
        }
