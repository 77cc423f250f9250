"""The gateway's connections to its backends: used again, replaced when stale, held back by a slow reader."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.client import RawClient
from tests.fakes.configurations import KEY
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, stream
from tests.integration.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCENES = ("plain", "stale", "slow", "busy")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    settings: dict[str, dict[str, Any]] = {"busy": {"slots": 1, "queue_max": 0}}
    directory = tmp_path_factory.mktemp("connections")
    async with staged(directory, dict.fromkeys(SCENES, 2), settings=settings) as stage:
        yield stage


async def test_a_stale_connection_is_replaced_without_blame_or_a_counted_attempt(stage: Stage) -> None:
    site = stage.site("stale")
    await stage.stream("stale", Script(tokens=2))
    assert site.log[-1].turn >= 1
    for number in range(6):  # more than would eject, were it blamed
        ask = f"stale-{number}"
        seen = await stage.stream("stale", Script(tokens=2, drop_reused=True), request_id=ask)
        row = await stage.row(seen)
        assert (row["outcome"], row["attempts"], row["origin_backend"]) == ("completed", 1, "stale-1")
        assert [entry.ended for entry in site.served(ask)] == ["dropped", "whole"]
    assert not stage.site("stale", 2).log


async def test_connections_are_used_again(stage: Stage) -> None:
    await stage.stream("plain", Script(tokens=2))
    seen = await stage.stream("plain", Script(tokens=2), request_id="again")
    assert seen.done
    [entry] = stage.site("plain").served("again")
    assert entry.turn > 1


async def test_a_full_backend_is_passed_over_and_all_full_is_a_refusal(stage: Stage) -> None:
    first, second = stage.site("busy", 1), stage.site("busy", 2)
    holding = Script(tokens=3, hold_after=1)
    heard = [asyncio.Event(), asyncio.Event()]
    held = []
    for event in heard:
        ask = Ask(model="busy", script=holding)
        held.append(asyncio.create_task(stream(stage.gateway.url, KEY, ask, event)))
        await asyncio.wait_for(event.wait(), 5)
    assert (len(first.log), len(second.log)) == (1, 1)
    refused = await stage.post("busy", stream=True)
    assert refused.status == 503
    assert 1 <= int(refused.headers["retry-after"]) <= 5
    assert (len(first.log), len(second.log)) == (1, 1)
    first.release()
    second.release()
    assert [seen.done for seen in await asyncio.gather(*held)] == [True, True]


async def test_a_slow_reader_stops_the_reading_of_its_backend_and_loses_nothing(stage: Stage) -> None:
    site = stage.site("slow")
    script = Script(tokens=3000, word_bytes_min=3000)
    ask = Ask(model="slow", script=script, request_id="slow-1")
    async with RawClient.connect(stage.gateway.url, receive_bytes=16_384) as client:
        await client.send(ask.bytes(KEY))
        head = await client.head()
        # It reads nothing. What gateway, kernels and the backend's own buffer hold is far below nine megabytes.
        settled, last = 0, -1
        while settled < 5:
            await asyncio.sleep(0.05)
            [entry] = site.served("slow-1")
            settled, last = (settled + 1, last) if entry.events == last else (0, entry.events)
        assert last < 2900, "nothing held the backend back"
        count = 0
        async for event in client.events(head):
            count += event.count(b'"content": "t')
        assert count == 3000
    row = await stage.gateway.row(head.headers["x-tokenport-export-id"])
    assert (row["outcome"], row["delivered_tokens"]) == ("completed", 3000)
