import asyncio
import base64
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping

import bcrypt
import httpx
import pytest
from starlette.responses import PlainTextResponse
from structlog.testing import capture_logs

from exporter.web.basic_auth import BasicAuth
from exporter.web.password_checks import MAX_CHECKS_AT_ONCE, MAX_WAITING_OF_ADDRESS

COST = 4


def make_hash(password: str, cost: int = COST) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


USERS = {"alice": make_hash("right"), "zoë": make_hash("pässword:with colon")}


def make_client(users: Callable[[], Mapping[str, str]] = lambda: USERS) -> httpx.AsyncClient:
    app = BasicAuth(PlainTextResponse("let in"), users)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://exporter")


def encoded(credentials: bytes, scheme: str = "Basic") -> dict[str, str]:
    return {"Authorization": f"{scheme} {base64.b64encode(credentials).decode()}"}


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """Passwords and hashes that bcrypt was asked for."""
    asked = []
    checkpw = bcrypt.checkpw

    def note(password: bytes, password_hash: bytes) -> bool:
        asked.append((password, password_hash))
        return checkpw(password, password_hash)

    monkeypatch.setattr(bcrypt, "checkpw", note)
    return asked


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
async def test_the_right_password_is_let_in(scheme: str) -> None:
    response = await make_client().get("/", headers=encoded(b"alice:right", scheme))
    assert (response.status_code, response.text) == (200, "let in")


async def test_a_password_may_hold_colons_and_any_letter() -> None:
    response = await make_client().get("/", headers=encoded("zoë:pässword:with colon".encode()))
    assert response.status_code == 200


@pytest.mark.parametrize("scheme", ["2a", "2b", "2y"])
async def test_all_three_names_of_the_hash_are_understood(scheme: str) -> None:
    users = {"alice": f"${scheme}${make_hash('right')[4:]}"}
    async with make_client(lambda: users) as client:
        assert (await client.get("/", auth=("alice", "right"))).status_code == 200
        assert (await client.get("/", auth=("alice", "wrong"))).status_code == 401


async def test_a_published_hash_is_matched() -> None:
    # From the bcrypt test vectors of OpenWall's crypt_blowfish (wrapper.c)
    users = {"alice": "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"}
    response = await make_client(lambda: users).get("/", auth=("alice", "U*U"))
    assert response.status_code == 200


