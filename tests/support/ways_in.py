"""Every way in that ends in temporary keys, with a cloud that knows it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.config.schema import Config
from exporter.simulator import SERVER, Fault, Knobs, SimulatedAgency, Simulator
from exporter.simulator.gateway import Operation
from tests.support.factories import (
    ACCESS_KEY,
    DOMAIN,
    SECRET_KEY,
    instance_id,
    make_backup,
    make_config,
    make_instance,
    make_project,
    make_project_settings,
)

PROVIDER_URN = "iam::0a1b2c3d4e5f:oidcProvider:cce-cluster"
IDP_ID = "cce-cluster"
FIRST_TOKEN, SECOND_TOKEN = "eyJ-the-first-token", "eyJ-the-second-token"
STS_ENDPOINT = "https://sts.example"
IAM_ENDPOINT = "https://iam-of-the-environment.example"


def make_agency(**more: Any) -> SimulatedAgency:
    """It takes the first token, the access key, and the server's agency."""
    return SimulatedAgency(
        name="backup-reader",
        account_name=DOMAIN,
        trusted={ACCESS_KEY, SERVER},
        pod_tokens={FIRST_TOKEN},
        oidc={(PROVIDER_URN, FIRST_TOKEN)},
        id_tokens={(IDP_ID, FIRST_TOKEN)},
        **more,
    )


def trust(agency: SimulatedAgency, token: str) -> None:
    """Takes this token alone from now on."""
    agency.pod_tokens = {token}
    agency.oidc = {(PROVIDER_URN, token)}
    agency.id_tokens = {(IDP_ID, token)}


def distrust(agency: SimulatedAgency) -> None:
    trust(agency, "nobody has it")
    agency.trusted = set()


@dataclass(frozen=True, slots=True)
class WayIn:
    """A section `auth`, what it needs beside it, and which exchanges it makes."""

    name: str
    auth: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    asks: tuple[Operation, ...] = ()
    has_token_file: bool = False


NAMES = (
    "pod-identity",
    "oidc",
    "oidc of the environment",
    "identity provider of the environment",
    "identity provider of a profile",
    "aksk assumes by STS",
    "aksk assumes by the older IAM",
    "ecs-agency assumes by STS",
    "env assumes by STS",
    "profile assumes by the older IAM",
    "pod-identity assumes by STS",
)


def make_ways_in(folder: Path, agency: SimulatedAgency) -> Mapping[str, WayIn]:
    """All of `NAMES`; the token file and the profile are written into the folder."""
    token_file, profile, federated = folder / "token", folder / "profile", folder / "federated"
    token_file.write_text(FIRST_TOKEN + "\n")
    profile.write_text(f"[basic]\nak = {ACCESS_KEY}\nsk = {SECRET_KEY}\n")
    federated.write_text(
        f"[basic]\nidp_id={IDP_ID}\nid_token_file={token_file}\niam_endpoint={IAM_ENDPOINT}\n"
    )
    by_sts = {"urn": agency.urn}
    by_iam = {"agency_name": agency.name, "domain": DOMAIN}
    aksk = {"type": "aksk", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    sts = {"HUAWEICLOUD_SDK_STS_ENDPOINT": STS_ENDPOINT}
    pod = {
        "HC_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
        "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token_file),
    }
    keys = {"HUAWEICLOUD_SDK_AK": ACCESS_KEY, "HUAWEICLOUD_SDK_SK": SECRET_KEY}
    ways = (
        WayIn("pod-identity", {"type": "pod-identity"}, pod, ("pod_identity",), True),
        WayIn(
            "oidc",
            {
                "type": "oidc",
                "provider_urn": PROVIDER_URN,
                "agency_urn": agency.urn,
                "token_file": str(token_file),
                "sts_endpoint": STS_ENDPOINT,
            },
            {},
            ("assume_agency_with_oidc",),
            True,
        ),
        WayIn(
            "oidc of the environment",
            {"type": "oidc"},
            {
                "HUAWEICLOUD_OIDC_PROVIDER_URN": PROVIDER_URN,
                "HUAWEICLOUD_OIDC_AGENCY_URN": agency.urn,
                "HUAWEICLOUD_OIDC_TOKEN_FILE": str(token_file),
                **sts,
            },
            ("assume_agency_with_oidc",),
            True,
        ),
        WayIn(
            "identity provider of the environment",
            {"type": "env"},
            {
                "HUAWEICLOUD_SDK_IDP_ID": IDP_ID,
                "HUAWEICLOUD_SDK_ID_TOKEN_FILE": str(token_file),
                "HUAWEICLOUD_SDK_IAM_ENDPOINT": IAM_ENDPOINT,
            },
            ("id_token_login", "agency_keys"),
            True,
        ),
        WayIn(
            "identity provider of a profile",
            {"type": "profile", "file": str(federated)},
            {},
            ("id_token_login", "agency_keys"),
            True,
        ),
        WayIn("aksk assumes by STS", {**aksk, "assume_agency": by_sts}, sts, ("assume_agency",)),
        WayIn(
            "aksk assumes by the older IAM",
            {**aksk, "assume_agency": by_iam},
            {},
            ("agency_keys",),
        ),
        WayIn(
            "ecs-agency assumes by STS",
            {"type": "ecs-agency", "assume_agency": by_sts},
            sts,
            ("assume_agency",),
        ),
        WayIn(
            "env assumes by STS",
            {"type": "env", "assume_agency": by_sts},
            {**keys, **sts},
            ("assume_agency",),
        ),
        WayIn(
            "profile assumes by the older IAM",
            {"type": "profile", "file": str(profile), "assume_agency": by_iam},
            {},
            ("agency_keys",),
        ),
        WayIn(
            "pod-identity assumes by STS",
            {"type": "pod-identity", "assume_agency": by_sts},
            {**pod, **sts},
            ("pod_identity", "assume_agency"),
            True,
        ),
    )
    assert tuple(way.name for way in ways) == NAMES
    return {way.name: way for way in ways}


def make_cloud(
    agency: SimulatedAgency, clock: Callable[[], float], *, instances: int = 3, **knobs: Any
) -> Simulator:
    """`project-0`, which the agency's keys alone open; what assumes it is known elsewhere."""
    project = make_project(
        *(make_instance(make_backup(), id=instance_id(number)) for number in range(instances)),
        id="project-0",
    )
    project.users, project.access_keys, project.tokens = {}, {}, set()
    project.agency = False
    elsewhere = make_project(id="elsewhere")
    agency.projects = {"project-0"}
    agency.trusted.add(agency.urn)
    return Simulator([project, elsewhere], clock=clock, knobs=Knobs(**knobs), agencies=[agency])


def make_settings(way: WayIn, *, instances: int = 3, **sections: Any) -> Config:
    settings = make_project_settings(
        *(instance_id(number) for number in range(instances)), id="project-0", auth=way.auth
    )
    if "identity provider" in way.name:
        del settings["iam_endpoint"]  # the environment or the profile names it
    return make_config(projects=[settings], **sections)


def refuse_backups(simulator: Simulator) -> None:
    """From now on the gateway takes no signature."""
    simulator.add_fault(Fault(status=401, form="gateway"), "list_backups", times=None)
