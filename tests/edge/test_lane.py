"""The short way of a token and the long one: the same bytes, the same counts, at every step."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.connection import ClientConnection
from gateway.edge.lane import Lane
from gateway.edge.relay import Attempt, Owner, StreamAttempt
from gateway.ledger.board import Board, Slot
from gateway.upstream.transport import Receiver, UpstreamConnection
from gateway.wire.chunked import SIZE_LINES, ChunkedDecoder, chunk
from gateway.wire.http1_memory import response_heads
from gateway.wire.openai_stream import StreamTap
from gateway.wire.sse import EventSplitter
from tests.edge.test_delivery import Client
from tests.wire.splits import byte_by_byte, in_two
from tests.wire.streams import STREAMS
from tests.wire.taps import Show

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
TEXTS = st.one_of(
    st.sampled_from([" the", "a", "data: x", "}", '"', "\\", "\n\n", "é", "東京", "\r\n", "usage", "x" * 5000]),
    st.text(min_size=1, max_size=6),
)


class Transport:
    """A backend's: it gives what comes to whoever reads now."""

    def __init__(self, reader: asyncio.Protocol) -> None:
        self.reader = reader
        self.open = True

    def set_protocol(self, reader: asyncio.Protocol) -> None:
        self.reader = reader

    def get_extra_info(self, name: str) -> None: ...

    def writelines(self, pieces: object) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.open = False


class Begins(Owner):
    """Lets an answer begin at once, and leaves the rest to the test."""

    def attempt_ready(self, attempt: Attempt) -> None:
        attempt.release()

    def attempt_over(self, attempt: Attempt) -> None:
        """Read off the attempt."""


