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

from exporter.web.password_checks import Client, OverloadedError, PasswordChecks
from exporter.web.repeats import Repeats

log = structlog.get_logger(__name__)

MAX_REMEMBERED = 100
# What bcrypt looks at. The library raises above it; htpasswd and exporter-toolkit cut.
MAX_PASSWORD_BYTES = 72

# A hash that no password is known to have, checked for users that do not exist.
_DUMMY_HASH_WITHOUT_COST = "$Qa13sxraRkXydg3lTCssqe0u9a7iUDl20tvhwqLs6sWLPuoUUcSR."


class BasicAuth:
    """Lets a request through to `app` if it names a user of `users()` and the password.

    `users` maps names to bcrypt hashes and is called for each request; where it is empty, everybody
    is let through. Every path is guarded, the health endpoints too, as exporter-toolkit does.

    A check takes bcrypt's tens of milliseconds of CPU, in a thread. What it said of a password is
    remembered, as a keyed digest: who was right before does not wait behind those who are wrong,
    and the same wrong one again costs nothing. A user that does not exist costs what one that does
    would. Checks have an order and an end (`PasswordChecks`); what is over it gets 503.
    """

    def __init__(self, app: ASGIApp, users: Callable[[], Mapping[str, str]]) -> None:
        self._app = app
        self._users = users
        self._digest_key = os.urandom(32)
        self._right = _Remembered()
        self._wrong = _Remembered()
        self._checks = PasswordChecks()
        self._repeats = Repeats()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        users = self._users() if scope["type"] == "http" else {}
        if not users:
            await self._app(scope, receive, send)
            return
        client: Client = tuple(scope.get("client") or ("", 0))
        credentials = _parse_credentials(Headers(scope=scope).get("authorization"))
        try:
            is_right = credentials is not None and await self._check(users, client, *credentials)
        except OverloadedError:
            if times := self._repeats.count("overloaded"):
                log.warning("password checks refused, too many wait", client=client[0], times=times)
            await _overloaded(scope, receive, send)
            return
        if is_right:
            self._checks.note_right(client)
            await self._app(scope, receive, send)
            return
        # Not the user: people type their password into the wrong field.
        if credentials is not None and (times := self._repeats.count("wrong", client[0])):
            log.warning("password refused", client=client[0], times=times)
        await _unauthorized(scope, receive, send)

    async def _check(
        self, users: Mapping[str, str], client: Client, user: str, password: bytes
    ) -> bool:
        password_hash = users.get(user)
        digest = self._digest(user, password_hash or "", password)
        if digest in self._right:
            return True
        if digest in self._wrong:
            return False
        matches = await self._checks.run(
            client,
            lambda: asyncio.to_thread(
                _matches, password, password_hash or self._dummy_hash(users, user)
            ),
        )
        is_right = matches and password_hash is not None
        (self._right if is_right else self._wrong).add(digest)
        return is_right

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


class _Remembered:
    """The last digests of one kind."""

    def __init__(self) -> None:
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        if digest not in self._digests:
            return False
        self._digests.move_to_end(digest)
        return True

    def add(self, digest: bytes) -> None:
        self._digests[digest] = None
        if len(self._digests) > MAX_REMEMBERED:
            self._digests.popitem(last=False)


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
