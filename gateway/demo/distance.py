"""Simulated distance: TCP relays that hold back every byte for half a round trip in each direction.

The demo's regions share one real model on this machine. A region is put far away by reaching it through its relay:
bytes keep their order, a slow reader slows the writer, and both kinds of ending pass through after their delay: a
FIN as a FIN in its direction, a reset as a reset. So a client that leaves still stops the generation behind it.

A real connection costs one round trip before its first byte can leave. The relay cannot delay its own accept, so the
first bytes of a new connection wait that much longer instead.

As a process: `python -m gateway.demo.distance --target HOST:PORT --rtt NAME=SECONDS ...` prints one JSON line with
the port of each name, and ends with its parent (see leash).
"""

import argparse
import asyncio
import json
import socket
import struct
import sys
from collections.abc import Mapping

from gateway.leash import leave_with_parent

CHUNK_BYTES = 16_384
CHUNKS_MAX = 64  # on the way in one direction: 1 MiB, far more than a stream of tokens has in flight
Address = tuple[str, int]


class Relay:
    """One region's distance: listens on a free port of loopback and relays to the target."""

    def __init__(self, target: Address, rtt_s: float) -> None:
        self._target = target
        self._rtt_s = rtt_s
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self) -> int:
        """Starts to accept; the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK_BYTES)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stops accepting and resets what is open."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._connect(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connect(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        handshake_until = asyncio.get_running_loop().time() + self._rtt_s
        delay_s = self._rtt_s / 2
        sides = [near]
        try:
            far_reader, far = await asyncio.open_connection(*self._target, limit=CHUNK_BYTES)
            sides.append(far)
            async with asyncio.TaskGroup() as directions:
                directions.create_task(carry(near_reader, far, delay_s, not_before=handshake_until))
                directions.create_task(carry(far_reader, near, delay_s, not_before=handshake_until))
        except* OSError:  # one side was reset, or the target refused: so is the other
            for side in sides:
                reset(side)
        finally:
            for side in sides:
                side.close()  # what was written still leaves


async def carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float, *, not_before: float
) -> None:
    """One direction until its FIN: what comes leaves delay_s later, what came before not_before as if it came then.

    Raises the error that ended the reading side, when its time has come.
    """
    loop = asyncio.get_running_loop()
    on_the_way: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(CHUNKS_MAX)

    async def depart() -> None:
        came: bytes | OSError = b" "
        while came and not isinstance(came, OSError):
            try:
                came = await reader.read(CHUNK_BYTES)
            except OSError as error:
                came = error
            await on_the_way.put((max(loop.time(), not_before) + delay_s, came))

    departing = asyncio.create_task(depart())
    try:
        while True:
            due, came = await on_the_way.get()
            await asyncio.sleep(due - loop.time())
            if isinstance(came, OSError):
                raise came
            if not came:
                break
            writer.write(came)
            await writer.drain()
        writer.write_eof()
    finally:
        departing.cancel()


def reset(side: asyncio.StreamWriter) -> None:
    """Ends a connection with RST, dropping what was not sent."""
    raw: socket.socket = side.get_extra_info("socket")
    if raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.transport.abort()


def command(target: Address, rtts_s: Mapping[str, float]) -> list[str]:
    """The command line that starts this process."""
    options = [option for name, rtt_s in rtts_s.items() for option in ("--rtt", f"{name}={rtt_s}")]
    return [sys.executable, "-m", "gateway.demo.distance", "--target", f"{target[0]}:{target[1]}", *options]


async def serve(target: Address, rtts_s: Mapping[str, float]) -> None:
    relays = {name: Relay(target, rtt_s) for name, rtt_s in rtts_s.items()}
    ports = {name: await relay.listen() for name, relay in relays.items()}
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()  # until the leash ends the process


def main() -> None:
    arguments = argparse.ArgumentParser(description="Relay to one target over simulated distances.")
    arguments.add_argument("--target", required=True, metavar="HOST:PORT")
    arguments.add_argument("--rtt", action="append", required=True, metavar="NAME=SECONDS")
    given = arguments.parse_args()
    host, _, port = given.target.rpartition(":")
    pairs = (option.partition("=") for option in given.rtt)
    leave_with_parent()
    asyncio.run(serve((host, int(port)), {name: float(seconds) for name, _, seconds in pairs}))


if __name__ == "__main__":
    main()
