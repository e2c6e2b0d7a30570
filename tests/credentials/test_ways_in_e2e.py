"""Each way in, the exporter and the cloud in processes of their own, over real HTTP."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.factories import ACCESS_KEY, SECRET_KEY, instance_id, parse_samples
from tests.support.programs import eventually, get, post, running, running_exporter
from tests.support.ways_in import FIRST_TOKEN, IDP_ID, NAMES, PROVIDER_URN, SECOND_TOKEN
from tests.support.ways_in_cloud import KEYS_LIVE_SECONDS, agency_name, idp_id, project_id

pytestmark = pytest.mark.e2e

OF_THE_ENVIRONMENT = "identity provider of the environment"
ACCOUNT = "0a1b2c3d4e5f"


@contextmanager
def running_cloud(folder: Path) -> Iterator[str]:
    log = folder / "cloud.log"
    with running(sys.executable, "-u", "-m", "tests.support.ways_in_cloud", log=log) as process:
        yield eventually(
            lambda: (
                (log.read_text().partition("\n")[0] or None)
                if process.poll() is None
                else pytest.fail(log.read_text())
            ),
            what="the cloud's address",
        )


def write_auths(folder: Path, cloud: str) -> Mapping[str, Mapping[str, Any]]:
    """The section `auth` of each way; the files that they name."""
    token_file, profile, federated = folder / "token", folder / "profile", folder / "federated"
    token_file.write_text(FIRST_TOKEN)
    profile.write_text(f"[basic]\nak = {ACCESS_KEY}\nsk = {SECRET_KEY}\n")
    provider = idp_id("identity provider of a profile")
    federated.write_text(f"[basic]\nidp_id={provider}\nid_token_file={token_file}\n")
    aksk = {"type": "aksk", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}

    def urn(way: str) -> str:
        return f"iam::{ACCOUNT}:agency:{agency_name(way)}"

    def by_sts(way: str) -> Mapping[str, Any]:
        return {"assume_agency": {"urn": urn(way)}}

    def by_iam(way: str) -> Mapping[str, Any]:
        agency = {"agency_name": agency_name(way), "domain_id": ACCOUNT}
        return {"assume_agency": agency}

    auths = {
        "pod-identity": {"type": "pod-identity"},
        "oidc": {
            "type": "oidc",
            "provider_urn": PROVIDER_URN,
            "agency_urn": urn("oidc"),
            "token_file": str(token_file),
            "sts_endpoint": cloud,
        },
        "oidc of the environment": {"type": "oidc"},
        OF_THE_ENVIRONMENT: {"type": "env"},
        "identity provider of a profile": {"type": "profile", "file": str(federated)},
        "env assumes by STS": {"type": "env", **by_sts("env assumes by STS")},
    }
    for way, base, assume in (
        ("aksk assumes by STS", aksk, by_sts),
        ("aksk assumes by the older IAM", aksk, by_iam),
        ("ecs-agency assumes by STS", {"type": "ecs-agency", "metadata_endpoint": cloud}, by_sts),
        ("profile assumes by the older IAM", {"type": "profile", "file": str(profile)}, by_iam),
        ("pod-identity assumes by STS", {"type": "pod-identity"}, by_sts),
    ):
        auths[way] = {**base, **assume(way)}
    assert auths.keys() == set(NAMES)
    return auths


def write_config(cloud: str, auths: Mapping[str, Mapping[str, Any]]) -> str:
    """As JSON, which is YAML too."""
    return json.dumps(
        {
            "projects": [
                {
                    "id": project_id(way),
                    "region": "cn-north-4",
                    "endpoint": cloud,
                    "iam_endpoint": cloud,
                    "auth": auth,
                    "instances": [instance_id(NAMES.index(way))],
                }
                for way, auth in auths.items()
            ]
        }
    )


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def exporters(folder: Path, cloud: str) -> Iterator[Sequence[str]]:
    """One for all, and one where the environment names an identity provider, which goes first."""
    auths = dict(write_auths(folder, cloud))
    alone = {OF_THE_ENVIRONMENT: auths.pop(OF_THE_ENVIRONMENT)}
    of_pods = {
        "HC_CONTAINER_CREDENTIALS_FULL_URI": f"{cloud}/v1/credentials",
        "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(folder / "token"),
        "HUAWEICLOUD_SDK_AK": ACCESS_KEY,
        "HUAWEICLOUD_SDK_SK": SECRET_KEY,
        "HUAWEICLOUD_SDK_STS_ENDPOINT": cloud,
        "HUAWEICLOUD_OIDC_PROVIDER_URN": PROVIDER_URN,
        "HUAWEICLOUD_OIDC_AGENCY_URN": (
            f"iam::{ACCOUNT}:agency:{agency_name('oidc of the environment')}"
        ),
        "HUAWEICLOUD_OIDC_TOKEN_FILE": str(folder / "token"),
    }
    of_provider = {
        "HUAWEICLOUD_SDK_IDP_ID": f"{IDP_ID}-{NAMES.index(OF_THE_ENVIRONMENT)}",
        "HUAWEICLOUD_SDK_ID_TOKEN_FILE": str(folder / "token"),
        "HUAWEICLOUD_SDK_IAM_ENDPOINT": cloud,
    }
    (folder / "first").mkdir()
    (folder / "second").mkdir()
    with environment(of_pods):
        first = running_exporter(folder / "first", write_config(cloud, auths))
        with first as one, environment(of_provider):
            second = running_exporter(folder / "second", write_config(cloud, alone))
            with second as other:
                yield one, other


def scrape(addresses: Sequence[str]) -> Mapping[str, float]:
    """Whether each way's instance succeeded."""
    found: dict[str, float] = {}
    for address in addresses:
        samples = parse_samples(get(f"{address}/metrics", **{"Accept-Encoding": "identity"}))
        found |= samples.by_instance("scrape_success")
    return {way: found[instance_id(number)] for number, way in enumerate(NAMES)}


