"""Temporary keys of the agency that is bound to the cloud server we run on.

Source of the two requests: huaweicloudsdkcore 3.1.219, `auth/internal.py`.
"""

import re

import httpx

from exporter.credentials.local import LocalAnswer, ask, unexpected, within
from exporter.credentials.temporary_keys import parse_temporary_keys
from exporter.credentials.values import Keys
from exporter.errors import AuthError, BadResponseError, Reason
from exporter.transport.permissions import LIST_BACKUPS

METADATA_ENDPOINT = "http://169.254.169.254"
_TIMEOUT_SECONDS = 5.0
_SESSION_SECONDS = 6 * 3600
_NO_SESSION_STATUSES = frozenset({404, 405, 503})  # an older service knows no sessions
_NO_AGENCY = b"Please configure Cloud Service Agency first"

_NOT_A_CLOUD_SERVER = (
    "Does this run on a cloud server (ECS), and may it reach the metadata address from there? "
    "Elsewhere use another auth type."
)
_BIND_AN_AGENCY = (
    "Bind an agency that may list backups to this cloud server (ECS console, Management "
    f"Information, Agency): {LIST_BACKUPS}."
)


async def fetch_metadata_keys(client: httpx.AsyncClient, endpoint: str = METADATA_ENDPOINT) -> Keys:
    """Ask the metadata service for keys. Raises ApiError, with a hint.

    The address is link-local, so `client` must use no proxy: `create_local_client`.
    """
    async with within(_TIMEOUT_SECONDS, hint=_NOT_A_CLOUD_SERVER):
        return await _fetch(client, endpoint.rstrip("/"))


async def _fetch(client: httpx.AsyncClient, endpoint: str) -> Keys:
    session = await _open_session(client, endpoint)
    answer = await ask(
        client,
        "GET",
        f"{endpoint}/openstack/latest/securitykey",
        {"X-Metadata-Token": session} if session else {},
        hint=_NOT_A_CLOUD_SERVER,
    )
    if answer.status == httpx.codes.OK:
        return parse_temporary_keys(answer.body)
    if answer.status == httpx.codes.NOT_FOUND or _NO_AGENCY in answer.body:
        raise _refused("there are no keys for this server", answer, _BIND_AN_AGENCY)
    if answer.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise _refused("the keys were refused", answer, _BIND_AN_AGENCY)
    raise unexpected(answer, _NOT_A_CLOUD_SERVER)


async def _open_session(client: httpx.AsyncClient, endpoint: str) -> str:
    """The token that the service wants to see; empty where it knows none."""
    answer = await ask(
        client,
        "PUT",
        f"{endpoint}/meta-data/latest/api/token",
        {"X-Metadata-Token-Ttl-Seconds": str(_SESSION_SECONDS)},
        hint=_NOT_A_CLOUD_SERVER,
    )
    if answer.status in _NO_SESSION_STATUSES:
        return ""
    if answer.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise _refused("a session was refused", answer, _NOT_A_CLOUD_SERVER)
    if answer.status != httpx.codes.OK:
        raise unexpected(answer, _NOT_A_CLOUD_SERVER)
    token = answer.body.decode("ascii", "replace").strip()
    if not re.fullmatch(r"[!-~]+", token):
        raise BadResponseError("the session's token makes no sense", hint=_NOT_A_CLOUD_SERVER)
    return token


def _refused(what: str, answer: LocalAnswer, hint: str) -> AuthError:
    return AuthError(
        f"{what}: HTTP {answer.status}", reason=Reason.AUTH, hint=hint, status=answer.status
    )
