"""The public port: one protocol object per client connection.

Why this is ours: a token passes through here once per event, and every queue, task or object on its way costs more
than the work itself. So the connection is a bare `asyncio.Protocol`; bytes go from the backend's `data_received` to
this transport's `write` in one call stack. The grammar of heads is llhttp's (through httptools) with the checks of
`wire.http1` on top; body framing is `wire.http1`'s.

State table (one request at a time; a pipelined one waits in `_pending`, bounded):

    state       bytes arrive             response done            client's FIN          deadline (absolute)
    HEAD        parse; dispatch -> BODY  -                        close                 head_s from first byte; idle_s
    BODY        collect; full -> ANSWER  -                        close                 body_s, longer for large bodies
    ANSWER      keep (pipelined)         -> HEAD, or LINGER       client gone, abort    the exchange's own
    LINGER      discard                  -                        close                 2 s
    CLOSED      -                        -                        -                     -

A response that must end the connection leaves through LINGER: our side is shut, the client's last bytes are read and
dropped, so that it gets the answer instead of a reset.
"""

import asyncio
import enum
import os
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol, cast

from gateway.config import Limits
from gateway.edge.port import Port
from gateway.errors import ApiError, Refused
from gateway.wire.chunked import LAST_CHUNK, ChunkedDecoder, chunk
from gateway.wire.errors import BadRequest, FramingError
from gateway.wire.http1 import RequestHead
from gateway.wire.http1_encode import CONTINUE, encode_response_head
from gateway.wire.openai import error_body

# What a client may send ahead while its request is being answered. More than this stops reading until the answer ends.
PIPELINED_BYTES_MAX = 64 * 1024
LINGER_S = 2.0
# What a lingering close reads and drops before it gives up on a client that keeps sending.
LINGER_BYTES_MAX = 4 * 1024 * 1024

Field = tuple[str, str]
OnBody = Callable[[bytes], None]


def _nowhere(data: bytes) -> None:
    """Before there is a transport nothing can be sent."""


class State(enum.IntEnum):
    """Where a connection is in the life of a request."""

    HEAD = 0
    BODY = 1
    ANSWER = 2
    LINGER = 3
    CLOSED = 4


class Exchange(Protocol):
    """Who is being answered. Told what happens to its client; never awaited."""

    def client_gone(self) -> None: ...

    def client_full(self) -> None: ...

    def client_ready(self) -> None: ...


