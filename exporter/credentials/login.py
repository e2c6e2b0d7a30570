"""A token by name and password (IAM, KeystoneCreateUserTokenByPassword)."""

import httpx
import msgspec

from exporter.credentials.values import Token
from exporter.errors import AuthError, BadResponseError, Reason, RefusedError
from exporter.reporting.redaction import SecretRegistry
from exporter.transport.failures import LOCKED_HINT, error_of, quote
from exporter.transport.limits import Query
from exporter.transport.times import parse_time
from exporter.transport.wire import Wire


class _TokenFacts(msgspec.Struct):
    expires_at: str


class _TokenBody(msgspec.Struct):
    token: _TokenFacts


def parse_token(response: httpx.Response) -> Token:
    """The token of a 201; BadResponseError if there is none."""
    value = response.headers.get("x-subject-token", "")
    if not value:
        raise BadResponseError("IAM's answer has no X-Subject-Token", status=201)
    try:
        expires_at = parse_time(
            msgspec.json.decode(response.content, type=_TokenBody).token.expires_at
        )
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as exc:
        raise BadResponseError(
            f"IAM's answer does not say when the token ends: {quote(str(exc))}"
        ) from exc
    return Token(value, expires_at)


LOGIN = "login"


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
    response = await wire.send(
        httpx.Request(
            "POST",
            f"{iam_endpoint}/v3/auth/tokens?nocatalog=true",
            json=body,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            extensions={"query": Query(), "operation": LOGIN},
        )
    )
    if response.status_code == 201:
        token = parse_token(response)
        registry.update(f"the token of project {project_id}", [token.value])
        return token
    error = error_of(response, now=wire.clock())
    message = f"login of {username} at {iam_endpoint}: {error.message}"
    if isinstance(error, AuthError | RefusedError):
        hint = (
            error.hint
            if error.hint == LOCKED_HINT
            else "check domain (the account's name), username, password and the project's id"
        )
        raise AuthError(message, reason=Reason.AUTH, hint=hint, status=error.status) from error
    error.message = message
    raise error
