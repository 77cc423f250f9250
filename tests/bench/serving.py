"""How every process of the bench that listens is run: on uvloop, on a free port of the loopback, until told to end.

It prints its port and ends when its standard input does, so that none outlives the bench.
"""

import asyncio
import resource
import sys
from collections.abc import Awaitable, Callable

import uvloop

HOST = "127.0.0.1"
BACKLOG = 4096


def serve(listen: Callable[[], Awaitable[asyncio.AbstractServer]]) -> None:
    """Run what `listen` starts."""

    async def run() -> None:
        server = await listen()
        print(server.sockets[0].getsockname()[1], flush=True)  # type: ignore[attr-defined]
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
        await ended.wait()

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor for every stream
    uvloop.run(run())


def serve_protocol(protocol: Callable[[], asyncio.Protocol]) -> None:
    """Run a server of bare protocols."""

    async def listen() -> asyncio.AbstractServer:
        return await asyncio.get_running_loop().create_server(protocol, HOST, 0, backlog=BACKLOG)

    serve(listen)
