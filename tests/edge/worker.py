"""A worker in the process of the test: the whole data plane on a loopback port, its time and its disk in our hands.

Deadlines are looked at by a sweep. `pass_time` moves the worker's clock and waits for the next one, so an hour takes no
time and nothing depends on how fast the machine is.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway import app
from gateway.clock import wall
from gateway.control.snapshot import Snapshot
from gateway.edge import port
from gateway.edge.connection import ClientConnection
from gateway.edge.plane import DataPlane
from gateway.ledger.log import LogWriter
from gateway.ledger.segment import Record
from gateway.ledger.storage import SegmentIO
from tests.fakes.client import RawClient, Response, request
from tests.fakes.configurations import KEY, toml
from tests.fakes.gateway import eventually
from tests.fakes.script import Script
from tests.ledger.exports import ends


class Disk(SegmentIO):
    """A disk that can be told to hang in its syncs."""

    def __init__(self) -> None:
        self._turning = threading.Event()
        self._turning.set()

    def hang(self) -> None:
        self._turning.clear()

    def turn(self) -> None:
        self._turning.set()

    def sync(self, descriptor: int) -> None:
        self._turning.wait(30)
        super().sync(descriptor)


def asking(model: str, script: Script, **members: Any) -> bytes:
    """A request that tells its backend what to do."""
    messages = [{"role": "user", "content": "count"}]
    return request(key=KEY, json_body={"model": model, "messages": messages, "user": script.to_json(), **members})


@dataclass
class Worker:
    """A running one."""

    plane: DataPlane
    disk: Disk
    log: Path
    url: str = ""
    shift_s: float = 0.0
    swept: asyncio.Event = field(default_factory=asyncio.Event)
    connections: list[ClientConnection] = field(default_factory=list)

    def now(self) -> float:
        return self.plane.port.loop.time() + self.shift_s

    def connection(self) -> ClientConnection:
        """A protocol for a client that has just connected."""
        connection = self.plane.connection()
        assert isinstance(connection, ClientConnection)
        self.connections.append(connection)
        return connection

    def sweep(self, now: float) -> None:
        self.swept.set()

    async def pass_time(self, seconds: float) -> None:
        """So much later, every deadline that is over by then has been acted on."""
        self.shift_s += seconds
        self.swept.clear()
        await asyncio.wait_for(self.swept.wait(), 5)

    async def ask(self, model: str, script: Script, **members: Any) -> Response:
        """A request on a connection of its own, and its whole response."""
        async with RawClient.connect(self.url) as client:
            await client.send(asking(model, script, **members))
            return await client.response()

    async def rows(self, count: int) -> list[Record]:
        """The rows, once so many requests have ended; there must not be more."""
        await eventually(lambda: len(ends(self.log)) >= count, f"{count} terminal records")
        rows = ends(self.log)
        assert len(rows) == count, rows
        return rows

    def held(self) -> dict[str, int]:
        """What requests hold now, other than nothing."""
        desk = self.plane.desk
        counts = {"requests": self.plane.proxy.in_flight, "board": desk.board.live}
        counts |= {state.name: state.inflight for state in self.plane.live.states.values()}
        counts |= {name: meter.streams for name, meter in desk.admission.usage().items()}
        return {name: count for name, count in counts.items() if count}


@asynccontextmanager
async def working(directory: Path, content: Mapping[str, Any]) -> AsyncIterator[Worker]:
    """Run a worker on this configuration. What its requests hold must be given back in the end."""
    loop, disk = asyncio.get_running_loop(), Disk()
    with pytest.MonkeyPatch.context() as patch:
        # To the log no commit is slow, however long the disk hangs: what a request waits for is the worker's to bound.
        patch.setattr(app, "LogWriter", partial(LogWriter, io=disk, clock=lambda: 0.0))
        plane = app.build_worker(Snapshot(toml(content), directory, wall()), {}, 0, loop, Random(0))
        patch.setattr(port, "SWEEP_S", 0.02)
        plane.port.start()
    worker = Worker(plane, disk, directory / "var" / "ledger" / "0")
    plane.desk.now = plane.port.now = worker.now
    plane.port.on_sweep(worker.sweep)
    server = await loop.create_server(worker.connection, "127.0.0.1", 0)
    worker.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    plane.proxy.accepting = True
    try:
        yield worker
        disk.turn()
        await eventually(lambda: not worker.held(), "everything is given back")
    finally:
        disk.turn()
        server.close()
        plane.proxy.stop_all()
        await plane.proxy.idle(5)
        for connection in worker.connections:
            connection.abort()
        await eventually(lambda: not plane.port.connections, "all connections are closed")
        plane.close()
