"""AK/SK request signatures, SDK-HMAC-SHA256, as the vendor's signer makes them.

Source of the scheme: huaweicloudsdkcore 3.1.219, `signer/signer.py`. The gateway builds the
canonical request anew from what it received, so what is signed here must be what is sent.
"""

import hmac
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote, unquote

ALGORITHM = "SDK-HMAC-SHA256"
_EMPTY_BODY_SHA256 = sha256(b"").hexdigest()


class SignedRequest(NamedTuple):
    """What to send: headers to set on top of those given, and the request target."""

    headers: dict[str, str]
    target: str


def build_query(pairs: Iterable[tuple[str, str]]) -> str:
    """The query string of the raw `pairs`: sorted, `+` as `%2B`, `:` as `%3A`, space as `%20`.

    Requests with a token use it too: the API needs the `+` of a time's offset escaped.
    """
    return "&".join([f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(pairs)])


@lru_cache(1024)  # names, offsets and nearly all times are those of other requests too
def _quoted(text: str) -> str:
    return quote(text, safe="~")


def sign(
    method: str,
    host: str,
    path: str,
    query: str | Iterable[tuple[str, str]],
    *,
    access_key: str,
    secret_key: str,
    now: float,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    security_token: str | None = None,
    project_id: str | None = None,
) -> SignedRequest:
    """Sign one request; `now` is seconds since the epoch (the gateway bears 15 minutes of error).

    `host` is the value of the Host header, with its port where it has one. `path` is sent as
    given, so it must be percent-encoded already. `query` is raw pairs, or the string that
    `build_query` made of them. Of `headers` all are signed, but for names with `_` (gateways drop
    those) and an old signature: leave out what a client or a proxy may still change.
    """
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    added = {"X-Sdk-Date": date, "Host": host}
    if project_id:
        added["X-Project-Id"] = project_id
    if security_token:
        added["X-Security-Token"] = security_token.strip()

    signed = {name.lower(): value.strip() for name, value in (headers or {}).items()}
    signed |= {name.lower(): value for name, value in added.items()}
    names = sorted(name for name in signed if "_" not in name and name != "authorization")
    query_string = query if isinstance(query, str) else build_query(query)
    canonical_request = "\n".join(
        [
            method.upper(),
            _canonical_path(path),
            query_string,
            *[f"{name}:{signed[name]}" for name in names],
            "",
            ";".join(names),
            sha256(body).hexdigest() if body else _EMPTY_BODY_SHA256,
        ]
    )
    digest = sha256(canonical_request.encode()).hexdigest()
    signature = hmac.digest(
        secret_key.encode(), f"{ALGORITHM}\n{date}\n{digest}".encode(), "sha256"
    ).hex()
    added["Authorization"] = (
        f"{ALGORITHM} Access={access_key}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return SignedRequest(added, f"{path}?{query_string}" if query_string else path)


def _canonical_path(path: str) -> str:
    encoded = quote(unquote(path), safe="~/")
    # Only the canonical form ends in a slash; the path that is sent stays as it is.
    return encoded if encoded.endswith("/") else encoded + "/"
