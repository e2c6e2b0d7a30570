"""Temporary keys by the older IAM: of an agency, or for the token of an identity provider.

Source of the requests: huaweicloudsdkiam 3.1.219, and huaweicloudsdkcore's `auth/internal.py`.
"""

from collections.abc import Callable, Mapping

import httpx

from exporter.credentials.exchange import exchange
from exporter.credentials.temporary_keys import parse_temporary_keys
from exporter.credentials.values import Keys
from exporter.errors import BadResponseError
from exporter.transport.wire import Wire

_ID_TOKEN_KEY_SECONDS = 6 * 3600  # as the vendor's SDK asks for


async def fetch_agency_keys(
    wire: Wire,
    *,
    iam_endpoint: str,
    auth: httpx.Auth,
    agency_name: str,
    domain: Mapping[str, str],
    duration_seconds: float,
) -> Keys:
    """Keys of an agency of `domain` (its `domain_name` or `domain_id`). Raises ApiError.

    They are asked for by whoever `auth` signs as.
    """
    role = {"agency_name": agency_name, **domain, "duration_seconds": int(duration_seconds)}
    return await exchange(
        wire,
        f"{iam_endpoint}/v3.0/OS-CREDENTIAL/securitytokens",
        {"auth": {"identity": {"methods": ["assume_role"], "assume_role": role}}},
        _read_keys,
        what=f"keys of the agency {agency_name} at {iam_endpoint}",
        refused_hint="check agency_name and domain; the agency must delegate to the account that"
        " asks, whose user needs the permission Agent Operator",
        auth=auth,
    )


async def fetch_id_token_keys(
    wire: Wire,
    *,
    iam_endpoint: str,
    idp_id: str,
    id_token: str,
    hide: Callable[[str], None],
) -> Keys:
    """Keys for a token of the identity provider `idp_id`. Raises ApiError.

    `hide` is told the token of IAM that comes between the two.
    """
    hint = "check idp_id, and that the identity provider's conversion rules let this token in"
    token = await exchange(
        wire,
        f"{iam_endpoint}/v3.0/OS-AUTH/id-token/tokens",
        {"auth": {"id_token": {"id": id_token}}},
        _read_unscoped_token,
        what=f"login by the identity provider {idp_id} at {iam_endpoint}",
        refused_hint=hint,
        headers={"X-Idp-Id": idp_id},
    )
    hide(token)
    by_token = {"id": token, "duration_seconds": _ID_TOKEN_KEY_SECONDS}
    return await exchange(
        wire,
        f"{iam_endpoint}/v3.0/OS-CREDENTIAL/securitytokens",
        {"auth": {"identity": {"methods": ["token"], "token": by_token}}},
        _read_keys,
        what=f"keys of the identity provider {idp_id} at {iam_endpoint}",
        refused_hint=hint,
    )


def _read_keys(response: httpx.Response) -> Keys:
    return parse_temporary_keys(response.content)


def _read_unscoped_token(response: httpx.Response) -> str:
    token = response.headers.get("x-subject-token", "")
    if not token:
        raise BadResponseError("the answer has no X-Subject-Token", status=response.status_code)
    return str(token)
