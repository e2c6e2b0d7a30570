"""Where a pod of CCE asks for the keys of its service account's agency, and what it shows there.

CCE puts both into the pod's environment, as the vendor's SDK reads them.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from exporter.errors import AuthError, Reason

URI_VARIABLE = "HC_CONTAINER_CREDENTIALS_FULL_URI"
TOKEN_FILE_VARIABLE = "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE"  # noqa: S105 - its name

NOT_IN_SUCH_A_POD = (
    "Does this run in a pod of CCE whose service account has a pod identity association, and was"
    " the pod started after it was made? Elsewhere use another auth type."
)


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """Where the pod's keys are asked for, and the file with what is shown for them."""

    uri: str
    token_file: Path


def find_pod_identity(environment: Mapping[str, str]) -> PodIdentity:
    """What CCE has put into the environment; AuthError, which names what is missing or wrong."""
    uri = environment.get(URI_VARIABLE, "").strip()
    token_file = environment.get(TOKEN_FILE_VARIABLE, "").strip()
    given = {URI_VARIABLE: uri, TOKEN_FILE_VARIABLE: token_file}
    if missing := [name for name, value in given.items() if not value]:
        is_are = "is" if len(missing) == 1 else "are"
        raise AuthError(
            f"{' and '.join(missing)} {is_are} not set in the environment",
            reason=Reason.AUTH,
            hint=NOT_IN_SUCH_A_POD,
        )
    if not _stays_here(uri):
        raise AuthError(
            f"{URI_VARIABLE} does not name a service of this machine or network: it must be https,"
            " or http to a loopback, link-local or private address",
            reason=Reason.AUTH,
            hint="the pod's token is sent there: look at who sets the variable",
        )
    return PodIdentity(uri, Path(token_file))


def _stays_here(uri: str) -> bool:
    """Whether the pod's token may be sent there: not in clear text to anywhere."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return bool(host) and parts.username is None
        if parts.scheme != "http" or parts.username is not None or parts.port == 0:
            return False
        return host == "localhost" or ipaddress.ip_address(host.partition("%")[0]).is_private
    except ValueError:
        return False
