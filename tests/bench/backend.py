"""The backend of the bench: answers of prebuilt bytes, as light as a backend can be."""

import asyncio
import itertools
import time
from typing import cast

from tests.bench.answers import (
    ANSWER_RESPONSE,
    CONTENT,
    DONE,
    FINISH,
    LAST_CHUNK,
    NEVER,
    ROLE,
    STAMP,
    STAMPED,
    STREAM_HEAD,
    Plan,
    chunk,
    usage,
)
from tests.bench.serving import serve_protocol

CHUNKS = [chunk(event) for event in CONTENT]
STAMPED_CHUNK = b"%x\r\n%b\r\n" % (len(STAMPED % NEVER), STAMPED)
START = STREAM_HEAD + chunk(ROLE)
# Streams that are paced alike do not speak at the same moment: each begins at a point of its gap that is far from those
# of the streams before it, however many there are.
GOLDEN = 0.6180339887498949

_number = itertools.count()


class Backend(asyncio.Protocol):
    """One connection: a request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._missing = 0  # bytes of the request under way
        self._plan = Plan()
        self._sent = 0
        self._next_at = 0.0
        self._timer: asyncio.Handle | None = None
        self._full = False
        self._end = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._timer is None and self._end:
            self._step()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._pieces.append(data)
            self._missing -= len(data)
        else:
            data = b"".join((*self._pieces, data))
            self._pieces = [data]
            head_end = data.find(b"\r\n\r\n") + 4
            if head_end < 4:
                return
            lowered = data[:head_end].lower()
            at = lowered.find(b"content-length:")
            length = int(lowered[at + 15 : lowered.find(b"\r", at)]) if at >= 0 else 0
            self._missing = head_end + length - len(data)
        if not self._missing:
            pieces, self._pieces = self._pieces, []
            self._answer(b"".join(pieces))

    def _answer(self, request: bytes) -> None:
        plan = self._plan = Plan.of(request)
        if not plan.events:
            self._transport.write(ANSWER_RESPONSE)
            return
        asked = b'"include_usage":true' in request
        self._end = b"".join(
            [chunk(FINISH), chunk(usage(plan.events)) if asked else b"", chunk(DONE), LAST_CHUNK],
        )
        self._sent = 0
        first_s = plan.first_s
        if plan.gap_s:
            first_s += next(_number) * GOLDEN % 1.0 * plan.gap_s
        self._next_at = self._loop.time() + first_s
        if first_s:
            self._timer = self._loop.call_at(self._next_at, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        self._transport.write(START)
        self._step()

    def _step(self) -> None:
        """The next burst, and when the one after it is due."""
        plan, self._timer = self._plan, None
        if self._full:
            return
        sent, self._sent = self._sent, min(self._sent + plan.burst, plan.events)
        if plan.stamped:
            data = STAMPED_CHUNK % (STAMP % time.monotonic()) * (self._sent - sent)
        else:
            data = b"".join([CHUNKS[n % len(CHUNKS)] for n in range(sent, self._sent)])
        if self._sent == plan.events:
            data, self._end = data + self._end, b""
            self._transport.write(data)
            return
        self._transport.write(data)
        if plan.gap_s:
            self._next_at += plan.gap_s
            self._timer = self._loop.call_at(self._next_at, self._step)
        else:
            self._timer = self._loop.call_soon(self._step)


if __name__ == "__main__":
    serve_protocol(Backend)
