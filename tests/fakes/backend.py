"""A scripted OpenAI-compatible backend: a real server on a loopback socket that logs exactly what it wrote.

One server stands in for any number of backends: each `Site` has a base URL of its own (`http://127.0.0.1:PORT/NAME/v1`),
its own queue of scripts and its own log. What a request gets is, in this order: the next script of its site's queue,
the script in its `user` member (JSON; of a list of scripts the one for this attempt, the last for all that follow), the
site's default.

Counts move before the bytes are handed to the socket, so a log never says less than a client can have received.

`python -m tests.fakes.backend --log FILE` runs it as a process of its own and writes the log as JSON lines.
"""

import argparse
import asyncio
import base64
import fcntl
import json
import socket
import ssl
import struct
import sys
import termios
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from tests.fakes.script import Do, Question, Script, Step

# Of a site that is given no number: more than any test asks for.
SLOTS = 1_000_000
# How often a reset looks whether what was written has arrived.
ARRIVAL_POLL_S = 0.001


@dataclass
class Served:
    """One request as the backend saw it, kept up to date while it is answered."""

    site: str
    connection: int
    turn: int  # of its connection, from 1
    path: str
    head: bytes
    body: bytes
    script: Script | None = None
    status: int = 0
    events: int = 0  # content events handed to the socket
    tokens: int = 0
    usage: Any = None  # the last one reported
    bytes_read: int = 0
    bytes_written: int = 0
    ended: str = ""  # "": still answering | whole | fin | reset | peer_gone | dropped
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def line(self) -> str:
        """As a line of the log file."""
        plain = {
            name: getattr(self, name) for name in ("site", "connection", "turn", "path", "status", "events", "tokens")
        }
        plain |= {name: getattr(self, name) for name in ("usage", "bytes_read", "bytes_written", "ended")}
        plain |= {"request_id": self.request_id, "body": base64.b64encode(self.body).decode()}
        return json.dumps(plain)


@dataclass
class Site:
    """One stand-in backend."""

    name: str
    url: str
    script: Script = field(default_factory=Script)
    queue: deque[Script] = field(default_factory=deque)
    log: list[Served] = field(default_factory=list)
    probes: int = 0
    probe_status: int = 200
    released: asyncio.Event = field(default_factory=asyncio.Event)
    # What it runs at once; the others wait for their turn, first come first served, before a byte of their answer.
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SLOTS))

    def served(self, request_id: str) -> list[Served]:
        """What this site did for a request, in order; more than one entry means it was asked again."""
        return [entry for entry in self.log if entry.request_id == request_id]

    def release(self) -> None:
        """Let every holding answer of this site go on."""
        self.released.set()


