"""Bytes from a backend to a client: one attempt at one backend, as a receiver of its connection.

An attempt is called straight from the backend's `data_received`. Until it is `released` it holds what it reads (a role
chunk, the first content); from then on whole events go to the client in the same call. Its owner is told of two
moments, in that same call: when the first content is here and the answer may begin, and when it is over. Nothing in
between needs a task.

First and last token are different events: the first feeds latency, the last ends occupancy.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from gateway.edge.counting import Progress
from gateway.edge.delivery import Delivery
from gateway.edge.lane import Lane
from gateway.errors import UpstreamCut, UpstreamError, UpstreamErrorEvent, UpstreamMalformed, from_status
from gateway.ledger.board import Slot
from gateway.upstream.transport import UpstreamConnection
from gateway.wire.errors import EventTooLarge
from gateway.wire.http1 import ResponseHead
from gateway.wire.openai_answer import claims
from gateway.wire.openai_stream import Passed, StreamTap

# What is read of an error's body: enough for any message a person would read.
ERROR_BODY_BYTES_MAX = 64 * 1024
# Held before the first content event: role chunks and comments are small; more than this is no answer.
HELD_BYTES_MAX = 1024 * 1024
# A non-streaming answer is held whole up to this size, so that a cut one can be tried elsewhere.
ANSWER_HELD_BYTES_MAX = 1024 * 1024
# A longer one is streamed and kept for its usage up to this size; beyond it its tokens are estimated.
ANSWER_KEPT_BYTES_MAX = 64 * 1024 * 1024


class Owner(Protocol):
    """Whose attempt it is. Of one that it has cancelled it hears nothing more."""

    def attempt_ready(self, attempt: "Attempt") -> None:
        """The answer may begin: `release` lets it. A plain answer that fits into memory is ready when it is whole."""

    def attempt_over(self, attempt: "Attempt") -> None:
        """It is whole, after it was ready; or it has failed with its `error`."""


class Attempt(ABC):
    """One try at one backend. Subclasses say what is content and what is whole."""

    __slots__ = (
        "_error_body",
        "bytes_received",
        "bytes_sent",
        "connection",
        "error",
        "first_at",
        "head",
        "last_at",
        "now",
        "over",
        "owner",
        "ready",
        "released",
        "slot",
        "started_at",
        "touched_at",
    )

    def __init__(self, owner: Owner, connection: UpstreamConnection, slot: Slot, now: Callable[[], float]) -> None:
        self.owner = owner
        self.connection = connection
        self.slot = slot
        self.now = now
        self.started_at = now()
        self.touched_at = self.started_at
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.head: ResponseHead | None = None
        self.ready = False
        self.over = False
        self.error: UpstreamError | None = None  # why it is over, if it is not whole
        self.released = False
        # Copied from the connection while it is ours: after the answer's end the next exchange may have it.
        self.bytes_sent = 0
        self.bytes_received = 0
        self._error_body: bytearray | None = None

    def on_head(self, head: ResponseHead) -> None:
        self.touched_at = self.now()
        self.bytes_received = self.connection.bytes_received
        self.head = head
        if head.status != 200:
            self._error_body = bytearray()
        elif not self._is_expected(head):
            self.fail(UpstreamMalformed("the answer is not of the kind that was asked for"))

    def on_body(self, data: bytes) -> None:
        self.touched_at = self.now()
        self.bytes_received = self.connection.bytes_received
        if self._error_body is None:
            self._content(data)
        elif len(self._error_body) < ERROR_BODY_BYTES_MAX:
            self._error_body += data

    def on_end(self) -> None:
        self.bytes_received = self.connection.bytes_received
        error = self._status_error()
        if error is not None:
            self._settle(error)
        elif not self.over:
            self._finished()

    def on_failure(self, error: UpstreamError) -> None:
        self._settle(self._status_error() or error)

    def fail(self, error: UpstreamError) -> None:
        """Give this attempt up for `error`: the backend is cancelled, whoever waits hears it."""
        # Its exchange may be over, and the connection in use by the next one.
        self.connection.drop(self)
        self._settle(error)

    def pause(self) -> None:
        """The client is slower than the backend: stop reading."""
        self.connection.pause(self)

    def resume(self) -> None:
        """The client has caught up. The silence in between was ours, not the backend's."""
        self.touched_at = self.now()
        self.connection.resume(self)

    @property
    def heard_at(self) -> float:
        """When the backend last spoke, or later, but before the next sweep."""
        return self.touched_at

    @property
    def is_error(self) -> bool:
        """Whether the backend answered with a status other than 200."""
        return self._error_body is not None

    def move(self, slot: Slot) -> None:
        """From now on this is the attempt that counts."""
        self.slot = slot
        slot.sent(self.bytes_sent)

    def give_up(self, error: UpstreamError) -> None:
        """Something took too long: the answer, or the text of an error whose status is known."""
        self.fail(self._status_error() or error)

    def _status_error(self) -> UpstreamError | None:
        if self._error_body is None or self.head is None:
            return None
        return from_status(self.head.status, bytes(self._error_body), _retry_after_s(self.head))

    def cancel(self) -> None:
        """Give this attempt up without blame: the client left or the gateway stops."""
        self.over = True
        self.connection.drop(self)

    def _begin(self) -> None:
        """The first content is here."""
        if not self.ready and not self.over:
            self.ready = True
            self.owner.attempt_ready(self)

    def _settle(self, error: UpstreamError | None) -> None:
        """It is over: whole, or with this error."""
        if self.over:
            return
        self.over, self.error = True, error
        if self.ready or error is not None:
            self.owner.attempt_over(self)
        else:
            # Whole at once: whoever begins it finds that it is over.
            self.ready = True
            self.owner.attempt_ready(self)

    @abstractmethod
    def release(self) -> None:
        """The answer may begin: what was held leaves in one write, what follows goes straight through."""

    @abstractmethod
    def _is_expected(self, head: ResponseHead) -> bool:
        """Whether a 200 with this head can hold the answer."""

    @abstractmethod
    def _content(self, data: bytes) -> None:
        """A piece of the answer's body."""

    @abstractmethod
    def _finished(self) -> None:
        """The body has ended as its framing says."""


