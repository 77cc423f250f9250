"""The bytes of a segment, whichever of its files is left: the plain one, else the compressed one.

A plain file may go at any time once its segment is sealed. Who has it open reads on in it; who comes later finds the
same bytes at the same offsets in the compressed one.

Of a frame that no longer unpacks, one line of zeros is read instead, as long as what was in it: offsets behind it stay
right, and it is a damaged line like any other. Readers pass over damaged lines; `verify` names them.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.ledger.frames import FrameDamaged, FrameFile
from gateway.ledger.seals import BadSeal, read_seal
from gateway.ledger.segment import Line, Place, Record, parse, sealed_path, segment_path

_CHUNK_BYTES = 256 * 1024
_FIRST_LINE_BYTES = 4096  # of a record that is looked for; most are shorter


class SegmentFile:
    """One segment, open for reading; a context manager."""

    def __init__(self, directory: Path, segment: int) -> None:
        """Raises FileNotFoundError if the segment has no file."""
        self.segment = segment
        self._packed: FrameFile | None = None
        self._frame_at = -1  # which frame `_frame` is
        self._frame = b""
        try:
            self._descriptor = os.open(segment_path(directory, segment), os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._descriptor).st_size
        except FileNotFoundError:
            self._packed = open_frames(directory, segment)
            self.size = self._packed.plain_bytes
            self._starts = [0, *accumulate(frame.plain_bytes for frame in self._packed.frames)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._packed is None:
            os.close(self._descriptor)
        else:
            self._packed.close()

    @property
    def packed(self) -> bool:
        """The plain file is gone."""
        return self._packed is not None

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` plain bytes from an offset; fewer only where the segment ends."""
        if self._packed is None:
            return os.pread(self._descriptor, size, offset)
        parts: list[bytes] = []
        while size > 0 and offset < self.size:
            index = bisect_right(self._starts, offset) - 1
            within = offset - self._starts[index]
            part = self._unpacked(index)[within : within + size]
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def _unpacked(self, index: int) -> bytes:
        assert self._packed is not None
        if index != self._frame_at:
            try:
                self._frame = self._packed.unpack(index)
            except FrameDamaged:
                self._frame = bytes(self._packed.frames[index].plain_bytes - 1) + b"\n"
            self._frame_at = index
        return self._frame

    def lines(self, offset: int = 0, number: int = 0) -> Iterator[Line]:
        """The lines from an offset on; `number` lines lie before it. The last may lack its newline."""
        at, rest = offset, b""
        while chunk := self.read(at, _CHUNK_BYTES):
            at += len(chunk)
            pieces = (rest + chunk).split(b"\n")
            rest = pieces.pop()
            for data in pieces:
                number += 1
                yield Line(self.segment, number, offset, data, True)
                offset += len(data) + 1
        if rest:
            yield Line(self.segment, number + 1, offset, rest, False)

    def line_at(self, offset: int) -> bytes:
        """The line that begins at an offset, with its newline if it has one."""
        size, data = _FIRST_LINE_BYTES, b""
        while True:
            data = self.read(offset, size)
            end = data.find(b"\n")
            if end >= 0 or len(data) < size:
                return data[: end + 1] if end >= 0 else data
            size *= 8


def open_frames(directory: Path, segment: int) -> FrameFile:
    """The compressed file of a segment. Raises FileNotFoundError if there is none."""
    try:
        table = read_seal(directory, segment).frames
    except (OSError, BadSeal):
        table = None
    return FrameFile(os.open(sealed_path(directory, segment), os.O_RDONLY | os.O_CLOEXEC), table)


def read_lines(directory: Path, segment: int) -> Iterator[Line]:
    """The lines of a segment. The last may lack its newline."""
    with SegmentFile(directory, segment) as file:
        yield from file.lines()


def first_line(directory: Path, segment: int) -> bytes:
    """With its newline, if it has one."""
    with SegmentFile(directory, segment) as file:
        return file.line_at(0)


def read_record(directory: Path, place: Place) -> Record | None:
    """The record that begins at a place; None if there is none."""
    try:
        with SegmentFile(directory, place.segment) as file:
            return parse(file.line_at(place.offset))[0]
    except OSError:
        return None
