"""One HTTP/1.1 connection to a backend, as a bare protocol.

A connection serves one exchange at a time: `send` hands it the request and a `Receiver`, whose methods are called
straight from `data_received`, so that a token costs no task switch. Heads are parsed by `wire.http1`; bodies are cut
by content length, chunks or the close. What comes back is judged by content later: a cleanly closed body is not yet
a whole answer.

The seam: everything above knows `UpstreamConnection` by `send`, `cancel`, `pause`, `resume` and the `Receiver` calls.
A multiplexed hop between edge and origin fits behind the same names.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from gateway.errors import (
    StaleConnection,
    UpstreamBadHead,
    UpstreamCut,
    UpstreamError,
    UpstreamMalformed,
    UpstreamReset,
)
from gateway.wire.chunked import ChunkedDecoder
from gateway.wire.errors import BadResponse
from gateway.wire.http1 import ResponseHead
from gateway.wire.http1_memory import HeadMemory

# After an answer is known to be whole, how long its last chunk may take before the connection is given up.
TAIL_S = 0.5
# What the kernel reads ahead of us, before doubling. The loop takes all of it at once, whatever the water marks say: it
# is part of what a slow client makes us hold. At 300 ms of distance it lets 200 KB a second through: 600 events.
RECEIVE_BUFFER_BYTES = 64 * 1024


class Receiver(Protocol):
    """Who gets a backend's answer. Called synchronously, in this order: head, body*, then end or failure, once."""

    def on_head(self, head: ResponseHead) -> None: ...

    def on_body(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...

    def on_failure(self, error: UpstreamError) -> None: ...


class Reader(Protocol):
    """Who takes reads in a connection's place; of what happens to its transport it tells the connection."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class _Tail:
    """Receives what nobody waits for any more."""

    def on_head(self, head: ResponseHead) -> None: ...

    def on_body(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...

    def on_failure(self, error: UpstreamError) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """A connection of a backend's pool. Idle while `receiver` is None."""

    __slots__ = (
        "_chunks",
        "_diverted",
        "_head_buffer",
        "_headed",
        "_heads",
        "_keep_alive",
        "_left",
        "_on_idle",
        "_receiver",
        "_transport",
        "_until_close",
        "bytes_received",
        "bytes_sent",
        "closed",
        "idle_until",
        "idled",
        "keep_alive_timeout_s",
    )

    def __init__(self, heads: HeadMemory[ResponseHead], on_idle: Callable[["UpstreamConnection"], None]) -> None:
        self._heads = heads
        self._on_idle = on_idle
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._head_buffer = b""
        # Of an answer's head: whether it is here, and what it says about its end. The rest of it would be held as long.
        self._headed = False
        self._until_close = False
        self._keep_alive = False
        self._chunks: ChunkedDecoder | None = None
        self._left = 0
        self._diverted = False
        self.closed = False
        self.idled = False  # it waited in the pool: its backend may have closed it meanwhile
        self.bytes_sent = 0
        self.bytes_received = 0
        self.idle_until = 0.0
        self.keep_alive_timeout_s: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        end = transport.get_extra_info("socket")
        if end is not None:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)

    def extra(self, name: str) -> Any:
        """What the transport tells of itself, as `socket`; None if it does not."""
        return self._transport.get_extra_info(name) if self._transport is not None else None

    def send(self, head: bytes, body: bytes, receiver: Receiver) -> None:
        """Start an exchange. The connection must be idle and open."""
        assert self._transport is not None
        assert self._receiver is None
        self._receiver = receiver
        self._headed = False
        self._head_buffer = b""
        self.bytes_sent = len(head) + len(body)
        self.bytes_received = 0
        self._transport.writelines((head, body))

    @property
    def between_chunks(self) -> bool:
        """Whether the answer is chunked and a chunk begins with the next byte."""
        return self._chunks is not None and self._chunks.between_chunks

    def divert(self, receiver: Receiver, reader: Reader) -> None:
        """Let `reader` have what comes for this receiver, straight from the socket. It hands on what it leaves."""
        if self._receiver is receiver and self._transport is not None and not self._diverted:
            self._diverted = True
            self._transport.set_protocol(cast(asyncio.BaseProtocol, reader))

    def _straighten(self) -> None:
        if self._diverted:
            self._diverted = False
            assert self._transport is not None
            self._transport.set_protocol(self)

    def cancel(self) -> None:
        """Give the exchange up: the socket closes, the receiver hears nothing more."""
        self._receiver = None
        self._straighten()
        self._close()

    def drop(self, receiver: Receiver) -> None:
        """`cancel`, if it is this receiver's exchange that is under way; one that has ended is left alone."""
        if self._receiver is receiver:
            self.cancel()

    def let_end(self, receiver: Receiver) -> None:
        """This receiver has all it wants; what is left of its body (a last chunk) is read and dropped."""
        # Its exchange may be over, and the connection in use by the next one.
        if self._receiver is receiver:
            self.resume(receiver)
            self._straighten()
            self._receiver = _Tail()
            asyncio.get_running_loop().call_later(TAIL_S, self._give_up_tail, self._receiver)

    def pause(self, receiver: Receiver) -> None:
        """Stop reading: this receiver's client is slower than the backend."""
        if self._receiver is receiver and self._transport is not None and not self.closed:
            self._transport.pause_reading()

    def resume(self, receiver: Receiver) -> None:
        """Read on."""
        if self._receiver is receiver and self._transport is not None and not self.closed:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            # A backend that speaks out of turn is not to be trusted with the next request.
            self._close()
            return
        self.bytes_received += len(data)
        try:
            if not self._headed:
                self._read_head(receiver, data)
            elif self._chunks is not None:
                self._read_chunks(receiver, self._chunks, data)
            else:
                self._read_body(receiver, data)
        except BadResponse as error:
            self._fail(UpstreamMalformed(str(error)) if self._headed else UpstreamBadHead(str(error)))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        receiver = self._receiver
        if receiver is None:
            return
        self._receiver = None
        if self._headed and self._until_close and exc is None:
            receiver.on_end()
        elif self.bytes_received == 0 and self.idled:
            receiver.on_failure(StaleConnection("closed while idle"))
        elif not self._headed:
            receiver.on_failure(UpstreamReset(str(exc) if exc else "closed before a response head"))
        else:
            receiver.on_failure(UpstreamCut(str(exc) if exc else "closed before the answer ended"))

    def _read_head(self, receiver: Receiver, data: bytes) -> None:
        buffer = self._head_buffer + data if self._head_buffer else data
        while True:
            read = self._heads.read(buffer)
            if read is None:
                self._head_buffer = buffer
                return
            head, length, end = read
            buffer = buffer[end:]
            if not head.is_informational:
                break
        self._headed, self._head_buffer = True, b""
        self._until_close, self._keep_alive = head.close_delimited, head.keep_alive
        self._chunks = ChunkedDecoder(BadResponse) if head.chunked else None
        self._left = length or 0
        self.keep_alive_timeout_s = head.keep_alive_timeout_s
        receiver.on_head(head)
        if self._receiver is not receiver:
            return
        if not head.chunked and not head.close_delimited and self._left == 0:
            self._finish(excess=bool(buffer))
        elif buffer:
            self._read_body(receiver, buffer)

    def _read_chunks(self, receiver: Receiver, chunks: ChunkedDecoder, data: bytes) -> None:
        pieces = chunks.feed(data)
        if pieces:
            # What came in one read is handed on in one call, and leaves in one write.
            receiver.on_body(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if chunks.done:
            self._finish(excess=bool(chunks.remainder))

    def _read_body(self, receiver: Receiver, data: bytes) -> None:
        if self._chunks is not None:
            self._read_chunks(receiver, self._chunks, data)
            return
        if self._until_close:
            receiver.on_body(data)
            return
        piece = data[: self._left] if len(data) > self._left else data
        self._left -= len(piece)
        receiver.on_body(piece)
        if self._left == 0:
            self._finish(excess=len(data) > len(piece))

    def _finish(self, *, excess: bool) -> None:
        """The answer has ended. Whoever received it may have given it up, or left its end to the tail."""
        receiver = self._receiver
        if receiver is None:
            return
        # An exchange may have left reading paused; an idle connection must notice its peer's close.
        self.resume(receiver)
        self._straighten()
        self._receiver = None
        if excess or not self._keep_alive:
            self._close()
        else:
            self._on_idle(self)
        receiver.on_end()

    def _give_up_tail(self, tail: Receiver) -> None:
        if self._receiver is tail:
            self.cancel()

    def _fail(self, error: UpstreamError) -> None:
        receiver, self._receiver = self._receiver, None
        self._straighten()
        self._close()
        if receiver is not None:
            receiver.on_failure(error)

    def _close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
