"""Heads that were read before: a bounded memory, by their bytes.

On a kept connection a client sends the same head again and again, but for the digits of its content length; so do
backends, once more per second for their date. So a head is remembered by its bytes without these digits, and one that
comes again is not parsed again.

Why that gives up no strictness. What is remembered was taken by the strict parser once, whole. In the grammar of heads
CRLF stands between lines only: if `CRLF content-length: DIGITS CRLF` is in a head that was taken, it is a field line of
it, and the only one of that name, whatever its spelling, because two are refused. The parser uses the digits as a
number and in no other way, and takes any 1 to 15 of them. So a head that differs in these digits alone would be taken
too, with the same outcome but for the number. Two heads share a key only if they differ in that way: the place of the
cut is the first match of its needle, before and after the cut, and a head with that needle but without fit digits has
no key. Heads that were refused are never remembered, and anything spelled in another way goes the long way each time.

The digits do matter where a status allows no body: such heads are read as of length 0 whatever they announce, and
therefore no head of length 0 is remembered. Room for 15 digits must be left under the bound of a head's size.

Credentials are in the keys: they stay in memory as long as the head does, and are in no repr. What a configuration
decides about a head (its `facts`) goes with the memory: each configuration begins with an empty one.
"""

from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from gateway.wire.errors import BadResponse
from gateway.wire.http1 import (
    HeadLimits,
    RequestHead,
    ResponseHead,
    check_growing_head,
    head_end,
    parse_request_head,
    parse_response_head,
)

# Of a worker's clients. More distinct heads than that at once are not worth their memory, which is some four times
# their bytes; the oldest go first, and a head that is still in use comes back at the price of one parse.
REQUEST_HEADS_MAX = 1024
REQUEST_BYTES_MAX = 4 * 1024 * 1024
# Of one backend: a few kinds of answers, each with the dates of the last seconds.
RESPONSE_HEADS_MAX = 64
RESPONSE_BYTES_MAX = 256 * 1024

_NEEDLES = (b"\r\ncontent-length: ", b"\r\nContent-Length: ")
_NEEDLE_BYTES = len(_NEEDLES[0])
_DIGITS_MAX = 15

Head = TypeVar("Head")


class HeadMemory(Generic[Head]):
    """Reads the heads that bytes begin with, by memory where it can."""

    __slots__ = ("_bytes", "_bytes_max", "_growing", "_head_bytes_max", "_heads_max", "_known", "_parse")

    def __init__(
        self,
        parse: Callable[[bytes], tuple[Head, int | None]],
        growing: Callable[[bytes], None],
        *,
        head_bytes_max: int,
        heads_max: int,
        bytes_max: int,
    ) -> None:
        self._parse = parse
        self._growing = growing
        self._head_bytes_max = head_bytes_max
        self._heads_max = heads_max
        self._bytes_max = bytes_max
        self._known: dict[bytes, Head] = {}
        self._bytes = 0

    def read(self, data: bytes) -> tuple[Head, int | None, int] | None:
        """The head at the beginning of `data`, its content length, and where it ends. None: its end is not there yet.

        Raises:
            FramingError: as `parse` does; or as `growing` does of a head that is too large before its end was seen.
        """
        key, length = b"", None
        end = data.find(b"\n\r\n") + 3
        at = data.find(_NEEDLES[0], 0, end)
        if at < 0:
            at = data.find(_NEEDLES[1], 0, end)
        if at < 0:
            key = data[:end]
        else:
            at += _NEEDLE_BYTES
            stop = data.find(b"\r", at, end)
            digits = data[at:stop]
            if digits.isdigit() and len(digits) <= _DIGITS_MAX:
                key, length = data[:at] + data[stop:end], int(digits)
        known = self._known.get(key)
        if known is not None:
            return known, length, end
        return self._read_anew(data, key, length, end)

    def _read_anew(self, data: bytes, key: bytes, cut: int | None, key_end: int) -> tuple[Head, int | None, int] | None:
        end = head_end(data)
        if end < 0:
            self._growing(data)
            return None
        head, length = self._parse(data[:end])
        if key and end == key_end and length == cut and length != 0:
            self._remember(key, head)
        return head, length, end

    def _remember(self, key: bytes, head: Head) -> None:
        size = len(key)
        if size + _DIGITS_MAX > self._head_bytes_max:
            return
        known = self._known
        known[key] = head
        self._bytes += size
        while len(known) > self._heads_max or self._bytes > self._bytes_max:
            oldest = next(iter(known))
            del known[oldest]
            self._bytes -= len(oldest)


def request_heads(limits: HeadLimits) -> HeadMemory[RequestHead]:
    """For the clients of one worker under these limits."""
    return HeadMemory(
        partial(parse_request_head, limits=limits),
        partial(check_growing_head, limits=limits),
        head_bytes_max=limits.head_bytes_max,
        heads_max=REQUEST_HEADS_MAX,
        bytes_max=REQUEST_BYTES_MAX,
    )


def response_heads(head_bytes_max: int) -> HeadMemory[ResponseHead]:
    """For one backend."""

    def growing(data: bytes) -> None:
        if len(data) > head_bytes_max:
            raise BadResponse("head too large")

    return HeadMemory(
        partial(parse_response_head, head_bytes_max=head_bytes_max),
        growing,
        head_bytes_max=head_bytes_max,
        heads_max=RESPONSE_HEADS_MAX,
        bytes_max=RESPONSE_BYTES_MAX,
    )
