from collections.abc import AsyncIterator

import httpx
import pytest

from tests.credentials.doubles import Client, Cloud, Connect


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    clients: list[Client] = []

    def open_client(cloud: Cloud, auth: httpx.Auth) -> Client:
        clients.append(Client(cloud, auth))
        return clients[-1]

    yield open_client
    for client in clients:
        await client.aclose()
