"""The admin port of a plain control plane, listening on the loopback."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import ClientSession

from gateway.admin.server import AdminServer
from tests.admin.plane import Plane, settings

Serve = Callable[[Plane], Awaitable[ClientSession]]


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    """A gateway with two producing regions and one that sells tokens; nothing has happened yet."""
    return Plane(settings(tmp_path))


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve a control plane; what comes back is a client of its admin port."""
    servers: list[AdminServer] = []
    clients: list[ClientSession] = []

    async def start(plane: Plane) -> ClientSession:
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        bound.setblocking(False)
        server = AdminServer(plane)
        await server.start(bound)
        servers.append(server)
        clients.append(ClientSession(f"http://{server.address}"))
        return clients[-1]

    yield start
    for client in clients:
        await client.close()
    for server in servers:
        await server.stop()


@pytest.fixture
async def admin(serve: Serve, plane: Plane) -> ClientSession:
    """A client of `plane`'s admin port."""
    return await serve(plane)
