"""The real gateway as a process group: started from a configuration, killed in parts, and read back by its commands.

It leads a process group of its own, so that a test can kill what a machine would kill together. Its output goes to
files: an orphaned worker may outlive the supervisor for some seconds, and must not hold a pipe of the test's.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.fakes.client import RawClient, request

READY = re.compile(r"tokenport is ready on (https?://\S+) \(page: (http://[^\s)]+)\)")
START_S = 30.0
COMMAND_S = 30.0
# Longer than what the configurations of these tests allow for accepting, draining and leaving together.
STOP_S = 20.0
POLL_S = 0.02

Row = dict[str, Any]


class GatewayFailed(Exception):
    """It did not do what it must; the message holds its output."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


async def eventually(check: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    """Wait until `check()` is true, looking often."""
    try:
        async with asyncio.timeout(timeout_s):
            while not check():  # noqa: ASYNC110  what is waited for happens in other processes
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s:g} s: {what}") from None


async def run_command(
    *arguments: str, environ: Mapping[str, str] | None = None, timeout_s: float = COMMAND_S
) -> Finished:
    """`tokenport` with these arguments, to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        *arguments,
        env=clean_environment() | dict(environ or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return Finished(process.returncode or 0, out.decode(), err.decode())


def clean_environment() -> dict[str, str]:
    """Ours without proxies and without anything that configures the gateway."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("TOKENPORT_")
    }