async def test_a_password_of_over_72_bytes_is_checked_as_others_who_use_bcrypt_do() -> None:
    # Made by libxcrypt's crypt(3) of 100 x
    users = {"alice": "$2b$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i"}
    async with make_client(lambda: users) as client:
        assert (await client.get("/", auth=("alice", "x" * 100))).status_code == 200
        assert (await client.get("/", auth=("alice", "x" * 71))).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        encoded(b"alice:wrong"),
        encoded(b"alice:"),
        encoded(b"unknown:right"),
        encoded(b":right"),
        encoded(b"alice"),
        encoded(b"alice:right", "Bearer"),
        encoded(b"alice:right\0"),
        encoded(b"\xff\xfe:right"),
        {"Authorization": "Basic"},
        {"Authorization": "Basic not/base64!"},
        {"Authorization": "Basic \u00e4"},
    ],
)
async def test_everything_else_is_401_with_a_challenge(headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = await make_client().get("/", headers=raw)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert "let in" not in response.text


async def test_a_hash_that_bcrypt_cannot_read_lets_nobody_in() -> None:
    response = await make_client(lambda: {"alice": "$2b$04$short"}).get("/", auth=("alice", ""))
    assert response.status_code == 401


async def test_without_users_everybody_is_let_in() -> None:
    assert (await make_client(lambda: {}).get("/")).status_code == 200


async def test_an_unknown_user_costs_what_a_known_one_does(
    checks: list[tuple[bytes, bytes]],
) -> None:
    users = {"alice": make_hash("right", cost=5), "bob": make_hash("right", cost=5)}
    async with make_client(lambda: users) as client:
        await client.get("/", auth=("alice", "wrong"))
        await client.get("/", auth=("unknown", "wrong"))
    (_, known), (_, unknown) = checks
    assert unknown != known
    assert unknown[:7] == known[:7] == b"$2b$05$"


async def test_an_unknown_user_costs_the_same_each_time(checks: list[tuple[bytes, bytes]]) -> None:
    users = {f"user{cost}": make_hash("right", cost=cost) for cost in (4, 5, 6)}
    async with make_client(lambda: users) as client:
        for number in range(3):
            await client.get("/", auth=("unknown", f"wrong{number}"))
    assert len(checks) == 3
    assert len({password_hash for _, password_hash in checks}) == 1


async def test_a_right_password_is_checked_once(checks: list[tuple[bytes, bytes]]) -> None:
    async with make_client() as client:
        for _ in range(3):
            assert (await client.get("/", auth=("alice", "right"))).status_code == 200
    assert len(checks) == 1


async def test_the_same_wrong_password_is_checked_once(checks: list[tuple[bytes, bytes]]) -> None:
    async with make_client() as client:
        for _ in range(3):
            assert (await client.get("/", auth=("alice", "wrong"))).status_code == 401
            assert (await client.get("/", auth=("bob", "wrong"))).status_code == 401
    assert len(checks) == 2


async def test_a_password_that_was_wrong_is_right_once_the_hash_is_its_own() -> None:
    users = {"alice": make_hash("right")}
    async with make_client(lambda: users) as client:
        assert (await client.get("/", auth=("alice", "changed"))).status_code == 401
        users["alice"] = make_hash("changed")
        assert (await client.get("/", auth=("alice", "changed"))).status_code == 200


async def test_a_remembered_password_ends_with_its_hash() -> None:
    users = {"alice": make_hash("right")}
    async with make_client(lambda: users) as client:
        assert (await client.get("/", auth=("alice", "right"))).status_code == 200
        users["alice"] = make_hash("changed")
        assert (await client.get("/", auth=("alice", "right"))).status_code == 401
        del users["alice"]
        users["bob"] = make_hash("other")
        assert (await client.get("/", auth=("alice", "changed"))).status_code == 401


async def test_only_so_many_passwords_are_remembered(
    checks: list[tuple[bytes, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.web.basic_auth.MAX_REMEMBERED", 1)
    async with make_client() as client:
        await client.get("/", auth=("alice", "right"))
        await client.get("/", headers=encoded("zoë:pässword:with colon".encode()))
        await client.get("/", auth=("alice", "right"))
    assert len(checks) == 3


class HeldChecks:
    """bcrypt that does not answer until it is let go, and counts who asks."""

    def __init__(self) -> None:
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()
        self.let_go = threading.Event()

    def checkpw(self, password: bytes, password_hash: bytes) -> bool:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.let_go.wait(60)
        with self._lock:
            self.running -= 1
        return password == b"right"


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldChecks]:
    checks = HeldChecks()
    monkeypatch.setattr(bcrypt, "checkpw", checks.checkpw)
    with contextlib.ExitStack() as stack:
        stack.callback(checks.let_go.set)
        yield checks


async def test_a_flood_of_wrong_passwords_is_bounded_and_stalls_nobody(held: HeldChecks) -> None:
    with capture_logs() as logs:
        async with make_client() as client, asyncio.TaskGroup() as group:
            held.let_go.set()
            assert (await client.get("/", auth=("alice", "right"))).status_code == 200
            held.let_go.clear()
            flood = [
                group.create_task(client.get("/", auth=("alice", f"wrong{number}")))
                for number in range(MAX_WAITING_OF_ADDRESS + MAX_CHECKS_AT_ONCE + 5)
            ]
            while sum(task.done() for task in flood) < 5:
                await asyncio.sleep(0)
            # Who was let in before is let in, and the loop goes on, while bcrypt is busy.
            assert (await client.get("/", auth=("alice", "right"))).status_code == 200
            held.let_go.set()
    statuses = [task.result().status_code for task in flood]
    assert statuses.count(503) == 5
    assert statuses.count(401) == MAX_WAITING_OF_ADDRESS + MAX_CHECKS_AT_ONCE
    assert held.most_running == MAX_CHECKS_AT_ONCE
    assert [entry["event"] for entry in logs] == [
        "password checks refused, too many wait",
        "password refused",
    ]


async def test_passwords_are_never_logged() -> None:
    with capture_logs() as logs:
        async with make_client() as client:
            await client.get("/", auth=("alice", "hunter2"))
            await client.get("/", auth=("hunter2", "x"))
    assert logs == [
        {
            "event": "password refused",
            "log_level": "warning",
            "client": "127.0.0.1",
            "times": 1,
        }
    ]
