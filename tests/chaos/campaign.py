"""The campaign: two workers, faulty backends, ill-mannered clients, kills and reloads; then the books are closed.

After the last visitor everything must come back to where it began: nothing in flight, no socket and no descriptor more
than before, and a ledger that `verify` takes.
"""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.books import Books, Span
from tests.chaos.plan import Visit, plan
from tests.chaos.visitors import BODY_BYTES_MAX, Account, Visitor
from tests.fakes.backend import ScriptedBackend, refusing_port
from tests.fakes.configurations import Document, backend, document, link, region, tenant, toml
from tests.fakes.gateway import POLL_S, Gateway, eventually
from tests.integration.stage import nothing_is_held

AT_ONCE = 48
REGIONS = {"near": region("NL", 5.0), "north": region("NO", 10.0), "middle": region("FR", 100.0)}
SCENES: dict[str, dict[str, Any]] = {
    "exact": {},
    "running": {"usage": "continuous"},
    "loose": {"tokens_per_event_max": 4},
    "silent": {},
    "full": {},
    "locked": {},
}
# Long where a busy machine could be taken for a fault, short where visitors wait for it.
LIMITS: dict[str, Any] = {
    "head_s": 1.5,
    "body_s": 1.5,
    "write_stall_s": 4.0,
    "first_content_s": 30.0,
    "gap_s": 30.0,
    "body_bytes_max": BODY_BYTES_MAX,
    "retries_min": 100_000,
    "eject_failures": 10_000,
    "eject_share": 1.0,
    "probe_s": 0.5,
    "slow_start_s": 0.5,
    "drain_s": 5.0,
}
SILENCE_S = 1.0
REPLACED_S = 30.0
# Idle connections to backends are kept for four seconds; a sweep and a status call come on top.
QUIET_S = 20.0


@dataclass(slots=True)
class Report:
    """What became of it."""

    seed: int
    requests: int = 0
    kills: int = 0
    reloads: int = 0
    seconds: float = 0.0
    manners: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def line(self) -> str:
        return f"{self.requests} requests, {self.kills} kills, {self.reloads} reloads, {len(self.findings)} findings"


def configuration(scripted: ScriptedBackend, dead_url: str, *, near: bool, price: float, workers: int) -> Document:
    """All scenes. `near` adds the cheapest backend of one of them, `price` is what the north's power costs."""
    backends, routes = [], []
    for scene, more in SCENES.items():
        names = []
        for where in REGIONS:
            if where == "near" and not (near and scene == "exact"):
                continue
            names.append(f"{scene}-{where}")
            url = scripted.site(names[-1]).url
            backends.append(backend(names[-1], where, url, **{"models": {scene: f"{names[-1]}-model"}, **more}))
        if scene != "exact":
            names.append(f"{scene}-third")
            url = scripted.site(names[-1]).url
            backends.append(backend(names[-1], "middle", url, **{"models": {scene: f"{names[-1]}-model"}, **more}))
        rule: dict[str, Any] = {"model": scene, "backends": names, "objective": "cheapest"}
        if scene == "silent":
            rule |= {"first_content_s": SILENCE_S, "gap_s": SILENCE_S}
        routes.append(rule)
    backends.append(backend("exact-third", "middle", scripted.site("exact-third").url, models={"exact": "third"}))
    routes[0]["backends"].append("exact-third")
    for scene, names in {"dead": ["dead-near"], "half_dead": ["half_dead-near", "half_dead-north"]}.items():
        for name, where in zip(names, REGIONS, strict=False):
            url = dead_url if where == "near" else scripted.site(name).url
            backends.append(backend(name, where, url, models={scene: "m"}))
        routes.append({"model": scene, "backends": names, "objective": "cheapest"})
    regions = {**REGIONS, "north": region("NO", price)}
    return document(
        backends,
        regions=regions,
        links=[link(where) for where in regions],
        routes=routes,
        tenants=[tenant(budget={"tokens": 10**15, "period": "year"})],
        limits=LIMITS,
        gateway={"workers": workers},
    )


