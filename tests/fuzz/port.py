"""The public port as one client sees it: heads, body framing and the connection's state table, against h11.

The connection and the endpoints are the real ones; behind them a proxy answers what the options say: at once or later,
whole or in pieces.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import h11

from gateway.config import Limits
from gateway.edge.caller import Caller
from gateway.edge.connection import ClientConnection
from gateway.edge.endpoints import Endpoints
from gateway.edge.port import Port
from gateway.edge.proxy import Proxy
from gateway.errors import ApiError
from gateway.ledger.cells import Workers
from gateway.wire.http1 import RequestHead
from gateway.wire.http1_memory import HeadMemory
from tests.fuzz.inputs import case_of
from tests.fuzz.transport import RecordingTransport

TOKENS = [
    b"POST /v1/chat/completions HTTP/1.1\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
    b"HEAD /healthz HTTP/1.1\r\n",
    b"host: a\r\n",
    b"authorization: Bearer k\r\n",
    b"content-length: 5\r\n",
    b"transfer-encoding: chunked\r\n",
    b"transfer-encoding: gzip, chunked\r\n",
    b"connection: close\r\n",
    b"connection: keep-alive\r\n",
    b"expect: 100-continue\r\n",
    b"upgrade: h2c\r\nconnection: upgrade\r\n",
    b"HTTP/1.0\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nx-a: b\r\n\r\n",
    b";a=b",
]
# Small, so that an input of some hundred bytes is beyond them.
LIMITS = Limits(
    head_bytes_max=300, fields_max=8, line_bytes_max=256, body_bytes_max=200, bodies_bytes_max=1000, connections_max=2
)
# What is no part of a head as it is handed on: offers to upgrade, and the length.
APART = (b"upgrade", b"http2-settings", b"content-length")

# What was opened: method, target, fields and, once it is here, the body.
Opened = tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes | None]


class Loop:
    """Calls that wait for their turn; no time passes."""

    def __init__(self) -> None:
        self.due: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def time(self) -> float:
        return 0.0

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        self.due.append((call, arguments))

    def run(self) -> None:
        while self.due:
            call, arguments = self.due.popleft()
            call(*arguments)


class Alone:
    """In the place of all workers."""

    def hold(self, connections: int) -> None:
        """Nobody else wants to know."""


class AnsweringProxy:
    """In the place of the worker's requests."""

    def __init__(self, loop: Loop, opened: list[Opened], *, later: bool, streams: bool) -> None:
        self._loop, self._opened = loop, opened
        self._later, self._streams = later, streams
        self.under_way = 0

    def authenticate(self, head: RequestHead) -> None:
        if head.get(b"authorization") != b"Bearer k":
            raise ApiError(401, "no")

    def check_accepting(self, client: object) -> None:
        """Always."""

    def models(self, client: object) -> list[str]:
        return ["m"]

    def begin(self, connection: ClientConnection, head: RequestHead, body: bytes, caller: Caller) -> None:
        assert not self.under_way, "a second request of one connection"
        self.under_way += 1
        self._opened[-1] = (*self._opened[-1][:3], body)
        if self._later:
            self._loop.call_soon(self._answer, connection)
        else:
            self._answer(connection)

    def _answer(self, connection: ClientConnection) -> None:
        self.under_way -= 1
        if connection.closed:
            return
        if self._streams:
            connection.start(200, [("content-type", "text/event-stream")])
            connection.write(b"data: a\n\n")
            connection.write(b"data: b\n\n")
            connection.finish()
        else:
            connection.respond(200, [], b"{}")


class Served:
    """One connection from its first byte to the client's end. `heads` are those that are known from before."""

    def __init__(self, reads: list[bytes], options: int, heads: HeadMemory[RequestHead] | None = None) -> None:
        self.opened: list[Opened] = []
        loop = Loop()
        port = Port(LIMITS, cast(asyncio.AbstractEventLoop, loop), cast(Workers, Alone()))
        self.heads = port.heads = heads or port.heads
        proxy = AnsweringProxy(loop, self.opened, later=bool(options & 1), streams=bool(options & 2))
        endpoints = Endpoints(cast(Proxy, proxy), lambda: True)

        def opening(connection: ClientConnection, head: RequestHead) -> Callable[[bytes], None]:
            fields = [field for field in head.headers if field[0] not in APART]
            self.opened.append((head.method.encode(), head.target, fields, None))
            return endpoints.open(connection, head)

        port.open = opening
        connection = ClientConnection(port)
        transport = RecordingTransport(connection)
        connection.connection_made(transport)
        for read in reads:
            if transport.is_closing():
                break
            connection.data_received(read)
            if not options & 4:
                loop.run()
        loop.run()
        self.closed = connection.closed
        connection.eof_received()
        connection.connection_lost(None)
        assert port.connections == 0
        assert port.take_body_bytes(LIMITS.bodies_bytes_max), "bodies that nobody gave back"
        self.written = transport.written


def check(data: bytes) -> None:
    """What is opened does not depend on the cut, is what h11 reads, and every answer is framed as HTTP says."""
    case = case_of(data)
    served, whole = Served(case.reads, case.options), Served([case.whole], case.options)
    # After a refusal by the head alone a body that is not here yet ends the connection: less may be opened, not other.
    opened = served.opened
    shared = whole.opened[: len(opened)]
    assert opened[:-1] == shared[:-1]
    if opened:
        assert opened[-1][:3] == shared[-1][:3]
        assert opened[-1][3] in (shared[-1][3], None)
    again = Served([case.whole], case.options, whole.heads)
    assert (again.opened, again.written) == (whole.opened, whole.written), "read otherwise by memory"
    _agrees(case.whole, whole.opened)
    for each in (served, whole):
        _framed(each)


def _agrees(raw: bytes, opened: list[Opened]) -> None:
    """h11 reads the same requests, as far as it takes them."""
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(raw)
    with suppress(h11.RemoteProtocolError):
        for method, target, fields, body in opened:
            request = peer.next_event()
            if not isinstance(request, h11.Request):
                return
            theirs = [_plain(field) for field in request.headers if field[0] not in APART]
            assert (request.method, request.target, theirs) == (method, target, [_plain(field) for field in fields])
            read = b""
            while isinstance(event := peer.next_event(), h11.Data):
                read += bytes(event.data)
            if not isinstance(event, h11.EndOfMessage):
                return
            if body is not None:
                assert read == body
            peer.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            peer.send(h11.EndOfMessage())
            if peer.our_state is h11.MUST_CLOSE:
                return
            peer.start_next_cycle()


def _plain(field: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """As h11 gives it: a transfer coding in lower case."""
    name, value = field
    return name, value.lower() if name == b"transfer-encoding" else value


def _framed(served: Served) -> None:
    """The bytes written are whole responses, one for each request opened and at most one more, for what was not."""
    rest, responses = served.written, 0
    methods = [method for method, *_ in served.opened]
    while rest:
        peer = h11.Connection(h11.CLIENT)
        method = methods[responses] if responses < len(methods) else b"GET"
        peer.send(h11.Request(method="HEAD" if method == b"HEAD" else "GET", target="/", headers=[("host", "a")]))
        peer.send(h11.EndOfMessage())
        peer.receive_data(rest)
        while not isinstance(event := peer.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                # The end of the connection is the end of an answer to HTTP/1.0; or an interim response was the last.
                peer.receive_data(b"")
        responses += 1
        rest = peer.trailing_data[0]
    assert len(methods) - 1 <= responses <= len(methods) + 1
