"""Temporary keys of an agency by the security token service (STS v5).

Source of the requests: huaweicloudsdksts 3.1.219, and huaweicloudsdkcore's `auth/internal.py`.
"""

import httpx

from exporter.credentials.exchange import exchange
from exporter.credentials.oidc import SESSION_NAME
from exporter.credentials.temporary_keys import parse_temporary_keys
from exporter.credentials.values import Keys
from exporter.transport.wire import Wire


async def assume_agency(
    wire: Wire,
    *,
    sts_endpoint: str,
    auth: httpx.Auth,
    urn: str,
    duration_seconds: float,
) -> Keys:
    """Keys of the agency, asked for by whoever `auth` signs as. Raises ApiError."""
    return await exchange(
        wire,
        f"{sts_endpoint}/v5/agencies/assume",
        {
            "agency_urn": urn,
            "agency_session_name": SESSION_NAME,
            "duration_seconds": int(duration_seconds),
        },
        _read_keys,
        what=f"assuming the agency {urn} at {sts_endpoint}",
        refused_hint="check the urn; the agency must trust the account that asks, whose user needs"
        " sts:agencies:assume, and allow sessions of this duration",
        auth=auth,
    )


async def assume_agency_with_oidc(
    wire: Wire,
    *,
    sts_endpoint: str,
    provider_urn: str,
    agency_urn: str,
    session_name: str,
    id_token: str,
    duration_seconds: float,
) -> Keys:
    """Keys of the agency for a token of an identity provider that it trusts. Raises ApiError."""
    return await exchange(
        wire,
        f"{sts_endpoint}/v5/agencies/assume-with-oidc",
        {
            "provider_urn": provider_urn,
            "agency_urn": agency_urn,
            "agency_session_name": session_name,
            "id_token": id_token,
            "duration_seconds": int(duration_seconds),
        },
        _read_keys,
        what=f"assuming the agency {agency_urn} with an OIDC token at {sts_endpoint}",
        refused_hint="check provider_urn and agency_urn; the agency must trust the provider, the"
        " token's audience and its subject, and the token must not have expired",
    )


def _read_keys(response: httpx.Response) -> Keys:
    return parse_temporary_keys(response.content)
