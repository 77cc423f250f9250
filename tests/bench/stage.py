"""The processes of the bench: the backend, what stands before it, and the loads, each in its own."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.world import configuration
from tests.fakes.configurations import toml
from tests.fakes.gateway import Gateway, clean_environment, eventually

ROOT = Path(__file__).resolve().parents[2]
RUN_S_MAX = 300.0
END_S_MAX = 5.0

RELAY, AIOHTTP, TOKENPORT = "relay", "aiohttp", "tokenport"


class BenchFailed(Exception):
    """Something is wrong; the figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: where it listens, and the processes whose CPU counts."""

    name: str
    port: int
    pids: tuple[int, ...]  # of tokenport: supervisor, then workers


@dataclass(slots=True)
class House:
    """A gateway, and what was asked of it."""

    gateway: Gateway
    subject: Subject
    requests: int = 0
    tokens: int = 0

    async def run(self, module: str, told: dict[str, Any]) -> Any:
        """A load on it. Returns what was found; its requests and tokens are counted."""
        found = await run_module(module, json.dumps(told))
        self.requests += found["requests"]
        self.tokens += found["tokens"]
        return found

    async def check(self) -> None:
        """The ledger has one whole row per request, and every token.

        Raises:
            BenchFailed: it has not.
        """
        gateway = self.gateway
        await eventually(lambda: gateway.terminal_records() >= self.requests, "the ends of all requests")
        report = await gateway.command("report", "--by", "outcome", "--format", "json")
        if report.status != 0:
            raise BenchFailed(f"report: {report.stderr}")
        found = {row["outcome"]: (row["requests"], row["delivered_tokens"]) for row in report.json}
        expected = {"completed": (self.requests, self.tokens)} if self.requests else {}
        if found != expected:
            raise BenchFailed(f"the ledger says {found}, sent were {expected}")
        verified = await gateway.command("verify")
        if verified.status != 0:
            raise BenchFailed(f"verify: {verified.stdout}{verified.stderr}")
        say(f"the ledger has all {self.requests} requests and {self.tokens} tokens")


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything up and running."""

    backend_port: int
    subjects: tuple[Subject, ...]
    house: House

    def subject(self, name: str) -> Subject:
        return next(subject for subject in self.subjects if subject.name == name)


def say(text: str) -> None:
    """Progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


async def run_module(name: str, *arguments: str) -> Any:
    """Run a module of the bench to its end. Returns the JSON it printed.

    Raises:
        BenchFailed: it failed, or did not end.
    """
    process = await _start(name, *arguments)
    try:
        async with asyncio.timeout(RUN_S_MAX):
            out, err = await process.communicate()
    except BaseException as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, TimeoutError):
            raise BenchFailed(f"{name} did not end within {RUN_S_MAX:g} s") from None
        raise
    if process.returncode != 0:
        raise BenchFailed(f"{name} {' '.join(arguments)}\n{err.decode()}")
    return json.loads(out)


@asynccontextmanager
async def listening(name: str, *arguments: str) -> AsyncIterator[tuple[int, int]]:
    """A module of the bench that listens. Gives its port and its process id."""
    process = await _start(name, *arguments)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    try:
        port = (await process.stdout.readline()).strip()
        if not port:
            raise BenchFailed(f"{name} does not start\n{(await process.stderr.read()).decode()}")
        yield int(port), process.pid
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), END_S_MAX)
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def staged(directory: Path) -> AsyncIterator[Stage]:
    """Start everything; end it."""
    async with AsyncExitStack() as stack:
        backend_port, _ = await stack.enter_async_context(listening("backend"))
        subjects = []
        for name in (RELAY, AIOHTTP):
            port, pid = await stack.enter_async_context(listening(f"floor_{name}", str(backend_port)))
            subjects.append(Subject(name, port, (pid,)))
        house = await stack.enter_async_context(opened(directory / TOKENPORT, backend_port))
        yield Stage(backend_port, (*subjects, house.subject), house)


@asynccontextmanager
async def opened(directory: Path, backend_port: int, **more: Any) -> AsyncIterator["House"]:
    """A gateway before the backend; `more` is for the configuration. It must end well, with a ledger that is right."""
    text = toml(configuration(f"http://127.0.0.1:{backend_port}/v1", **more))
    async with Gateway(directory, text) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        workers = gateway.workers()
        if not workers:
            raise BenchFailed("the gateway has no worker")
        house = House(gateway, Subject(TOKENPORT, port, (gateway.pid, *workers)))
        yield house
        await house.check()


async def _start(name: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.bench.{name}",
        *arguments,
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
