"""The short way of a token: from the backend's socket to the client's in one call.

Once an answer is under way and its shape is learned, nearly every read is one chunk around one event of that shape, or
a row of such chunks. A `Lane` takes those reads straight from the backend's transport: it proves that the bytes can
be nothing else, moves the counts on the board, remembers where events end, and writes. A chunk that a backend framed is
framed as well as ours would be, so what needs no cut leaves as the very object that came. All that is different goes
the long way, through the connection, its decoder and the tap, after the lane has handed its counts back; afterwards
the lane may take over again.

A token finds the caches cold, so what counts is not the time of its steps but how many objects and lines of code they
touch: all of it is in one object and one frame.

The proof. Taken off are, in this order, the one size line that a chunk of the read's length has, the bytes before the
text, and those after it; each is taken off whole or not at all, so that the length of what is left tells whether all
three were there. What is left is of the alphabet of a JSON string's inside. Nothing else is checked, for nothing else
could differ. A row is proved the same way, by the sum of its lengths; its texts are looked at together, with a space
between each two, which neither ends a string nor continues an escape or a character.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate, islice, repeat
from typing import Protocol

from gateway.edge.connection import ClientConnection
from gateway.edge.delivery import Delivery
from gateway.ledger.board import Slot
from gateway.upstream.transport import Receiver, UpstreamConnection
from gateway.wire.chunked import SIZE_LINES, WHOLE_CHUNK_BYTES_MAX
from gateway.wire.openai_shape import PLAIN, Shape, string_inside
from gateway.wire.openai_stream import StreamTap

# What is around a text while nothing may be told by its text: no read is so short.
_NOTHING = -2 * WHOLE_CHUNK_BYTES_MAX
# Events between two looks at what has left the client's transport, less one: a mask. Each is 40 bytes of every stream.
_LOOK_MASK = 7
# How often the long way may end within one read: each time costs a look at all that is left of it.
_RETURNS_MAX = 4
_CHUNK_END = b"\n\n\r\n"
_EVENT_ENDS = (b"\n\n", b"\n\r", b"\r\r")
_LINES = frozenset(SIZE_LINES)
_without = bytes.removeprefix


@lru_cache(maxsize=64)
def _in_chunk(suffix: bytes) -> bytes:
    """The last bytes of an event with what ends a chunk: the same object for all streams of a backend."""
    return suffix + b"\r\n"


class Sweeping(Protocol):
    """Whose sweeps tell the time, roughly: a store per token instead of a call."""

    next_sweep_at: float


class Lane(Delivery):
    """A delivery of a stream that reads its backend's answer itself while that is of the usual kind."""

    __slots__ = (
        "_after",
        "_around",
        "_before",
        "_cells",
        "_connection",
        "_cuts",
        "_delivered_at",
        "_events_before",
        "_generated_at",
        "_port",
        "_prefix",
        "_rest",
        "_send",
        "_shape",
        "_suffix",
        "_tap",
        "_usual",
        "bytes_received",
        "is_open",
        "touched_at",
    )

    def __init__(self, client: ClientConnection, slot: Slot, port: Sweeping) -> None:
        super().__init__(client, slot)
        self._port = port
        self._cells = slot.cells
        self._generated_at = 0
        self._delivered_at = 0
        self._send = client.send
        self._connection: UpstreamConnection | None = None
        self._tap: StreamTap | None = None
        self._shape: Shape | None = None
        self._events_before = 0  # when it was opened
        self._prefix = self._suffix = self._before = self._after = b""
        self._around = _NOTHING  # the bytes around a text, if that may be told by itself
        self._usual = 0  # as many, while open
        self._cuts = False  # whether usage is cut out
        self._rest = b""  # the beginning of a usual chunk, not its end
        self.is_open = False
        self.bytes_received = 0  # from the backend, as long as it was open
        self.touched_at = 0.0  # a moment between the last usual read and the sweep after it

    # ---- opening and shutting

    def attach(self, receiver: Receiver, connection: UpstreamConnection, tap: StreamTap) -> None:
        """From now on this answer's reads come here first."""
        self._connection, self._tap = connection, tap
        self._generated_at, self._delivered_at = self._slot.generated_at, self._slot.delivered_at
        connection.divert(receiver, self)

    def open(self) -> None:
        """Tell what follows by its text, if the long way is done with all that came before."""
        connection, tap = self._connection, self._tap
        if self.is_open or connection is None or tap is None:
            return
        shape = tap.usual(WHOLE_CHUNK_BYTES_MAX)
        if (
            shape is None
            or not connection.between_chunks
            or not self._client.framed
            or self._events != tap.content_events
            or self._tokens != tap.running_tokens
        ):
            return
        if shape is not self._shape:
            self._shape = shape
            self._prefix, self._suffix = shape.prefix, _in_chunk(shape.suffix)
            self._cuts = shape.forward is not None
            if shape.forward is not None:
                self._before, self._after = shape.forward
        self._around = self._usual = shape.head + shape.tail + 2
        self._events_before = self._events
        self.bytes_received = connection.bytes_received
        self.is_open = True

    def shut(self, unread_bytes: int = 0) -> None:
        """Hand the counts back. What comes next goes the long way, and so many bytes of what came do."""
        if not self.is_open:
            return
        self.is_open, self._around, self._rest = False, _NOTHING, b""
        assert self._connection is not None and self._tap is not None and self._shape is not None
        self._tap.counted(self._events - self._events_before, self._shape)
        self.bytes_received -= unread_bytes
        self._connection.bytes_received = self.bytes_received

    # ---- called by the backend's transport

    def data_received(self, data: bytes) -> None:
        size = len(data)
        if size <= WHOLE_CHUNK_BYTES_MAX:
            line = SIZE_LINES[size]
            body = data.removeprefix(line)
            text = body.removeprefix(self._prefix).removesuffix(self._suffix)
            if size - len(text) == len(line) + self._around and text and (not text.strip(PLAIN) or string_inside(text)):
                # As `_hand_over`, without its detours: most tokens come this way.
                self.bytes_received = received = self.bytes_received + size
                length = len(body) - 2
                if self._cuts:
                    length = len(self._before) + len(text) + len(self._after)
                    data = b"%x\r\n%b%b%b\r\n" % (length, self._before, text, self._after)
                    size = len(data)
                self._events = events = self._events + 1
                self.payload_bytes = payload = self.payload_bytes + length
                cells, at = self._cells, self._generated_at
                cells[at] = events
                cells[at + 2] = received
                at = self._delivered_at
                cells[at] = events
                cells[at + 2] = payload
                self._written = written = self._written + size
                self._ends.append(written - 2)
                self.touched_at = self._port.next_sweep_at
                self._send(data)
                if not events & _LOOK_MASK:
                    self._forget_sent()
                return
        self._other(data)

    def eof_received(self) -> bool:
        assert self._connection is not None
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._connection is not None
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """A request is on its way whole: nobody waits."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    # ---- rows, and the long way

    def _other(self, data: bytes) -> None:
        """A read of many events, of a part of one, or of something else."""
        connection = self._connection
        assert connection is not None
        for _ in range(_RETURNS_MAX):
            if self.is_open:
                self.bytes_received += len(data)
                rest = self._row(self._rest + data if self._rest else data)
                self._rest, self._around = b"", self._usual
                if not rest or self._held(rest):
                    return
                self.shut(len(rest))
                data = rest
            # What remains of a long read may be a row again, after the chunk that is not as usual.
            chunk_end = data.find(_CHUNK_END) if len(data) > WHOLE_CHUNK_BYTES_MAX else -1
            if chunk_end < 0:
                break
            chunk_end += len(_CHUNK_END)
            connection.data_received(data[:chunk_end])
            data = data[chunk_end:]
            if not data:
                return
            if not self.is_open:
                break
        self.shut()
        connection.data_received(data)

    def _held(self, rest: bytes) -> bool:
        """Keep the beginning of a usual chunk for the next read. Anything else, or a whole event, may not wait."""
        line_end = rest.find(b"\n") + 1
        begun = rest[line_end:]
        if (
            len(rest) >= WHOLE_CHUNK_BYTES_MAX
            or rest[:line_end] not in _LINES
            or not (begun.startswith(self._prefix) or self._prefix.startswith(begun))
            or any(end in begun for end in _EVENT_ENDS)
        ):
            return False
        self._rest, self._around = rest, _NOTHING
        self._cells[self._generated_at + 2] = self.bytes_received
        return True

    def _row(self, data: bytes) -> bytes:
        """Hand over the usual chunks that `data` begins with; what follows them."""
        pieces = data.split(self._suffix)
        pieces.pop()
        texts = self._texts(pieces)
        if len(texts) < len(pieces):
            # One of them is different: those before it.
            for count, piece in enumerate(pieces):
                if not self._texts([piece]):
                    pieces = pieces[:count]
                    texts = self._texts(pieces)
                    break
        if not texts:
            return data
        tail, usual = len(self._suffix), self._usual - 2
        sizes = [len(piece) + tail for piece in pieces]
        size = sum(sizes)
        length = sum(map(len, texts)) + usual * len(texts)
        at = self._written - 2
        out = data if size == len(data) else data[:size]
        if self._cuts:
            before, after = self._before, self._after
            around = len(before) + len(after)
            length += (around - usual) * len(texts)
            out = b"%x\r\n%b%b%b\r\n" % (length, before, (after + before).join(texts), after)
            sizes = [len(text) + around for text in texts]
            at += len(out) - length
        self._hand_over(out, len(texts), length, islice(accumulate(sizes, initial=at), 1, None))
        return data[size:]

    def _texts(self, pieces: list[bytes]) -> list[bytes]:
        """The texts of whole chunks, each given without its last bytes. None at all, if any is not as usual."""
        tail = len(self._suffix)
        wholes = [len(piece) + tail for piece in pieces]
        if not wholes or max(wholes) > WHOLE_CHUNK_BYTES_MAX:
            return []
        lines = [SIZE_LINES[whole] for whole in wholes]
        texts = list(map(_without, map(_without, pieces, lines), repeat(self._prefix)))
        taken_off = sum(map(len, lines)) + self._usual * len(texts)
        if b"" in texts or sum(wholes) - sum(map(len, texts)) != taken_off or not string_inside(b" ".join(texts)):
            return []
        return texts

    def _hand_over(self, out: bytes, events: int, length: int, ends: Iterable[int]) -> None:
        """Count so many events with so many bytes of payload, then write."""
        self._events += events
        self.payload_bytes += length
        cells, at = self._cells, self._generated_at
        cells[at] = self._events
        cells[at + 2] = self.bytes_received
        at = self._delivered_at
        cells[at] = self._events
        cells[at + 2] = self.payload_bytes
        self._forget_sent()
        self._written += len(out)
        self._ends.extend(ends)
        self.touched_at = self._port.next_sweep_at
        self._send(out)
