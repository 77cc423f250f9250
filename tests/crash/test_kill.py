"""kill -9 in the middle of two hundred streams: of everything, of one worker, of the supervisor alone.

Whatever is killed, every request that was opened ends exactly once, and no count is below what a client received or
above what the backend wrote.
"""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backend import ScriptedBackend, Site
from tests.fakes.client import RawClient, Truncated, request
from tests.fakes.configurations import KEY, MODEL, one_site, toml
from tests.fakes.gateway import Gateway, Row, eventually
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, Stream, stream
from tests.integration.recomputation import differences

STREAMS = 200
# Two hundred streams of twenty events a second: bytes are on the move at every moment, on two cores.
EVENT_S = 0.05


@dataclass
class Crowd:
    """Streams under way."""

    heard: list[asyncio.Event] = field(default_factory=list)
    running: list[asyncio.Task[Stream]] = field(default_factory=list)

    async def all_heard(self) -> None:
        async with asyncio.timeout(30):
            for event in self.heard:
                await event.wait()

    async def results(self) -> list[Stream]:
        async with asyncio.timeout(60):
            return list(await asyncio.gather(*self.running))


def crowd(gateway: Gateway, script: Script, prefix: str = "r", count: int = STREAMS) -> Crowd:
    """Begin so many streams."""
    found = Crowd()
    for number in range(count):
        heard = asyncio.Event()
        ask = Ask(script=script, request_id=f"{prefix}-{number:03d}")
        found.heard.append(heard)
        found.running.append(asyncio.create_task(stream(gateway.url, KEY, ask, heard)))
    return found


@asynccontextmanager
async def gateway_of(directory: Path, site: Site, **gateway_settings: Any) -> AsyncIterator[Gateway]:
    content = one_site(site.url)
    content["gateway"] |= gateway_settings
    async with Gateway(directory, toml(content)) as gateway:
        yield gateway


def assert_each_open_ends_once(gateway: Gateway) -> None:
    """In the logs as they are on disk."""
    ends = Counter(json.loads(line)["export_id"] for line in gateway.ends())
    assert {export_id: count for export_id, count in ends.items() if count != 1} == {}
    opens = {json.loads(line)["export_id"] for line in gateway.opens()}
    assert opens - ends.keys() == set(), "opened and never ended"


def by_request(rows: list[Row]) -> dict[str, Row]:
    counts = Counter(row["request_id"] for row in rows)
    assert all(count == 1 for count in counts.values()), counts.most_common(3)
    return {row["request_id"]: row for row in rows}


def assert_bounded(seen: Stream, row: Row, site: Site) -> None:
    """received <= delivered <= written, and the money of the row is right."""
    written = sum(entry.tokens for entry in site.served(seen.request_id))
    assert seen.tokens <= row["delivered_tokens"] <= written, (seen.tokens, row["delivered_tokens"], written)
    assert row["billed_output_tokens"] <= row["delivered_tokens"] <= row["output_tokens"] <= written
    assert row["count_source"] != "estimated"
    assert differences(row) == {}


async def assert_verified(gateway: Gateway) -> None:
    verified = await gateway.verify()
    assert verified.status == 0, verified.stdout + verified.stderr


