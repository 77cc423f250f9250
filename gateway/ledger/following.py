"""Reading a log onwards: whole lines in batches, from a position that is kept outside of the log.

Everything that is a view of the logs is fed this way, and resumes where it stopped: the position goes where the batch
goes, in one step.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.ledger.segment import Head, segment_numbers, segment_path

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
        path = segment_path(directory, segment)
        if not path.exists():
            return  # a segment in which nothing was ever acknowledged, taken back by a writer whose disk fails
        size = path.stat().st_size
        if start > size:
            raise LogsDiffer(f"log {log} is shorter than what was read of it")
        stop = min(end.offset, size) if end is not None and segment == end.segment else size
        for reached, lines in _segment_batches(path, start, stop):
            yield Position(segment, reached), lines


def _segment_batches(path: Path, start: int, stop: int) -> Iterator[tuple[int, list[bytes]]]:
    """Whole lines between two offsets, and where they end."""
    size = _BATCH_BYTES
    with path.open("rb", buffering=0) as file:
        while start < stop:
            file.seek(start)
            data = file.read(min(size, stop - start))
            lines = data.split(b"\n")
            whole = len(data) - len(lines.pop())
            if whole:
                start += whole
                yield start, lines
            elif len(data) < size:
                return
            else:
                size *= 2  # one line is longer