class Recorder(Client):
    """A client that keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def send(self, data: bytes) -> None:
        super().send(data)
        self.sent += data

    @property
    def payload(self) -> bytes:
        return b"".join(ChunkedDecoder().feed(self.sent))

    def events_within(self, taken: int) -> int:
        """How many whole events of text are in the first bytes."""
        payload = b"".join(ChunkedDecoder().feed(self.sent[:taken]))
        return sum(b'"content"' in event for event in EventSplitter().feed(payload))


class Sweeps:
    """A port that never sweeps."""

    next_sweep_at = 0.0


class LongWay(Lane):
    """Takes no read itself."""

    def attach(self, receiver: Receiver, connection: UpstreamConnection, tap: StreamTap) -> None: ...


class Side:
    """One stream, from a backend's bytes to a client's."""

    def __init__(self, slot: Slot, lane: type[Lane], show: Show, choices: int = 1) -> None:
        self.slot = slot
        self.client = Recorder()
        self.lane = lane(cast(ClientConnection, self.client), slot, Sweeps())
        self.tap = StreamTap(choices=choices, show=show)
        self.connection = UpstreamConnection(response_heads(32768), lambda idle: None)
        self.transport = Transport(self.connection)
        self.connection.connection_made(cast(asyncio.Transport, self.transport))
        self.attempt = StreamAttempt(Begins(), self.connection, slot, lambda: 0.0, self.tap, self.lane)
        self.connection.send(b"", b"", self.attempt)

    def read(self, data: bytes) -> None:
        if self.transport.open and data:
            self.transport.reader.data_received(data)

    def step(self) -> tuple[object, ...]:
        """What has to be the same after every read."""
        if not self.transport.open:
            return ()  # of a read that breaks off in a fault, the usual chunks before it leave on the short way only
        at, to = self.slot.generated_at, self.slot.delivered_at
        cells = self.slot.cells
        counts = (*cells[at : at + 2], *cells[to : to + 3])
        return counts, self.lane.handed_over, self.lane.payload_bytes, self.client.payload

    def end(self) -> tuple[object, ...]:
        """What has to be the same in the end."""
        attempt, tap = self.attempt, self.tap
        attempt.cancel()
        error = (type(attempt.error), str(attempt.error))
        if not self.transport.open:
            return error
        return attempt.bytes_received, error, attempt.generated, tap.reasoning_events, tap.finish_reasons, tap.whole


@pytest.fixture(scope="module")
def board() -> Iterator[Board]:
    with tempfile.TemporaryDirectory() as directory:
        board = Board.create(Path(directory) / "board", 2)
        yield board
        board.close()


@contextmanager
def claimed(board: Board) -> Iterator[Slot]:
    slot = board.claim(bytes(16), b"{}")
    assert slot is not None
    try:
        yield slot
    finally:
        slot.release()


def agree(board: Board, reads: list[bytes], show: Show, choices: int = 1) -> None:
    """Send the same reads both ways."""
    with claimed(board) as one, claimed(board) as other:
        short, long = Side(one, Lane, show, choices), Side(other, LongWay, show, choices)
        for data in [HEAD, *reads]:
            short.read(data)
            long.read(data)
            assert short.step() == long.step()
        assert short.end() == long.end()


def content(text: str, *, usage: bool = False) -> bytes:
    made = {"id": "c-1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + orjson.dumps(made | ({"usage": None} if usage else {})) + b"\n\n"


def chunked(events: list[bytes]) -> bytes:
    return b"".join(map(chunk, events))


@pytest.mark.parametrize("show", ["none", "all"])
@pytest.mark.parametrize("name", STREAMS)
def test_every_kind_of_stream_is_the_same_both_ways(board: Board, name: str, show: Show) -> None:
    stream = STREAMS[name]
    events = EventSplitter().feed(stream.raw)
    body = chunked(events) + LAST
    for reads in ([*map(chunk, events), LAST], [body], byte_by_byte(body), *in_two(body, 29)):
        agree(board, reads, show, stream.choices)


@given(st.lists(TEXTS, min_size=1, max_size=12), st.lists(st.integers(0, 1500), max_size=6), st.booleans())
def test_however_it_is_read_a_stream_is_the_same_both_ways(
    board: Board, texts: list[str], cuts: list[int], usage: bool
) -> None:
    events = [content(text, usage=usage) for text in texts]
    body = chunked(events) + chunk(b": comment\n\n") + chunked(events)
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    reads = [body[start:end] for start, end in pairwise(bounds)]
    agree(board, [chunk(content("first", usage=usage)), *reads], "none")


@given(st.lists(TEXTS, min_size=4, max_size=40), st.integers(1, 7), st.booleans(), st.data())
def test_what_a_client_had_taken_is_known_to_the_event(
    board: Board, texts: list[str], burst: int, usage: bool, data: st.DataObject
) -> None:
    with claimed(board) as slot:
        side = Side(slot, Lane, "none")
        events = [content(text, usage=usage) for text in texts]
        side.read(HEAD + chunk(events[0]))
        for at in range(1, len(events), burst):
            side.read(chunked(events[at : at + burst]))
            client = side.client
            client.taken = data.draw(st.integers(client.taken, client.written))
        assert side.lane.progress().events == side.client.events_within(side.client.taken)
        side.end()


def odd(framed: bytes) -> dict[str, bytes]:
    """What is nearly a usual chunk."""
    line, event = framed.split(b"\r\n", 1)
    return {
        "no size line": event,
        "another size": b"%x\r\n" % (int(line, 16) + 1) + event,
        "a zero too much": b"0" + framed,
        "capital digits": line.upper() + b"\r\n" + event,
        "an extension": line + b";a=b\r\n" + event,
        "no line end": framed[:-2],
        "another beginning": chunk(b'data: {"id":"c-2' + event[16:-2]),
        "no beginning": chunk(event[60:-2]),
        "no end": chunk(event[:-10] + b"\n\n"),
        "two events": chunk(event[:-2] * 2),
        "no text": chunk(content("")),
        "a quote": chunk(event[:-2].replace(b"plain", b'pl"in')),
        "an escape too much": chunk(event[:-2].replace(b"plain", b"plain\\")),
        "half a character": chunk(event[:-2].replace(b"plain", b"\xe6\x9d")),
        "the end of a body": LAST,
        "half a size line": framed[:2],
        "nothing usual": b"\x00" * 30,
    }


@pytest.mark.parametrize("name", odd(chunk(content("plain"))))
def test_what_is_nearly_usual_is_told_as_the_long_way_tells_it(board: Board, name: str) -> None:
    usual = chunk(content("plain"))
    other = odd(usual)[name]
    for after in (
        [other],
        [usual + other],
        [usual + other + usual],
        [usual, other, usual],
        [usual * 40 + other, usual],
    ):
        agree(board, [usual, usual, *after], "none")


def test_a_usual_chunk_leaves_as_the_very_object_that_came(board: Board) -> None:
    with claimed(board) as slot:
        side = Side(slot, Lane, "none")
        reads = [chunk(content(text)) for text in ("first", "second", "third")]
        side.read(HEAD + reads[0])
        sent: list[bytes] = []
        side.lane._send = sent.append
        side.read(reads[1])
        side.read(reads[2])
        assert sent[0] is reads[1] and sent[1] is reads[2]
        assert side.tap.content_events == 1, "these went past the tap"
        side.end()
        assert side.tap.content_events == 3


def test_a_size_line_says_what_the_chunk_holds() -> None:
    for whole, line in enumerate(SIZE_LINES[6:], 6):
        assert int(line, 16) + len(line) + 2 == whole
