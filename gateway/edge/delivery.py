"""The client's half of an exchange: what was handed to its socket, counted before it was.

Every count moves on the board before the bytes it counts are written, so a killed process has never told too little.
When a client leaves, the events that still lay in our own write buffer are taken off (not after a reset, which empties
it unseen): `_ends` remembers where in the byte stream each content event that may be unsent ends, one number an event,
and `_marks` where the running usage changed.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from operator import itemgetter

from gateway.edge.connection import ClientConnection, Field
from gateway.edge.counting import Progress
from gateway.ledger.board import Slot
from gateway.wire.openai import DONE_EVENT, KEEP_ALIVE_COMMENT
from gateway.wire.openai_stream import Passed

# The buffer is asked what has left once this many ends are remembered: small, for every stream holds as many.
REMEMBERED_ENDS = 8
_end_of = itemgetter(0)


class Delivery:
    """Writes an answer to one client."""

    __slots__ = (
        "_client",
        "_ends",
        "_events",
        "_marks",
        "_sent_tokens",
        "_slot",
        "_tokens",
        "_written",
        "payload_bytes",
    )

    def __init__(self, client: ClientConnection, slot: Slot) -> None:
        self._client = client
        self._slot = slot
        self._events = 0
        self._tokens: int | None = None
        self._written = 0
        self._ends: list[int] = []  # of the last content events, in bytes written
        self._marks: list[tuple[int, int | None]] = []  # where the running usage became what it is; seldom any
        self._sent_tokens: int | None = None
        self.payload_bytes = 0

    @property
    def begun(self) -> bool:
        """Whether a content event was handed over: from then on nothing is ever sent again elsewhere."""
        return self._events > 0

    @property
    def committed(self) -> bool:
        """Whether a response head has left."""
        return self._client.committed

    def commit(self, status: int, fields: Iterable[Field]) -> None:
        """Send the head of a streamed answer."""
        self._slot.mark_status(status)
        self._written += self._client.start(status, fields)

    def heartbeat(self) -> None:
        """A comment, so that nobody on the way takes silence for death. Not content, not counted as payload."""
        self._written += self._client.write(KEEP_ALIVE_COMMENT)

    def events(self, passed: list[Passed]) -> None:
        """Hand over whole events in one write."""
        client = self._client
        if client.closed:
            return
        data = passed[0][0] if len(passed) == 1 else b"".join([each[0] for each in passed])
        size = len(data)
        framed = b"%x\r\n%b\r\n" % (size, data) if client.framed else data
        at = self._written + (len(framed) - size - 2 if client.framed else 0)
        for piece, events, tokens, sizes in passed:
            self._remember(at, events, tokens, sizes or [len(piece)])
            at += len(piece)
        self._written += len(framed)
        self.payload_bytes += size
        tokens = self._tokens
        self._slot.count(self._events, 0 if tokens is None else tokens + 1, self.payload_bytes)
        client.send(framed)
        if len(self._ends) + len(self._marks) > REMEMBERED_ENDS:
            self._forget_sent()

    def _remember(self, at: int, events: int, tokens: int | None, sizes: list[int]) -> None:
        """Where these events end, the first of which begins at `at`. Only the last ones may be content."""
        if tokens != self._tokens:
            self._tokens = tokens
            self._marks.append((at + sizes[0], tokens))
        more = events - self._events
        if more:
            self._events = events
            if len(sizes) == 1:
                self._ends.append(at + sizes[0])
            else:
                self._ends.extend(list(accumulate(sizes, initial=at))[-more:])

    def whole(self, status: int, fields: Iterable[Field], body: bytes, tokens: int, *, estimated: bool) -> None:
        """Hand over a whole non-streaming answer of so many tokens."""
        self.payload_bytes += len(body)
        self._slot.count_plain(tokens, self.payload_bytes, estimated=estimated)
        self._client.respond(status, fields, body)

    def raw(self, data: bytes, tokens: int) -> None:
        """Hand over a piece of an answer that is no event stream; with it, about so many tokens."""
        self.payload_bytes += len(data)
        self._slot.count_plain(tokens, self.payload_bytes, estimated=True)
        self._written += self._client.write(data)

    def finish(self, *, supply_done: bool = False) -> None:
        """End a whole answer; with the `[DONE]` that its backend forgot."""
        if supply_done:
            self.payload_bytes += len(DONE_EVENT)
            self._client.write(DONE_EVENT)
        self._client.finish()

    def fail(self, event: bytes) -> None:
        """End an answer that is not whole: one error event, then whole framing, and nothing that looks like an end."""
        self._client.write(event)
        self._client.finish()

    def progress(self) -> Progress:
        """What has left this process. While the client is there, all that was handed over."""
        self._forget_sent()
        return Progress(self._events - len(self._ends), self._sent_tokens)

    @property
    def handed_over(self) -> Progress:
        """All that was ever handed to the transport."""
        return Progress(self._events, self._tokens)

    def _forget_sent(self) -> None:
        """Drop what has left."""
        left = self._written - self._client.unsent_bytes
        del self._ends[: bisect_right(self._ends, left)]
        if self._marks:
            sent = bisect_right(self._marks, left, key=_end_of)
            if sent:
                self._sent_tokens = self._marks[sent - 1][1]
                del self._marks[:sent]
