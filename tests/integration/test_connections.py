"""The gateway's connections to its backends: used again, replaced when stale, held back by a slow reader."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.backend import Site
from tests.fakes.client import RawClient, Truncated, request
from tests.fakes.configurations import KEY
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, stream
from tests.integration.recomputation import differences
from tests.integration.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCENES = ("plain", "stale", "slow", "busy", "long", "late", "later")


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


async def unread(site: Site, request_id: str) -> int:
    """Wait until a client that does not read has stopped everything. Returns the events written until then."""
    settled, last = 0, -1
    while settled < 5:
        await asyncio.sleep(0.05)
        [entry] = site.served(request_id)
        settled, last = (settled + 1, last) if entry.events == last else (0, entry.events)
    return last


async def test_a_slow_reader_stops_the_reading_of_its_backend_and_loses_nothing(stage: Stage) -> None:
    site = stage.site("slow")
    script = Script(tokens=3000, word_bytes_min=3000)
    ask = Ask(model="slow", script=script, request_id="slow-1")
    async with RawClient.connect(stage.gateway.url, receive_bytes=16_384) as client:
        await client.send(ask.bytes(KEY))
        head = await client.head()
        # It reads nothing. What gateway, kernels and the backend's own buffer hold is far below nine megabytes.
        assert await unread(site, "slow-1") < 2900, "nothing held the backend back"
        count = 0
        async for event in client.events(head):
            count += event.count(b'"content": "t')
        assert count == 3000
    row = await stage.gateway.row(head.headers["x-tokenport-export-id"])
    assert (row["outcome"], row["delivered_tokens"]) == ("completed", 3000)


async def test_what_still_lay_in_our_buffer_when_a_reader_left_is_not_delivered(stage: Stage) -> None:
    site = stage.site("slow")
    ask = Ask(model="slow", script=Script(tokens=3000, word_bytes_min=900, role_events=0), request_id="slow-2")
    async with RawClient.connect(stage.gateway.url, receive_bytes=4096) as client:
        await client.send(ask.bytes(KEY))
        head = await client.head()
        await unread(site, ask.request_id)
        client.half_close()
        received = (await client.rest()).count(b'"finish_reason": null}]}\n\n')
    row = await stage.gateway.row(head.headers["x-tokenport-export-id"])
    assert (row["outcome"], row["status"]) == ("client_gone", 499)
    assert 0 < received == row["delivered_tokens"] == row["billed_output_tokens"] < row["output_tokens"]
    assert differences(row) == {}


# ---- answers too large to hold, and answers that keep one waiting

LONG = Script(tokens=400, word_bytes_min=5000)


async def test_a_long_plain_answer_passes_whole(stage: Stage) -> None:
    response = await stage.post("long", LONG)
    assert response.json["choices"][0]["message"]["content"] == LONG.answer()
    row = await stage.row(response)
    assert (row["outcome"], row["delivered_tokens"], row["count_source"]) == ("completed", 400, "upstream")
    assert row["bytes_to_client"] == len(response.body)
    assert differences(row) == {}


async def test_a_long_plain_answer_that_was_cut_never_looks_like_one(stage: Stage) -> None:
    asked = len(stage.site("long", 2).log)
    cut = Script(tokens=400, word_bytes_min=5000, body_cut=1_500_000)
    body = {"model": "long", "messages": [{"role": "user", "content": "count"}], "user": cut.to_json()}
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(request(key=KEY, json_body=body))
        head = await client.head()
        with pytest.raises(Truncated):
            b"".join([piece async for piece in client.body(head)])
    row = await stage.gateway.row(head.headers["x-tokenport-export-id"])
    assert (row["outcome"], row["status"], row["count_source"]) == ("upstream_cut", 200, "estimated")
    assert 0 < row["billed_output_tokens"] <= row["delivered_tokens"] <= row["output_tokens"]
    assert len(stage.site("long", 2).log) == asked, "sent again after content"
    assert differences(row) == {}


async def test_a_long_wait_commits_the_head_and_a_failure_after_it_is_still_no_content(stage: Stage) -> None:
    """After ten seconds of waiting; until content comes another route may still be tried."""
    for scene, then in (("late", Script(tokens=3)), ("later", Script(cut_after=0))):
        stage.site(scene, 1).queue.append(Script(hold_after=0, cut_after=0))
        stage.site(scene, 2).queue.append(then)
    asks = [Ask(model=scene).bytes(KEY) for scene in ("late", "later")]
    async with RawClient.connect(stage.gateway.url) as one, RawClient.connect(stage.gateway.url) as other:
        await one.send(asks[0])
        await other.send(asks[1])
        heads = [await one.head(), await other.head()]
        for scene in ("late", "later"):
            stage.site(scene, 1).release()
        events = [
            [event async for event in client.events(head)] for client, head in zip((one, other), heads, strict=True)
        ]
    assert [head.status for head in heads] == [200, 200]
    # Committed before a route had content: the head cannot name one.
    assert not any("x-tokenport-origin" in head.headers for head in heads)
    rows = [await stage.gateway.row(head.headers["x-tokenport-export-id"]) for head in heads]
    assert events[0][-1] == b"data: [DONE]\n\n"
    assert (rows[0]["outcome"], rows[0]["attempts"], rows[0]["delivered_tokens"]) == ("completed", 2, 3)
    assert b'"error"' in events[1][-1] and b"[DONE]" not in b"".join(events[1])
    assert (rows[1]["outcome"], rows[1]["status"], rows[1]["delivered_tokens"]) == ("upstream_refused", 200, 0)