class StreamAttempt(Attempt):
    """An attempt at a streamed answer."""

    __slots__ = (
        "_delivery",
        "_held",
        "_held_bytes",
        "_input_told",
        "tap",
    )

    def __init__(
        self,
        owner: Owner,
        connection: UpstreamConnection,
        slot: Slot,
        now: Callable[[], float],
        tap: StreamTap,
        delivery: Lane,
    ) -> None:
        super().__init__(owner, connection, slot, now)
        self.tap = tap
        self._delivery = delivery
        self._held: list[Passed] = []
        self._held_bytes = 0
        self._input_told = False

    @property
    def generated(self) -> Progress:
        """What the backend has made, as far as it was read."""
        return Progress(self.tap.content_events, self.tap.running_tokens)

    @property
    def heard_at(self) -> float:
        return max(self.touched_at, self._delivery.touched_at)

    def move(self, slot: Slot) -> None:
        super().move(slot)
        tap = self.tap
        tokens = tap.running_tokens
        slot.generated(tap.content_events, 0 if tokens is None else tokens + 1, self.bytes_received)
        if tap.usage is not None:
            self._tell_input(tap.usage)

    def release(self) -> None:
        self.released = True
        self.head = None  # not asked again, and a stream is long
        held, self._held = self._held, []
        if held:
            self._delivery.events(held)
        if not self.over:
            self._delivery.attach(self, self.connection, self.tap)
            self._delivery.open()
        if self._held_bytes > HELD_BYTES_MAX:
            self.resume()

    def _is_expected(self, head: ResponseHead) -> bool:
        return (head.get(b"content-type") or b"").lower().startswith(b"text/event-stream")

    def on_body(self, data: bytes) -> None:
        # As in the base class, without its detour: this runs once per token.
        if self._error_body is not None:
            super().on_body(data)
            return
        self.touched_at = self.now()
        self.bytes_received = self.connection.bytes_received
        self._content(data)

    def _content(self, data: bytes) -> None:
        try:
            passed = self.tap.feed(data)
        except EventTooLarge as error:
            self.fail(UpstreamMalformed(error.reason))
            return
        self._pass_on(passed)

    def _pass_on(self, passed: list[Passed]) -> None:
        tap = self.tap
        tokens = tap.running_tokens
        self.slot.generated(tap.content_events, 0 if tokens is None else tokens + 1, self.bytes_received)
        if passed:
            if self.released:
                self.last_at = self.touched_at
                self._delivery.events(passed)
            else:
                self._hold(passed)
        if tap.usage is not None and not self._input_told:
            self._tell_input(tap.usage)
        if tap.ended:
            self._conclude()
        elif self.released and not self.over:
            self._delivery.open()

    def _take_back(self) -> None:
        """What was read past this attempt is read, and counted."""
        self._delivery.shut()
        self.bytes_received = max(self.bytes_received, self._delivery.bytes_received)

    def _settle(self, error: UpstreamError | None) -> None:
        self._take_back()
        super()._settle(error)

    def cancel(self) -> None:
        self._take_back()
        super().cancel()

    def _tell_input(self, usage: dict[str, Any]) -> None:
        """The input does not change while a stream runs: put on the board once, for whoever recovers this."""
        told = claims(usage)
        if told.input:
            self.slot.input(told.input, told.cached or 0)
            self._input_told = True

    def _hold(self, passed: list[Passed]) -> None:
        self._held += passed
        self._held_bytes += sum(len(each[0]) for each in passed)
        if self.tap.started:
            if not self.ready:
                self.first_at = self.last_at = self.touched_at
                self._begin()
            if self._held_bytes > HELD_BYTES_MAX and not self.released:
                # The record of this answer is not durable yet; what waits for it has a bound.
                self.pause()
        elif self._held_bytes > HELD_BYTES_MAX:
            self.fail(UpstreamMalformed(f"more than {HELD_BYTES_MAX} bytes before any content"))

    def _conclude(self) -> None:
        tap = self.tap
        if tap.whole:
            # Later faults take nothing from a whole answer.
            self._settle(None)
        elif tap.error is not None:
            self.fail(UpstreamErrorEvent(str(tap.error.get("message", ""))))
        elif not tap.done:
            self.fail(UpstreamMalformed(f"{tap.bad_events} unparsable events"))
        else:
            self.fail(UpstreamCut("[DONE] without a finish_reason"))

    def _finished(self) -> None:
        self._pass_on(self.tap.finish())
        self._settle(None if self.tap.whole else UpstreamCut("ended without a finish_reason"))

    def give_up(self, error: UpstreamError) -> None:
        """Something took too long. What is whole already stays whole."""
        if self.tap.whole and self.released:
            self.connection.drop(self)
            self._settle(None)
        else:
            super().give_up(error)

    def on_failure(self, error: UpstreamError) -> None:
        if self.tap.whole:
            self._settle(None)
        else:
            super().on_failure(error)


