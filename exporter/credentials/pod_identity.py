"""Keys of the agency that CCE binds to this pod's service account.

Source of the request: huaweicloudsdkcore 3.1.219, `auth/internal.py`. Where the agent listens, and
which token it wants to see, CCE puts into the pod's environment.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from exporter.credentials.local import ask, unexpected, within
from exporter.credentials.temporary_keys import parse_temporary_keys
from exporter.credentials.values import Keys
from exporter.errors import AuthError, Reason

URI_VARIABLE = "HC_CONTAINER_CREDENTIALS_FULL_URI"
TOKEN_FILE_VARIABLE = "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE"  # noqa: S105 - its name
_TIMEOUT_SECONDS = 5.0

_NOT_IN_SUCH_A_POD = (
    "Does this run in a pod of CCE whose service account has a pod identity association, and was"
    " the pod started after it was made? Elsewhere use another auth type."
)
_ASSOCIATE = (
    "associate an agency that may list backups (gaussdbformysql:backup:list) with the pod's service"
    " account: CCE console, Pod Identity"
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
            hint=_NOT_IN_SUCH_A_POD,
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


async def fetch_pod_keys(client: httpx.AsyncClient, uri: str, token: str) -> Keys:
    """Ask the agent for keys. Raises ApiError, with a hint.

    The address is of this machine or network, so `client` must use no proxy.
    """
    async with within(_TIMEOUT_SECONDS, hint=_NOT_IN_SUCH_A_POD):
        answer = await ask(
            client,
            "POST",
            uri,
            {"Authorization": token, "Content-Type": "application/json"},
            content=b"{}",
            hint=_NOT_IN_SUCH_A_POD,
        )
    if answer.status == httpx.codes.OK:
        return parse_temporary_keys(answer.body)
    if answer.status in (
        httpx.codes.BAD_REQUEST,
        httpx.codes.UNAUTHORIZED,
        httpx.codes.FORBIDDEN,
        httpx.codes.NOT_FOUND,
    ):
        raise AuthError(
            f"the pod's token was refused: HTTP {answer.status}",
            reason=Reason.AUTH,
            hint=_ASSOCIATE,
            status=answer.status,
        )
    raise unexpected(answer, _NOT_IN_SUCH_A_POD)