class Gateway:
    """One gateway. `async with Gateway(directory, text) as gateway:` starts it and, at the end, stops it cleanly."""

    def __init__(
        self,
        directory: Path,
        configuration: str,
        environ: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        """`before` is a command that ends by becoming the one that follows it."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.config = directory / "tokenport.toml"
        self.data_dir = directory / "var"
        self.configure(configuration)
        self._environ = dict(environ or {})
        self._before = tuple(before)
        self._process: asyncio.subprocess.Process | None = None
        self._starts = 0
        self._killed = False
        self.url = ""
        self.admin_url = ""

    async def __aenter__(self) -> "Gateway":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._killed:
            await self.stop()
        elif self._process is not None:
            self.kill_group()
            await self._process.wait()
        if kind is not None:
            print(self.stderr[-20_000:], file=sys.stderr)

    # ---- running it

    def configure(self, configuration: str) -> None:
        """Write the file anew, whole: a reader sees the old one or the new one."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(configuration)
        fresh.replace(self.config)

    async def start(self) -> None:
        """Start it (again) and wait until it says that it is ready."""
        await self.launch()
        await self.ready()

    async def launch(self) -> None:
        """Start it (again), and wait for nothing."""
        self._starts += 1
        self._killed = False
        with self._output("stdout").open("wb") as out, self._output("stderr").open("wb") as err:
            self._process = await asyncio.create_subprocess_exec(
                *self._before,
                sys.executable,
                "-m",
                "gateway",
                "serve",
                "--config",
                str(self.config),
                env=clean_environment() | self._environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Wait until it says that it is."""
        process = self._process
        assert process is not None
        try:
            await eventually(lambda: self._announced() or process.returncode is not None, "ready", START_S)
        except AssertionError:
            self.kill_group()
            raise GatewayFailed(f"not ready:\n{self.stdout}{self.stderr}") from None
        match = self._announced()
        if match is None:
            raise GatewayFailed(f"ended with {process.returncode}:\n{self.stdout}{self.stderr}")
        self.url, self.admin_url = match.groups()

    async def stop(self) -> None:
        """SIGTERM, if it still runs: it must drain, end with 0, leave no process behind and have had no surprise."""
        assert self._process is not None
        if self._process.returncode is None:
            self.signal(signal.SIGTERM)
        assert await self.ended() == 0, self.stderr
        assert "Traceback" not in self.stderr, self.stderr
        assert not self.group(), "processes left behind"

    async def ended(self, timeout_s: float = STOP_S) -> int:
        """Wait for the supervisor to end. Returns its exit status, negative for a signal."""
        assert self._process is not None
        try:
            return await asyncio.wait_for(self._process.wait(), timeout_s)
        except TimeoutError:
            self.kill_group()
            raise GatewayFailed(f"still running after {timeout_s:g} s:\n{self.stderr}") from None

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """To the supervisor alone."""
        os.kill(self.pid, number)

    def kill_group(self) -> None:
        """kill -9 of all of it."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def kill_supervisor(self) -> None:
        """kill -9 of the supervisor alone."""
        self._killed = True
        os.kill(self.pid, signal.SIGKILL)

    def kill_worker(self) -> int:
        """kill -9 of one worker. Returns its process id."""
        worker = self.workers()[0]
        os.kill(worker, signal.SIGKILL)
        return worker

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return sorted(pid for pid, command in self.group().items() if "gateway.app" in command)

    def group(self) -> dict[int, str]:
        """The live processes of the group and their command lines."""
        return {pid: command for pid, group, command in _processes() if group == self.pid}

    @property
    def stdout(self) -> str:
        return self._output("stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._output("stderr").read_text(errors="replace")

    # ---- reading it back

    async def command(self, name: str, *arguments: str, timeout_s: float = COMMAND_S) -> Finished:
        """A command with this gateway's configuration."""
        options = ("--config", str(self.config), *arguments)
        return await run_command(name, *options, environ=self._environ, timeout_s=timeout_s)

    async def export(self, *arguments: str, timeout_s: float = COMMAND_S) -> list[Row]:
        """All rows, as `tokenport export` prints them, with the attempts parsed."""
        finished = await self.command("export", "--format", "jsonl", *arguments, timeout_s=timeout_s)
        assert finished.status == 0, finished.stderr
        rows = [json.loads(line) for line in finished.stdout.splitlines()]
        for row in rows:
            row["attempts_list"] = json.loads(row["attempts_json"])
        return rows

    async def rows(self, count: int, timeout_s: float = 10.0) -> list[Row]:
        """The rows, once there are at least so many ended requests in the log."""
        await eventually(lambda: self.terminal_records() >= count, f"{count} terminal records", timeout_s)
        return await self.export()

    async def row(self, export_id: str, timeout_s: float = 10.0) -> Row:
        """The one row of an export id."""
        needle = f'"{export_id}"'.encode()
        await eventually(lambda: any(needle in line for line in self.ends()), f"the end of {export_id}", timeout_s)
        rows = [row for row in await self.export() if row["export_id"] == export_id]
        assert len(rows) == 1, rows
        return rows[0]

    async def verify(self, timeout_s: float = COMMAND_S) -> Finished:
        return await self.command("verify", timeout_s=timeout_s)

    async def explain(self, *arguments: str) -> Any:
        """`tokenport explain --format json`."""
        finished = await self.command("explain", "--format", "json", *arguments)
        assert finished.status == 0, finished.stderr
        return finished.json

    async def status(self) -> Any:
        """What the admin listener says of this moment."""
        async with RawClient.connect(self.admin_url) as client:
            await client.send(request("GET", "/status", host=self.admin_url.removeprefix("http://")))
            return (await client.response()).json

    def records(self) -> list[bytes]:
        """The lines of all logs as they are on disk."""
        lines: list[bytes] = []
        for segment in sorted((self.data_dir / "ledger").glob("*/[0-9]*.jsonl")):
            lines += segment.read_bytes().splitlines(keepends=True)
        return [line for line in lines if line.endswith(b"\n")]

    def opens(self) -> list[bytes]:
        return [line for line in self.records() if b'"record":"open"' in line]

    def ends(self) -> list[bytes]:
        """Terminal records."""
        kinds = (b'"record":"settled"', b'"record":"void"', b'"record":"recovered"')
        return [line for line in self.records() if any(kind in line for kind in kinds)]

    def terminal_records(self) -> int:
        return len(self.ends())

    def _announced(self) -> re.Match[str] | None:
        return READY.search(self.stdout) or READY.search(self.stderr)

    def _output(self, name: str) -> Path:
        return self.directory / f"{name}.{self._starts}"


def _processes() -> Iterator[tuple[int, int, str]]:
    """Process id, group and command line of all that run, the dead but unburied left out."""
    if not Path("/proc/self/stat").exists():
        yield from _processes_by_ps()
        return
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The name may hold anything, parentheses too; what follows the last of them is regular.
            state, _, group = (directory / "stat").read_text().rpartition(")")[2].split()[:3]
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if state not in "ZX":
                yield int(directory.name), int(group), command


def _processes_by_ps() -> Iterator[tuple[int, int, str]]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat=,args="], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        pid, group, state, command = [*line.split(None, 3), ""][:4]
        if not state.startswith("Z"):
            yield int(pid), int(group), command
