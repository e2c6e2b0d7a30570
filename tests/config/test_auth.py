"""The section `auth`: every way in, and what is said of half a configuration."""

from pathlib import Path
from typing import Any

import pytest

from exporter.config.auth import AssumeAgency, OidcAuth, PodIdentityAuth, ProfileAuth
from exporter.config.load import parse_config
from exporter.errors import ConfigError

URN = "iam::0a1b2c3d4e5f:agency:backup-reader"


def parse(auth: str, region: str = "cn-north-4") -> Any:
    text = f"projects: [{{id: p1, region: {region}, instances: [i1], auth: {auth}}}]"
    return parse_config(text, folder=Path("/etc/x")).projects[0].auth


def problem(auth: str, **more: str) -> str:
    """The one problem of this section, without its place."""
    with pytest.raises(ConfigError) as caught:
        parse(auth, **more)
    (found,) = caught.value.problems
    return found.partition(": ")[2]


def test_a_pods_identity_needs_nothing_more() -> None:
    assert parse("{type: pod-identity}") == PodIdentityAuth(type="pod-identity")


def test_oidc_may_be_configured_or_left_to_the_environment() -> None:
    assert parse("{type: oidc}") == OidcAuth(type="oidc")
    assert parse(
        "{type: oidc, provider_urn: 'iam::x:oidcProvider:cce', agency_urn: '" + URN + "',"
        " token_file: token, session_name: a-session, duration: 2h, sts_endpoint: 'https://sts.x/'}"
    ) == OidcAuth(
        type="oidc",
        provider_urn="iam::x:oidcProvider:cce",
        agency_urn=URN,
        token_file=Path("/etc/x/token"),
        session_name="a-session",
        duration="2h",
        sts_endpoint="https://sts.x",
    )


def test_a_profile_has_a_file_and_a_section() -> None:
    assert parse("{type: profile}") == ProfileAuth(type="profile")
    found = parse("{type: profile, file: credentials, section: basic-2}")
    assert (found.file, found.section) == (Path("/etc/x/credentials"), "basic-2")


@pytest.mark.parametrize(
    "type_",
    [
        "type: aksk, access_key: AK, secret_key: s",
        "type: ecs-agency",
        "type: pod-identity",
        "type: oidc",
        "type: profile",
        "type: env",
    ],
)
def test_every_type_that_has_keys_may_assume_an_agency(type_: str) -> None:
    found = parse(f"{{{type_}, assume_agency: {{urn: '{URN}'}}}}")
    assert found.assume_agency == AssumeAgency(urn=URN)
    assert found.assume_agency.duration == 3600
    older = parse(
        f"{{{type_}, assume_agency: {{agency_name: reader, domain: other, duration: 1d}}}}"
    )
    assert older.assume_agency == AssumeAgency(
        agency_name="reader",
        domain="other",
        duration="1d",
    )


@pytest.mark.parametrize(
    "type_",
    [
        "type: password, domain: d, username: u, password: p",
        "type: token, token: t",
    ],
)
def test_a_password_or_a_token_assumes_no_agency(type_: str) -> None:
    name = type_.partition(",")[0].removeprefix("type: ")
    assert problem(f"{{{type_}, assume_agency: {{urn: '{URN}'}}}}") == (
        f"projects[0].auth.assume_agency: auth type {name} has no keys to assume an agency with"
    )


@pytest.mark.parametrize(
    ("agency", "said"),
    [
        ("{}", "assume_agency: needs one of urn and agency_name"),
        (
            f"{{urn: '{URN}', agency_name: reader, domain: d}}",
            "assume_agency: needs one of urn and agency_name, not both",
        ),
        ("{agency_name: reader}", "assume_agency: needs one of domain and domain_id"),
        (
            "{agency_name: reader, domain: d, domain_id: i}",
            "assume_agency: needs one of domain and domain_id, not both",
        ),
        (
            f"{{urn: '{URN}', domain: d}}",
            "assume_agency.domain: belongs to agency_name: a urn names the account itself",
        ),
        (
            "{urn: backup-reader}",
            "assume_agency.urn: must be a URN like iam::ACCOUNT_ID:agency:NAME, as the console of"
            " IAM shows it",
        ),
        (
            "{urn: 'iam::x:role:reader'}",
            "assume_agency.urn: must be a URN like iam::ACCOUNT_ID:agency:NAME, as the console of"
            " IAM shows it",
        ),
        (
            f"{{urn: '{URN}', duration: 5m}}",
            "assume_agency.duration: must be from 15m to 1d",
        ),
        (
            f"{{urn: '{URN}', duration: 13h}}",
            "assume_agency.duration: must be at most 12h: STS gives no more",
        ),
    ],
)
def test_half_an_agency_is_told_in_one_line(agency: str, said: str) -> None:
    found = problem(f"{{type: env, assume_agency: {agency}}}")
    assert found.startswith(f"projects[0].auth.{said}")


@pytest.mark.parametrize(
    "type_",
    [
        "type: ecs-agency",
        "type: pod-identity",
        "type: oidc",
        "type: aksk, access_key: AK, secret_key: s, security_token: t",
    ],
)
def test_temporary_keys_assume_for_an_hour_at_most(type_: str) -> None:
    assert problem(f"{{{type_}, assume_agency: {{urn: '{URN}', duration: 2h}}}}") == (
        "projects[0].auth.assume_agency.duration: must be at most 1h: STS gives no more with"
        " temporary keys"
    )
    parse(f"{{{type_}, assume_agency: {{agency_name: a, domain: d, duration: 2h}}}}")


def test_the_older_iam_must_be_known() -> None:
    auth = "{type: ecs-agency, assume_agency: {agency_name: a, domain: d}}"
    elsewhere = "eu-de, endpoint: 'https://x'"
    said = problem(auth, region=elsewhere)
    assert said.startswith("projects[0].region: no default is known: set iam_endpoint ")
    parse(auth, region=f"{elsewhere}, iam_endpoint: 'https://iam'")
    # The environment or the profile may name it.
    parse(auth.replace("ecs-agency", "env"), region=elsewhere)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("provider_urn", "cce", "must be a URN like iam::ACCOUNT_ID:PROVIDER_KIND:NAME"),
        ("agency_urn", "'iam::x:agency:'", "must be a URN like iam::ACCOUNT_ID:agency:NAME"),
        ("session_name", "'two words'", "must be 2 to 128 letters, digits or one of"),
        ("duration", "13h", "must be from 15m to 12h"),
        ("sts_endpoint", "sts.example", "must be a URL like https://host"),
    ],
)
def test_a_setting_of_oidc_that_makes_no_sense_is_told(key: str, value: str, said: str) -> None:
    found = problem(f"{{type: oidc, {key}: {value}}}")
    assert found.startswith(f"projects[0].auth.{key}: {said}")
