"""A token by name and password (IAM, KeystoneCreateUserTokenByPassword)."""

import httpx
import msgspec

from exporter.credentials.exchange import exchange
from exporter.credentials.values import Token
from exporter.errors import BadResponseError
from exporter.reporting.redaction import SecretRegistry
from exporter.transport.failures import not_json
from exporter.transport.times import parse_time
from exporter.transport.wire import Wire


class _TokenFacts(msgspec.Struct):
    expires_at: str


class _TokenBody(msgspec.Struct):
    token: _TokenFacts


def parse_token(response: httpx.Response) -> Token:
    """The token of a 201; BadResponseError if there is none."""
    try:
        facts = msgspec.json.decode(response.content, type=_TokenBody).token
        expires_at = parse_time(facts.expires_at)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as exc:
        raise not_json(response.content, "a token that says when it ends", exc) from exc
    value = response.headers.get("x-subject-token", "")
    if not value:
        raise BadResponseError("the answer has no X-Subject-Token", status=response.status_code)
    return Token(value, expires_at)


async def fetch_token(
    wire: Wire,
    *,
    iam_endpoint: str,
    domain: str,
    username: str,
    password: str,
    project_id: str,
    registry: SecretRegistry,
) -> Token:
    """A token for one project (KeystoneCreateUserTokenByPassword). Raises ApiError.

    AuthError where IAM refuses the login, another ApiError where it cannot answer.
    """
    body = {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {
                    "user": {"name": username, "password": password, "domain": {"name": domain}}
                },
            },
            "scope": {"project": {"id": project_id}},
        }
    }
    token = await exchange(
        wire,
        f"{iam_endpoint}/v3/auth/tokens?nocatalog=true",
        body,
        parse_token,
        what=f"login of {username} at {iam_endpoint}",
        refused_hint="check domain (the account's name), username, password and the project's id",
    )
    registry.update(f"the token of project {project_id}", [token.value])
    return token
