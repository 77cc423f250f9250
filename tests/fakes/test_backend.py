"""The fakes prove themselves first: a scripted backend writes what its script says and logs what it wrote."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backend import ScriptedBackend, Site, refusing_port
from tests.fakes.client import RawClient, Truncated, request
from tests.fakes.gateway import eventually
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, Stream, stream, streams


async def ask(site: Site, script: Script, **more: Any) -> Stream:
    path = site.url.removeprefix("http://").partition("/")[2]
    return await stream(site.url, "", Ask(script=script, request_id="r", path=f"/{path}/chat/completions", **more))


def asked(site: Site, members: dict[str, Any] | None = None, script: Script | None = None) -> bytes:
    body = {"model": "m", "messages": [], **(members or {})}
    if script is not None:
        body["user"] = script.to_json()
    return request(path=f"/{site.name}/v1/chat/completions", json_body=body)


async def test_a_whole_answer_is_counted_to_the_token(backend: ScriptedBackend) -> None:
    site = backend.site()
    seen = await ask(site, Script(tokens=7, tokens_per_event=2))
    assert (seen.events, seen.tokens, seen.finishes) == (4, 7, 1)
    assert seen.done and seen.framed and seen.looks_whole
    [entry] = site.served("r")
    assert (entry.events, entry.tokens, entry.ended) == (4, 7, "whole")
    assert seen.text == Script(tokens=7).answer()


@pytest.mark.parametrize(
    ("script", "ended"),
    [
        (Script(cut_after=3, cut="fin"), "fin"),
        (Script(cut_after=3, cut="rst"), "reset"),
        (Script(cut_after=3, cut="fin", cut_inside="chunk"), "fin"),
        (Script(cut_after=3, cut="fin", cut_inside="event"), "fin"),
    ],
)
async def test_a_cut_delivers_the_events_before_it_and_no_more(
    backend: ScriptedBackend, script: Script, ended: str
) -> None:
    site = backend.site()
    seen = await ask(site, script)
    assert (seen.events, seen.tokens, seen.framed) == (3, 3, False)
    [entry] = site.served("r")
    assert (entry.events, entry.tokens, entry.ended) == (3, 3, ended)


async def test_a_clean_cut_is_whole_framing_without_an_end_of_the_answer(backend: ScriptedBackend) -> None:
    seen = await ask(backend.site(), Script(cut_after=2, cut="clean"))
    assert (seen.events, seen.framed, seen.done, seen.finishes) == (2, True, False, 0)


async def test_usage_is_reported_as_scripted(backend: ScriptedBackend) -> None:
    site = backend.site()
    final = {"stream_options": {"include_usage": True}}
    continuous = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    assert (await ask(site, Script(tokens=5))).usages == []
    assert [u["completion_tokens"] for u in (await ask(site, Script(tokens=5), members=final)).usages] == [5]
    assert (await ask(site, Script(tokens=5, usage="none"), members=final)).usages == []
    doubled = await ask(site, Script(tokens=5, usage_times=2, usage_claim=10), members=final)
    assert [u["completion_tokens"] for u in doubled.usages] == [10, 10]
    running = await ask(site, Script(tokens=3, usage="continuous"), members=continuous)
    assert [u["completion_tokens"] for u in running.usages] == [0, 1, 2, 3, 3, 3]
    assert site.log[-1].usage["completion_tokens"] == 3


async def test_statuses_headers_and_raw_bytes_go_out_as_scripted(backend: ScriptedBackend) -> None:
    site = backend.site()
    async with RawClient.connect(site.url) as client:
        await client.send(asked(site, script=Script(status=429, headers={"retry-after": "7"})))
        response = await client.response()
        assert (response.status, response.headers["retry-after"]) == (429, "7")
        await client.send(asked(site, script=Script(raw="HTTP/1.1 200 OK\r\nbad head")))
        assert await client.rest() == b"HTTP/1.1 200 OK\r\nbad head"
    assert [entry.status for entry in site.log] == [429, 200]


async def test_the_queue_comes_first_and_then_what_the_request_says(backend: ScriptedBackend) -> None:
    site = backend.site()
    site.queue.extend([Script(tokens=1), Script(tokens=2)])
    counts = [(await ask(site, Script(tokens=3))).tokens for _ in range(3)]
    assert counts == [1, 2, 3]


async def test_a_stale_connection_is_dropped_and_a_fresh_one_answers(backend: ScriptedBackend) -> None:
    site = backend.site()
    site.queue.extend([Script(tokens=1), Script(tokens=2, drop_reused=True)])
    async with RawClient.connect(site.url) as client:
        await client.send(asked(site))
        assert (await client.response()).status == 200
        await client.send(asked(site))
        assert await client.ended()
    async with RawClient.connect(site.url) as client:
        await client.send(asked(site))
        assert len((await client.response()).json["choices"][0]["message"]["content"].split()) == 2
    assert [entry.ended for entry in site.log] == ["whole", "dropped", "whole"]


async def test_a_held_answer_waits_for_its_release(backend: ScriptedBackend) -> None:
    site = backend.site()
    heard = asyncio.Event()
    path = f"/{site.name}/v1/chat/completions"
    answer = asyncio.create_task(stream(site.url, "", Ask(script=Script(tokens=4, hold_after=2), path=path), heard))
    await heard.wait()
    await eventually(lambda: site.log[0].events == 2, "two events")
    assert not answer.done()
    site.release()
    assert (await answer).tokens == 4


@pytest.mark.parametrize("leave", ["reset", "close", "half_close"])
async def test_a_client_that_leaves_is_noticed(backend: ScriptedBackend, leave: str) -> None:
    site = backend.site()
    seen = await ask(site, Script(tokens=100, hold_after=3), leave_after=3, leave=leave)
    assert (seen.left, seen.events) == (True, 3)
    await eventually(lambda: site.log[0].ended == "peer_gone", "the end of the answer")
    assert site.log[0].tokens == 3


async def test_a_refusing_port_refuses() -> None:
    with refusing_port() as port, pytest.raises(ConnectionRefusedError):
        async with RawClient.connect(f"http://127.0.0.1:{port}"):
            pass


async def test_the_client_takes_a_short_body_for_truncated(backend: ScriptedBackend) -> None:
    site = backend.site()
    async with RawClient.connect(site.url) as client:
        await client.send(asked(site, script=Script(body_cut=5)))
        with pytest.raises(Truncated):
            await client.response()


async def test_many_streams_at_once_keep_their_counts_apart(backend: ScriptedBackend) -> None:
    site = backend.site()
    path = f"/{site.name}/v1/chat/completions"
    asks = [Ask(script=Script(tokens=n % 9 + 1, chunk_bytes=11), request_id=str(n), path=path) for n in range(60)]
    seen = await streams(site.url, "", asks, at_once=20)
    assert [each.tokens for each in seen] == [n % 9 + 1 for n in range(60)]
    assert all(site.served(each.request_id)[0].tokens == each.tokens for each in seen)


async def test_each_attempt_at_a_request_has_its_own_script(backend: ScriptedBackend) -> None:
    scripts = json.dumps([script.changes() for script in (Script(status=500), Script(tokens=2), Script(tokens=3))])
    found = []
    for site in (backend.site("a"), backend.site("b"), backend.site("a"), backend.site("b")):
        path = f"/{site.name}/v1/chat/completions"
        seen = await stream(site.url, "", Ask(request_id="r", path=path, members={"user": scripts}))
        found.append((seen.status, seen.tokens))
    assert found == [(500, 0), (200, 2), (200, 3), (200, 3)]
    assert [entry.status for entry in backend.served["r"]] == [500, 200, 200, 200]


async def test_a_dripping_answer_is_the_same_answer(backend: ScriptedBackend) -> None:
    site = backend.site()
    seen = await ask(site, Script(tokens=2, drip_bytes=40))
    assert (seen.tokens, seen.done, site.log[0].tokens) == (2, True, 2)


async def test_bytes_may_follow_an_answer_with_a_length(backend: ScriptedBackend) -> None:
    site = backend.site()
    async with RawClient.connect(site.url) as client:
        await client.send(asked(site, script=Script(tokens=2, excess="beyond", close=True)))
        assert (await client.response()).json["choices"][0]["message"]["content"] == "t0 t1 "
        assert await client.rest() == b"beyond"


async def test_usages_may_contradict_each_other(backend: ScriptedBackend) -> None:
    script = Script(tokens=2, usage="always", usage_times=2, usage_second=9)
    seen = await ask(backend.site(), script)
    assert [usage["completion_tokens"] for usage in seen.usages] == [2, 9]


async def test_as_a_process_it_writes_its_log_as_json_lines(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes.backend", "--log", str(log), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        announced = (await asyncio.wait_for(process.stdout.readline(), 10)).decode()
        url = announced.removeprefix("listening on ").strip()
        script = Script(tokens=6, cut_after=4)
        seen = await stream(url, "", Ask(script=script, request_id="r1", path="/a/v1/chat/completions"))
        assert seen.tokens == 4
        await eventually(log.exists, "a log")
        [line] = map(json.loads, log.read_text().splitlines())
        assert (line["site"], line["request_id"], line["tokens"], line["ended"]) == ("a", "r1", 4, "fin")
    finally:
        process.kill()
        await process.wait()
