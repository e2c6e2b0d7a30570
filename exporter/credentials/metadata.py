"""Temporary keys of the agency that is bound to the cloud server we run on.

Source of the two requests: huaweicloudsdkcore 3.1.219, `auth/internal.py`.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

import httpx
import msgspec

from exporter.errors import AuthError, Reason

METADATA_ENDPOINT = "http://169.254.169.254"
_TIMEOUT_SECONDS = 3.0
_BODY_LIMIT_BYTES = 64 * 1024
_SESSION_SECONDS = 6 * 3600
_NO_SESSION_STATUSES = frozenset({404, 405, 503})  # an older service knows no sessions
_NO_AGENCY = b"Please configure Cloud Service Agency first"

_NOT_A_CLOUD_SERVER = (
    "Does this run on a cloud server (ECS), and may it reach the metadata address from there? "
    "Elsewhere use another auth type."
)
_BIND_AN_AGENCY = (
    "Bind an agency that may list backups (gaussdbformysql:backup:list) to this cloud server: "
    "ECS console, Management Information, Agency."
)


@dataclass(frozen=True, slots=True)
class TemporaryKeys:
    """An access key that expires, with the security token that belongs to it."""

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str = field(repr=False)
    expires_at: float  # seconds since the epoch


# All of it becomes part of a header: nothing that could end one.
_HeaderText = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+\Z")]


class _Credential(msgspec.Struct):
    access: _HeaderText
    secret: _HeaderText
    securitytoken: _HeaderText
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)]


class _SecurityKey(msgspec.Struct):
    credential: _Credential


def parse_security_key(body: bytes) -> TemporaryKeys:
    """The keys in an answer of `/openstack/latest/securitykey`; AuthError if it makes no sense."""
    try:
        credential = msgspec.json.decode(body, type=_SecurityKey).credential
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        # Names the field and what is wrong with it, never its value.
        problem = "not UTF-8" if isinstance(exc, UnicodeDecodeError) else str(exc)
        raise _error(
            f"the metadata service's temporary keys cannot be read: {problem}", _NOT_A_CLOUD_SERVER
        ) from None
    return TemporaryKeys(
        access_key=credential.access,
        secret_key=credential.secret,
        security_token=credential.securitytoken,
        expires_at=credential.expires_at.timestamp(),
    )


def create_metadata_client() -> httpx.AsyncClient:
    """A client for `fetch_temporary_keys`: no proxy, not even the environment's."""
    return httpx.AsyncClient(trust_env=False, follow_redirects=False)


async def fetch_temporary_keys(
    client: httpx.AsyncClient, endpoint: str = METADATA_ENDPOINT
) -> TemporaryKeys:
    """Ask the metadata service for keys; AuthError, with a hint, where there are none.

    The address is link-local, so `client` must use no proxy: `create_metadata_client`.
    """
    endpoint = endpoint.rstrip("/")
    headers = {}
    status, body = await _fetch(
        client,
        "PUT",
        f"{endpoint}/meta-data/latest/api/token",
        {"X-Metadata-Token-Ttl-Seconds": str(_SESSION_SECONDS)},
    )
    if status == 200:
        headers["X-Metadata-Token"] = _parse_session_token(body)
    elif status not in _NO_SESSION_STATUSES:
        raise _error(
            f"the metadata service refused a session with status {status}",
            _NOT_A_CLOUD_SERVER,
            status,
        )

    status, body = await _fetch(client, "GET", f"{endpoint}/openstack/latest/securitykey", headers)
    if status == 200:
        return parse_security_key(body)
    if status == 404 or _NO_AGENCY in body:
        raise _error("the metadata service has no keys for this server", _BIND_AN_AGENCY, status)
    raise _error(
        f"the metadata service refused the temporary keys with status {status}",
        _BIND_AN_AGENCY,
        status,
    )


async def _fetch(
    client: httpx.AsyncClient, method: str, url: str, headers: dict[str, str]
) -> tuple[int, bytes]:
    body = bytearray()
    try:
        async with client.stream(
            method,
            url,
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=_TIMEOUT_SECONDS,
            follow_redirects=False,
        ) as response:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _BODY_LIMIT_BYTES:
                    raise _error(
                        f"the metadata service answered with more than {_BODY_LIMIT_BYTES} bytes",
                        _NOT_A_CLOUD_SERVER,
                        response.status_code,
                    )
            return response.status_code, bytes(body)
    except httpx.HTTPError as exc:
        raise _error(
            f"the metadata service does not answer ({type(exc).__name__})", _NOT_A_CLOUD_SERVER
        ) from exc


def _parse_session_token(body: bytes) -> str:
    token = body.decode("ascii", "replace").strip()
    if not re.fullmatch(r"[!-~]+", token):
        raise _error("the metadata service's session token makes no sense", _NOT_A_CLOUD_SERVER)
    return token


def _error(message: str, hint: str, status: int | None = None) -> AuthError:
    return AuthError(message, reason=Reason.AUTH, hint=hint, status=status)
