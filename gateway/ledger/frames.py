"""The compressed form of a segment: zstd frames that each unpack alone, one behind the other.

    NNNNNN.jsonl.zst    `zstd -dc` gives the segment; a frame holds at most 1,000 whole lines and has a checksum

Each frame says how long it is once unpacked, and its blocks how long they are, so a file has a table of its frames that
is found by looking at 20 bytes a block. A reader begins at any plain offset and unpacks one frame at a time.

Settings by measurement, on 20,000 rows of mixed traffic: level 9 takes 230 bytes and 22 us a row, level 12 224 and 39,
level 19 207 and 757; these 219 and 25. Of that, 128 are hashes and ids that nothing compresses. Most matches are names
of members, which are longer than 6 bytes: to look for no shorter ones is what the levels do not do.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from types import TracebackType
from typing import Self

import zstandard

from gateway.ledger.seals import Frame

FRAME_LINES_MAX = 1000
FRAME_BYTES_MAX = 16 * 1024 * 1024  # what a reader holds at a time; usually 1,000 lines are 1.7 MB

_PARAMETERS = zstandard.ZstdCompressionParameters(
    window_log=21,
    chain_log=20,
    hash_log=20,
    search_log=5,
    min_match=6,
    strategy=zstandard.STRATEGY_LAZY2,
    write_checksum=True,
    write_content_size=True,
)
_UNPACKED_MAX = 8 * FRAME_BYTES_MAX  # one longer line at the end of a frame; more is a damaged size
_FRAME_HEADER_MAX = 18
_BLOCK_HEADER = 3
_CHECKSUM = 4
_BLOCK_RLE, _BLOCK_RESERVED = 1, 3


class FrameDamaged(Exception):
    """A frame that does not unpack to what it was."""

    def __init__(self, frame: int, problem: str) -> None:
        super().__init__(f"frame {frame} {problem}")
        self.frame = frame  # from 1
        self.problem = problem


class Packer:
    """Compresses; one object for many frames."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(compression_params=_PARAMETERS)

    def pack(self, lines: int, plain: bytes) -> tuple[Frame, bytes]:
        """A frame of so many whole lines."""
        sealed = self._compressor.compress(plain)
        return Frame(lines, len(plain), len(sealed), zlib.crc32(sealed)), sealed


def in_frames(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lines, each with its newline, as they go into frames."""
    gathered: list[bytes] = []
    size = 0
    for line in lines:
        gathered.append(line)
        size += len(line)
        if len(gathered) == FRAME_LINES_MAX or size >= FRAME_BYTES_MAX:
            yield gathered
            gathered, size = [], 0
    if gathered:
        yield gathered


class FrameFile:
    """A compressed segment that is read; a context manager."""

    def __init__(self, descriptor: int, table: Sequence[Frame] | None) -> None:
        """`table`: the frames as the seal names them; None, or one of another file: as the file itself says."""
        self._descriptor = descriptor
        self._decompressor = zstandard.ZstdDecompressor()
        self.sealed_bytes = os.fstat(descriptor).st_size
        self.problem: FrameDamaged | None = None  # why the table ends early
        if table is None or not self._fits(table):
            table = self._walk()
        self.frames = table
        self.plain_bytes = sum(frame.plain_bytes for frame in table)
        self._offsets = [0, *accumulate(frame.sealed_bytes for frame in table)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def _fits(self, table: Sequence[Frame]) -> bool:
        sound = all(0 < frame.plain_bytes <= _UNPACKED_MAX for frame in table)
        return sound and sum(frame.sealed_bytes for frame in table) == self.sealed_bytes

    def _walk(self) -> list[Frame]:
        """The frames up to the first that cannot be followed. Their lines are not known."""
        frames: list[Frame] = []
        offset = 0
        while offset < self.sealed_bytes:
            try:
                frame = self._measure(offset)
            except (ValueError, zstandard.ZstdError) as error:
                self.problem = FrameDamaged(len(frames) + 1, f"cannot be read: {error}")
                break
            frames.append(frame)
            offset += frame.sealed_bytes
        return frames

    def _measure(self, offset: int) -> Frame:
        """The frame that begins at an offset. ValueError or ZstdError if none does."""
        header = os.pread(self._descriptor, _FRAME_HEADER_MAX, offset)
        parameters = zstandard.get_frame_parameters(header)
        plain_bytes = parameters.content_size
        if not 0 < plain_bytes <= _UNPACKED_MAX or not parameters.has_checksum:
            raise ValueError("it does not say how long it is")
        at = offset + zstandard.frame_header_size(header)
        last = False
        while not last:
            block = int.from_bytes(os.pread(self._descriptor, _BLOCK_HEADER, at), "little")
            last, kind, size = bool(block & 1), (block >> 1) & 3, block >> 3
            if kind == _BLOCK_RESERVED:
                raise ValueError("it has a block of no kind")
            at += _BLOCK_HEADER + (1 if kind == _BLOCK_RLE else size)
            if at > self.sealed_bytes:
                break
        at += _CHECKSUM
        if at > self.sealed_bytes:
            raise ValueError("it is cut")
        return Frame(0, plain_bytes, at - offset, 0)

    def unpack(self, index: int) -> bytes:
        """The plain bytes of a frame, by its place from 0.

        Raises:
            FrameDamaged: it does not unpack, or not to as many bytes as it should.
        """
        frame = self.frames[index]
        data = self.sealed(index)
        try:
            stated = zstandard.get_frame_parameters(data).content_size
            if stated != frame.plain_bytes:
                raise FrameDamaged(index + 1, "is of another length")
            plain: bytes = self._decompressor.decompress(data, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise FrameDamaged(index + 1, f"does not unpack: {error}") from None
        if len(plain) != frame.plain_bytes:
            raise FrameDamaged(index + 1, "is of another length")
        return plain

    def sealed(self, index: int) -> bytes:
        """The bytes of a frame as they are stored."""
        return self.stored(self._offsets[index], self.frames[index].sealed_bytes)

    def stored(self, offset: int, size: int) -> bytes:
        """Bytes of the compressed file."""
        return os.pread(self._descriptor, size, offset)
