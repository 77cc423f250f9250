"""The floor: the least a process can do between two sockets. Bytes in, the same bytes out, with backpressure.

It parses nothing: every client connection has its own connection to the backend.
"""

import asyncio
import sys
from typing import cast

from tests.bench.serving import HOST, serve_protocol

BACKEND_PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 0


class Side(asyncio.Protocol):
    """One of the two connections of a pair."""

    transport: asyncio.Transport
    other: asyncio.Transport | None = None

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


class Client(Side):
    """The client's side: opens the backend's, and keeps what arrives before that is there."""

    def __init__(self) -> None:
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._connecting = asyncio.ensure_future(self._connect())

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)
        else:
            self._early.append(data)

    async def _connect(self) -> None:
        transport, backend = await asyncio.get_running_loop().create_connection(Side, HOST, BACKEND_PORT)
        backend.other, self.other = self.transport, transport
        transport.write(b"".join(self._early))


if __name__ == "__main__":
    serve_protocol(Client)