class AnswerAttempt(Attempt):
    """An attempt at a non-streaming answer: held whole while it is small enough to be tried elsewhere."""

    __slots__ = (
        "_bytes_per_token",
        "_delivery",
        "_pieces",
        "answer_bytes",
        "complete",
    )

    def __init__(
        self,
        owner: Owner,
        connection: UpstreamConnection,
        slot: Slot,
        now: Callable[[], float],
        delivery: Delivery,
        bytes_per_token: float,
    ) -> None:
        """By `bytes_per_token` one that leaves before it is read is counted, for whoever recovers it."""
        super().__init__(owner, connection, slot, now)
        self._delivery = delivery
        self._bytes_per_token = bytes_per_token
        self._pieces: list[bytes] = []
        self.answer_bytes = 0
        self.complete = False

    @property
    def too_large_to_hold(self) -> bool:
        return self.answer_bytes > ANSWER_HELD_BYTES_MAX

    def body(self) -> bytes:
        """The whole answer; empty if it was too large to keep."""
        return b"".join(self._pieces)

    def release(self) -> None:
        """Begin to stream an answer that is too large to hold."""
        self.released = True
        self._hand_over(self.body())

    def _is_expected(self, head: ResponseHead) -> bool:
        return (head.get(b"content-type") or b"").lower().startswith(b"application/json")

    def _content(self, data: bytes) -> None:
        if self.first_at is None:
            self.first_at = self.touched_at
        self.last_at = self.touched_at
        self.answer_bytes += len(data)
        if self.answer_bytes <= ANSWER_KEPT_BYTES_MAX:
            self._pieces.append(data)
        else:
            self._pieces.clear()
        self.slot.generated(0, 0, self.bytes_received)
        if self.released:
            self._hand_over(data)
        elif self.too_large_to_hold:
            self._begin()

    def _hand_over(self, data: bytes) -> None:
        self._delivery.raw(data, round(self.answer_bytes / self._bytes_per_token))

    def _finished(self) -> None:
        self.complete = True
        self._settle(None)


def _retry_after_s(head: ResponseHead) -> float | None:
    value = head.get(b"retry-after") or b""
    return float(value) if value.isdigit() and len(value) < 6 else None
