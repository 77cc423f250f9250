"""One connection to a backend: whose fault its end is, and that every exchange is told exactly one ending."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.errors import (
    StaleConnection,
    UpstreamBadHead,
    UpstreamCut,
    UpstreamError,
    UpstreamMalformed,
    UpstreamReset,
)
from gateway.upstream.pool import Origin, Pool
from tests.fakes.backend import ScriptedBackend, Site
from tests.fakes.client import request
from tests.fakes.gateway import eventually
from tests.fakes.script import Script
from tests.upstream.test_pool import Listener, ask


@pytest.fixture
def site(backend: ScriptedBackend) -> Site:
    return backend.site()


@pytest.fixture
async def pool(site: Site) -> AsyncIterator[Pool]:
    pool = Pool(Origin.of(site.url), connect_s=2.0, head_bytes_max=4096)
    yield pool
    pool.close()


OK = "HTTP/1.1 200 OK\r\n"
FAILURES: dict[str, tuple[Script, type[UpstreamError]]] = {
    "no_byte": (Script(raw=""), UpstreamReset),
    "half_a_head": (Script(raw=OK + "content-le"), UpstreamReset),
    "no_http": (Script(raw="220 mail.example ESMTP\r\n\r\n"), UpstreamBadHead),
    "huge_head": (Script(raw=OK + "x: " + "y" * 5000 + "\r\n\r\n"), UpstreamBadHead),
    "endless_head": (Script(raw=OK + "x: " + "y" * 9000), UpstreamBadHead),
    "two_lengths": (Script(raw=OK + "content-length: 2\r\ncontent-length: 2\r\n\r\n{}"), UpstreamBadHead),
    "length_and_chunked": (
        Script(raw=OK + "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        UpstreamBadHead,
    ),
    "gzip_coding": (Script(raw=OK + "transfer-encoding: gzip\r\n\r\n"), UpstreamBadHead),
    "switch": (Script(raw="HTTP/1.1 101 Switching\r\nupgrade: h2c\r\n\r\n"), UpstreamBadHead),
    "short_body": (Script(raw=OK + "content-length: 9\r\n\r\n{}"), UpstreamCut),
    "reset_in_the_body": (Script(body_cut=4, cut="rst"), UpstreamCut),
    "unended_chunks": (Script(raw=OK + "transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"), UpstreamCut),
    "half_a_chunk": (Script(raw=OK + "transfer-encoding: chunked\r\n\r\n9\r\n{}"), UpstreamCut),
    "broken_chunks": (Script(raw=OK + "transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n"), UpstreamMalformed),
    "unterminated_chunk": (Script(raw=OK + "transfer-encoding: chunked\r\n\r\n2\r\n{}x\r\n"), UpstreamMalformed),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_is_named_for_what_it_is(pool: Pool, site: Site, name: str) -> None:
    script, expected = FAILURES[name]
    listener = await ask(await pool.connect(), site, script)
    assert type(listener.error) is expected, listener.error
    assert pool.take_idle() is None


WHOLE = {
    "length": (OK + "content-length: 2\r\n\r\n{}", b"{}"),
    "chunks": (OK + "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", b"{}"),
    "chunks_with_trailer": (OK + "transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx: y\r\n\r\n", b"{}"),
    "until_the_end": (OK + "\r\n{}", b"{}"),
    "http_1_0": ("HTTP/1.0 200 OK\r\n\r\n{}", b"{}"),
    "no_content": ("HTTP/1.1 204 No Content\r\n\r\n", b""),
    "empty": (OK + "content-length: 0\r\n\r\n", b""),
    "after_interim_heads": ("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK + "content-length: 2\r\n\r\n{}", b"{}"),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_body_ends_as_its_framing_says(pool: Pool, site: Site, name: str) -> None:
    raw, body = WHOLE[name]
    listener = await ask(await pool.connect(), site, Script(raw=raw))
    assert (listener.error, bytes(listener.body), len(listener.heads)) == (None, body, 1)


async def test_an_end_before_any_byte_is_stale_only_on_a_reused_connection(pool: Pool, site: Site) -> None:
    fresh = await ask(await pool.connect(), site, Script(raw=""))
    assert type(fresh.error) is UpstreamReset and fresh.error.blame
    connection = await pool.connect()
    await ask(connection, site, Script(tokens=1))
    stale = await ask(connection, site, Script(drop_reused=True))
    assert type(stale.error) is StaleConnection and not stale.error.blame
    again = await pool.connect()
    await ask(again, site, Script(tokens=1))
    # With a byte of the answer here it was alive, and is to blame.
    alive = await ask(again, site, Script(raw="HTTP/1.1 2"))
    assert type(alive.error) is UpstreamReset


async def test_bytes_are_counted_per_exchange_heads_included(pool: Pool, site: Site) -> None:
    connection = await pool.connect()
    for tokens in (3, 30):
        await ask(connection, site, Script(tokens=tokens))
        entry = site.log[-1]
        assert (connection.bytes_sent, connection.bytes_received) == (entry.bytes_read, entry.bytes_written)


async def test_a_paused_connection_holds_its_backend_back(pool: Pool, site: Site) -> None:
    connection, listener = await pool.connect(), Listener()
    script = Script(tokens=4000, word_bytes_min=3000)
    body = {"model": "m", "stream": True, "user": script.to_json()}
    connection.send(request(path=f"/{site.name}/v1/chat/completions", json_body=body), b"", listener)
    connection.pause(listener)
    settled, last = 0, -1
    while settled < 5:
        await asyncio.sleep(0.02)
        events = site.log[-1].events if site.log else 0
        settled, last = (settled + 1, last) if events == last and events else (0, events)
    assert last < 3900
    connection.resume(listener)
    await asyncio.wait_for(listener.over.wait(), 20)
    assert listener.error is None and site.log[-1].events == 4000


async def test_an_exchange_that_is_over_has_no_say_in_the_next_one_on_its_connection(pool: Pool, site: Site) -> None:
    connection = await pool.connect()
    over = await ask(connection, site, Script(tokens=1))
    following = asyncio.create_task(ask(connection, site, Script(tokens=5)))
    await asyncio.sleep(0)
    connection.pause(over)
    connection.let_end(over)
    connection.drop(over)
    listener = await following
    assert listener.error is None
    assert Script(tokens=5).answer().encode() in listener.body


async def test_what_is_left_of_an_answer_that_was_enough_is_read_and_the_connection_kept(
    pool: Pool, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.transport.TAIL_S", 30.0)
    connection, listener = await pool.connect(), Listener()
    script = Script(tokens=4, hold_after=2)
    body = {"model": "m", "stream": True, "user": script.to_json()}
    connection.send(request(path=f"/{site.name}/v1/chat/completions", json_body=body), b"", listener)
    await eventually(lambda: b"t1 " in listener.body, "two events")
    # Enough, and paused by a slow client: the rest must be read all the same.
    connection.pause(listener)
    connection.let_end(listener)
    heard = bytes(listener.body)
    site.release()
    await eventually(lambda: site.log[0].ended == "whole", "the answer")
    await eventually(lambda: connection.idle_until > 0, "an idle connection")
    assert pool.take_idle() is connection
    assert bytes(listener.body) == heard and not listener.over.is_set()


async def test_a_rest_that_does_not_end_is_not_waited_for(
    pool: Pool, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.transport.TAIL_S", 0.05)
    connection, listener = await pool.connect(), Listener()
    body = {"model": "m", "stream": True, "user": Script(tokens=4, hold_after=2).to_json()}
    connection.send(request(path=f"/{site.name}/v1/chat/completions", json_body=body), b"", listener)
    await eventually(lambda: b"t1 " in listener.body, "two events")
    connection.let_end(listener)
    await eventually(lambda: site.log[0].ended == "peer_gone", "the backend is cancelled")
    assert pool.take_idle() is None and not listener.over.is_set()