async def test_after_a_kill_of_everything_each_stream_is_recovered_with_its_count(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    site = backend.site()
    async with gateway_of(tmp_path, site) as gateway:
        streams = crowd(gateway, Script(tokens=600, event_s=EVENT_S))
        await streams.all_heard()
        gateway.kill_group()
        seen = await streams.results()
        await gateway.start()
        rows = by_request(await gateway.rows(STREAMS))
        assert rows.keys() == {each.request_id for each in seen}
        for each in seen:
            assert not each.looks_whole and each.error is None
            row = rows[each.request_id]
            assert (row["outcome"], row["export_id"], row["status"]) == ("recovered", each.export_id, 200)
            assert_bounded(each, row, site)
        assert_each_open_ends_once(gateway)
        await assert_verified(gateway)
        # Recovered once: a second restart finds nothing left to recover.
        await gateway.stop()
        await gateway.start()
        assert len(await gateway.export()) == STREAMS
        fresh = await stream(gateway.url, KEY, Ask(script=Script(tokens=3)))
        assert (await gateway.row(fresh.export_id))["outcome"] == "completed"


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_kills_at_random_moments_lose_and_invent_nothing(
    tmp_path: Path, backend: ScriptedBackend, seed: int
) -> None:
    """Requests start, stream, finish and leave all the time, so that the kill falls into every part of a life."""
    site, rng = backend.site(), random.Random(seed)
    async with gateway_of(tmp_path, site) as gateway:
        asks = [
            Ask(
                script=Script(tokens=rng.randint(1, 40), event_s=rng.choice((0.0, 0.002, 0.01))),
                request_id=f"r-{number:04d}",
                leave_after=rng.choice((None, None, None, 1, 5)),
            )
            for number in range(1500)
        ]
        room = asyncio.Semaphore(60)

        async def one(ask: Ask) -> Stream:
            async with room:
                try:
                    return await stream(gateway.url, KEY, ask)
                except OSError:
                    return Stream(request_id=ask.request_id)

        running = [asyncio.create_task(one(ask)) for ask in asks]
        moment = rng.randint(200, 900)
        await eventually(lambda: len(site.log) >= moment, "the moment", 60)
        gateway.kill_group()
        seen = await asyncio.gather(*running)
        await gateway.start()
        rows = by_request(await gateway.export())
        for each in seen:
            if each.events or each.done:
                assert_bounded(each, rows[each.request_id], site)
                if each.done:
                    assert rows[each.request_id]["delivered_tokens"] == each.tokens
        assert Counter(row["outcome"] for row in rows.values())["recovered"] > 0
        assert_each_open_ends_once(gateway)
        await assert_verified(gateway)


async def test_after_a_kill_of_a_worker_its_streams_are_recovered_and_the_others_notice_nothing(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    site = backend.site()
    async with gateway_of(tmp_path, site, workers=2) as gateway:
        streams = crowd(gateway, Script(tokens=80, event_s=EVENT_S))
        await streams.all_heard()
        log = _busiest_log(gateway)
        [worker] = [pid for pid, command in gateway.group().items() if _worker_of(command, log)]
        os.kill(worker, signal.SIGKILL)
        # The successor takes the same log, and the port answers all the while.
        await eventually(lambda: len(set(gateway.workers()) - {worker}) == 2, "a successor")
        fresh = await stream(gateway.url, KEY, Ask(script=Script(tokens=3), request_id="fresh"))
        seen = await streams.results()
        rows = by_request(await gateway.rows(STREAMS + 1))
        lost = [each for each in seen if not each.done]
        assert lost, "no stream was the killed worker's"
        for each in seen:
            row = rows[each.request_id]
            assert_bounded_or_whole(each, row, site, log)
        assert {each.request_id for each in lost} == {
            name for name, row in rows.items() if row["outcome"] == "recovered"
        }
        assert rows["fresh"]["outcome"] == "completed" and fresh.done
        assert_each_open_ends_once(gateway)
        await assert_verified(gateway)


def assert_bounded_or_whole(seen: Stream, row: Row, site: Site, killed_log: int) -> None:
    if seen.done:
        assert (row["outcome"], row["delivered_tokens"], seen.tokens) == ("completed", 80, 80)
    else:
        assert (row["outcome"], row["log"]) == ("recovered", killed_log)
        assert_bounded(seen, row, site)


def _busiest_log(gateway: Gateway) -> int:
    found: Counter[int] = Counter()
    for segment in (gateway.data_dir / "ledger").glob("*/[0-9]*.jsonl"):
        found[int(segment.parent.name)] += segment.read_bytes().count(b'"record":"open"')
    return found.most_common(1)[0][0]


def _worker_of(command: str, log: int) -> bool:
    return "gateway.app" in command and command.split()[-1] == str(log)


async def test_after_a_kill_of_the_supervisor_streams_end_with_an_error_and_are_drained(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    site = backend.site()
    async with gateway_of(tmp_path, site) as gateway:
        streams = crowd(gateway, Script(tokens=600, event_s=EVENT_S))
        await streams.all_heard()
        gateway.kill_supervisor()
        seen = await asyncio.wait_for(streams.results(), 10)
        await eventually(lambda: not gateway.group(), "the worker ends", 10)
        rows = by_request(await gateway.export())
        assert rows.keys() == {each.request_id for each in seen}
        for each in seen:
            assert each.error is not None and each.framed and not each.done
            row = rows[each.request_id]
            assert (row["outcome"], row["delivered_tokens"]) == ("drained", each.tokens)
            assert_bounded(each, row, site)
        await assert_verified(gateway)
        await gateway.start()
        fresh = await stream(gateway.url, KEY, Ask(script=Script(tokens=3)))
        assert (await gateway.row(fresh.export_id))["outcome"] == "completed"
        assert len(await gateway.export()) == STREAMS + 1
        assert_each_open_ends_once(gateway)
        await assert_verified(gateway)


async def test_a_new_gateway_starts_at_once_after_the_supervisor_was_killed(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    """On the same port: the orphaned worker lets go of it within its seconds, and nobody serves twice."""
    site = backend.site()
    async with gateway_of(tmp_path, site) as gateway:
        address = gateway.url.removeprefix("http://")
        gateway.configure(gateway.config.read_text().replace('"127.0.0.1:0"', f'"{address}"', 1))
        streams = crowd(gateway, Script(tokens=600, event_s=EVENT_S), count=20)
        await streams.all_heard()
        gateway.kill_supervisor()
        await gateway.start()
        assert gateway.url == f"http://{address}"
        seen = await streams.results()
        fresh = await stream(gateway.url, KEY, Ask(script=Script(tokens=3), request_id="fresh"))
        rows = by_request(await gateway.rows(21))
        assert {rows[each.request_id]["outcome"] for each in seen} == {"drained"}
        assert (fresh.done, rows["fresh"]["outcome"]) == (True, "completed")
        assert_each_open_ends_once(gateway)
        await assert_verified(gateway)


async def test_a_long_plain_answer_that_had_begun_to_leave_is_recovered_as_an_estimate(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    """Too large to be held until it can be counted: most of it is with the client when the kill comes."""
    site = backend.site()
    site.script = Script(tokens=400, word_bytes_min=5000, body_hold=1_500_000)
    async with gateway_of(tmp_path, site) as gateway, RawClient.connect(gateway.url) as client:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "count"}]}
        await client.send(request(key=KEY, json_body=body))
        taken = 0
        with suppress(Truncated, ConnectionError):
            async for piece in client.body(await client.head()):
                taken += len(piece)
                if taken > 1_400_000:
                    gateway.kill_group()
        await gateway.start()
        [row] = await gateway.rows(1)
        assert (row["outcome"], row["count_source"]) == ("recovered", "estimated")
        assert row["bytes_to_client"] >= taken > 1_400_000
        # Nothing was learned of this backend yet: four bytes a token.
        assert (
            row["delivered_tokens"] == row["billed_output_tokens"] == pytest.approx(row["bytes_to_client"] / 4, abs=1)
        )
        await assert_verified(gateway)


async def test_an_orphan_that_is_killed_after_the_next_gateway_began_is_recovered_by_it(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    """The log was in use when that gateway started, and none of its workers has it."""
    site = backend.site()
    async with gateway_of(tmp_path, site) as gateway:
        streams = crowd(gateway, Script(tokens=600, event_s=EVENT_S), count=20)
        await streams.all_heard()
        [orphan] = gateway.workers()
        # Stopped, it holds its log without an end to its streams, as if it hung.
        os.kill(orphan, signal.SIGSTOP)
        gateway.kill_supervisor()
        gateway.configure(gateway.config.read_text().replace(gateway.url.removeprefix("http://"), "127.0.0.1:0"))
        await gateway.start()
        assert await gateway.export() == []
        os.kill(orphan, signal.SIGKILL)
        seen = await streams.results()
        rows = by_request(await gateway.rows(20))
        for each in seen:
            assert rows[each.request_id]["outcome"] == "recovered"
            assert_bounded(each, rows[each.request_id], site)
        assert_each_open_ends_once(gateway)
        await assert_verified(gateway)


async def test_a_torn_last_line_is_cut_and_nothing_else_changes(tmp_path: Path, backend: ScriptedBackend) -> None:
    async with gateway_of(tmp_path, backend.site()) as gateway:
        seen = [await stream(gateway.url, KEY, Ask(script=Script(tokens=3))) for _ in range(5)]
        before = await gateway.rows(5)
        gateway.kill_group()
        await gateway.ended()
        segment = max((gateway.data_dir / "ledger" / "0").glob("[0-9]*.jsonl"))
        with segment.open("ab") as log:
            log.write(b'{"record":"settled","export_id":"01')
        await gateway.start()
        assert await gateway.export() == before
        assert {row["export_id"] for row in before} == {each.export_id for each in seen}
        await assert_verified(gateway)


async def test_damage_is_named_by_segment_and_line(tmp_path: Path, backend: ScriptedBackend) -> None:
    async with gateway_of(tmp_path, backend.site()) as gateway:
        for _ in range(5):
            await stream(gateway.url, KEY, Ask(script=Script(tokens=3)))
        await gateway.rows(5)
        await gateway.stop()
        segment = max((gateway.data_dir / "ledger" / "0").glob("[0-9]*.jsonl"))
        lines = segment.read_bytes().splitlines(keepends=True)
        number = next(n for n, line in enumerate(lines) if b'"record":"settled"' in line)
        lines[number] = lines[number].replace(b'"delivered_tokens":3', b'"delivered_tokens":2')
        segment.write_bytes(b"".join(lines))
        verified = await gateway.verify()
        await gateway.start()
    assert verified.status == 1
    assert segment.name in verified.stdout or segment.stem in verified.stdout
    assert str(number + 1) in verified.stdout or str(number + 2) in verified.stdout