class ClientConnection(asyncio.Protocol):
    """One client's connection. Handlers use `respond`, or `start`, `write` and `finish`."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_body_since",
        "_chunks",
        "_committed",
        "_content_length",
        "_head",
        "_keep_alive",
        "_lingered_bytes",
        "_on_body",
        "_pending",
        "_port",
        "_reading",
        "_state",
        "_transport",
        "_unsent_bytes",
        "closed",
        "deadline",
        "exchange",
        "framed",
        "peer",
        "send",
    )

    def __init__(self, port: Port) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._state = State.HEAD
        self._pending = b""
        self._head: RequestHead | None = None
        self._content_length: int | None = None
        self._on_body: OnBody | None = None
        self._body: list[bytes] | None = None
        self._body_bytes = 0
        self._body_since = 0.0
        self._chunks: ChunkedDecoder | None = None
        self._keep_alive = False
        self.framed = True  # whether the answer under way is chunked
        self.closed = False  # whether nothing more can be written
        self.send: Callable[[bytes], None] = _nowhere  # to the transport as it is, for who frames by itself
        self._committed = False
        self._reading = True
        self._lingered_bytes = 0
        self._unsent_bytes = 0
        self.peer = ""
        self.exchange: Exchange | None = None
        self.deadline = 0.0

    @property
    def _limits(self) -> Limits:
        return self._port.limits

    # ---- what handlers use

    @property
    def committed(self) -> bool:
        """Whether a response head has left."""
        return self._committed

    @property
    def unsent_bytes(self) -> int:
        """Bytes handed over that have not left this process.

        Still known when the client shuts its side or is given up; after a reset the loop has dropped its queue and
        says 0, so that what lay in it counts as delivered: more than was received, never less.
        """
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def respond(self, status: int, fields: Iterable[Field], body: bytes) -> None:
        """A whole response."""
        if self.closed:
            return
        assert self._transport is not None
        self._committed = True
        head = encode_response_head(status, fields, content_length=len(body), close=self._closes())
        is_head_request = self._head is not None and self._head.method == "HEAD"
        self._transport.writelines((head,) if is_head_request else (head, body))
        self._done()

    def refuse(self, error: ApiError, fields: Iterable[Field] = (), render: Callable[..., bytes] = error_body) -> None:
        """An error, as JSON in the caller's dialect."""
        body = render(error.message, error.type, error.code, error.param)
        self.respond(error.status, [("content-type", "application/json"), *fields, *error.headers.items()], body)

    def start(self, status: int, fields: Iterable[Field]) -> int:
        """Begin a response of unknown length. Returns the bytes written."""
        assert self._transport is not None
        assert self._head is not None
        self._committed = True
        self.framed = self._head.version == "1.1"
        if not self.framed:
            # An HTTP/1.0 client knows no chunks: the close ends the body.
            self._keep_alive = False
        head = encode_response_head(status, fields, chunked=self.framed, close=self._closes())
        self._transport.write(head)
        return len(head)

    def write(self, data: bytes) -> int:
        """One piece of the body, framed as one chunk. Returns the bytes written, framing included."""
        if self.closed:
            return 0
        assert self._transport is not None
        if self.framed:
            data = chunk(data)
        self._transport.write(data)
        return len(data)

    def finish(self) -> None:
        """End a response begun with `start`."""
        if self.closed:
            return
        assert self._transport is not None
        if self.framed:
            self._transport.write(LAST_CHUNK)
        self._done()

    def let_go(self) -> None:
        """The answer has begun: nobody asks for the request again, and its body counts no more."""
        self._release_body()
        self._head = None

    def abort(self) -> None:
        """Close at once, without ending the response: what was sent must not look whole."""
        self._state = State.CLOSED
        self.closed = True
        if self._transport is not None:
            self._stop_sending(self._transport)
            self._transport.abort()

    def _stop_sending(self, transport: asyncio.Transport) -> None:
        """What the kernel has not taken by now never leaves: the loop would write on until it has closed the socket,
        and what was counted as unsent would be received after all."""
        end = transport.get_extra_info("socket")
        if end is not None:
            with suppress(OSError), socket.socket(fileno=os.dup(end.fileno())) as same:
                same.shutdown(socket.SHUT_WR)

    def close_idle(self) -> None:
        """Draining: a connection that waits for its next request has nothing to lose."""
        if self._state is State.HEAD and not self._pending:
            self._linger()

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.send = self._transport.write
        self._transport.set_write_buffer_limits(high=self._limits.buffer_bytes_high)
        peer = transport.get_extra_info("peername")
        # On a socket for both families an IPv4 client comes as ::ffff:a.b.c.d.
        self.peer = sys.intern(str(peer[0]).removeprefix("::ffff:")) if isinstance(peer, tuple) and peer else ""
        self.deadline = self._port.now() + self._limits.idle_s
        if not self._port.enter(self):
            error = Refused(503, "overloaded", "Too many connections; try again shortly.", retry_after_s=1)
            self._keep_alive = False
            self.refuse(error)

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is State.HEAD:
            self._read_head(self._pending + data if self._pending else data)
        elif state is State.BODY:
            self._read_body(data)
        elif state is State.ANSWER:
            self._pending += data
            if len(self._pending) > PIPELINED_BYTES_MAX and self._reading:
                assert self._transport is not None
                self._reading = False
                self._transport.pause_reading()
        elif state is State.LINGER:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > LINGER_BYTES_MAX:
                self.abort()

    def eof_received(self) -> bool:
        # A client that shuts its sending side has left, as far as an API is concerned. Returning False closes.
        if self._state is State.ANSWER:
            self._gone()
            self.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._port.leave(self)
        self._gone()
        self._state = State.CLOSED
        self.closed = True
        self._release_body()

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.client_full()

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.client_ready()

    def expire(self, now: float) -> None:
        """The deadline has passed: called by the port's sweep."""
        if self._state is State.BODY and now < self._body_deadline():
            self.deadline = self._body_deadline()
        elif self._state is State.BODY or (self._state is State.HEAD and self._pending):
            self._reject(ApiError(408, "The request did not arrive in time.", code="request_timeout"))
        elif self._state is State.ANSWER:
            # Answers have deadlines of their own (the exchange's).
            self.deadline = float("inf")
        elif not self._still_sends(now):
            self.abort()

    def _still_sends(self, now: float) -> bool:
        """A response that is done may still lie in our buffer: a slow client that takes some of it is waited for."""
        before, self._unsent_bytes = self._unsent_bytes, self.unsent_bytes
        if self._unsent_bytes >= before:
            return False
        wait_s = self._limits.write_stall_s if self._unsent_bytes else LINGER_S if self.closed else self._limits.idle_s
        self.deadline = now + wait_s
        return True

    # ---- reading a request

    def _read_head(self, data: bytes) -> None:
        try:
            read = self._port.heads.read(data)
        except BadRequest as error:
            self._pending = b""
            self._reject(ApiError(error.status, error.reason, code="bad_request"))
            return
        if read is None:
            if not self._pending:
                self.deadline = self._port.now() + self._limits.head_s
            self._pending = data
            return
        self._pending = b""
        head, self._content_length, end = read
        self._head = head
        self._keep_alive = head.keep_alive and not self._port.draining
        self._committed = False
        self._begin(head, data[end:])

    def _begin(self, head: RequestHead, rest: bytes) -> None:
        try:
            on_body = self._port.open(self, head)
        except ApiError as error:
            self._skip_body(head, rest)
            self.refuse(error)
            return
        if not head.chunked and not self._content_length:
            self._pending = rest
            self._answer(on_body, b"")
            return
        if self._content_length == len(rest) <= self._port.limits.body_bytes_max and self._port.take_body_bytes(
            len(rest)
        ):
            # The whole request in one read, as small ones come.
            self._body_bytes = len(rest)
            self._answer(on_body, rest)
            return
        if self._content_length is not None and self._content_length > self._limits.body_bytes_max:
            self._reject(ApiError(413, self._too_large(), code="request_too_large"))
            return
        if head.expect_continue and not rest:
            assert self._transport is not None
            self._transport.write(CONTINUE)
        self._state = State.BODY
        self._on_body = on_body
        self._body = []
        self._chunks = ChunkedDecoder() if head.chunked else None
        self._body_since = self._port.now()
        self.deadline = self._body_since + self._limits.body_s
        if rest:
            self._read_body(rest)

    def _read_body(self, data: bytes) -> None:
        on_body, received = self._on_body, self._body
        assert on_body is not None and received is not None
        rest = b""
        if self._chunks is not None:
            try:
                pieces = self._chunks.feed(data)
            except FramingError as error:
                self._reject(ApiError(400, str(error), code="bad_request"))
                return
            done = self._chunks.done
            rest = self._chunks.remainder if done else b""
        else:
            assert self._content_length is not None
            left = self._content_length - self._body_bytes
            pieces, rest = [data[:left]], data[left:]
            done = len(data) >= left
        size = sum(map(len, pieces))
        if self._body_bytes + size > self._limits.body_bytes_max:
            self._reject(ApiError(413, self._too_large(), code="request_too_large"))
            return
        if not self._port.take_body_bytes(size):
            self._reject(Refused(503, "overloaded", "Too many request bodies at once.", retry_after_s=1))
            return
        self._body_bytes += size
        received.extend(pieces)
        if done:
            body = received[0] if len(received) == 1 else b"".join(received)
            self._body = None
            self._pending = rest
            self._answer(on_body, body)

    def _answer(self, on_body: OnBody, body: bytes) -> None:
        self._state = State.ANSWER
        self._on_body = None
        self._chunks = None
        self.deadline = float("inf")
        on_body(body)

    def _skip_body(self, head: RequestHead, rest: bytes) -> None:
        """After a refusal by the head alone: a body that is already here is dropped, else the connection ends."""
        self._state = State.ANSWER
        length = self._content_length or 0
        if head.chunked or length > len(rest):
            self._keep_alive = False
        else:
            self._pending = rest[length:]

    def _reject(self, error: ApiError) -> None:
        """Refuse what cannot be read on: the connection ends with it."""
        self._keep_alive = False
        self._release_body()
        self.refuse(error)

    def _body_deadline(self) -> float:
        allowed_s = max(self._content_length or 0, self._body_bytes)
        large_s = min(self._limits.body_large_s, allowed_s / self._limits.body_bytes_per_s_min)
        return self._body_since + max(self._limits.body_s, large_s)

    def _too_large(self) -> str:
        return f"The request body is larger than {self._limits.body_bytes_max} bytes."

    # ---- ending a response

    def _closes(self) -> bool:
        if self._port.draining:
            self._keep_alive = False
        return not self._keep_alive

    def _done(self) -> None:
        self.exchange = None
        # What comes next may never become a head, and is not to be answered as the last one was.
        self._head = None
        self._release_body()
        if self._keep_alive:
            self._state = State.HEAD
            self._unsent_bytes = self.unsent_bytes
            self.deadline = self._port.now() + (
                self._limits.write_stall_s if self._unsent_bytes else self._limits.idle_s
            )
            if not self._reading and self._transport is not None:
                self._reading = True
                self._transport.resume_reading()
            if self._pending:
                # By the loop, not by recursion: a client may have pipelined many requests.
                self.deadline = self._port.now() + self._limits.head_s
                self._port.loop.call_soon(self._next_request)
            return
        self._linger()

    def _linger(self) -> None:
        self._state = State.LINGER
        self.closed = True
        self._pending = b""
        self._unsent_bytes = self.unsent_bytes
        self.deadline = self._port.now() + (self._limits.write_stall_s if self._unsent_bytes else LINGER_S)
        assert self._transport is not None
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _next_request(self) -> None:
        """A request that was pipelined behind the last one, unless more bytes of it have moved it on already."""
        if self._state is State.HEAD and self._pending:
            self._read_head(self._pending)

    def _release_body(self) -> None:
        self._port.return_body_bytes(self._body_bytes)
        self._body_bytes = 0
        self._body = None

    def _gone(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()
