"""Whoever ends a request in the very read that brought it: it is settled, once, and no backend hears of it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.edge.connection import ClientConnection
from tests.edge.worker import Worker, asking, working
from tests.fakes.backend import ScriptedBackend
from tests.fakes.configurations import one_site
from tests.fakes.script import Script


class Transport(asyncio.Transport):
    """A client's end that takes everything and says nothing."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self._connection = connection
        self.written = b""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)


def half_close(connection: ClientConnection, _: Worker) -> None:
    assert connection.eof_received() is False


def reset(connection: ClientConnection, _: Worker) -> None:
    connection.connection_lost(ConnectionResetError())


def shutdown(_: ClientConnection, worker: Worker) -> None:
    worker.plane.port.draining = True
    worker.plane.proxy.stop_all()


ENDS: dict[str, tuple[Callable[[ClientConnection, Worker], None], str, int, bytes]] = {
    "half_close": (half_close, "client_gone", 499, b""),
    "reset": (reset, "client_gone", 499, b""),
    "shutdown": (shutdown, "drained", 503, b"HTTP/1.1 503 "),
}


@pytest.mark.parametrize("name", ENDS)
async def test_a_request_that_ends_before_its_first_step_is_one_row(
    tmp_path: Path, backend: ScriptedBackend, name: str
) -> None:
    act, outcome, status, answer = ENDS[name]
    content = one_site(backend.site().url)
    content["limits"] |= {"connections_max": 16}
    async with working(tmp_path, content) as worker:
        connection = worker.connection()
        transport = Transport(connection)
        connection.connection_made(transport)
        connection.data_received(asking("m", Script(tokens=2), stream=True))
        assert worker.held() == {"requests": 1, "board": 1, "near": 1, "acme": 1}
        act(connection, worker)
        [row] = await worker.rows(1)
    assert (row["outcome"], row["status"], row["delivered_tokens"]) == (outcome, status, 0)
    assert transport.written[: len(answer)] == answer and bool(transport.written) == bool(answer)
    assert backend.site().log == []
