"""The campaign: faulty backends, ill-mannered clients, and deeds in between; then the books are closed.

After the last visitor everything must come back to where it began: nothing in flight, no socket and no descriptor more
than before, and a ledger that `verify` takes and whose index is the one that is made of its logs. A long campaign goes
in rounds, each with books of its own, so that it needs no more memory than a short one and says early what is wrong.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.books import Books
from tests.chaos.index import index_findings
from tests.chaos.plan import Visit, plan
from tests.chaos.scenes import SCENES
from tests.chaos.visitors import Account, Visitor
from tests.chaos.world import Deed, Report, World
from tests.fakes.backend import ScriptedBackend, refusing_port
from tests.fakes.configurations import toml
from tests.fakes.gateway import POLL_S, Gateway, Row, eventually
from tests.integration.stage import nothing_is_held

AT_ONCE = 48
ROUND = 5000  # requests
# Idle connections to backends are kept for four seconds; a sweep and a status call come on top.
QUIET_S = 20.0
# A hundred thousand rows, on a machine that does other things as well.
READ_S = 300.0

Say = Callable[[str], None]


class Campaign:
    """One execution."""

    def __init__(self, world: World, visits: Sequence[Visit], deeds: Sequence[Deed], say: Say) -> None:
        self._world = world
        self._visits = visits
        self._deeds = deeds
        self._say = say
        self._total = sum(len(visit.errands) for visit in visits)
        self._next_seq: dict[int, int] = {}
        self._accounts: list[Account] = []  # of this round
        self._closed = 0  # requests of earlier rounds
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Everybody comes; meanwhile it happens what shall; then all is counted."""
        world = self._world
        await world.all_serve()
        before = world.descriptors()
        disturbing = asyncio.create_task(self._disturb())
        saying = asyncio.create_task(self._say_all_the_time())
        try:
            for visits in _rounds(self._visits):
                await self._round(visits, before)
            self._over.set()
            await disturbing
        finally:
            for task in (disturbing, saying):
                task.cancel()

    @property
    def _come(self) -> int:
        return self._closed + len(self._accounts)

    async def _round(self, visits: Sequence[Visit], before: int) -> None:
        since = datetime.now(UTC).isoformat()
        coming = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for visit in visits:
                await coming.acquire()
                await self._world.serving.wait()
                group.create_task(self._visit(visit, coming))
        async with self._world.at_work:
            self._say("everybody has left; the books are closed")
            known = len(self._world.report.findings)
            await self._quiet(before)
            await self._close_books(since)
            for finding in self._world.report.findings[known:]:
                self._say(finding)

    async def _visit(self, visit: Visit, coming: asyncio.Semaphore) -> None:
        try:
            self._accounts += await Visitor(self._world.gateway.url, self._world.scripted, visit).come()
        finally:
            coming.release()

    async def _say_all_the_time(self) -> None:
        while True:
            await asyncio.sleep(2)
            self._say(f"{self._come} of {self._total}: {self._world.report.line()}")

    async def _disturb(self) -> None:
        """All deeds, spread over the campaign at random, one at a time."""
        world, deeds = self._world, self._deeds
        for number, deed in enumerate(deeds):
            moment = self._total * (number + world.rng.random()) // len(deeds)
            while self._come < moment and not self._over.is_set():  # noqa: ASYNC110  a count, not an event
                await asyncio.sleep(POLL_S)
            async with world.at_work:
                await deed(world)

    # ---- afterwards

    async def _quiet(self, before: int) -> None:
        """Nothing in flight, nothing open, nothing left over."""
        world, report = self._world, self._world.report
        await world.all_serve()
        with report.finding("leases"):
            await nothing_is_held(world.gateway)
        with report.finding("connections of backends"):
            # Probes come and go.
            await eventually(lambda: world.scripted.open_connections <= len(SCENES), "backends are left", QUIET_S)
        with report.finding("descriptors"):
            await eventually(lambda: world.descriptors() <= before, f"as few as {before}", QUIET_S)
        unfinished = [each for entries in world.scripted.served.values() for each in entries if not each.ended]
        report.findings += [f"{entry.request_id}: a backend still answers it" for entry in unfinished]

    async def _close_books(self, since: str) -> None:
        world, report, accounts = self._world, self._world.report, self._accounts
        rows = await self._rows(since)
        books = Books(accounts, rows, world.scripted.served, world.spans, self._next_seq)
        report.findings += await asyncio.to_thread(books.findings)
        with report.finding("verify"):
            verified = await world.gateway.verify(READ_S)
            assert verified.status == 0, verified.stdout + verified.stderr
        report.requests += len(accounts)
        report.rows += len(rows)
        report.manners.update(account.manner for account in accounts)
        report.outcomes.update(row["outcome"] for row in rows)
        report.sources.update(row["count_source"] for row in rows)
        self._closed += len(accounts)
        self._accounts = []
        world.spans.clear()
        world.scripted.forget()

    async def _rows(self, since: str) -> list[Row]:
        """The rows of this round: all earlier ones had ended when it began."""
        return await self._world.gateway.export("--from", since, timeout_s=READ_S)


def _rounds(visits: Iterable[Visit]) -> Iterator[list[Visit]]:
    taken: list[Visit] = []
    requests = 0
    for visit in visits:
        taken.append(visit)
        requests += len(visit.errands)
        if requests >= ROUND:
            yield taken
            taken, requests = [], 0
    if taken:
        yield taken


@asynccontextmanager
async def _stage(directory: Path, report: Report, workers: int) -> AsyncIterator[World]:
    async with ScriptedBackend() as scripted:
        with refusing_port() as port:
            world = World(scripted, f"http://127.0.0.1:{port}/v1", report, workers)
            async with Gateway(directory, toml(world.configuration(near=True, price=10.0))) as gateway:
                world.gateway = gateway
                yield world


async def campaign(
    directory: Path,
    *,
    seed: int,
    requests: int,
    deeds: Sequence[tuple[Deed, int]],
    workers: int = 2,
    say: Say = lambda _: None,
) -> Report:
    """Run it and judge it. `deeds` says how often each is done; their order is random."""
    loop = asyncio.get_running_loop()
    report, began_at = Report(seed), loop.time()
    async with _stage(directory, report, workers) as world:
        order = [deed for deed, times in deeds for _ in range(times)]
        world.rng.shuffle(order)
        await Campaign(world, plan(seed, requests), order, say).run()
    # The gateway is stopped: nobody may have anything open, and all is folded.
    with report.finding("verify of the stopped gateway"):
        verified = await world.gateway.verify(READ_S)
        assert verified.status == 0, verified.stdout + verified.stderr
    report.findings += await asyncio.to_thread(index_findings, world.gateway.data_dir)
    report.seconds = loop.time() - began_at
    return report
