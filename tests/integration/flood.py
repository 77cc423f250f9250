"""One tenant sends twenty times its share: what a quiet one notices of it, on real sockets.

A backend with 50 slots and 200 ms to the first token answers one request per slot and lets the others wait in its
queue. A patient tenant holds 80 % of the slots. A quiet one sends at random, at first alone beside it, then while a
loud one sends twenty times what its part of the slots could serve, and then so again with fair shares switched off.

`python -m tests.integration.flood [REQUESTS [WORKERS]]` takes 2,000 requests of the quiet tenant for each of the three,
some six minutes, and prints what it saw; its exit status is 1 if fair shares did not hold, or nothing was to be seen
without them.
"""

import asyncio
import math
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.fakes.backend import ScriptedBackend
from tests.fakes.client import RawClient
from tests.fakes.configurations import one_site, tenant, toml
from tests.fakes.gateway import Gateway, eventually
from tests.fakes.script import Script
from tests.fakes.streaming import Ask

SLOTS = 50
QUEUE = 10
PATIENT = 40
FIRST_S = 0.2
LOUD_S = 1.0  # that an answer of the loud tenant holds a slot
LOUD_PER_S = 20 * SLOTS / 3 / LOUD_S  # of three tenants
QUIET_PER_S = 20.0
RISE_S_MAX = 0.04
SETTLE_S = 2.0  # after a change, before the quiet tenant is measured

TENANTS = ("patient", "quiet", "loud")
QUIET = Ask(script=Script(tokens=1, first_s=FIRST_S))
LOUD = Ask(script=Script(tokens=8, first_s=FIRST_S, event_s=(LOUD_S - FIRST_S) / 8))
HELD = Ask(script=Script(tokens=3600, event_s=5.0))


@dataclass
class Seen:
    """What came back to one tenant."""

    ttft_s: list[float] = field(default_factory=list)  # infinite where it was refused
    statuses: Counter[int] = field(default_factory=Counter)
    codes: set[str] = field(default_factory=set)
    retry_after_s: set[int] = field(default_factory=set)

    @property
    def p95_s(self) -> float:
        return sorted(self.ttft_s)[int(len(self.ttft_s) * 0.95)]


class Sender:
    """Requests of one tenant at random moments, on connections that stay open."""

    def __init__(self, url: str, key: str, ask: Ask, seed: int) -> None:
        self._url = url
        self._raw = ask.bytes(key)
        self._rng = Random(seed)
        self._idle: list[RawClient] = []
        self._open = AsyncExitStack()
        self._under_way: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Sender":
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Leave what is not answered yet."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._open.aclose()

    async def settled(self) -> None:
        """Until all that was asked is answered."""
        await asyncio.gather(*self._under_way)

    async def send(self, per_s: float, seen: Seen, count: float = math.inf) -> None:
        """So many a second, whatever becomes of them."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        while count > 0:
            count -= 1
            at += self._rng.expovariate(per_s)
            await asyncio.sleep(at - loop.time())
            self.start(seen)

    def start(self, seen: Seen) -> None:
        """One request now."""
        task = asyncio.ensure_future(self._ask(seen))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _ask(self, seen: Seen) -> None:
        """One request, to its end."""
        loop = asyncio.get_running_loop()
        client = self._idle.pop() if self._idle else await self._open.enter_async_context(RawClient.connect(self._url))
        asked_at = loop.time()
        await client.send(self._raw)
        head = await client.head()
        seen.statuses[head.status] += 1
        if head.status == 200:
            # A head with a content event behind it: nothing of a stream is sent before that.
            seen.ttft_s.append(loop.time() - asked_at)
        else:
            seen.ttft_s.append(math.inf)
            seen.retry_after_s.add(int(head.headers["retry-after"]))
        body = b"".join([piece async for piece in client.body(head)])
        if head.status != 200:
            seen.codes.add(body.decode().split('"code":"')[1].split('"')[0])
        self._idle.append(client)


class Flood:
    """The gateway, the backend and the three tenants."""

    def __init__(self, gateway: Gateway, content: dict[str, Any]) -> None:
        self.gateway = gateway
        self._content = content
        self.loud = Seen()

    async def measure(self, count: int, *, loud: bool, fair: bool = True) -> Seen:
        """What so many requests of the quiet tenant see."""
        await self._install(fair)
        self.loud = Seen()
        quiet, url = Seen(), self.gateway.url
        async with Sender(url, "quiet", QUIET, 1) as sender, Sender(url, "loud", LOUD, 2) as noise:
            flood = asyncio.create_task(noise.send(LOUD_PER_S, self.loud)) if loud else None
            await sender.send(QUIET_PER_S, Seen(), round(SETTLE_S * QUIET_PER_S))
            await sender.send(QUIET_PER_S, quiet, count)
            await sender.settled()
            if flood is not None:
                flood.cancel()
                await asyncio.gather(flood, return_exceptions=True)
        return quiet

    async def _install(self, fair: bool) -> None:
        before = self.gateway.stderr.count("configuration reloaded")
        if self._content["limits"].get("fair_share", True) is fair:
            return
        self._content["limits"]["fair_share"] = fair
        self.gateway.configure(toml(self._content))
        self.gateway.signal(signal.SIGHUP)
        await eventually(lambda: self.gateway.stderr.count("configuration reloaded") > before, "the reload")


@asynccontextmanager
async def flooded(directory: Path, workers: int = 1) -> AsyncIterator[Flood]:
    """Everything in place: the patient tenant has its answers, and nobody else is there."""
    async with ScriptedBackend() as scripted:
        site = scripted.site()
        site.slots = asyncio.Semaphore(SLOTS)
        content = one_site(site.url, slots=SLOTS, queue_max=QUEUE)
        content["gateway"]["workers"] = workers
        content["tenants"] = [tenant(name, name) for name in TENANTS]
        async with (
            Gateway(directory, toml(content)) as gateway,
            Sender(gateway.url, "patient", HELD, 3) as patient,
        ):
            held = Seen()
            for _ in range(PATIENT):
                patient.start(held)
            await eventually(lambda: held.statuses[200] == PATIENT, "the slots are taken")
            yield Flood(gateway, content)


async def _main(count: int = 2000, workers: int = 1) -> int:
    with tempfile.TemporaryDirectory() as directory:
        async with flooded(Path(directory), workers) as flood:
            alone = await flood.measure(count, loud=False)
            print(f"alone: p95 {alone.p95_s * 1000:.1f} ms over {count} requests", flush=True)
            rises = []
            for fair in (True, False):
                seen = await flood.measure(count, loud=True, fair=fair)
                rises.append(seen.p95_s - alone.p95_s)
                print(
                    f"fair_share = {str(fair).lower()}: p95 {seen.p95_s * 1000:.1f} ms, {rises[-1] * 1000:+.1f} ms; "
                    f"refused {seen.statuses[503]} of the quiet, {flood.loud.statuses[503]} of "
                    f"{flood.loud.statuses.total()} of the loud",
                    flush=True,
                )
    return 0 if rises[0] <= RISE_S_MAX < rises[1] else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(*map(int, sys.argv[1:]))))