def scrape_for(addresses: Sequence[str], seconds: float) -> Counter[str]:
    """How often each way failed, scraped about once a second."""
    failed: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        failed.update(way for way, success in scrape(addresses).items() if not success)
        time.sleep(1.0)
    return failed


def requests_since(cloud: str, moment: float) -> Sequence[Mapping[str, Any]]:
    asked = json.loads(get(f"{cloud}/_simulator/requests?last=20000"))["requests"]
    return [request for request in asked if request["at"] >= moment]


def refused_since(cloud: str, moment: float) -> Counter[tuple[str, int]]:
    return Counter(
        (request["operation"], request["status"])
        for request in requests_since(cloud, moment)
        if request["status"] in (401, 403)
    )


def change_agencies(cloud: str, token: str, *, trusted: Sequence[str] | None) -> None:
    for way in NAMES:
        change: dict[str, Any] = {
            "name": agency_name(way),
            "pod_tokens": [token] if way == "pod-identity" else [],
            "oidc": [[PROVIDER_URN, token]],
            "id_tokens": [[idp_id(way), token]],
        }
        if trusted is not None:
            change["trusted"] = trusted
        post(f"{cloud}/_simulator/agencies", change)


def test_each_way_logs_in_renews_survives_a_rotation_and_backs_off(tmp_path: Path) -> None:
    with running_cloud(tmp_path) as cloud, exporters(tmp_path, cloud) as addresses:
        begun = time.time()
        assert scrape(addresses) == dict.fromkeys(NAMES, 1)
        assert scrape_for(addresses, 2.5 * KEYS_LIVE_SECONDS) == {}
        asked = Counter(request["operation"] for request in requests_since(cloud, begun))
        print("renewed over", 2.5 * KEYS_LIVE_SECONDS, "s:", dict(asked))
        for operation, ways in (
            ("pod_identity", 2),
            ("assume_agency_with_oidc", 2),
            ("assume_agency", 4),
            ("id_token_login", 2),
            ("agency_keys", 4),
        ):
            assert asked[operation] >= 3 * ways, operation
        assert refused_since(cloud, begun) == {}

        (tmp_path / "token").write_text(SECOND_TOKEN)
        change_agencies(cloud, SECOND_TOKEN, trusted=None)
        assert scrape_for(addresses, 1.5 * KEYS_LIVE_SECONDS) == {}
        assert refused_since(cloud, begun) == {}

        change_agencies(cloud, "nobody has it", trusted=[])
        post(f"{cloud}/_simulator/end-agency-keys", {})
        moment = time.time()
        failed = scrape_for(addresses, 20.0)
        assert all(failed[way] >= 10 for way in NAMES), failed
        refused = refused_since(cloud, moment)
        print("refused over 20 s:", dict(refused))
        assert refused == {
            ("list_backups", 401): len(NAMES),  # each way's keys, once
            ("pod_identity", 401): 1,  # of both ways that show the pod's token
            ("assume_agency_with_oidc", 401): 2,
            ("id_token_login", 401): 2,
            ("assume_agency", 403): 3,
            ("assume_agency", 401): 1,  # signed with the pod's keys, which have ended too
            ("agency_keys", 403): 2,
        }
