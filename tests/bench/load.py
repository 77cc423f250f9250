"""One measured run: a load on one port, and the CPU that the processes behind it used meanwhile.

    small   16 connections, each sends its next request when it has its answer      CPU per request
    paced   streams whose events come one by one                                    CPU per event, requests left out
    flat    streams as fast as they go                                              CPU per event, requests included

Every answer is compared with what the backend sent, byte by byte; a difference ends the run with an error. A run is a
process of its own: `python -m tests.bench.load '{"kind": "small", ...}'` prints its result as JSON.
"""

import asyncio
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TypeVar, cast

import uvloop

from tests.bench.answers import ANSWER, ANSWER_TOKENS, LAST_CHUNK, Plan, dechunked
from tests.bench.cpu import cpus_s
from tests.bench.serving import HOST

# How long connections and streams get to come to a steady state, before and after the measured time.
RAMP_S = 0.4
RUN_S_MAX = 30.0
GOOD = b"HTTP/1.1 200 "
# What a process tree may use in a quarter of a second and still be called quiet, and how long to wait for that.
QUIET_CPU_S = 0.003
QUIET_LOOK_S = 0.25
QUIET_WAIT_S_MAX = 6.0


@dataclass(frozen=True, slots=True)
class Run:
    """What to measure."""

    kind: str
    port: int
    pids: Sequence[int]  # whose CPU counts
    connections: int
    seconds: float  # small, paced
    events: int = 0  # flat: of each stream
    burst: int = 1
    gap_s: float = 0.0
    work_behind_s: float = 0.0  # work may begin so long after the last answer: it is waited for and counted


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured."""

    units: int  # requests or events within the measured time
    cpu_s: Sequence[float]  # of each process
    wall_s: float
    requests: int  # in all, those outside the measured time too
    tokens: int


class WrongBytes(Exception):
    """An answer is not what the backend sent."""


class Meter:
    """The time and CPU between two moments."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._from = time.perf_counter()
        self._cpu_from = cpus_s(run.pids)

    async def result(self, units: int, requests: int, tokens: int) -> Result:
        """Now is the second moment; what the processes still do behind the answers is waited for."""
        wall_s = time.perf_counter() - self._from
        if self._run.work_behind_s:
            await self._quiet()
        used = [now - before for now, before in zip(cpus_s(self._run.pids), self._cpu_from, strict=True)]
        return Result(units, used, wall_s, requests, tokens)

    async def _quiet(self) -> None:
        await asyncio.sleep(self._run.work_behind_s)
        until = time.perf_counter() + QUIET_WAIT_S_MAX
        while time.perf_counter() < until:
            before = sum(cpus_s(self._run.pids))
            await asyncio.sleep(QUIET_LOOK_S)
            if sum(cpus_s(self._run.pids)) - before < QUIET_CPU_S:
                return


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
    """Reads one stream."""

    def __init__(self, failed: asyncio.Future[None]) -> None:
        super().__init__(failed)
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
        tail = (self._tail + data[-7:])[-7:]
        self._tail = tail
        if tail == b"\r\n" + LAST_CHUNK:
            self.end()

    def check(self, payload: bytes) -> None:
        """Raises WrongBytes: this is not the stream."""
        head, _, body = self.received().partition(b"\r\n\r\n")
        try:
            found = dechunked(body)
        except ValueError as error:
            raise WrongBytes(f"not a whole stream: {error}: {head!r}") from None
        if found != payload:
            raise WrongBytes(f"not the stream: {head!r} {found[:300]!r}")


Client = TypeVar("Client", bound=Connection)


@asynccontextmanager
async def connected(run: Run, make: Callable[[], Client]) -> AsyncIterator[list[Client]]:
    """The run's connections; closed at its end."""
    loop = asyncio.get_running_loop()
    made = [(await loop.create_connection(make, HOST, run.port))[1] for _ in range(run.connections)]
    try:
        yield made
    finally:
        for connection in made:
            connection.close()


async def small(run: Run, askers: Sequence[Asker]) -> Result:
    """A closed loop of small requests."""
    for asker in askers:
        asker.ask()
    while min(asker.answers for asker in askers) < 5:  # noqa: ASYNC110  counted by the protocols, not told
        await asyncio.sleep(0.002)
    meter, before = Meter(run), sum(asker.answers for asker in askers)
    await asyncio.sleep(run.seconds)
    for asker in askers:
        asker.stopping = True
    await asyncio.gather(*(asker.ended for asker in askers))
    answers = sum(asker.answers for asker in askers)
    return await meter.result(answers - before, answers, answers * ANSWER_TOKENS)


async def streams(run: Run, listeners: Sequence[Listener]) -> Result:
    """Streams side by side, paced or flat out."""
    events = round((2 * RAMP_S + run.seconds) / run.gap_s) if run.gap_s else run.events
    plan = Plan(events, run.burst, run.gap_s)
    request = plan.request()
    if not run.gap_s:
        meter = Meter(run)
    for listener in listeners:
        listener.transport.write(request)
    if run.gap_s:
        await asyncio.sleep(RAMP_S)
        meter, before = Meter(run), sum(listener.events for listener in listeners)
        await asyncio.sleep(run.seconds)
        units = sum(listener.events for listener in listeners) - before
        result = await meter.result(units, run.connections, run.connections * events)
        if any(listener.ended.done() for listener in listeners):
            raise WrongBytes("a paced stream ended before its time")
    await asyncio.gather(*(listener.ended for listener in listeners))
    if not run.gap_s:
        result = await meter.result(run.connections * events, run.connections, run.connections * events)
    payload = plan.payload()
    for listener in listeners:
        listener.check(payload)
    return result


async def _measure(run: Run, failed: asyncio.Future[None]) -> Result:
    if run.kind == "small":
        request = Plan().request()
        async with connected(run, lambda: Asker(failed, request)) as askers:
            return await small(run, askers)
    async with connected(run, lambda: Listener(failed)) as listeners:
        return await streams(run, listeners)


async def measure(run: Run) -> Result:
    """Do a run.

    Raises:
        WrongBytes: an answer differs from what was sent.
        TimeoutError: it did not end.
    """
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    work = asyncio.ensure_future(_measure(run, failed))
    async with asyncio.timeout(RUN_S_MAX):
        failed.add_done_callback(lambda _: work.cancel())
        try:
            return await work
        except asyncio.CancelledError:
            if failed.done():
                failed.result()
            raise


def main(told: str) -> int:
    try:
        result = uvloop.run(measure(Run(**json.loads(told))))
    except WrongBytes as error:
        print(error, file=sys.stderr)
        return 1
    except TimeoutError:
        print(f"not all answers came within {RUN_S_MAX:g} s", file=sys.stderr)
        return 1
    print(json.dumps(asdict(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
