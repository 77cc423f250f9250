"""The client's half of an exchange: what was handed to its socket, counted before it was.

Every count moves on the board before the bytes it counts are written, so a killed process has never told too little.
When a client leaves, the events that still lay in our own write buffer are taken off (not after a reset, which empties
it unseen): `_ends` remembers where in the byte stream each event that may be unsent ends.
"""

from collections import deque
from collections.abc import Iterable

from gateway.edge.connection import ClientConnection, Field
from gateway.edge.counting import Progress
from gateway.ledger.board import Slot
from gateway.wire.openai import DONE_EVENT, KEEP_ALIVE_COMMENT
from gateway.wire.openai_stream import Passed

# The buffer is asked what has left once this many ends are remembered.
REMEMBERED_ENDS = 64

# End of an event in the bytes written, content events and running usage (None: unknown) up to it; and the sizes of the
# events in a row that end there, None for a single one.
End = tuple[int, int, int | None, list[int] | None]


class Delivery:
    """Writes an answer to one client."""

    __slots__ = ("_client", "_ends", "_events", "_sent", "_slot", "_tokens", "_written", "payload_bytes")

    def __init__(self, client: ClientConnection, slot: Slot) -> None:
        self._client = client
        self._slot = slot
        self._events = 0
        self._tokens: int | None = None
        self._written = 0
        self._ends: deque[End] = deque()
        self._sent = Progress()
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
        """Hand over whole events in one write. The hot path of a stream: one frame, no call that can be spared."""
        client = self._client
        if client.closed:
            return
        if len(passed) == 1:
            [(data, events, tokens, sizes)] = passed
        else:
            data = b"".join([each[0] for each in passed])
            _, events, tokens, sizes = passed[-1]
        size = len(data)
        if client.framed:
            framed = b"%x\r\n%b\r\n" % (size, data)
            end = self._written + len(framed) - 2
        else:
            framed = data
            end = self._written + size
        self._written += len(framed)
        if len(passed) > 1:
            at = end - size
            for piece, count, running, each in passed[:-1]:
                at += len(piece)
                self._ends.append((at, count, running, each))
        self._ends.append((end, events, tokens, sizes))
        self._events, self._tokens = events, tokens
        self.payload_bytes += size
        self._slot.count(events, 0 if tokens is None else tokens + 1, self.payload_bytes)
        client.send(framed)
        if len(self._ends) > REMEMBERED_ENDS:
            self._forget_sent()

    def whole(self, status: int, fields: Iterable[Field], body: bytes, tokens: int) -> None:
        """Hand over a whole non-streaming answer of so many tokens."""
        self.payload_bytes += len(body)
        self._slot.count(0, tokens + 1, self.payload_bytes)
        self._client.respond(status, fields, body)

    def raw(self, data: bytes) -> None:
        """Hand over a piece of an answer that is no event stream."""
        self.payload_bytes += len(data)
        self._slot.count(self._events, 0, self.payload_bytes)
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
        left = self._forget_sent()
        if self._ends:
            end, events, tokens, sizes = self._ends[0]
            sizes = sizes or []  # a single event has left whole or not at all; a row of them perhaps in part
            at, whole = end - sum(sizes), 0
            for size in sizes:
                at += size
                if at > left:
                    break
                whole += 1
            if whole:
                self._sent = Progress(events - len(sizes) + whole, tokens)
        return self._sent

    @property
    def handed_over(self) -> Progress:
        """All that was ever handed to the transport."""
        return Progress(self._events, self._tokens)

    def _forget_sent(self) -> int:
        """Drop the ends that have left; how many bytes have."""
        left = self._written - self._client.unsent_bytes
        ends = self._ends
        last: End | None = None
        while ends and ends[0][0] <= left:
            last = ends.popleft()
        if last is not None:
            self._sent = Progress(last[1], last[2])
        return left
