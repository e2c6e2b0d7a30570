from pathlib import Path
from typing import Any

import pytest

from exporter.config.auth import OidcAuth
from exporter.credentials.oidc import Oidc, resolve_oidc
from exporter.errors import AuthError

PROVIDER = "iam::0a1b2c3d4e5f:oidcProvider:cce"
AGENCY = "iam::0a1b2c3d4e5f:agency:reader"
ENVIRONMENT = {
    "HUAWEICLOUD_OIDC_PROVIDER_URN": PROVIDER,
    "HUAWEICLOUD_OIDC_AGENCY_URN": AGENCY,
    "HUAWEICLOUD_OIDC_TOKEN_FILE": "/var/run/token",
}


def settings(**more: Any) -> OidcAuth:
    return OidcAuth(type="oidc", **more)


def test_each_setting_defaults_to_its_variable() -> None:
    environment = {
        **ENVIRONMENT,
        "HUAWEICLOUD_OIDC_SESSION_NAME": "a-session",
        "HUAWEICLOUD_OIDC_DURATION_SECONDS": "7200",
    }
    assert resolve_oidc(settings(), environment) == Oidc(
        PROVIDER, AGENCY, Path("/var/run/token"), "a-session", 7200
    )


def test_the_configuration_goes_before_the_environment() -> None:
    given = settings(
        provider_urn="iam::x:oidcProvider:y",
        agency_urn="iam::x:agency:z",
        token_file="/other",
        session_name="mine",
        duration="30m",
    )
    assert resolve_oidc(given, ENVIRONMENT) == Oidc(
        "iam::x:oidcProvider:y", "iam::x:agency:z", Path("/other"), "mine", 1800
    )


def test_session_and_duration_have_defaults_of_their_own() -> None:
    found = resolve_oidc(settings(), ENVIRONMENT)
    assert (found.session_name, found.duration_seconds) == ("gaussdb-mysql-backup-exporter", 3600)


def test_all_that_is_missing_is_told_in_one_line() -> None:
    with pytest.raises(AuthError) as caught:
        resolve_oidc(settings(), {"HUAWEICLOUD_OIDC_AGENCY_URN": AGENCY})
    assert caught.value.message == (
        "type oidc: provider_urn is not set, nor is HUAWEICLOUD_OIDC_PROVIDER_URN;"
        " token_file is not set, nor is HUAWEICLOUD_OIDC_TOKEN_FILE"
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PROVIDER_URN", "cce-cluster", "PROVIDER_URN must be a URN like iam::"),
        (
            "AGENCY_URN",
            "iam::a:role:x",
            "AGENCY_URN must be a URN like iam::ACCOUNT_ID:agency:NAME",
        ),
        ("SESSION_NAME", "x", "SESSION_NAME must be 2 to 128 letters"),
        ("SESSION_NAME", "a b", "SESSION_NAME must be 2 to 128 letters"),
        ("DURATION_SECONDS", "1h", "DURATION_SECONDS must be a number of seconds from 900"),
        ("DURATION_SECONDS", "899", "DURATION_SECONDS must be a number of seconds from 900"),
        ("DURATION_SECONDS", "43201", "DURATION_SECONDS must be a number of seconds from 900"),
        ("DURATION_SECONDS", "9" * 5000, "DURATION_SECONDS must be a number of seconds"),
    ],
)
def test_a_variable_that_makes_no_sense_is_told(name: str, value: str, message: str) -> None:
    with pytest.raises(AuthError, match=message):
        resolve_oidc(settings(), {**ENVIRONMENT, f"HUAWEICLOUD_OIDC_{name}": value})
