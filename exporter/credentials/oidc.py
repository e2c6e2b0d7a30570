"""Which agency an OIDC token of Kubernetes, or of another provider, is exchanged for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.config.auth import OidcAuth, session_name_fault, urn_fault
from exporter.config.durations import format_duration
from exporter.errors import AuthError, Reason

# What the cloud's audit log shows of us.
SESSION_NAME = "gaussdb-mysql-backup-exporter"

_PROVIDER_URN = "HUAWEICLOUD_OIDC_PROVIDER_URN"
_AGENCY_URN = "HUAWEICLOUD_OIDC_AGENCY_URN"
_TOKEN_FILE = "HUAWEICLOUD_OIDC_TOKEN_FILE"  # noqa: S105 - its name
_SESSION_NAME = "HUAWEICLOUD_OIDC_SESSION_NAME"
_DURATION = "HUAWEICLOUD_OIDC_DURATION_SECONDS"
_DURATION_SECONDS = range(900, 43_201)


@dataclass(frozen=True, slots=True)
class Oidc:
    """What such an exchange needs."""

    provider_urn: str
    agency_urn: str
    token_file: Path
    session_name: str
    duration_seconds: float


def resolve_oidc(settings: OidcAuth, environment: Mapping[str, str]) -> Oidc:
    """The settings, and where they say nothing the variables that the vendor's SDK reads.

    AuthError, in one line, where anything is missing or wrong.
    """
    given = {name: value.strip() for name, value in environment.items()}
    provider_urn = settings.provider_urn or given.get(_PROVIDER_URN, "")
    agency_urn = settings.agency_urn or given.get(_AGENCY_URN, "")
    token_file = settings.token_file or given.get(_TOKEN_FILE, "")
    session_name = settings.session_name or given.get(_SESSION_NAME) or SESSION_NAME
    needed = (
        ("provider_urn", _PROVIDER_URN, provider_urn),
        ("agency_urn", _AGENCY_URN, agency_urn),
        ("token_file", _TOKEN_FILE, token_file),
    )
    faults = [f"{key} is not set, nor is {name}" for key, name, value in needed if not value]
    if provider_urn and (fault := urn_fault(provider_urn, agency=False)):
        faults.append(f"{_PROVIDER_URN} {fault}")
    if agency_urn and (fault := urn_fault(agency_urn, agency=True)):
        faults.append(f"{_AGENCY_URN} {fault}")
    if fault := session_name_fault(session_name):
        faults.append(f"{_SESSION_NAME} {fault}")
    duration = settings.duration or _duration_of(given.get(_DURATION) or "3600")
    if duration is None:
        longest = format_duration(_DURATION_SECONDS[-1])
        faults.append(f"{_DURATION} must be a number of seconds from 900 to 43200 ({longest})")
    if faults or duration is None:
        raise AuthError(
            f"type oidc: {'; '.join(faults)}",
            reason=Reason.AUTH,
            hint="set it in the project's auth section or in the environment",
        )
    return Oidc(provider_urn, agency_urn, Path(token_file), session_name, duration)


def _duration_of(text: str) -> float | None:
    # Not `int(text)` at once: it takes a thousand digits, spaces and other scripts too.
    if not (text.isascii() and text.isdecimal() and len(text) <= 6):
        return None
    return float(text) if int(text) in _DURATION_SECONDS else None
