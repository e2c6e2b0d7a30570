"""Who the exporter is going to be, as `--config.check` tells it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from exporter.config.load import parse_config
from exporter.credentials.describe import WayIn, describe_ways

URN = "iam::0a1b2c3d4e5f:agency:reader"
POD = {
    "HC_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
    "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/nowhere/token",
}
IAM = "https://iam.cn-north-4.myhuaweicloud.com"
STS = "https://sts.cn-north-4.myhuaweicloud.com"


def describe(
    auth: str, environment: Mapping[str, str], folder: Path, region: str = "cn-north-4"
) -> WayIn:
    text = f"projects: [{{id: p1, region: {region}, instances: [i1], auth: {{{auth}}}}}]"
    (way,) = describe_ways(parse_config(text, folder=folder), environment)
    return way


@pytest.mark.parametrize(
    ("auth", "text"),
    [
        (
            "type: password, domain: d, username: u, password: hunter2",
            f"the password of d/u, at {IAM}",
        ),
        ("type: token, token: hunter2", "the token, which something else renews"),
        ("type: aksk, access_key: AKEXAMPLE, secret_key: hunter2", "the access key AKEX…"),
        ("type: ecs-agency", "the agency of this cloud server, at http://169.254.169.254"),
    ],
)
def test_what_the_configuration_says_is_not_looked_up(auth: str, text: str, tmp_path: Path) -> None:
    assert describe(auth, {}, tmp_path) == WayIn("p1", text, is_looked_up=False)


def test_keys_of_the_environment_are_told_by_their_beginning(tmp_path: Path) -> None:
    keys = {"HUAWEICLOUD_SDK_AK": "AKEXAMPLE", "HUAWEICLOUD_SDK_SK": "hunter2"}
    text = "the access key AKEX… of the environment"
    assert describe("type: env", keys, tmp_path) == WayIn("p1", text, is_looked_up=True)
    assert describe("type: env", {}, tmp_path).missing == (
        "type env: HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK are not set in the environment",
    )


def test_an_identity_provider_of_the_environment_is_told_with_its_iam(tmp_path: Path) -> None:
    token = tmp_path / "token"
    environment = {
        "HUAWEICLOUD_SDK_IDP_ID": "cce",
        "HUAWEICLOUD_SDK_ID_TOKEN_FILE": str(token),
        "HUAWEICLOUD_SDK_IAM_ENDPOINT": "https://iam.example",
    }
    way = describe("type: env", environment, tmp_path)
    assert way.text == (
        f"the token in {token} of the identity provider cce, at https://iam.example"
    )
    assert way.missing == (f"type env: cannot read the file {token}: No such file or directory",)
    token.write_text("hunter2")
    assert describe("type: env", environment, tmp_path).missing == ()


def test_a_profile_is_told_with_its_file_and_section(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    missing = describe("type: profile, file: credentials", {}, tmp_path)
    assert missing.text == f"the keys in [basic] of {file}"
    assert missing.missing == (
        f"type profile: cannot read the file {file}: No such file or directory",
    )
    file.write_text("[basic]\nak=AKEXAMPLE\nsk=hunter2\n")
    found = describe("type: profile, file: credentials", {}, tmp_path)
    assert found.text == f"the access key AKEX… in [basic] of {file}"
    file.write_text("[basic]\nidp_id=cce\nid_token_file=token\niam_endpoint=https://iam.example\n")
    (tmp_path / "token").write_text("hunter2")
    assert describe("type: profile, file: credentials", {}, tmp_path) == WayIn(
        "p1",
        f"the token in {tmp_path}/token of the identity provider cce, at https://iam.example, by"
        f" [basic] of {file}",
        is_looked_up=True,
    )


def test_a_pods_identity_is_told_with_its_agent(tmp_path: Path) -> None:
    way = describe("type: pod-identity", POD, tmp_path)
    assert way.text == (
        "the agency of this pod's service account, at http://169.254.170.23/v1/credentials"
    )
    assert way.missing == (
        "type pod-identity: cannot read the file /nowhere/token: No such file or directory",
    )
    assert len(describe("type: pod-identity", {}, tmp_path).missing) == 1


def test_oidc_is_told_with_all_that_is_missing(tmp_path: Path) -> None:
    way = describe("type: oidc", {}, tmp_path, region="eu-de, endpoint: 'https://x'")
    assert way.missing == (
        "type oidc: no STS endpoint is known for the region eu-de",
        "type oidc: provider_urn is not set, nor is HUAWEICLOUD_OIDC_PROVIDER_URN;"
        " agency_urn is not set, nor is HUAWEICLOUD_OIDC_AGENCY_URN;"
        " token_file is not set, nor is HUAWEICLOUD_OIDC_TOKEN_FILE",
    )
    settings = f"provider_urn: 'iam::x:oidcProvider:y', agency_urn: '{URN}', token_file: token"
    assert describe(f"type: oidc, {settings}", {}, tmp_path) == WayIn(
        "p1",
        f"the agency {URN} for the OIDC token in {tmp_path}/token, at {STS}",
        is_looked_up=True,
    )


@pytest.mark.parametrize(
    ("agency", "text"),
    [
        (f"urn: '{URN}'", f"it assumes the agency {URN}, at {STS}"),
        ("agency_name: reader, domain: other", f"it assumes the agency reader of other, at {IAM}"),
    ],
)
def test_an_agency_that_is_assumed_is_told(agency: str, text: str, tmp_path: Path) -> None:
    way = describe(f"type: ecs-agency, assume_agency: {{{agency}}}", {}, tmp_path)
    assert way == WayIn(
        "p1",
        f"the agency of this cloud server, at http://169.254.169.254, with which {text}",
        is_looked_up=True,
    )


def test_a_variable_that_is_no_url_is_told(tmp_path: Path) -> None:
    environment = {"HUAWEICLOUD_SDK_STS_ENDPOINT": "sts.example"}
    way = describe(f"type: ecs-agency, assume_agency: {{urn: '{URN}'}}", environment, tmp_path)
    (line,) = way.missing
    assert line.startswith("type ecs-agency: HUAWEICLOUD_SDK_STS_ENDPOINT is not a URL like")
