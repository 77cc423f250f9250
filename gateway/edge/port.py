"""What all connections of a worker share: limits, the way in, the counts that bound them, and one sweep of deadlines.

Deadlines are absolute times in a field of whoever has one; a single timer looks at all of them a few times a second.
That makes a deadline cost one store per event instead of a timer, and no client can push one back by sending a byte.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from gateway.config import Limits
from gateway.ledger.cells import Workers
from gateway.wire.http1 import HeadLimits, RequestHead
from gateway.wire.http1_memory import request_heads

SWEEP_S = 0.25


class Expiring(Protocol):
    """Has a deadline on the loop's clock and an answer to its passing."""

    deadline: float

    def expire(self, now: float) -> None: ...


class Connection(Expiring, Protocol):
    """What the port needs of a client connection."""

    @property
    def unsent_bytes(self) -> int: ...

    def close_idle(self) -> None: ...


# Called with a connection and its request head, before the body is read: says who takes the body, or raises ApiError.
Opener = Callable[[Any, RequestHead], Callable[[bytes], None]]


class Port:
    """One worker's side of the public port."""

    # Set once, before the first connection: whoever opens requests needs a port to do it.
    open: Opener

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop, workers: Workers) -> None:
        self.install(limits)
        self.workers = workers
        self.loop = loop
        self.now = loop.time
        self.draining = False
        self.next_sweep_at = 0.0
        self._connections: set[Connection] = set()
        self._shaking = 0
        self._stopped = False
        self._body_bytes = 0
        self._expiring: set[Expiring] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._on_sweep: list[Callable[[float], None]] = []

    def install(self, limits: Limits) -> None:
        """Take these limits, for the connections that are there as well."""
        self.limits = limits
        self.heads = request_heads(HeadLimits(limits.head_bytes_max, limits.fields_max, limits.line_bytes_max))

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def held(self) -> int:
        """Connections, and those whose handshake is under way."""
        return len(self._connections) + self._shaking

    def shaking(self, change: int) -> None:
        """So many handshakes more are under way."""
        self._shaking += change
        self._tell_held()

    def enter(self, connection: Connection) -> bool:
        """Register a connection. False: over the bound, it must be told and closed."""
        self._connections.add(connection)
        self._tell_held()
        return len(self._connections) <= self.limits.connections_max

    def leave(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._tell_held()

    def _tell_held(self) -> None:
        if not self._stopped:
            self.workers.hold(self.held)

    def take_body_bytes(self, count: int) -> bool:
        """Reserve memory for request bodies. False: the worker's bound is reached."""
        if self._body_bytes + count > self.limits.bodies_bytes_max:
            return False
        self._body_bytes += count
        return True

    def return_body_bytes(self, count: int) -> None:
        self._body_bytes -= count

    def watch(self, expiring: Expiring) -> None:
        """Sweep this one's deadline too, until `unwatch`."""
        self._expiring.add(expiring)

    def unwatch(self, expiring: Expiring) -> None:
        self._expiring.discard(expiring)

    def on_sweep(self, call: Callable[[float], None]) -> None:
        """Something else to do at every sweep: idle pools, disk space."""
        self._on_sweep.append(call)

    def start(self) -> None:
        """Begin to sweep. Short limits are swept as finely as they need."""
        shortest_s = min(self.limits.head_s, self.limits.body_s, self.limits.idle_s, self.limits.gap_s)
        self._sweep(min(SWEEP_S, max(0.01, shortest_s / 8)))

    def stop(self) -> None:
        """No sweep any more. Connections may still leave when the cells that say how many there are, are closed."""
        self._stopped = True
        if self._sweeper is not None:
            self._sweeper.cancel()

    def close_idle(self) -> None:
        """Draining: connections that wait for a next request are closed now."""
        for connection in list(self._connections):
            connection.close_idle()

    async def flushed(self, timeout_s: float) -> None:
        """Wait until all that was answered has left this process, at most so long."""
        until = self.now() + timeout_s
        while self.now() < until and any(each.unsent_bytes for each in self._connections):  # noqa: ASYNC110
            # Polled: a transport says when it is below a mark, not when it is empty, and this is the end of a process.
            await asyncio.sleep(0.05)

    def _sweep(self, every_s: float) -> None:
        now = self.now()
        self.next_sweep_at = now + every_s
        for group in (self._connections, self._expiring):
            self._expire(group, now)
        for call in self._on_sweep:
            call(now)
        self._sweeper = self.loop.call_later(every_s, self._sweep, every_s)

    def _expire(self, group: Iterable[Expiring], now: float) -> None:
        for each in [each for each in group if each.deadline <= now]:
            each.expire(now)
