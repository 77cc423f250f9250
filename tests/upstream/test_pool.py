"""The pool of connections to a backend: reuse, idle times, connects that fail, and what a name's change does."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
import uvloop

from gateway.errors import ConnectFailed, ConnectTimeout, StaleConnection, UpstreamError
from gateway.upstream.pool import Origin, Pool
from gateway.upstream.transport import UpstreamConnection
from gateway.wire.http1 import ResponseHead
from tests.fakes.backend import ScriptedBackend, Site, refusing_port
from tests.fakes.client import request
from tests.fakes.gateway import eventually
from tests.fakes.script import Script
from tests.fakes.tls import Authority


@dataclass
class Listener:
    """A receiver that keeps what it hears."""

    heads: list[ResponseHead] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    error: UpstreamError | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def on_head(self, head: ResponseHead) -> None:
        self.heads.append(head)

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_end(self) -> None:
        assert not self.over.is_set()
        self.over.set()

    def on_failure(self, error: UpstreamError) -> None:
        assert not self.over.is_set()
        self.error = error
        self.over.set()


@pytest.fixture
def site(backend: ScriptedBackend) -> Site:
    return backend.site()


@pytest.fixture
async def pool(site: Site) -> AsyncIterator[Pool]:
    pool = Pool(Origin.of(site.url), connect_s=2.0, head_bytes_max=32_768)
    yield pool
    pool.close()


async def ask(connection: UpstreamConnection, site: Site, script: Script) -> Listener:
    head, _, body = request(
        path=f"/{site.name}/v1/chat/completions", json_body={"model": "m", "messages": [], "user": script.to_json()}
    ).partition(b"\r\n\r\n")
    listener = Listener()
    connection.send(head + b"\r\n\r\n", body, listener)
    await asyncio.wait_for(listener.over.wait(), 5)
    return listener


async def test_a_connection_that_served_is_used_again(pool: Pool, site: Site) -> None:
    assert pool.take_idle() is None
    first = await pool.connect()
    assert (await ask(first, site, Script(tokens=2))).error is None
    assert pool.take_idle() is first
    assert (await ask(first, site, Script(tokens=2))).error is None
    assert first.idled


async def test_the_youngest_idle_connection_is_taken_first(pool: Pool, site: Site) -> None:
    older, younger = await pool.connect(), await pool.connect()
    await ask(older, site, Script(tokens=1))
    await ask(younger, site, Script(tokens=1))
    assert [pool.take_idle(), pool.take_idle(), pool.take_idle()] == [younger, older, None]


async def test_a_connection_the_backend_closed_is_not_offered(pool: Pool, site: Site, backend: ScriptedBackend) -> None:
    connection = await pool.connect()
    await ask(connection, site, Script(tokens=1))
    assert backend.close_idle() == 1
    await eventually(lambda: connection.closed, "the close is seen")
    assert pool.take_idle() is None


@pytest.mark.parametrize(
    "script",
    [
        Script(tokens=1, close=True),
        Script(tokens=1, headers={"keep-alive": "timeout=1"}),
        Script(raw="HTTP/1.1 200 OK\r\n\r\n{}"),
    ],
)
async def test_a_connection_that_must_end_is_not_kept(pool: Pool, site: Site, script: Script) -> None:
    await ask(await pool.connect(), site, script)
    assert pool.take_idle() is None


async def test_idle_connections_are_dropped_when_their_time_is_over(pool: Pool, site: Site) -> None:
    connection = await pool.connect()
    await ask(connection, site, Script(tokens=1))
    now = asyncio.get_running_loop().time()
    assert now + 3.0 < connection.idle_until < now + 4.5, "servers close idle ones after five seconds"
    pool.sweep(now + 3.0)
    assert pool.take_idle() is connection
    await ask(connection, site, Script(tokens=1))
    pool.sweep(now + 10.0)
    assert connection.closed
    assert pool.take_idle() is None


async def test_bytes_out_of_turn_end_an_idle_connection(pool: Pool, site: Site) -> None:
    connection = await pool.connect()
    answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    listener = await ask(connection, site, Script(raw=answer))
    assert (listener.error, bytes(listener.body)) == (None, b"{}")
    assert pool.take_idle() is None


async def test_a_cancelled_exchange_is_heard_of_no_more(pool: Pool, site: Site) -> None:
    connection, listener = await pool.connect(), Listener()
    script = Script(hold_before_head=True)
    raw = request(path=f"/{site.name}/v1/chat/completions", json_body={"model": "m", "user": script.to_json()})
    connection.send(raw, b"", listener)
    await eventually(lambda: site.log, "the request")
    connection.cancel()
    await eventually(lambda: site.log[0].ended == "peer_gone", "the cancel")
    assert not listener.over.is_set() and listener.heads == []


async def test_a_refused_connect_is_a_failure_at_once() -> None:
    with refusing_port() as port:
        pool = Pool(Origin.of(f"http://127.0.0.1:{port}/v1"), connect_s=2.0, head_bytes_max=1024)
        with pytest.raises(ConnectFailed) as caught:
            await pool.connect()
        assert not isinstance(caught.value, ConnectTimeout)


async def test_a_tls_handshake_with_a_plain_server_fails_in_time(site: Site) -> None:
    pool = Pool(Origin.of(site.url.replace("http://", "https://")), connect_s=0.3, head_bytes_max=1024)
    with pytest.raises(ConnectFailed):
        await pool.connect()


async def test_names_are_resolved_and_a_changed_address_drains_the_old_pool(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(site.url.split(":")[2].partition("/")[0])
    loop = asyncio.get_running_loop()
    answers = [["127.0.0.2", "127.0.0.1"], ["127.0.0.1"]]
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(2, 1, 6, "", (address, port)) for address in answers[min(len(asked), len(answers)) - 1]]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    pool = Pool(Origin.of(f"http://backend.test:{port}/v1"), connect_s=2.0, head_bytes_max=32_768)
    # The first address refuses: the second is tried within the same connect.
    connection = await pool.connect()
    await ask(connection, site, Script(tokens=1))
    await pool.connect()
    assert asked == ["backend.test"], "resolved again within thirty seconds"
    real_time = loop.time
    monkeypatch.setattr(loop, "time", lambda: real_time() + 31)
    another = await pool.connect()
    await eventually(lambda: len(asked) == 2, "a second look-up")
    await eventually(lambda: connection.closed, "the old pool is drained")
    another.cancel()
    pool.close()


@pytest.mark.parametrize(
    ("url", "authority", "base_path"),
    [
        ("http://127.0.0.1:9001/v1", "127.0.0.1:9001", "/v1"),
        ("https://api.example.com/v1/", "api.example.com", "/v1"),
        ("http://api.example.com:443", "api.example.com:443", ""),
        ("http://[::1]:80/a/b", "[::1]", "/a/b"),
    ],
)
def test_an_origin_is_taken_apart_once(url: str, authority: str, base_path: str) -> None:
    origin = Origin.of(url)
    assert (origin.authority, origin.base_path) == (authority, base_path)
    context = origin.tls()
    assert (context is None) == url.startswith("http:")
    assert context is None or context.verify_mode is ssl.CERT_REQUIRED


def test_what_is_written_leaves_at_once_on_both_sides() -> None:
    """On the loop that serves: of the accepted connection and of the one that was made."""

    async def look() -> None:
        accepted: asyncio.Queue[asyncio.Transport] = asyncio.Queue()

        class Client(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted.put_nowait(cast(asyncio.Transport, transport))

        server = await asyncio.get_running_loop().create_server(Client, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        made = await Pool(Origin.of(url), connect_s=2.0, head_bytes_max=32_768).connect()
        client = await accepted.get()
        for end in (made.extra("socket"), client.get_extra_info("socket")):
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        made.cancel()
        client.abort()
        server.close()

    uvloop.run(look())


async def test_a_backend_in_use_has_spare_connections_and_no_more(site: Site, backend: ScriptedBackend) -> None:
    pool = Pool(Origin.of(site.url), connect_s=2.0, head_bytes_max=32_768, spares=2)
    connection = await pool.connect()
    await eventually(lambda: backend.connections_made == 3, "two spares")
    assert (await ask(connection, site, Script(tokens=2))).error is None
    taken = [pool.take_idle(), pool.take_idle()]
    assert None not in taken
    await eventually(lambda: backend.connections_made == 4, "one in the place of the two: the first came back")
    pool.close()


async def test_a_backend_without_requests_gets_no_connection(site: Site, backend: ScriptedBackend) -> None:
    pool = Pool(Origin.of(site.url), connect_s=2.0, head_bytes_max=32_768, spares=2)
    connection = await pool.connect()
    await eventually(lambda: backend.connections_made == 3, "two spares")
    connection.cancel()
    pool.sweep(asyncio.get_running_loop().time() + 5.0)
    await eventually(lambda: backend.open_connections == 0, "they idled too long")
    assert backend.connections_made == 3
    pool.close()


async def test_a_spare_that_its_backend_closed_is_stale_and_not_a_fault(site: Site, backend: ScriptedBackend) -> None:
    pool = Pool(Origin.of(site.url), connect_s=2.0, head_bytes_max=32_768, spares=1)
    connection = await pool.connect()
    await eventually(lambda: backend.connections_made == 2, "a spare")
    spare = pool.take_idle()
    assert spare is not None and spare is not connection
    assert backend.close_idle() >= 1
    assert isinstance((await ask(spare, site, Script(tokens=1))).error, StaleConnection)
    pool.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_tls_session_is_resumed(tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = Authority(tmp_path)
    context = authority.server()
    context.maximum_version = version
    async with ScriptedBackend(tls=context) as backend:
        site = backend.site()
        pool = Pool(Origin.of(site.url, str(authority.file)), connect_s=2.0, head_bytes_max=32_768)
        first = await pool.connect()
        assert not first.extra("session_reused")
        assert (await ask(first, site, Script(tokens=3))).error is None
        second = await pool.connect()
        assert second.extra("session_reused")
        assert (await ask(second, site, Script(tokens=3))).error is None
        pool.close()
        # Another pool is another configuration: it trusts nobody for the first one's sake.
        stranger = Pool(Origin.of(site.url), connect_s=2.0, head_bytes_max=32_768)
        with pytest.raises(ConnectFailed):
            await stranger.connect()


async def test_a_large_body_and_a_large_answer_pass_through_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with ScriptedBackend(tls=authority.server()) as backend:
        site = backend.site()
        pool = Pool(Origin.of(site.url, str(authority.file)), connect_s=2.0, head_bytes_max=32_768)
        connection = await pool.connect()
        script = Script(tokens=20_000, word_bytes_min=100)
        head, _, body = request(
            path=f"/{site.name}/v1/chat/completions",
            json_body={
                "model": "m",
                "messages": [{"role": "user", "content": "x" * 3_000_000}],
                "user": script.to_json(),
            },
        ).partition(b"\r\n\r\n")
        listener = Listener()
        connection.send(head + b"\r\n\r\n", body, listener)
        await asyncio.wait_for(listener.over.wait(), 20)
        assert listener.error is None and script.answer() in listener.body.decode()
        assert len(site.log[0].body) > 3_000_000
        pool.close()


async def test_a_backend_that_hangs_in_the_handshake_is_given_up(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    left = asyncio.Event()

    class Silent(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            left.set()

    server = await asyncio.get_running_loop().create_server(Silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = Pool(Origin.of(f"https://127.0.0.1:{port}/v1", str(authority.file)), connect_s=0.2, head_bytes_max=32_768)
    with pytest.raises(ConnectTimeout):
        await pool.connect()
    await asyncio.wait_for(left.wait(), 5)
    server.close()
