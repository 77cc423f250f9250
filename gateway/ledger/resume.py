"""Where a log goes on: the check of its open segment at start.

Only one thing is ordinary after a crash: a last line without its newline that the head does not count. It was never
acknowledged and is cut. Everything else that does not fit is damage: the segment stays as it is, and a new one starts
with a record that names the break.

Reads only; `tail` does what is found here.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway.ledger.segment import (
    HEADERS,
    RECORD_VERSION,
    ChainState,
    Head,
    LedgerTooNew,
    Line,
    chained,
    parse,
    read_head,
    sealed_path,
    segment_numbers,
)
from gateway.ledger.segmentfile import first_line, read_lines


class Damage(NamedTuple):
    segment: int
    line: int
    problem: str


@dataclass(slots=True)
class Resumed:
    """The end of a log as found at start."""

    state: ChainState
    segment: int = 0  # the last one; 0: there is none yet
    opened_at: str = ""  # what that segment's first record says
    length: int = 0  # of it, without a torn last line
    last_offset: int = 0  # where its last line begins
    lines: int = 0
    torn: bool = False  # bytes follow `length`
    unborn: list[int] = field(default_factory=list)  # later segments in which nothing was ever acknowledged
    damage: Damage | None = None
    current: bool = True  # written in this version's form, so it may be appended to


def resume(directory: Path) -> Resumed:
    """The end of the log in `directory`.

    Raises:
        LedgerTooNew: a later version wrote it.
        OSError: it cannot be read.
    """
    head, damage = _head(directory)
    numbers = segment_numbers(directory)
    unborn: list[int] = []
    while numbers and _unborn(directory, numbers[-1], head):
        unborn.append(numbers.pop())
    resumed = Resumed(ChainState(), unborn=unborn, damage=damage)
    if numbers:
        resumed.segment = numbers[-1]
        _scan(directory, numbers[_first_readable(directory, numbers) :], head, resumed)
        if sealed_path(directory, numbers[-1]).exists():  # whatever was behind it: nothing may be added to it
            resumed.current = False
    elif head is not None and head.count:
        resumed.damage = Damage(head.segment, 1, f"{head.count} acknowledged records are missing, and their segments")
    if head is not None:
        resumed.state.seq = max(resumed.state.seq, head.seq)
        resumed.segment = max(resumed.segment, head.segment)  # a lost segment's number is not used again
    return resumed


def _head(directory: Path) -> tuple[Head | None, Damage | None]:
    try:
        return read_head(directory), None
    except ValueError as error:
        return None, Damage(0, 0, str(error))


def _unborn(directory: Path, segment: int, head: Head | None) -> bool:
    """A segment whose first line never became whole, and that the head does not know."""
    if head is not None and head.segment >= segment:
        return False
    return not first_line(directory, segment).endswith(b"\n")


def _first_readable(directory: Path, numbers: list[int]) -> int:
    """Index of the last segment whose first record can be read: the scan starts there, or at the very first."""
    for index in range(len(numbers) - 1, 0, -1):
        record, _ = parse(first_line(directory, numbers[index]))
        if record is not None and record["record"] in HEADERS:
            return index
    return 0


def _scan(directory: Path, numbers: list[int], head: Head | None, resumed: Resumed) -> None:
    state = resumed.state
    acknowledged = head.count if head is not None else 0
    line = Line(numbers[-1], 0, 0, b"", True)
    for index, segment in enumerate(numbers):
        for line, record, problem in chained(read_lines(directory, segment), state.hash if index else None):
            torn = not line.whole and segment == numbers[-1] and state.count >= acknowledged
            if torn and resumed.damage is None:  # a damaged segment stays as it is, with all its bytes
                resumed.torn = True
                break
            if problem and resumed.damage is None:
                resumed.damage = Damage(segment, line.number, problem)
            if record is not None and record["record"] in HEADERS:
                _check_version(record["v"])
                resumed.opened_at, resumed.current = record["at"], record["v"] == RECORD_VERSION
                state.adopt(record)
            state.take(line, record)
            resumed.length, resumed.last_offset, resumed.lines = line.end, line.offset, line.number
            if head is not None and head.count == state.count and head.hash != state.hash and resumed.damage is None:
                resumed.damage = Damage(segment, line.number, "is not the record that the head names")
    if state.count < acknowledged and resumed.damage is None:
        missing = acknowledged - state.count
        resumed.damage = Damage(
            numbers[-1], line.number + 1, f"{missing} acknowledged records are missing from here on"
        )


def _check_version(version: int) -> None:
    if version > RECORD_VERSION:
        raise LedgerTooNew(f"the ledger has records of version {version}; this software knows up to {RECORD_VERSION}")


def started_at(directory: Path, segment: int) -> str:
    """The moment a segment was started; empty if it cannot be told."""
    try:
        record, _ = parse(first_line(directory, segment))
    except OSError:
        return ""
    return str(record["at"]) if record is not None and record["record"] in HEADERS else ""
