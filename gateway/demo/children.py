"""The processes of the demo: started, watched, and ended together.

All stay in the demo's process group. Helpers are tied to us by their standard input (see leash); the gateway is not,
so it is asked to end twice: the first SIGINT makes it drain, the second ends it at once. What does not end in time is
killed.
"""

import asyncio
import json
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.demo.checks import NotReadyError

FIRST_LINE_S = 60.0  # a cold disk reads the model in this time
AGAIN_S = 0.1  # between the two signals, so that they do not become one
END_S = 6.0  # for a gateway to end at once: it closes its ledger, and its workers follow within 5 s


@dataclass(frozen=True, slots=True)
class Child:
    name: str
    process: asyncio.subprocess.Process
    log: Path
    leashed: bool

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def account(self) -> str:
        """How it ended, in one line for a person."""
        code = self.process.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code and code < 0 else f"ended with status {code}"
        lines = self.log.read_text("utf-8", "replace").strip().splitlines()
        return f"{self.name} {how}: {lines[-1] if lines else 'it said nothing'} (log: {self.log})"

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


class Children:
    """`async with Children(folder) as children:`; whatever happens inside, none is left behind."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[Child] = []

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    async def start_helper(self, name: str, command: list[str]) -> dict[str, object]:
        """Starts a process on the leash; what it says, in one line of JSON, when it is ready."""
        child = await self._start(name, command, leashed=True)
        assert child.process.stdout is not None
        try:
            line = await asyncio.wait_for(child.process.stdout.readline(), FIRST_LINE_S)
        except TimeoutError:
            raise NotReadyError(f"{name} was not ready in {FIRST_LINE_S:.0f} s (log: {child.log})") from None
        if not line:
            await child.process.wait()
            raise NotReadyError(child.account())
        said: dict[str, object] = json.loads(line)
        return said

    async def start_gateway(self, command: list[str]) -> Child:
        return await self._start("the gateway", command, leashed=False)

    async def first_to_end(self) -> Child:
        """Waits until one of them has ended."""
        waits = {asyncio.create_task(child.process.wait()): child for child in self._started}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return waits[done.pop()]

    async def end(self) -> None:
        """Ends all, last started first."""
        for child in reversed(self._started):
            if child.leashed:
                child.signal(signal.SIGTERM)
            else:
                child.signal(signal.SIGINT)
                await ended(child, AGAIN_S)
                child.signal(signal.SIGINT)
            if not await ended(child, END_S):
                child.signal(signal.SIGKILL)
                await child.process.wait()

    async def _start(self, name: str, command: list[str], *, leashed: bool) -> Child:
        log = self._logs / f"{name.removeprefix('the ').replace(' ', '-')}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE if leashed else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if leashed else file,
                stderr=file,
            )
        child = Child(name, process, log, leashed)
        self._started.append(child)
        return child


async def ended(child: Child, timeout_s: float) -> bool:
    """Waits at most so long for the end of a child; whether it came."""
    await asyncio.wait([asyncio.ensure_future(child.process.wait())], timeout=timeout_s)
    return not child.running
