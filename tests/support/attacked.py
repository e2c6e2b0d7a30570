"""An exporter to be attacked: the real front before many instances, in a process of its own.

    python -m tests.support.attacked FOLDER

prints its ports, one a line: plain, with passwords (user alice, password right), with TLS. FOLDER
is where the certificates go. It ends when its input does.
"""

import asyncio
import os
import sys
from pathlib import Path

import bcrypt
import uvloop

from exporter.web.app import create_app
from exporter.web.client_limits import ClientLimits
from exporter.web.listener import bind
from exporter.web.live_config import LoadedWebConfig
from exporter.web.server import serve
from tests.support.certificates import Authority
from tests.support.factories import (
    fill,
    instance_id,
    make_config,
    make_instance,
    make_simulator,
    running_exporter,
)
from tests.support.virtual_time import Clock

INSTANCES = 150  # an exposition of half a megabyte
LIMITS = ClientLimits(
    connections=40,
    handshake_seconds=0.3,
    request_seconds=0.5,
    idle_seconds=0.4,
    write_seconds=0.3,
    linger_seconds=0.1,
    answers_bytes=4 * 1024 * 1024,
)


def write_configs(folder: Path) -> list[LoadedWebConfig | None]:
    Authority(folder).issue("server")
    password_hash = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    users, tls = folder / "users.yml", folder / "tls.yml"
    users.write_text(f"basic_auth_users: {{alice: {password_hash}}}")
    tls.write_text(
        "tls_server_config: {cert_file: server.crt, key_file: server.key,"
        " curve_preferences: [CurveP384, X25519]}"
    )
    return [None, LoadedWebConfig(users), LoadedWebConfig(tls)]


async def main(folder: Path) -> None:
    ids = [instance_id(number) for number in range(INSTANCES)]
    simulator = make_simulator(*(fill(make_instance(id=id), count=3) for id in ids), clock=Clock())
    config = make_config(*ids, scrape={"min_interval": "1d"}, api={"rate_limit": 0})
    async with running_exporter(simulator, config) as exporter:
        app = create_app(exporter, enable_lifecycle=True)
        async with asyncio.TaskGroup() as group:
            for web_config in write_configs(folder):
                sockets = bind(("127.0.0.1", 0))
                print(sockets[0].getsockname()[1], flush=True)
                serving = serve(
                    app,
                    sockets=sockets,
                    web_config=web_config,
                    on_reload=None,
                    stopping=lambda: None,
                    limits=LIMITS,
                )
                group.create_task(serving)
            os.dup2(2, 1)  # the log's, from here on
            await asyncio.to_thread(sys.stdin.read)
            os._exit(0)  # three servers in one process have one pair of hands for signals


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