class ScriptedBackend:
    """The server. `async with ScriptedBackend() as backend:` listens on a free port; with `tls`, behind TLS."""

    def __init__(self, port: int = 0, log: Path | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._log_path = log
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._sites: dict[str, Site] = {}
        self._connections: set[_Connection] = set()
        self.connections_made = 0
        self.served: dict[str, list[Served]] = {}  # by request id, at whatever site

    async def __aenter__(self) -> "ScriptedBackend":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self._port, backlog=1024, ssl=self._tls
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.abort()
        for connection in list(self._connections):
            await connection.ended.wait()

    @property
    def port(self) -> int:
        return self._port

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def site(self, name: str = "site") -> Site:
        """The site of that name; made when first asked for."""
        if name not in self._sites:
            scheme = "http" if self._tls is None else "https"
            self._sites[name] = Site(name, f"{scheme}://127.0.0.1:{self._port}/{name}/v1")
        return self._sites[name]

    @property
    def log(self) -> list[Served]:
        """All sites' entries."""
        return [entry for site in self._sites.values() for entry in site.log]

    def close_idle(self) -> int:
        """Shut the connections on which no request is being answered. Returns how many."""
        idle = [connection for connection in self._connections if not connection.answering]
        for connection in idle:
            connection.abort()
        return len(idle)

    def forget(self) -> None:
        """Begin the logs anew."""
        self.served.clear()
        for site in self._sites.values():
            site.log.clear()

    def entered(self, connection: "_Connection") -> int:
        self._connections.add(connection)
        self.connections_made += 1
        return self.connections_made

    def left(self, connection: "_Connection") -> None:
        self._connections.discard(connection)

    def note(self, entry: Served) -> None:
        """An answer has ended."""
        if self._log_path is not None:
            with self._log_path.open("a") as log:
                log.write(entry.line() + "\n")


class _Connection(asyncio.Protocol):
    """A connection from the gateway: reads whole requests, answers one at a time."""

    def __init__(self, backend: ScriptedBackend) -> None:
        self._backend = backend
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._number = 0
        self._turns = 0
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.ended = asyncio.Event()

    @property
    def answering(self) -> bool:
        return self._task is not None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._number = self._backend.entered(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._backend.left(self)
        if self._task is not None:
            self._task.cancel()
        else:
            self.ended.set()

    def _next(self) -> None:
        """Begin the answer to the next request, if one is here whole."""
        if self._task is not None:
            return
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[: end + 4]
        entry = Served("", self._number, self._turns + 1, head.split(b" ", 2)[1].decode("latin-1"), head, b"")
        length = int(entry.headers.get("content-length", "0"))
        if len(self._buffer) < end + 4 + length:
            return
        entry.body = self._buffer[end + 4 : end + 4 + length]
        entry.bytes_read = end + 4 + length
        self._buffer = self._buffer[entry.bytes_read :]
        self._turns += 1
        entry.started_at = asyncio.get_running_loop().time()
        self._task = asyncio.ensure_future(self._answer(entry))

    async def _answer(self, entry: Served) -> None:
        try:
            _, name, path = entry.path.split("/", 2)
            site = self._backend.site(name)
            entry.site = name
            if entry.head.startswith(b"GET "):
                site.probes += 1
                self._write_plain(site.probe_status, b'{"object":"list","data":[]}')
                return
            earlier = self._backend.served.setdefault(entry.request_id, [])
            script = _choose(site, entry, sum(each.ended != "dropped" for each in earlier))
            earlier.append(entry)
            entry.script = script
            site.log.append(entry)
            with self._noting(entry):
                if script.drop_reused and entry.turn > 1:
                    entry.ended = "dropped"
                    self._close()
                else:
                    async with site.slots:
                        await self._perform(site, entry, script.steps(_question(path, entry.body)))
        finally:
            self._task = None
            if self._transport is None or self._transport.is_closing():
                self.ended.set()
            else:
                self._next()

    @contextmanager
    def _noting(self, entry: Served) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            # Only the loss of the connection cancels an answer; the test's loop may be closing as well.
            entry.ended = "peer_gone"
        finally:
            entry.ended_at = asyncio.get_running_loop().time()
            self._backend.note(entry)

    async def _perform(self, site: Site, entry: Served, steps: Iterator[Step]) -> None:
        for step in steps:
            if step.do is Do.WRITE:
                self._write(entry, step)
                if not self._writable.is_set():
                    await self._writable.wait()
            elif step.do is Do.WAIT:
                await asyncio.sleep(step.seconds)
            elif step.do is Do.HOLD:
                await site.released.wait()
            elif step.do is Do.FIN:
                entry.ended = "fin"
                self._close()
                return
            else:
                await self._arrived()
                entry.ended = "reset"
                self._reset()
                return
        entry.ended = "whole"

    def _write(self, entry: Served, step: Step) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            # The peer is gone; the answer's end is on its way.
            return
        entry.events += step.events
        entry.tokens += step.tokens
        entry.bytes_written += len(step.data)
        entry.usage = step.usage if step.usage is not None else entry.usage
        if not entry.status and step.data.startswith(b"HTTP/1.1 "):
            entry.status = int(step.data[9:12]) if step.data[9:12].isdigit() else 0
        self._transport.write(step.data)

    def _write_plain(self, status: int, body: bytes) -> None:
        assert self._transport is not None
        head = f"HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)

    def _close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def _reset(self) -> None:
        assert self._transport is not None
        end = self._transport.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def _arrived(self) -> None:
        """Until the peer's kernel has acknowledged all that was written: a reset would drop the rest."""
        assert self._transport is not None
        end = self._transport.get_extra_info("socket")
        unsent = bytearray(4)
        while not self._transport.is_closing():
            fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, unsent)
            if not self._transport.get_write_buffer_size() and not int.from_bytes(unsent, sys.byteorder):
                return
            await asyncio.sleep(ARRIVAL_POLL_S)


def _choose(site: Site, entry: Served, attempt: int) -> Script:
    candidate = site.queue[0] if site.queue else _told(entry, attempt) or site.script
    if candidate.drop_reused and entry.turn > 1:
        # The stale connection is an accident of the transport: the same request on a fresh one gets its script.
        return candidate
    return site.queue.popleft() if site.queue else candidate


def _told(entry: Served, attempt: int) -> Script | None:
    """What the request itself says."""
    user = json.loads(entry.body).get("user", "") if entry.body.startswith(b"{") else ""
    if not isinstance(user, str) or not user.startswith(("{", "[")):
        return None
    told = json.loads(user)
    return Script(**(told if isinstance(told, dict) else told[min(attempt, len(told) - 1)]))


def _question(path: str, body: bytes) -> Question:
    asked = json.loads(body)
    options = asked.get("stream_options") or {}
    return Question(
        shape="chat" if path.endswith("chat/completions") else "completions",
        model=asked.get("model", ""),
        stream=asked.get("stream") is True,
        include_usage=options.get("include_usage") is True,
        continuous_usage=options.get("continuous_usage_stats") is True,
        choices=asked.get("n") or 1,
    )


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port that is taken and refuses every connection."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def _main(port: int, log: Path, announce: Callable[[str], None]) -> None:
    async with ScriptedBackend(port, log) as backend:
        announce(f"listening on http://127.0.0.1:{backend.port}")
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A scripted OpenAI-compatible backend.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.port, arguments.log, lambda line: print(line, flush=True)))
