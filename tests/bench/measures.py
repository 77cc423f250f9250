"""The parts of the bench, each by its name: what it starts, in which order it asks, and which figures come of it."""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.bench.cpu import cpus_s
from tests.bench.figures import Figures
from tests.bench.held import Held, Hold
from tests.bench.load import Result
from tests.bench.loads import FOLD_S, LOADS, Load, Size, run_of
from tests.bench.stage import AIOHTTP, TOKENPORT, Stage, Subject, opened, run_module, say
from tests.fakes.gateway import Gateway
from tests.fakes.tls import Authority

LARGE_PROMPT_BYTES = 15 * 1024 * 1024
LARGE_PROMPTS = 4
# More slots than streams, so that nothing is refused; and a reader may stall for longer than it will.
ROOMY = 512
STALL_SPARE_S = 30.0
ALTERNATING = ("small", "prompt", "paced", "flat")
WARM_UP = ("small", "flat")
WARM_UP_STREAMS = 100
ONE, TWO = "one", "two"


class Bench:
    """One execution."""

    def __init__(self, stage: Stage, size: Size, directory: Path) -> None:
        self._stage = stage
        self._size = size
        self._directory = directory
        self.figures = Figures()

    async def measure(self, names: Iterable[str]) -> None:
        """Do these parts."""
        wanted = set(names)
        loads = [name for name in ALTERNATING if name in wanted]
        if loads:
            await self._rounds(loads, self._size.rounds)
        if "wide" in wanted:
            await self._rounds(["wide"], self._size.wide_rounds)
        for name, part in PARTS.items():
            if name in wanted:
                say(name)
                await part(self)

    # ---- CPU per unit, beside the floors

    async def _rounds(self, names: list[str], count: int) -> None:
        subjects = list(self._stage.subjects)
        say("warming up")
        for subject in subjects:
            for name in WARM_UP:
                await self._run(LOADS[name], subject, replace(self._size, seconds=0.2, flat_events=200))
        for n in range(count):
            say(f"{', '.join(names)}: round {n + 1} of {count}")
            for name in names:
                load = LOADS[name]
                for subject in subjects:
                    if subject.name in load.subjects:
                        self.figures.add(name, subject.name, await self._run(load, subject, self._size))
            subjects.append(subjects.pop(0))

    async def _run(self, load: Load, subject: Subject, size: Size) -> Result:
        told = asdict(run_of(load, subject, size))
        if subject.name == TOKENPORT:
            return Result(**await self._stage.house.run("load", told))
        return Result(**await run_module("load", json.dumps(told)))

    # ---- the rest

    async def first_tokens(self) -> None:
        stage, size = self._stage, self._size
        ports = {subject.name: subject.port for subject in stage.subjects if subject.name != AIOHTTP}
        told = await stage.house.run(
            "first_token",
            {
                "ports": {"direct": stage.backend_port, **ports},
                "requests": size.first_tokens,
                "requests_after_20_ms": size.first_tokens_after_20_ms,
                "directory": str(stage.house.gateway.directory),
            },
        )
        self.figures.first_tokens = {"at once": told["at_once"], "after 20 ms": told["after_20_ms"]}
        self.figures.sync_s = told["sync"]

    async def parts(self) -> None:
        gateway, pids = self._stage.house.gateway, self._stage.house.subject.pids
        await asyncio.sleep(2 * FOLD_S)
        before = sum(cpus_s(pids))
        await asyncio.sleep(self._size.idle_s)
        self.figures.idle_cpu_share = (sum(cpus_s(pids)) - before) / self._size.idle_s
        told = await run_module("parts", str(gateway.config), str(self._size.part_s))
        self.figures.decide_us = told["decide"]

    async def ledger(self) -> None:
        """The ledger without the rest of a worker, on the disk that the gateway's is on."""
        gateway, size = self._stage.house.gateway, self._size
        with tempfile.TemporaryDirectory(dir=gateway.directory) as directory:
            told = (str(gateway.config), directory, str(size.part_s), str(size.rounds))
            self.figures.ledger = await run_module("ledger", *told)

    async def month(self) -> None:
        """Many rows: what they take, how fast they are folded and summed up."""
        with tempfile.TemporaryDirectory(dir=self._directory) as directory:
            self.figures.month = await run_module("month", directory, str(self._size.month_rows))

    async def held(self) -> None:
        size = self._size
        self.figures.held["plain"] = size.streams, await self._hold("streams", size.streams, size.held_s)

    async def tls(self) -> None:
        authority = Authority(self._directory / "authority")
        self.figures.held["tls"] = (
            self._size.tls_streams,
            await self._hold(
                "streams",
                self._size.tls_streams,
                self._size.held_s,
                gateway={"tls": authority.server_files()},
                ca_file=str(authority.file),
            ),
        )

    async def stalled(self) -> None:
        size = self._size
        found = await self._hold(
            "stalled",
            size.among_stalled,
            size.stall_s,
            limits={"write_stall_s": size.stall_s + STALL_SPARE_S},
            stalled=size.stalled,
        )
        self.figures.held["stalled"] = size.stalled, found

    async def large(self) -> None:
        tokens = self._size.answer_tokens
        self.figures.held["answer"] = tokens, await self._hold("large", 0, 0.0, answer_tokens=tokens)
        found = await self._hold("large", 0, 0.0, prompt_bytes=LARGE_PROMPT_BYTES, prompts=LARGE_PROMPTS)
        self.figures.held["prompts"] = LARGE_PROMPTS, found

    async def _hold(
        self,
        kind: str,
        streams: int,
        seconds: float,
        *,
        limits: Mapping[str, Any] | None = None,
        gateway: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Held:
        """In a gateway of its own, that has served some streams before."""
        directory = self._directory / f"held-{len(self.figures.held)}"
        async with opened(directory, self._stage.backend_port, slots=ROOMY, limits=limits, gateway=gateway) as house:
            [worker] = house.gateway.workers()
            hold = Hold(kind, house.subject.port, worker, streams, seconds, **more)
            warm = replace(hold, kind="streams", streams=min(streams, WARM_UP_STREAMS) or 1, seconds=0.5, stalled=0)
            await house.run("held", asdict(warm))
            if not hold.ca_file:
                await house.run("load", asdict(run_of(LOADS["small"], house.subject, self._size)))
            return Held(**await house.run("held", asdict(hold)))

    async def workers(self) -> None:
        """Two workers beside one: the same loads in turn, limits shared."""
        async with (
            opened(self._directory / ONE, self._stage.backend_port, gateway={"workers": 1}) as one,
            opened(self._directory / TWO, self._stage.backend_port, gateway={"workers": 2}) as two,
        ):
            houses = [(ONE, one), (TWO, two)]
            for n in range(self._size.rounds):
                say(f"workers: round {n + 1} of {self._size.rounds}")
                for name in ("small", "paced"):
                    for title, house in houses:
                        before = _ends(two.gateway)
                        found = await house.run("load", asdict(run_of(LOADS[name], house.subject, self._size)))
                        self.figures.add_workers(name, title, Result(**found))
                        if name == "small" and house is two:
                            self.figures.shares.append(_shares(_ends(two.gateway) - before))
                houses.reverse()


def _ends(gateway: Gateway) -> Counter[str]:
    """Requests that have ended, by the log of their worker."""
    found: Counter[str] = Counter()
    for directory in (gateway.data_dir / "ledger").iterdir():
        for segment in directory.glob("[0-9]*.jsonl"):
            found[directory.name] += segment.read_bytes().count(b'"record":"settled"')
    return found


def _shares(ends: Counter[str]) -> list[float]:
    return [count / ends.total() for count in ends.values()]


PARTS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "ttft": Bench.first_tokens,
    "parts": Bench.parts,
    "ledger": Bench.ledger,
    "month": Bench.month,
    "held": Bench.held,
    "tls": Bench.tls,
    "stalled": Bench.stalled,
    "large": Bench.large,
    "workers": Bench.workers,
}
NAMES = (*ALTERNATING, "wide", *PARTS)
