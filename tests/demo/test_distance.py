"""Distance changes when bytes arrive, and nothing else about a connection."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.demo import distance
from gateway.demo.distance import CHUNKS_MAX, Relay, carry

WAIT_S = 10  # for an event that comes at once, on a busy machine
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def far_server(handler: Handler, rtt_s: float) -> AsyncIterator[int]:
    """A server behind a distance; the port of its relay."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    relay = Relay(server.sockets[0].getsockname(), rtt_s)
    try:
        yield await relay.listen()
    finally:
        await relay.close()
        server.close()


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(WAIT_S):
            yield reader, writer
    finally:
        writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(10_000):
        writer.write(data)
        await writer.drain()
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_bytes_come_back_whole_and_in_order():
    sent = bytes(range(256)) * 4_000
    async with far_server(echo, rtt_s=0.01) as port, connection(port) as (reader, writer):
        writer.write(sent)
        writer.write_eof()
        assert await reader.read(-1) == sent


async def test_a_round_trip_takes_the_time_of_the_distance():
    rtt_s = 0.08
    clock = asyncio.get_running_loop().time
    async with far_server(echo, rtt_s) as port, connection(port) as (reader, writer):
        times = []
        for _ in range(2):
            asked = clock()
            writer.write(b"x")
            await reader.readexactly(1)
            times.append(clock() - asked)
    first, second = times
    assert 2 * rtt_s - 0.01 <= first < 2 * rtt_s + 2  # the handshake of a new connection and the round trip itself
    assert rtt_s - 0.001 <= second < rtt_s + 2


async def test_one_direction_may_end_while_the_other_still_speaks():
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read(-1)
        writer.write(b"you said " + question)
        writer.close()

    async with far_server(answer_at_the_end, rtt_s=0.01) as port, connection(port) as (reader, writer):
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read(-1) == b"you said hello"


async def test_a_client_that_leaves_is_seen_to_leave():
    left = asyncio.Event()

    async def speak_until_left(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"first")
        assert await reader.read(-1) == b"ask"
        left.set()
        writer.close()

    async with far_server(speak_until_left, rtt_s=0.01) as port:
        async with connection(port) as (reader, writer):
            writer.write(b"ask")
            await reader.readexactly(5)
        await asyncio.wait_for(left.wait(), WAIT_S)


async def test_a_reset_by_the_client_arrives_as_a_reset():
    errors: asyncio.Queue[Exception] = asyncio.Queue()

    async def expect_reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"first")
        try:
            await reader.read(-1)
        except ConnectionResetError as error:
            errors.put_nowait(error)
        writer.close()

    async with far_server(expect_reset, rtt_s=0.01) as port, connection(port) as (reader, writer):
        await reader.readexactly(5)
        reset(writer)
        assert isinstance(await errors.get(), ConnectionResetError)


async def test_a_reset_by_the_server_arrives_as_a_reset():
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        reset(writer)

    async with far_server(hang_up, rtt_s=0.01) as port, connection(port) as (reader, writer):
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)


async def test_a_server_that_is_not_there_ends_the_connection():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        relay = Relay(unused.getsockname(), 0.01)
        port = await relay.listen()
        try:
            async with connection(port) as (reader, _):
                with pytest.raises(ConnectionResetError):
                    await reader.read(-1)
        finally:
            await relay.close()


async def test_a_slow_reader_stops_the_writer():
    class Source(asyncio.StreamReader):
        taken = 0

        async def read(self, n: int = -1) -> bytes:
            self.taken += 1
            await asyncio.sleep(0)
            return b"x"

    class Wall:
        """Takes nothing until it is told to."""

        def __init__(self) -> None:
            self.open = asyncio.Event()

        def write(self, data: bytes) -> None:
            pass

        async def drain(self) -> None:
            await self.open.wait()

    source, wall = Source(), Wall()
    carrying = asyncio.create_task(carry(source, wall, 0.0, not_before=0.0))  # type: ignore[arg-type]
    for _ in range(20 * CHUNKS_MAX):
        await asyncio.sleep(0)
    assert CHUNKS_MAX <= source.taken <= CHUNKS_MAX + 2
    carrying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await carrying


async def test_the_process_names_its_ports_and_ends_with_its_parent():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()
    process = await asyncio.create_subprocess_exec(
        *distance.command(target, {"norway": 0.02, "germany": 0.01}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    ports = json.loads(await asyncio.wait_for(process.stdout.readline(), WAIT_S))
    assert set(ports) == {"norway", "germany"}
    async with connection(ports["norway"]) as (reader, writer):
        writer.write(b"over there")
        assert await reader.readexactly(10) == b"over there"
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), WAIT_S) == 0
    server.close()


async def test_a_client_that_leaves_stops_the_real_model_behind_a_distance(real_model):
    url = httpx.URL(real_model)
    relay = Relay((url.host, url.port or 0), 0.05)
    far = url.copy_with(port=await relay.listen())
    ask = {
        "model": "any",
        "stream": True,
        "max_tokens": 1500,
        "messages": [{"role": "user", "content": "Tell me all."}],
    }
    try:
        async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as client:
            async with client.stream("POST", f"{far}/chat/completions", json=ask) as answer:
                lines = answer.aiter_lines()
                texts = [line async for line in _content(lines, 3)]
                assert len(texts) == 3
                assert await busy_slots(client, url) == 1
            async with asyncio.timeout(WAIT_S):
                while await busy_slots(client, url):  # 1,500 tokens would take twice as long
                    pass
    finally:
        await relay.close()


async def _content(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    """The first content events of a stream."""
    async for line in lines:
        if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
            yield line
            count -= 1
        if not count:
            return


async def busy_slots(client: httpx.AsyncClient, url: httpx.URL) -> int:
    slots = (await client.get(url.copy_with(path="/slots"))).json()
    return sum(slot["is_processing"] for slot in slots)
