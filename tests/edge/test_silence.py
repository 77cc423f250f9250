"""Silence of a backend that streams: how long each kind is borne, by whose setting, and what the client hears in it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.edge.worker import Worker, asking, working
from tests.fakes.backend import ScriptedBackend, Site
from tests.fakes.client import RawClient
from tests.fakes.configurations import Document, one_site
from tests.fakes.gateway import eventually
from tests.fakes.script import Script

KEEP_ALIVE = b": keep-alive"


@pytest.fixture
def site(backend: ScriptedBackend) -> Site:
    return backend.site()


def content(site: Site, where: str = "limits", **settings: float) -> Document:
    document = one_site(site.url)
    document["limits"] |= {"connections_max": 16}
    (document["routes"][0] if where == "rule" else document["limits"]).update(settings)
    return document


async def events(client: RawClient, found: list[bytes]) -> None:
    """Everything the stream says, to its end."""
    async for event in client.events(await client.head()):
        found.append(event)  # noqa: PERF401  looked at while it grows


async def asked(worker: Worker, site: Site, client: RawClient, script: Script) -> None:
    await client.send(asking("m", script, stream=True))
    await eventually(lambda: site.log, "the request")


async def test_a_long_prefill_is_heard_as_comments(tmp_path: Path, site: Site) -> None:
    async with working(tmp_path, content(site)) as worker, RawClient.connect(worker.url) as client:
        await asked(worker, site, client, Script(tokens=3, hold_before_head=True))
        await worker.pass_time(9)
        assert not worker.connections[0].committed
        await worker.pass_time(2)
        head = await client.head()
        assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")
        assert "x-tokenport-export-id" in head.headers and "x-tokenport-backend" not in head.headers
        stream = client.events(head)
        assert (await anext(stream)).strip() == KEEP_ALIVE
        await worker.pass_time(14)
        await worker.pass_time(2)
        site.release()
        rest = [event async for event in stream]
        [row] = await worker.rows(1)
    # One after ten seconds, one fifteen later, and none between.
    assert [event.strip() for event in rest].count(KEEP_ALIVE) == 1
    assert rest[-1] == b"data: [DONE]\n\n"
    assert (row["outcome"], row["status"], row["delivered_tokens"]) == ("completed", 200, 3)
    assert row["ttft_ms"] >= 27_000, "a comment is not content"


async def test_silence_between_tokens_is_heard_as_comments(tmp_path: Path, site: Site) -> None:
    document = content(site, gap_s=100.0)
    async with working(tmp_path, document) as worker, RawClient.connect(worker.url) as client:
        await asked(worker, site, client, Script(tokens=5, hold_after=2))
        found: list[bytes] = []
        reading = asyncio.ensure_future(events(client, found))
        await eventually(lambda: site.log[0].events == 2 and len(found) > 1, "the first tokens")
        for _ in range(4):
            await worker.pass_time(8)
        await eventually(lambda: any(KEEP_ALIVE in event for event in found), "a comment")
        site.release()
        await reading
        [row] = await worker.rows(1)
    assert sum(KEEP_ALIVE in event for event in found) == 2
    assert (row["outcome"], row["delivered_tokens"]) == ("completed", 5)


async def test_what_fails_after_a_comment_is_told_as_an_error_event(tmp_path: Path, site: Site) -> None:
    document = content(site, first_content_s=20.0)
    async with working(tmp_path, document) as worker, RawClient.connect(worker.url) as client:
        await asked(worker, site, client, Script(hold_before_head=True))
        found: list[bytes] = []
        reading = asyncio.ensure_future(events(client, found))
        await worker.pass_time(11)
        await worker.pass_time(10)
        await reading
        [row] = await worker.rows(1)
    assert b'"code":"deadline"' in found[-1] and b"[DONE]" not in b"".join(found)
    assert (row["outcome"], row["status"], row["delivered_tokens"]) == ("deadline", 200, 0)


SILENCES: dict[str, tuple[Script, str]] = {
    "first_content_s": (Script(hold_before_head=True), "deadline"),
    "first_content_s of a role": (Script(tokens=5, hold_after=0), "deadline"),
    "gap_s": (Script(tokens=5, hold_after=2), "upstream_stall"),
}


@pytest.mark.parametrize("where", ["rule", "limits"])
@pytest.mark.parametrize("name", SILENCES)
async def test_each_silence_has_a_limit_on_the_rule_and_for_all(
    tmp_path: Path, site: Site, name: str, where: str
) -> None:
    script, outcome = SILENCES[name]
    limit = name.split()[0]
    settings: dict[str, Any] = {"first_content_s": 500.0, "gap_s": 500.0, "stream_s": 900.0, limit: 50.0}
    async with working(tmp_path, content(site, where, **settings)) as worker, RawClient.connect(worker.url) as client:
        await asked(worker, site, client, script)
        found: list[bytes] = []
        reading = asyncio.ensure_future(events(client, found))
        if script.hold_after:
            await eventually(lambda: len(found) > 1, "the first tokens")
        await worker.pass_time(49)
        assert worker.plane.proxy.in_flight == 1, "given up before its time"
        await worker.pass_time(2)
        await reading
        [row] = await worker.rows(1)
    assert row["outcome"] == outcome
    assert row["delivered_tokens"] == (script.hold_after or 0)
    assert b"error" in found[-1]


@pytest.mark.parametrize("where", ["rule", "limits"])
async def test_a_stream_that_never_ends_is_ended(tmp_path: Path, site: Site, where: str) -> None:
    document = content(site, where, first_content_s=300.0, gap_s=300.0, stream_s=500.0)
    async with working(tmp_path, document) as worker, RawClient.connect(worker.url) as client:
        await asked(worker, site, client, Script(tokens=100_000, event_s=0.01))
        found: list[bytes] = []
        reading = asyncio.ensure_future(events(client, found))
        for step_s in (240, 240):
            heard = len(found) + 2
            await eventually(lambda: len(found) > heard, "more tokens")  # noqa: B023
            await worker.pass_time(step_s)
        assert worker.plane.proxy.in_flight == 1, "given up before its time"
        await worker.pass_time(21)
        await reading
        [row] = await worker.rows(1)
    assert b"error" in found[-1]
    assert (row["outcome"], row["delivered_tokens"] > 4) == ("upstream_stall", True)


async def test_a_backend_that_cannot_be_reached_in_time_is_504(tmp_path: Path, site: Site) -> None:
    document = content(site, connect_s=0.05)
    # Not a listener that is full: a TLS handshake that nobody answers.
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    document["backends"][0]["url"] = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with working(tmp_path, document) as worker:
        response = await worker.ask("m", Script())
        [row] = await worker.rows(1)
    server.close()
    assert response.status == 504
    assert [each["cause"] for each in json.loads(row["attempts_json"])] == ["connect"]
