"""Reading a log onwards: whole lines in batches, from a position that is kept outside of the log.

Everything that is a view of the logs is fed this way, and resumes where it stopped: the position goes where the batch
goes, in one step. Offsets are of plain bytes, so a position stays true when only the compressed segment is left.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.ledger.segment import Head, segment_numbers
from gateway.ledger.segmentfile import SegmentFile

_BATCH_BYTES = 512 * 1024  # about 3 MB in memory once parsed, and little of it leaves the cache


class Position(NamedTuple):
    segment: int
    offset: int


class LogsDiffer(Exception):
    """What was read came from other logs than these."""


def follow(position: Position, directory: Path, log: int, end: Head | None) -> Iterator[tuple[Position, list[bytes]]]:
    """Batches of whole lines behind a position, each with the position that it reaches. `end` bounds the reading: the
    head of the log for what is acknowledged; None: as far as there are whole lines.

    Raises:
        LogsDiffer: the position is not in the log.
    """
    numbers = segment_numbers(directory)
    if position.segment > max(numbers, default=0):
        raise LogsDiffer(f"log {log} ends before what was read of it")
    for segment in numbers:
        if segment < position.segment or (end is not None and segment > end.segment):
            continue
        start = position.offset if segment == position.segment else 0
        try:
            file = SegmentFile(directory, segment)
        except FileNotFoundError:
            return  # a segment in which nothing was ever acknowledged, taken back by a writer whose disk fails
        with file:
            if start > file.size:
                raise LogsDiffer(f"log {log} is shorter than what was read of it")
            stop = min(end.offset, file.size) if end is not None and segment == end.segment else file.size
            for reached, lines in _batches(file, start, stop):
                yield Position(segment, reached), lines


def _batches(file: SegmentFile, start: int, stop: int) -> Iterator[tuple[int, list[bytes]]]:
    """Whole lines between two offsets, and where they end."""
    size = _BATCH_BYTES
    while start < stop:
        data = file.read(start, min(size, stop - start))
        lines = data.split(b"\n")
        whole = len(data) - len(lines.pop())
        if whole:
            start += whole
            yield start, lines
        elif len(data) < size:
            return
        else:
            size *= 2  # one line is longer
