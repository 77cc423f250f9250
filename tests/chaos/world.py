"""What a campaign happens in: one gateway on ports of its own, its backends, and what is known of both so far.

A deed (`tests.chaos.deeds`, `tests.crash.deeds`) does something to the gateway while visitors come; it notes when,
since whoever was there at that moment is judged by what must hold even then.
"""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from random import Random, choice

from tests.chaos.books import Span
from tests.chaos.scenes import configuration
from tests.fakes.backend import ScriptedBackend
from tests.fakes.configurations import Document
from tests.fakes.gateway import POLL_S, Gateway

REPLACED_S = 30.0
# Below the range that systems take ports of outgoing connections from: those of a campaign would be in the way.
PORTS = range(20_000, 30_000)
PORT_TRIES = 100


@dataclass(slots=True)
class Report:
    """What became of it."""

    seed: int
    requests: int = 0
    rows: int = 0
    deeds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    manners: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def line(self) -> str:
        done = "".join(f", {count} {what}" for what, count in sorted(self.deeds.items()))
        return f"{self.requests} requests, {self.rows} rows{done}, {len(self.findings)} findings"

    @contextmanager
    def finding(self, what: str) -> Iterator[None]:
        """What is not as it must be inside is noted, and the campaign goes on."""
        try:
            yield
        except AssertionError as error:
            self.findings.append(f"{what}: {error}")


class World:
    """One gateway of so many workers. Its addresses stay the same through all restarts."""

    def __init__(self, scripted: ScriptedBackend, dead_url: str, report: Report, workers: int) -> None:
        self.scripted = scripted
        self.dead_url = dead_url
        self.report = report
        self.workers = workers
        self.rng = Random(report.seed + 1)
        self.spans: list[Span] = []
        self.serving = asyncio.Event()  # visitors wait while nobody could answer them
        self.serving.set()
        self.at_work = asyncio.Lock()  # one thing at a time: a deed, or the books
        self.gateway: Gateway
        self._addresses = {name: _free_address() for name in ("listen", "admin_listen")}

    def configuration(self, *, near: bool, price: float) -> Document:
        settings = {**self._addresses, "workers": self.workers}
        return configuration(self.scripted, self.dead_url, near=near, price=price, gateway=settings)

    @asynccontextmanager
    async def disturbed(self, what: str) -> AsyncIterator[None]:
        """Around a deed: all who are there meanwhile may have been hit."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            with self.report.finding(what):
                yield
        finally:
            self.spans.append(Span(began_at, loop.time()))
            self.report.deeds[what] += 1

    def descriptors(self) -> int:
        """Open descriptors of all workers together."""
        return sum(len(os.listdir(f"/proc/{worker}/fd")) for worker in self.gateway.workers())

    async def all_serve(self) -> None:
        """Wait until each worker answers: it has opened what it keeps open."""
        async with asyncio.timeout(REPLACED_S):
            while len((await self.gateway.status())["workers"]) < self.workers:  # noqa: ASYNC110  in other processes
                await asyncio.sleep(POLL_S)


Deed = Callable[[World], Awaitable[None]]


def _free_address() -> str:
    for _ in range(PORT_TRIES):
        port = choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"
    raise RuntimeError(f"no free port among {PORTS}")
