"""Passwords in front of an ASGI application: HTTP basic auth against bcrypt hashes."""

import asyncio
import base64
import binascii
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping

import bcrypt
import structlog
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

log = structlog.get_logger(__name__)

MAX_REMEMBERED = 100
MAX_CHECKS_AT_ONCE = 2
MAX_CHECKS_WAITING = 32
# What bcrypt looks at. The library raises above it; htpasswd and exporter-toolkit cut.
MAX_PASSWORD_BYTES = 72

# A hash that no password is known to have, checked for users that do not exist.
_DUMMY_HASH_WITHOUT_COST = "$Qa13sxraRkXydg3lTCssqe0u9a7iUDl20tvhwqLs6sWLPuoUUcSR."


class BasicAuth:
    """Lets a request through to `app` if it names a user of `users()` and the password.

    `users` maps names to bcrypt hashes and is called for each request; where it is empty, everybody
    is let through. Every path is guarded, the health endpoints too, as exporter-toolkit does.

    A check takes bcrypt's tens of milliseconds of CPU, in a thread. Passwords that were right are
    remembered, as keyed digests, so that each scrape does not pay. Wrong ones are not: a flood of
    them is bounded by `MAX_CHECKS_AT_ONCE`, and what waits over `MAX_CHECKS_WAITING` gets 503. A
    user that does not exist costs what one that does would.
    """

    def __init__(self, app: ASGIApp, users: Callable[[], Mapping[str, str]]) -> None:
        self._app = app
        self._users = users
        self._digest_key = os.urandom(32)
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._checking = asyncio.Semaphore(MAX_CHECKS_AT_ONCE)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        users = self._users()
        credentials = _parse_credentials(Headers(scope=scope).get("authorization"))
        if not users:
            await self._app(scope, receive, send)
        elif credentials is None:
            await _unauthorized(scope, receive, send)
        elif self._is_remembered(users, *credentials):
            await self._app(scope, receive, send)
        elif self._waiting >= MAX_CHECKS_WAITING:
            log.warning("password check refused, too many wait", client=scope.get("client"))
            await _overloaded(scope, receive, send)
        elif await self._check(users, *credentials):
            await self._app(scope, receive, send)
        else:
            # Not the user: people type their password into the wrong field.
            log.debug("password refused", client=scope.get("client"))
            await _unauthorized(scope, receive, send)

    def _is_remembered(self, users: Mapping[str, str], user: str, password: bytes) -> bool:
        digest = self._digest(user, users.get(user, ""), password)
        if digest not in self._remembered:
            return False
        self._remembered.move_to_end(digest)
        return True

    async def _check(self, users: Mapping[str, str], user: str, password: bytes) -> bool:
        password_hash = users.get(user)
        self._waiting += 1
        try:
            async with self._checking:
                right = await asyncio.to_thread(
                    _matches, password, password_hash or self._dummy_hash(users, user)
                )
        finally:
            self._waiting -= 1
        if not right or password_hash is None:
            return False
        self._remembered[self._digest(user, password_hash, password)] = None
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return True

    def _dummy_hash(self, users: Mapping[str, str], user: str) -> str:
        """Costs what one of the users' hashes costs, always the same one for the same name."""
        costs = sorted(password_hash[4:6] for password_hash in users.values())
        chosen = int.from_bytes(self._digest(user, "", b"")) % len(costs)
        return f"$2b${costs[chosen]}{_DUMMY_HASH_WITHOUT_COST}"

    def _digest(self, user: str, password_hash: str, password: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._digest_key, digest_size=32)
        for part in (user.encode(), password_hash.encode(), password):
            digest.update(len(part).to_bytes(8))
            digest.update(part)
        return digest.digest()


def _matches(password: bytes, password_hash: str) -> bool:
    try:
        return bcrypt.checkpw(password[:MAX_PASSWORD_BYTES], password_hash.encode())
    except ValueError:
        return False


def _parse_credentials(authorization: str | None) -> tuple[str, bytes] | None:
    """User and password; None where there are none that could be right (RFC 7617)."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        name = user.decode()
    except (binascii.Error, ValueError):
        return None
    if not colon:
        return None
    return name, password


_unauthorized = PlainTextResponse(
    "Unauthorized\n",
    status_code=401,
    headers={"WWW-Authenticate": 'Basic realm="gaussdb-mysql-backup-exporter", charset="UTF-8"'},
)
_overloaded = PlainTextResponse(
    "Too many password checks\n", status_code=503, headers={"Retry-After": "1"}
)
