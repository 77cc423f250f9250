"""`make bench`: what a request and a token cost here, beside the least they could cost, measured in the same minutes.

Three subjects stand between the same load and the same backend, in alternating rounds: a bare relay (the floor), a
plain pass-through written with aiohttp, and tokenport with everything on. Times of a shared machine are noisy; the
ratios within a round are what counts. It never fails on a time, only when something is wrong: an answer that is not
what the backend sent, or a ledger that does not have exactly one whole row per request.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.bench.cpu import cpus_s
from tests.bench.figures import LOADS, Figures, page
from tests.bench.load import Result, Run
from tests.bench.results import write_results
from tests.bench.stage import TOKENPORT, BenchFailed, Stage, Subject, run_module, staged
from tests.fakes.gateway import GatewayFailed, eventually

# The supervisor folds what workers wrote once a second.
FOLD_S = 1.2


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: float  # of a run
    flat_events: int  # of each stream
    first_tokens: int
    part_s: float
    idle_s: float


WHOLE = Size(rounds=5, seconds=2.0, flat_events=6000, first_tokens=300, part_s=0.4, idle_s=3.0)
QUICK = Size(rounds=1, seconds=0.5, flat_events=1000, first_tokens=60, part_s=0.1, idle_s=0.5)


class Bench:
    """One execution."""

    def __init__(self, stage: Stage, size: Size) -> None:
        self._stage = stage
        self._size = size
        self._requests = 0
        self._tokens = 0
        self.figures = Figures()

    async def measure(self) -> None:
        size, figures = self._size, self.figures
        subjects = list(self._stage.subjects)
        say("warming up")
        for subject in subjects:
            for load in ("small", "flat"):
                await self._run(load, subject, replace(size, seconds=0.2, flat_events=200))
        for n in range(size.rounds):
            say(f"round {n + 1} of {size.rounds}")
            for load in LOADS:
                for subject in subjects:
                    figures.add(load, subject.name, await self._run(load, subject, size))
            subjects.append(subjects.pop(0))
        say("time to first token")
        await self._first_tokens()
        say("parts")
        figures.idle_cpu_share = await self._idle()
        gateway = self._stage.gateway
        with tempfile.TemporaryDirectory(dir=gateway.directory) as directory:
            told = await run_module("parts", str(gateway.config), directory, str(size.part_s))
        figures.decide_us, figures.ledger_us = told["decide"], told["ledger"]

    async def check(self) -> None:
        """The ledger has one whole row per request, and every token.

        Raises:
            BenchFailed: it has not.
        """
        gateway = self._stage.gateway
        await eventually(lambda: gateway.terminal_records() >= self._requests, "the ends of all requests")
        report = await gateway.command("report", "--by", "outcome", "--format", "json")
        if report.status != 0:
            raise BenchFailed(f"report: {report.stderr}")
        found = {row["outcome"]: (row["requests"], row["delivered_tokens"]) for row in report.json}
        expected = {"completed": (self._requests, self._tokens)}
        if found != expected:
            raise BenchFailed(f"the ledger says {found}, sent were {expected}")
        verified = await gateway.command("verify")
        if verified.status != 0:
            raise BenchFailed(f"verify: {verified.stdout}{verified.stderr}")
        say(f"the ledger has all {self._requests} requests and {self._tokens} tokens")

    async def _run(self, load: str, subject: Subject, size: Size) -> Result:
        run = Run(load, subject.port, subject.pids, 32, size.seconds)
        if load == "small":
            behind_s = FOLD_S if subject.name == TOKENPORT else 0.0
            run = replace(run, connections=16, work_behind_s=behind_s)
        elif load == "paced":
            run = replace(run, gap_s=0.02)
        else:
            run = replace(run, events=size.flat_events)
        result = Result(**await run_module("load", json.dumps(asdict(run))))
        if subject.name == TOKENPORT:
            self._count(result.requests, result.tokens)
        return result

    async def _first_tokens(self) -> None:
        stage, size = self._stage, self._size
        ports = {subject.name: subject.port for subject in stage.subjects if subject.name != "aiohttp"}
        told = await run_module(
            "first_token",
            json.dumps(
                {
                    "ports": {"direct": stage.backend_port, **ports},
                    "requests": size.first_tokens,
                    "requests_after_20_ms": size.first_tokens // 3,
                    "directory": str(stage.gateway.directory),
                }
            ),
        )
        self.figures.first_tokens = {
            "backend answers at once": told["at_once"],
            "backend answers after 20 ms": told["after_20_ms"],
        }
        self.figures.sync_s = told["sync"]
        self._count(told["requests"], told["tokens"])

    async def _idle(self) -> float:
        await asyncio.sleep(2 * FOLD_S)
        pids = self._stage.subject(TOKENPORT).pids
        before = sum(cpus_s(pids))
        await asyncio.sleep(self._size.idle_s)
        return (sum(cpus_s(pids)) - before) / self._size.idle_s

    def _count(self, requests: int, tokens: int) -> None:
        self._requests += requests
        self._tokens += tokens


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


async def bench(size: Size, directory: Path) -> Figures:
    """Measure and check.

    Raises:
        BenchFailed: something is wrong.
    """
    async with staged(directory) as stage:
        execution = Bench(stage, size)
        await execution.measure()
        await execution.check()
        return execution.figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round: does it work?")
    parser.add_argument("--write", action="store_true", help="update tests/bench/RESULTS.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tokenport-bench-") as directory:
        try:
            figures = asyncio.run(bench(QUICK if options.quick else WHOLE, Path(directory)))
        except (BenchFailed, GatewayFailed, AssertionError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    text = page(figures)
    print(text)
    if options.write:
        write_results(figures, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
