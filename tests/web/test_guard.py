"""Passwords and headers of the web configuration, through the front."""

import base64
from pathlib import Path

import bcrypt
from starlette.types import Receive, Scope, Send

from exporter.web.live_config import LoadedWebConfig
from tests.support.front import request, respond, serving


def basic(user: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def users_section(**passwords: str) -> str:
    return "basic_auth_users:\n" + "".join(
        f"  {user}: {bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
        for user, password in passwords.items()
    )


async def test_every_path_asks_for_the_password(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text(users_section(alice="right"))
    async with serving(web_config=LoadedWebConfig(tmp_path / "web.yml")) as front:
        for path in ("/", "/metrics", "/-/healthy", "/nowhere"):
            assert (await front.get(path=path))[0] == 401
            assert (await front.get(basic("alice", "right"), path=path))[0] == 200


async def test_users_of_a_changed_file_are_let_in_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_text(users_section(alice="right"))
    async with serving(web_config=LoadedWebConfig(path)) as front:
        connection = await front.connect()
        assert (await request(*connection, basic("alice", "right")))[0] == 200
        path.write_text(users_section(bob="also right"))
        assert (await request(*connection, basic("bob", "also right")))[0] == 200
        assert (await request(*connection, basic("alice", "right")))[0] == 401
        path.write_text("broken: [")
        assert (await request(*connection, basic("bob", "also right")))[0] == 200
        assert (await request(*connection))[0] == 401


async def test_configured_headers_are_on_every_response_but_do_not_replace_its_own(
    tmp_path: Path,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"", (b"Content-Security-Policy", b"own"))

    (tmp_path / "web.yml").write_text(
        "http_server_config: {headers: {X-Frame-Options: deny, Content-Security-Policy: none}}\n"
        + users_section(alice="right")
    )
    async with serving(app, web_config=LoadedWebConfig(tmp_path / "web.yml")) as front:
        _, refused, _ = await front.get()
        _, headers, _ = await front.get(basic("alice", "right"))
    assert (refused["x-frame-options"], refused["content-security-policy"]) == ("deny", "none")
    assert (headers["x-frame-options"], headers["content-security-policy"]) == ("deny", "own")
