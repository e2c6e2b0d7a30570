"""Temporary keys as the cloud's services write them.

Source of the spellings: huaweicloudsdkcore 3.1.219, `auth/internal.py`, and the reference of STS.
"""

from datetime import datetime
from typing import Annotated

import msgspec

from exporter.credentials.values import Keys
from exporter.errors import BadResponseError
from exporter.transport.failures import WRONG_ADDRESS_HINT, is_html

# All of it becomes part of a header: nothing that could end one.
_HeaderText = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+\Z")]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class _Credential(msgspec.Struct):
    access: _HeaderText | None = None
    accessKeyId: _HeaderText | None = None
    access_key_id: _HeaderText | None = None
    secret: _HeaderText | None = None
    secretAccessKey: _HeaderText | None = None
    secret_access_key: _HeaderText | None = None
    securitytoken: _HeaderText | None = None
    securityToken: _HeaderText | None = None
    security_token: _HeaderText | None = None
    expires_at: _Moment | None = None
    expiration: _Moment | None = None


class _Answer(msgspec.Struct):
    credential: _Credential | None = None
    credentials: _Credential | None = None


def parse_temporary_keys(body: bytes, what: str = "temporary keys") -> Keys:
    """The keys in an answer; BadResponseError, which repeats no value, if they make no sense."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _unreadable(body, what, exc) from None
    found = answer.credential or answer.credentials
    if found is None:
        raise BadResponseError(f"not {what}: there is no `credential` in the answer")
    access = found.access or found.accessKeyId or found.access_key_id
    secret = found.secret or found.secretAccessKey or found.secret_access_key
    token = found.securitytoken or found.securityToken or found.security_token
    end = found.expires_at or found.expiration
    if access is None or secret is None or token is None or end is None:
        parts = {"access key": access, "secret": secret, "security token": token, "end": end}
        missing = ", ".join(name for name, value in parts.items() if value is None)
        raise BadResponseError(f"not {what}: the answer tells no {missing}")
    return Keys(access, secret, token, end.timestamp())


def _unreadable(body: bytes, what: str, exc: Exception) -> BadResponseError:
    """Says what came, but shows nothing of it: it may be keys."""
    if body.lstrip()[:1] in (b"{", b"["):
        # Names the field and what is wrong with it, not its value.
        problem = str(exc) if isinstance(exc, msgspec.DecodeError) else "it is malformed"
        return BadResponseError(f"not {what}: {problem}")
    came = "an HTML page" if is_html(body) else "something else" if body.strip() else "nothing"
    error = BadResponseError(f"not {what} but {came}", hint=WRONG_ADDRESS_HINT)
    error.foreign = True
    return error
