"""Slow clients: deadlines are absolute, so one byte at a time buys nobody more time."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.client import RawClient, request
from tests.fakes.configurations import KEY
from tests.fakes.gateway import eventually
from tests.fakes.script import Script
from tests.fakes.streaming import Ask
from tests.integration.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEAD_S, BODY_S, IDLE_S, STALL_S = 0.4, 0.5, 0.6, 0.5
CHAT = {"model": "m", "messages": [{"role": "user", "content": "count"}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    limits = {
        "head_s": HEAD_S,
        "body_s": BODY_S,
        "idle_s": IDLE_S,
        "write_stall_s": STALL_S,
        "body_large_s": 2.0,
        "body_bytes_per_s_min": 100_000,
        "connections_max": 8,
    }
    async with staged(tmp_path_factory.mktemp("deadlines"), {"m": 1}, limits=limits) as stage:
        yield stage


async def trickle(client: RawClient, data: bytes) -> None:
    """A byte every 20 ms, until the other side has had enough."""
    for byte in data:
        await client.send(bytes([byte]))
        await asyncio.sleep(0.02)


async def test_a_trickled_head_is_408_at_its_deadline(stage: Stage) -> None:
    started = time.monotonic()
    async with RawClient.connect(stage.gateway.url) as client:
        sending = asyncio.create_task(trickle(client, request(key=KEY, json_body=CHAT)))
        response = await client.response()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert await client.ended()
    assert (response.status, response.headers["connection"]) == (408, "close")
    assert HEAD_S <= time.monotonic() - started < HEAD_S + 6


async def test_a_trickled_body_is_408_at_its_deadline(stage: Stage) -> None:
    raw = request(key=KEY, json_body={**CHAT, "user": "u" * 500})
    head, _, body = raw.partition(b"\r\n\r\n")
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(head + b"\r\n\r\n")
        sending = asyncio.create_task(trickle(client, body))
        response = await client.response()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert await client.ended()
    assert (response.status, response.headers["connection"]) == (408, "close")


async def test_a_large_body_earns_its_time_by_its_rate(stage: Stage) -> None:
    script = Script(tokens=2).to_json()
    raw = request(key=KEY, json_body={**CHAT, "user": script, "padding": "p" * 200_000})
    async with RawClient.connect(stage.gateway.url) as client:
        # 200,000 bytes at 100,000 a second are allowed two seconds: more than body_s, which this takes.
        await client.send(raw[:100_000])
        await asyncio.sleep(BODY_S + 0.4)
        await client.send(raw[100_000:])
        assert (await client.response()).status == 200


async def test_an_idle_connection_is_closed_without_a_word(stage: Stage) -> None:
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(request("GET", "/healthz"))
        assert (await client.response()).status == 200
        assert await client.ended()
    async with RawClient.connect(stage.gateway.url) as client:
        assert await client.ended()


async def test_a_long_answer_is_no_idle_connection(stage: Stage) -> None:
    site = stage.site("m")
    async with RawClient.connect(stage.gateway.url) as client:
        ask = Ask(script=Script(tokens=4, hold_before_head=True), request_id="long")
        await client.send(ask.bytes(KEY))
        head = asyncio.ensure_future(client.head())
        await asyncio.wait({head}, timeout=IDLE_S * 2)
        assert not head.done()
        site.release()
        events = [event async for event in client.events(await head)]
    assert events[-1] == b"data: [DONE]\n\n"
    site.released.clear()


async def test_a_reader_that_stops_for_too_long_has_left(stage: Stage) -> None:
    site = stage.site("m")
    ask = Ask(script=Script(tokens=3000, word_bytes_min=3000, role_events=0), request_id="stalled")
    async with RawClient.connect(stage.gateway.url, receive_bytes=16_384) as client:
        await client.send(ask.bytes(KEY))
        head = await client.head()
        await eventually(
            lambda: site.served("stalled")[0].ended == "peer_gone", "the backend is cancelled", STALL_S + 5
        )
        row = await stage.gateway.row(head.headers["x-tokenport-export-id"])
        # Whole events only: the last one may have been on its way.
        received = (await client.rest()).count(b'"finish_reason": null}]}\n\n')
    assert (row["outcome"], row["status"]) == ("client_gone", 499)
    written = site.served("stalled")[0].tokens
    assert received <= row["delivered_tokens"] <= row["output_tokens"] <= written < 3000


async def test_connections_beyond_the_bound_are_told_and_closed(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        statuses = [group.create_task(_hold(stage)) for _ in range(12)]
    found = sorted(task.result() for task in statuses)
    assert found.count(503) >= 4 and found.count(200) >= 1
    assert set(found) == {200, 503}


async def _hold(stage: Stage) -> int:
    async with RawClient.connect(stage.gateway.url) as client:
        # A refused connection may be closed before it is asked anything.
        try:
            await asyncio.sleep(0.2)
            await client.send(request("GET", "/healthz"))
        except (BrokenPipeError, ConnectionResetError):
            pass
        status = (await client.response()).status
        await asyncio.sleep(0.1)
        return status
