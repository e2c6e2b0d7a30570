"""The agent that gives a pod the keys of its service account's agency.

Source of the request: huaweicloudsdkcore 3.1.219, `auth/internal.py`.
"""

import httpx

from exporter.credentials.local import ask, unexpected, within
from exporter.credentials.pod_identity import NOT_IN_SUCH_A_POD
from exporter.credentials.temporary_keys import parse_temporary_keys
from exporter.credentials.values import Keys
from exporter.errors import AuthError, Reason
from exporter.transport.permissions import LIST_BACKUPS

_TIMEOUT_SECONDS = 5.0
_ASSOCIATE = (
    "associate an agency that may list backups with the pod's service account (CCE"
    f" console, Pod Identity): {LIST_BACKUPS}"
)


async def fetch_pod_keys(client: httpx.AsyncClient, uri: str, token: str) -> Keys:
    """Ask the agent for keys. Raises ApiError, with a hint.

    The address is of this machine or network, so `client` must use no proxy.
    """
    async with within(_TIMEOUT_SECONDS, hint=NOT_IN_SUCH_A_POD):
        answer = await ask(
            client,
            "POST",
            uri,
            {"Authorization": token, "Content-Type": "application/json"},
            content=b"{}",
            hint=NOT_IN_SUCH_A_POD,
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
    raise unexpected(answer, NOT_IN_SUCH_A_POD)
