"""Workers share one listening socket: each gets its share, and nobody waits for one that does not come."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Limits
from gateway.edge.accepting import Accepting
from gateway.edge.port import Port
from gateway.ledger.cells import CELLS_NAME, Cells, Workers
from tests.fakes.gateway import eventually


class Client(asyncio.Protocol):
    """A connection as far as a port is concerned."""

    deadline = float("inf")

    def __init__(self, port: Port) -> None:
        self._port = port

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._port.enter(self)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        self._port.leave(self)  # type: ignore[arg-type]


class Door:
    """A listening socket, and workers in this loop that accept from it."""

    def __init__(self, path: Path, workers: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.ports = [self._port(Cells.open(path, place)) for place in range(workers)]
        self.accepting: list[Accepting] = []
        self.clients: list[socket.socket] = []

    def _port(self, cells: Cells) -> Port:
        port = Port(Limits(), asyncio.get_running_loop(), Workers(cells))
        port.workers.beat(port.now())
        return port

    def open(self, place: int) -> None:
        """Let this worker accept."""
        port = self.ports[place]
        accepting = Accepting(socket.socket(fileno=self.listener.dup().detach()), port, lambda: Client(port))
        accepting.start()
        self.accepting.append(accepting)

    def connect(self, count: int = 1) -> None:
        for _ in range(count):
            self.clients.append(socket.create_connection(self.listener.getsockname()))

    @property
    def counts(self) -> list[int]:
        return [port.connections for port in self.ports]

    async def all_in(self) -> None:
        await eventually(lambda: sum(self.counts) == len(self.clients), "all are taken")

    async def close(self) -> None:
        for accepting in self.accepting:
            accepting.close()
        for client in self.clients:
            client.close()
        await eventually(lambda: not sum(self.counts), "all are gone")
        self.listener.close()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with AsyncExitStack() as stack:
        Cells.create(tmp_path / CELLS_NAME, 3).close()
        made = Door(tmp_path / CELLS_NAME, 3)
        stack.push_async_callback(made.close)
        yield made


@pytest.mark.parametrize("count", [9, 90])
async def test_a_burst_is_shared(door: Door, count: int) -> None:
    for place in range(3):
        door.open(place)
    door.connect(count)
    await door.all_in()
    assert max(door.counts) <= min(door.counts) * 9 / 8 + 3, door.counts


async def test_connections_one_by_one_are_shared(door: Door) -> None:
    for place in range(3):
        door.open(place)
    for _ in range(12):
        door.connect()
        await door.all_in()
    assert max(door.counts) - min(door.counts) <= 2, door.counts


async def test_a_worker_that_lives_but_does_not_come_holds_up_nobody(door: Door) -> None:
    door.open(0)
    door.connect(10)
    await door.all_in()
    assert door.counts == [10, 0, 0]


async def test_a_worker_that_has_not_swept_for_long_is_not_waited_for(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    for port in door.ports[1:]:
        port.workers.beat(port.now() - 2.0)
    monkeypatch.setattr("gateway.edge.accepting.PATIENCE_S", 60.0)
    door.open(0)
    door.connect(10)
    await door.all_in()
    assert door.counts == [10, 0, 0]


async def test_who_comes_late_gets_what_comes_then(door: Door) -> None:
    door.open(0)
    door.connect(20)
    await door.all_in()
    for place in (1, 2):
        door.open(place)
    door.connect(20)
    await door.all_in()
    assert door.counts[0] <= 22 and min(door.counts[1:]) >= 7, door.counts


async def test_a_closed_door_takes_nothing_more(door: Door) -> None:
    door.open(0)
    door.connect()
    await door.all_in()
    door.accepting[0].close()
    door.accepting[0].close()
    door.open(1)
    door.connect(5)
    await door.all_in()
    assert door.counts == [1, 5, 0]


async def test_without_descriptors_it_tries_again_later(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    class Exhausted(socket.socket):
        tries = 0

        def accept(self) -> Any:
            Exhausted.tries += 1
            if Exhausted.tries <= 2:
                raise OSError(24, "Too many open files")
            return super().accept()

    port = door.ports[0]
    accepting = Accepting(Exhausted(fileno=door.listener.dup().detach()), port, lambda: Client(port))
    door.accepting.append(accepting)
    accepting.start()
    door.connect()
    await door.all_in()
    assert Exhausted.tries == 3
    assert caplog.text.count("could not be accepted") == 2


async def test_a_connection_may_outlive_the_cells_in_which_it_is_counted(tmp_path: Path) -> None:
    Cells.create(tmp_path / CELLS_NAME, 1).close()
    cells = Cells.open(tmp_path / CELLS_NAME, 0)
    port = Port(Limits(), asyncio.get_running_loop(), Workers(cells))
    client = Client(port)
    client.connection_made(None)
    port.stop()
    cells.close()
    client.connection_lost(None)
    assert port.connections == 0
