"""A backend's response, from its first byte to its last, against h11's reading of the same bytes."""

import asyncio
from contextlib import suppress
from typing import cast

import h11

from gateway.errors import StaleConnection, UpstreamError
from gateway.upstream.transport import UpstreamConnection
from gateway.wire.http1 import ResponseHead
from gateway.wire.http1_memory import HeadMemory, response_heads
from tests.fuzz.inputs import case_of
from tests.fuzz.transport import RecordingTransport

TOKENS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"content-length: 5\r\n",
    b"transfer-encoding: chunked\r\n",
    b"connection: close\r\n",
    b"keep-alive: timeout=5\r\n",
    b"\r\n\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"upgrade: h2c\r\n",
]
HEAD_BYTES_MAX = 512


class Receiver:
    """What an exchange hears."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body = b""
        self.ends: list[str] = []

    def on_head(self, head: ResponseHead) -> None:
        assert self.head is None and not self.ends
        self.head = head

    def on_body(self, data: bytes) -> None:
        assert self.head is not None and not self.ends
        self.body += data

    def on_end(self) -> None:
        self.ends.append("end")

    def on_failure(self, error: UpstreamError) -> None:
        assert not isinstance(error, StaleConnection)
        self.ends.append(error.cause)


def check(data: bytes) -> None:
    """However it is cut it is heard alike: a head, a body, one end; and as h11 reads it, where h11 takes it."""
    case = case_of(data)
    heads = response_heads(HEAD_BYTES_MAX)
    heard, kept = received(case.reads, heads)
    other, other_kept = received([case.whole], response_heads(HEAD_BYTES_MAX))
    again, _ = received([case.whole], heads)
    assert (heard.head, heard.ends) == (other.head, other.ends)
    assert (again.head, again.body, again.ends) == (other.head, other.body, other.ends), "read otherwise by memory"
    if heard.ends == ["end"]:
        assert heard.body == other.body
        # What follows an answer in the same read is seen; in a read of its own it closes the idle connection.
        assert kept or not other_kept or heard.body == other.body
        _agrees(case.whole, heard)


def received(reads: list[bytes], heads: HeadMemory[ResponseHead]) -> tuple[Receiver, bool]:
    """What an exchange hears of these reads and the end of the connection, and whether it would be used again."""
    idle: list[UpstreamConnection] = []
    connection = UpstreamConnection(heads, idle.append)
    transport = RecordingTransport(connection)
    connection.connection_made(cast(asyncio.BaseTransport, transport))
    receiver = Receiver()
    connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"", receiver)
    for read in reads:
        if transport.is_closing():
            break
        connection.data_received(read)
    kept = bool(idle) and not connection.closed
    connection.connection_lost(None)
    assert len(receiver.ends) == 1, receiver.ends
    assert not kept or receiver.ends == ["end"]
    return receiver, kept


def _agrees(raw: bytes, heard: Receiver) -> None:
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    peer.send(h11.EndOfMessage())
    status, body = 0, b""
    with suppress(h11.RemoteProtocolError):
        peer.receive_data(raw)
        peer.receive_data(b"")
        while True:
            event = peer.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert heard.head is not None
                assert (status, body) == (heard.head.status, heard.body)
                return
            elif event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
