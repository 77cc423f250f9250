"""The clients of the loads: one kind asks questions one after another, one reads streams; all compare every byte."""

import asyncio
import json
import resource
import ssl
import sys
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, TypeVar, cast

import uvloop

from tests.bench.answers import ANSWER, LAST_CHUNK, dechunked, stamps, unstamped
from tests.bench.serving import HOST

GOOD = b"HTTP/1.1 200 "


class WrongBytes(Exception):
    """An answer is not what the backend sent."""


class Connection(asyncio.Protocol, ABC):
    """A client's connection. A failure of any ends the run."""

    def __init__(self, failed: asyncio.Future[None]) -> None:
        self._failed = failed
        self._closing = False
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self.fail(f"the connection was closed ({exc}) after {self.received()[-300:]!r}")

    def close(self) -> None:
        self._closing = True
        self.transport.abort()

    @abstractmethod
    def received(self) -> bytes:
        """What has come of the answer under way."""

    def fail(self, problem: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(WrongBytes(problem))

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Asker(Connection):
    """Sends small requests one after another."""

    def __init__(self, failed: asyncio.Future[None], request: bytes) -> None:
        super().__init__(failed)
        self._request = request
        self._buffer = b""
        self.answers = 0
        self.stopping = False

    def ask(self) -> None:
        self.transport.write(self._request)

    def received(self) -> bytes:
        return self._buffer

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not buffer.endswith(ANSWER):
            self._buffer = buffer
            head, _, body = buffer.partition(b"\r\n\r\n")
            if not head.startswith(GOOD) or len(body) >= len(ANSWER):
                self.fail(f"not the answer: {buffer[:300]!r}")
            return
        self._buffer = b""
        if not buffer.startswith(GOOD) or buffer.count(ANSWER) != 1:
            self.fail(f"not one whole answer: {buffer[:300]!r}")
            return
        self.answers += 1
        if self.stopping:
            self.end()
        else:
            self.transport.write(self._request)


class Listener(Connection):
    """Reads one stream. With `lags_s`, adds to it how long each event was under way."""

    def __init__(self, failed: asyncio.Future[None], lags_s: "array[float] | None" = None) -> None:
        super().__init__(failed)
        self._lags_s = lags_s
        self._begun = b""  # of an event that is not here whole
        self._pieces: list[bytes] = []
        self._tail = b""
        self.events = 0

    def received(self) -> bytes:
        return b"".join(self._pieces)

    def data_received(self, data: bytes) -> None:
        if not self._pieces and not data.startswith(GOOD):
            self.fail(f"not a stream: {data[:300]!r}")
        self._pieces.append(data)
        self.events += data.count(b"data: ")
        if self._lags_s is not None:
            self._clock(data, self._lags_s)
        tail = (self._tail + data[-7:])[-7:]
        self._tail = tail
        if tail == b"\r\n" + LAST_CHUNK:
            self.end()

    def _clock(self, data: bytes, lags_s: "array[float]") -> None:
        now = time.monotonic()
        data = self._begun + data
        self._begun = data[data.rfind(b"\n") + 1 :]
        for sent_at in stamps(data):
            lags_s.append(now - float(sent_at))

    def check(self, payload: bytes) -> None:
        """Raises WrongBytes: this is not the stream."""
        head, _, body = self.received().partition(b"\r\n\r\n")
        self._pieces.clear()
        try:
            found = dechunked(body) if self._lags_s is None else unstamped(dechunked(body))
        except ValueError as error:
            raise WrongBytes(f"not a whole stream: {error}: {head!r}") from None
        if found != payload:
            raise WrongBytes(f"not the stream: {head!r} {found[:300]!r}")


Client = TypeVar("Client", bound=Connection)


@asynccontextmanager
async def connected(
    port: int, count: int, make: Callable[[], Client], tls: ssl.SSLContext | None = None
) -> AsyncIterator[list[Client]]:
    """So many connections; closed at the end."""
    loop = asyncio.get_running_loop()
    made: list[Client] = []
    try:
        while len(made) < count:
            made.append((await loop.create_connection(make, HOST, port, ssl=tls))[1])
        yield made
    finally:
        for connection in made:
            connection.close()


Found = TypeVar("Found")


async def unless_failed(
    work: Callable[[asyncio.Future[None]], Coroutine[Any, Any, Found]], seconds_max: float
) -> Found:
    """Do work whose connections fail by that future.

    Raises:
        WrongBytes: one of them did.
        TimeoutError: it did not end.
    """
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(work(failed))
    async with asyncio.timeout(seconds_max):
        failed.add_done_callback(lambda _: task.cancel())
        try:
            return await task
        except asyncio.CancelledError:
            if failed.done():
                failed.result()
            raise


def tell(work: Coroutine[Any, Any, Any]) -> int:
    """Run this to its end and print what it found, a dataclass, as JSON. Returns the exit status."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor for every stream
    try:
        print(json.dumps(asdict(uvloop.run(work))))
    except WrongBytes as error:
        print(error, file=sys.stderr)
        return 1
    except TimeoutError:
        print("not all answers came in time", file=sys.stderr)
        return 1
    return 0