class Campaign:
    """One execution."""

    def __init__(
        self,
        gateway: Gateway,
        scripted: ScriptedBackend,
        dead_url: str,
        report: Report,
        visits: list[Visit],
        workers: int,
    ) -> None:
        self._gateway = gateway
        self._scripted = scripted
        self._dead_url = dead_url
        self._report = report
        self._visits = visits
        self._workers = workers
        self._in_force = gateway.config.read_text()
        self._rng = Random(report.seed + 1)
        self._accounts: list[Account] = []
        self._kills: list[Span] = []
        self._over = asyncio.Event()

    async def run(self, *, kills: int, reloads: int, say: Callable[[str], None]) -> None:
        """Everybody comes; meanwhile workers die and configurations change; then all is counted."""
        await all_serve(self._gateway, self._workers)
        before = descriptors(self._gateway)
        disturbing = asyncio.create_task(self._disturb(kills, reloads))
        saying = asyncio.create_task(self._say(say))
        coming = asyncio.Semaphore(AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                for visit in self._visits:
                    await coming.acquire()
                    group.create_task(self._come(visit, coming))
            self._over.set()
            await disturbing
        finally:
            for task in (disturbing, saying):
                task.cancel()
        say("everybody has left; the books are closed")
        await self._quiet(before)
        await self._close_books()

    async def _come(self, visit: Visit, coming: asyncio.Semaphore) -> None:
        try:
            self._accounts += await Visitor(self._gateway.url, self._scripted, visit).come()
        finally:
            coming.release()

    async def _say(self, say: Callable[[str], None]) -> None:
        total = sum(len(visit.errands) for visit in self._visits)
        while True:
            await asyncio.sleep(2)
            report = self._report
            say(f"{len(self._accounts)} of {total} requests, {report.kills} kills, {report.reloads} reloads")

    # ---- what happens to processes and configurations

    async def _disturb(self, kills: int, reloads: int) -> None:
        """Kills and reloads in random order, spread over the campaign, one at a time."""
        deeds = [self._kill] * kills + [self._reload] * reloads
        self._rng.shuffle(deeds)
        total = sum(len(visit.errands) for visit in self._visits)
        for number, deed in enumerate(deeds):
            moment = total * (number + self._rng.random()) // len(deeds)
            while len(self._accounts) < moment and not self._over.is_set():  # noqa: ASYNC110  a count, not an event
                await asyncio.sleep(POLL_S)
            await deed()

    async def _kill(self) -> None:
        loop = asyncio.get_running_loop()
        began_at, worker = loop.time(), self._rng.choice(self._gateway.workers())
        os.kill(worker, signal.SIGKILL)

        def replaced() -> bool:
            return len(set(self._gateway.workers()) - {worker}) == self._workers

        try:
            await eventually(replaced, "another worker", REPLACED_S)
        except AssertionError as error:
            self._report.findings.append(f"worker {worker} was killed: {error}")
        self._kills.append(Span(began_at, loop.time()))
        self._report.kills += 1

    async def _reload(self) -> None:
        """Prices move and the cheapest backend of a scene comes and goes; or the file is bad and changes nothing."""
        gateway, number = self._gateway, self._report.reloads
        content = configuration(
            self._scripted, self._dead_url, near=number % 2 == 1, price=11.0 + number, workers=self._workers
        )
        bad = number % 4 == 3
        sign = "configuration not taken" if bad else "configuration reloaded"
        said = gateway.stderr.count(sign)
        gateway.configure("nonsense = 1\n" + toml(content) if bad else toml(content))
        gateway.signal(signal.SIGHUP)
        try:
            await eventually(lambda: gateway.stderr.count(sign) > said, sign, REPLACED_S)
        except AssertionError as error:
            self._report.findings.append(f"reload {number}: {error}")
        if bad:
            # The commands read the file as well.
            gateway.configure(self._in_force)
        else:
            self._in_force = toml(content)
        self._report.reloads += 1

    # ---- afterwards

    async def _quiet(self, before: int) -> None:
        """Nothing in flight, nothing open, nothing left over."""
        with self._finding("leases"):
            await nothing_is_held(self._gateway)
        await all_serve(self._gateway, self._workers)
        with self._finding("connections of backends"):
            # Probes come and go.
            await eventually(lambda: self._scripted.open_connections <= len(SCENES), "backends are left", QUIET_S)
        with self._finding("descriptors"):
            await eventually(lambda: descriptors(self._gateway) <= before, f"as few as {before}", QUIET_S)
        unfinished = [each for entries in self._scripted.served.values() for each in entries if not each.ended]
        self._report.findings += [f"{entry.request_id}: a backend still answers it" for entry in unfinished]

    @contextlib.contextmanager
    def _finding(self, what: str) -> Any:
        try:
            yield
        except AssertionError as error:
            self._report.findings.append(f"{what}: {error}")

    async def _close_books(self) -> None:
        rows, report = await self._gateway.export(), self._report
        books = Books(self._accounts, rows, self._scripted.served, self._kills)
        report.findings += await asyncio.to_thread(books.findings)
        verified = await self._gateway.verify()
        if verified.status:
            report.findings.append(f"verify: {verified.stdout}{verified.stderr}")
        report.requests = len(self._accounts)
        report.manners.update(account.manner for account in self._accounts)
        report.outcomes.update(row["outcome"] for row in rows)
        report.sources.update(row["count_source"] for row in rows)


def descriptors(gateway: Gateway) -> int:
    """Open descriptors of all workers together."""
    return sum(len(os.listdir(f"/proc/{worker}/fd")) for worker in gateway.workers())


async def all_serve(gateway: Gateway, workers: int) -> None:
    """Wait until each worker answers: it has opened what it keeps open."""
    async with asyncio.timeout(REPLACED_S):
        while len((await gateway.status())["workers"]) < workers:  # noqa: ASYNC110  it happens in other processes
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def _stage(directory: Path, workers: int) -> AsyncIterator[tuple[Gateway, ScriptedBackend, str]]:
    async with ScriptedBackend() as scripted:
        with refusing_port() as port:
            dead_url = f"http://127.0.0.1:{port}/v1"
            content = configuration(scripted, dead_url, near=True, price=10.0, workers=workers)
            async with Gateway(directory, toml(content)) as gateway:
                yield gateway, scripted, dead_url


async def campaign(
    directory: Path,
    *,
    seed: int,
    requests: int,
    kills: int,
    reloads: int,
    workers: int = 2,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run it and judge it."""
    loop = asyncio.get_running_loop()
    report, began_at = Report(seed), loop.time()
    async with _stage(directory, workers) as (gateway, scripted, dead_url):
        running = Campaign(gateway, scripted, dead_url, report, plan(seed, requests), workers)
        await running.run(kills=kills, reloads=reloads, say=say)
    report.seconds = loop.time() - began_at
    return report
