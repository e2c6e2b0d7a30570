"""The section `auth` of a project: a class for each of the ways in."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from exporter.config.scalars import (
    AccessKey,
    Endpoint,
    FilePath,
    HeaderSecret,
    Name,
    Secret,
    duration_between,
    invalid,
)
from exporter.config.section import Section

# Of whatever kind: five parts, the second one empty for what belongs to no region.
_URN = re.compile(r"[\w+/=-]+:[\w+/=*-]*:[\w+/=-]{1,64}:[\w+/=-]{1,64}:\S+", re.ASCII)
_AGENCY_URN = re.compile(r"iam::[\w+/=-]{1,64}:agency:\S+", re.ASCII)
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,128}", re.ASCII)
_MAX_URN_CHARS = 1_500


def urn_fault(value: str, *, agency: bool) -> str | None:
    """What is wrong with a URN of an agency, or of an identity provider; None if nothing is."""
    pattern = _AGENCY_URN if agency else _URN
    if len(value) <= _MAX_URN_CHARS and pattern.fullmatch(value):
        return None
    kind = "agency" if agency else "PROVIDER_KIND"
    return f"must be a URN like iam::ACCOUNT_ID:{kind}:NAME, as the console of IAM shows it"


def session_name_fault(value: str) -> str | None:
    if _SESSION_NAME.fullmatch(value):
        return None
    return "must be 2 to 128 letters, digits or one of _ + = , . @ -"


def _check_agency_urn(value: str) -> str:
    if (fault := urn_fault(value, agency=True)) is not None:
        raise invalid(fault)
    return value


def _check_provider_urn(value: str) -> str:
    if (fault := urn_fault(value, agency=False)) is not None:
        raise invalid(fault)
    return value


def _check_session_name(value: str) -> str:
    if (fault := session_name_fault(value)) is not None:
        raise invalid(fault)
    return value


AgencyUrn = Annotated[Name, AfterValidator(_check_agency_urn)]
ProviderUrn = Annotated[Name, AfterValidator(_check_provider_urn)]
SessionName = Annotated[Name, AfterValidator(_check_session_name)]


class AssumeAgency(Section):
    """Act as an agency: by STS where `urn` names it, else by the older IAM."""

    urn: AgencyUrn | None = None
    agency_name: Name | None = None
    domain: Name | None = None
    domain_id: Name | None = None
    duration: Annotated[float, duration_between("15m", "1d")] = 3_600.0


class PasswordAuth(Section):
    type: Literal["password"]
    domain: Name
    username: Name
    password: Secret | None = None
    password_file: FilePath | None = None


class AkskAuth(Section):
    type: Literal["aksk"]
    access_key: AccessKey
    secret_key: Secret | None = None
    secret_key_file: FilePath | None = None
    security_token: HeaderSecret | None = None
    assume_agency: AssumeAgency | None = None


class EcsAgencyAuth(Section):
    type: Literal["ecs-agency"]
    metadata_endpoint: Endpoint = "http://169.254.169.254"
    assume_agency: AssumeAgency | None = None


class PodIdentityAuth(Section):
    type: Literal["pod-identity"]
    assume_agency: AssumeAgency | None = None


class OidcAuth(Section):
    """What is left out here is in the variables that the vendor's SDK reads."""

    type: Literal["oidc"]
    provider_urn: ProviderUrn | None = None
    agency_urn: AgencyUrn | None = None
    token_file: FilePath | None = None
    session_name: SessionName | None = None
    duration: Annotated[float, duration_between("15m", "12h")] | None = None
    sts_endpoint: Endpoint | None = None
    assume_agency: AssumeAgency | None = None


class ProfileAuth(Section):
    type: Literal["profile"]
    file: FilePath | None = None
    section: Name = "basic"
    assume_agency: AssumeAgency | None = None


class StaticTokenAuth(Section):
    type: Literal["token"]
    token: HeaderSecret | None = None
    token_file: FilePath | None = None


class EnvAuth(Section):
    type: Literal["env"] = "env"
    assume_agency: AssumeAgency | None = None


def _default_auth_type(value: object) -> object:
    if isinstance(value, dict) and value.get("type") is None:
        return {**value, "type": "env"}
    return value


AuthConfig = Annotated[
    Annotated[
        PasswordAuth
        | AkskAuth
        | EcsAgencyAuth
        | PodIdentityAuth
        | OidcAuth
        | ProfileAuth
        | StaticTokenAuth
        | EnvAuth,
        Field(discriminator="type"),
    ],
    BeforeValidator(_default_auth_type),
]
# Of two keys, exactly one is needed.
ONE_OF = {
    "password": ("password", "password_file"),
    "aksk": ("secret_key", "secret_key_file"),
    "token": ("token", "token_file"),
}
AUTH_TYPES = (
    "password",
    "aksk",
    "ecs-agency",
    "pod-identity",
    "oidc",
    "profile",
    "token",
    "env",
)
KEYLESS_TYPES = ("password", "token")
# What STS gives for these keys lives an hour at most.
TEMPORARY_KEY_TYPES = ("ecs-agency", "pod-identity", "oidc")
