"""The chunked transfer coding, both ways.

One decoder serves request bodies and backends' responses. It is strict where leniency has been used to smuggle: a size
is one to sixteen hex digits and nothing else, every line ends in CRLF, extensions and trailers have bounds and are
dropped. Payload is cut out of the read with one copy, and a read that lies inside a chunk is handed on as it is.
"""

import re
from collections.abc import Callable
from functools import partial

from gateway.wire.errors import BadRequest, FramingError
from gateway.wire.http1 import FIELD_LINE

CHUNK_BYTES_MAX = 1 << 30  # far above any body taken here; keeps a hostile size from becoming an absurd expectation
EXTENSION_BYTES_MAX = (
    64  # with the semicolon; nobody uses them, and unbounded they are a way to send data that no limit counts
)
TRAILER_BYTES_MAX = 8192
TRAILER_FIELDS_MAX = 100
_SIZE_LINE_MAX = 16 + EXTENSION_BYTES_MAX + 2

_size_line = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t -~\x80-\xff]{0,%d})?\r\n" % (EXTENSION_BYTES_MAX - 1)).match
_long_extension = re.compile(rb"[0-9A-Fa-f]{1,16};[\t -~\x80-\xff]*+").match
_trailer_line = re.compile(rb"\r\n|" + FIELD_LINE).fullmatch

# Sizes as servers write them for one event a chunk: a look-up proves the digits strict and is quicker than parsing.
_COMMON_SIZES = {b"%x" % size: size for size in range(1, 2048)}


def _size_line_of(whole: int) -> bytes:
    digits = next(n for n in range(1, 5) if whole - 4 - n < 16**n)
    return b"%0*x\r\n" % (digits, max(whole - 4 - digits, 0))


_CLIENT_FAULT = partial(BadRequest, 400)

# By the size of a whole chunk with its framing: the one size line it can have (a few sizes need a leading zero).
WHOLE_CHUNK_BYTES_MAX = 4096
SIZE_LINES = tuple(_size_line_of(whole) for whole in range(WHOLE_CHUNK_BYTES_MAX + 1))

LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk around data. ValueError when it is empty: that would end the body."""
    if not data:
        raise ValueError("an empty chunk ends the body")
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkedDecoder:
    """Feed it reads, it gives back payload pieces. `fault` makes its errors: pass BadResponse for a backend's."""

    __slots__ = (
        "_fault",
        "_held",
        "_in_trailer",
        "_left",
        "_line_end_due",
        "_size_line_due",
        "_trailer_bytes",
        "_trailer_fields",
        "done",
        "remainder",
    )

    def __init__(self, fault: Callable[[str], FramingError] = _CLIENT_FAULT) -> None:
        self.done = False
        self.remainder = b""  # what followed the body: the next message's
        self._fault = fault
        self._left = 0  # payload bytes of the chunk begun
        self._line_end_due = False
        self._held = b""  # an unfinished line
        self._size_line_due = True  # and nothing held
        self._in_trailer = False
        self._trailer_bytes = 0
        self._trailer_fields = 0

    @property
    def between_chunks(self) -> bool:
        """Whether a size line is next, and none of it is here."""
        return self._size_line_due and not self.done

    def feed(self, data: bytes) -> list[bytes]:
        if self.done:
            self.remainder += data
            return []
        if self._size_line_due:
            line_end = data.find(b"\r\n", 0, 5)
            size = _COMMON_SIZES.get(data[:line_end], 0)
            if size and len(data) == line_end + size + 4 and data.endswith(b"\r\n"):
                return [data[line_end + 2 : -2]]  # one whole chunk: what a streaming server's write usually is
        if self._held:
            data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._left:
                if self._left >= end - at:
                    pieces.append(data if at == 0 else data[at:])
                    self._left -= end - at
                    self._size_line_due = False
                    return pieces
                pieces.append(data[at : at + self._left])
                at, self._left = at + self._left, 0
            if self._line_end_due:
                ending = data[at : at + 2]
                if not b"\r\n".startswith(ending):
                    raise self._fault("chunk does not end where its size says")
                if len(ending) < 2:
                    break
                at, self._line_end_due = at + 2, False
            elif self._in_trailer:
                line = self._trailer(data, at)
                if not line:
                    break
                at += len(line)
                if line == b"\r\n":
                    self.done = True
                    self.remainder = data[at:]
                    return pieces
            else:
                line_end = data.find(b"\r\n", at, at + 5)
                size = _COMMON_SIZES.get(data[at:line_end], 0) if line_end > 0 else 0
                after = line_end + 2 + size
                if size and data[after : after + 2] == b"\r\n":
                    # A whole chunk of a common size, among others in one read.
                    pieces.append(data[line_end + 2 : after])
                    at = after + 2
                    continue
                match = _size_line(data, at)
                if match is None:
                    self._check_unfinished(data[at : at + _SIZE_LINE_MAX])
                    break
                digits, extension = match.groups(b"")
                if extension.count(b'"') % 2:
                    # A parser that lets a quoted text go on over the line end would see another chunk.
                    raise self._fault("chunk extension with an open quote")
                at = match.end()
                self._begin(int(digits, 16))
        self._held = data[at:]
        self._size_line_due = not (self._held or self._line_end_due or self._in_trailer)
        return pieces

    def _begin(self, size: int) -> None:
        if size > CHUNK_BYTES_MAX:
            raise self._fault("chunk too large")
        self._left = size
        self._line_end_due = size > 0
        self._in_trailer = size == 0

    def _check_unfinished(self, line: bytes) -> None:
        """A size line that did not match is either unfinished or wrong."""
        if b"\n" not in line and len(line) < _SIZE_LINE_MAX:
            return
        known = _long_extension(line)
        if known is not None and known.end() > len(known.group().partition(b";")[0]) + EXTENSION_BYTES_MAX:
            raise self._fault("chunk extension too long")
        raise self._fault("malformed chunk size")

    def _trailer(self, data: bytes, at: int) -> bytes:
        """The trailer line that begins here, or nothing while it is unfinished."""
        line_end = data.find(b"\n", at) + 1
        line = data[at : line_end or None]
        if self._trailer_bytes + len(line) > TRAILER_BYTES_MAX:
            raise self._fault("trailers too large")
        if not line_end:
            return b""
        if not _trailer_line(line):
            raise self._fault("malformed trailer")
        self._trailer_bytes += len(line)
        self._trailer_fields += line != b"\r\n"
        if self._trailer_fields > TRAILER_FIELDS_MAX:
            raise self._fault("too many trailers")
        return line
