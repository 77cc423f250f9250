"""Starting and holding worker processes, and the locks and sockets a supervisor owns.

A worker is started with exec, not fork: it inherits exactly the listening socket and its end of the channel, no lock
and no thread. It stays in the supervisor's process group, so that whoever kills the group kills all of it.
"""

import asyncio
import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.config import Address
from gateway.control.channel import Channel, Message

# A draining or orphaned predecessor lets go of its socket within 5 s.
BIND_RETRY_S = 6.0
BACKLOG = 1024
# What the kernel holds for a slow reader, before doubling: enough for a fast stream, small enough to stay honest.
SEND_BUFFER_BYTES = 64 * 1024
# For glibc: blocks from 1 MiB on are mapped one by one and given back when they are freed. Left to itself it raises
# that mark with the largest block it has seen, and keeps the room of the longest prompts for good. With that mark set
# it would give back all else beyond 128 KiB at once, and long prompts would fault their pages in anew: 8 MiB stay.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1024 * 1024), "MALLOC_TRIM_THRESHOLD_": str(8 * 1024 * 1024)}


class StartupError(Exception):
    """The gateway cannot start here; the message is one line that says what to do."""


def lock_directory(directory: Path) -> int:
    """Take the lock of a data directory, for as long as this process lives. Returns its descriptor.

    Raises:
        StartupError: another gateway holds it, or the directory cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupError(f"gateway.data_dir: cannot use {directory}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StartupError(
            f"another gateway uses the data directory {directory}; stop it or set another data_dir"
        ) from None
    return descriptor


async def bind(address: Address, key: str) -> socket.socket:
    """A bound socket, not yet listening. Without SO_REUSEPORT: a port in use is an error, not a shared port.

    Raises:
        StartupError: the address is in use or cannot be had; names the configuration key.
    """
    deadline = time.monotonic() + BIND_RETRY_S
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    while True:
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        bound.setblocking(False)
        try:
            bound.bind((address.host, address.port))
            return bound
        except OSError as error:
            bound.close()
            if error.errno != errno.EADDRINUSE:
                raise StartupError(f"{key}: cannot listen on {address}: {error.strerror}") from None
            if time.monotonic() > deadline:
                raise StartupError(
                    f"{key}: {address} is in use; stop what listens there or choose another port"
                ) from None
        await asyncio.sleep(0.2)


class WorkerProcess:
    """A running worker, seen from the supervisor."""

    def __init__(self, place: int, log: int, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.place = place
        self.log = log
        self.process = process
        self.channel = channel
        self.ready = asyncio.Event()
        self.writable = True  # whether its ledger takes new requests
        self.reading: asyncio.Task[None] | None = None
        self.started_at = time.monotonic()

    @classmethod
    async def start(
        cls,
        place: int,
        log: int,
        listener: socket.socket,
        handler: Callable[["WorkerProcess", Message], Awaitable[None]],
    ) -> "WorkerProcess":
        """Start a worker on a place among the shared cells and log number `log`. `handler` gets what it says."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway.app",
                str(theirs.fileno()),
                str(listener.fileno()),
                str(place),
                str(log),
                env=os.environ | ALLOCATOR,
                pass_fds=(theirs.fileno(), listener.fileno()),
            )
        finally:
            theirs.close()
        worker = cls(place, log, process, await Channel.open(ours))
        worker.reading = asyncio.create_task(worker.channel.run(lambda message: handler(worker, message)))
        return worker

    async def ended(self) -> int:
        """Wait for the process to end."""
        status = await self.process.wait()
        if self.reading is not None:
            await self.reading
        return status

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
