"""What comes next of a log: rows and refusals behind a mark, up to what the head acknowledges.

A damaged line is neither, as in the fold; it is named once and passed over. So is a row that no store could hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from gateway.ledger.following import LogsDiffer, Position, follow
from gateway.ledger.instants import parse_us, rfc3339
from gateway.ledger.segment import (
    HEADERS,
    OPENING,
    RECORD_VERSION,
    TERMINAL,
    Head,
    LedgerTooNew,
    Place,
    Record,
    hash_of,
    parse,
)
from pricing.export import COLUMNS, FIRST_COLUMNS, NAMES

BATCH_BYTES_MAX = 8 * 1024 * 1024  # of lines; about 50 MB in memory once parsed
INTEGER_BOUND = 2**63  # what every store can hold

_OPENINGS = tuple(b'{"record":"%b"' % kind.encode() for kind in OPENING)  # half of all lines: not worth parsing
_NUL = b"\\u0000"  # JSON can say it, PostgreSQL cannot store it
_LATER = NAMES[FIRST_COLUMNS:]
_KINDS = {"text": str, "integer": int, "bool": bool, "time": str, "json": str}
_ALWAYS = frozenset(("export_id", "seq", "ended_at", "log", "record"))
_values_of = itemgetter(*NAMES)
_integers_of = itemgetter(*(column.name for column in COLUMNS if column.kind == "integer"))
_texts_of = itemgetter(*(column.name for column in COLUMNS if column.kind in ("text", "json")))
_TIMES = tuple(column.name for column in COLUMNS if column.kind == "time")


class Mark(NamedTuple):
    """How far something has come in a log."""

    position: Position = Position(0, 0)
    hash: str = ""  # of the line before the position; "": not known
    seq: int = 0  # of the next row


class Row(NamedTuple):
    """A terminal record, as it stands in the log."""

    record: Record
    line: bytes
    position: Position  # behind it

    @property
    def mark(self) -> Mark:
        return Mark(self.position, hash_of(self.line), self.record["seq"] + 1)


class Refusal(NamedTuple):
    """A count of refused requests. Its line's hash is its key: the chain makes it unique."""

    record: Record
    hash: str
    position: Position  # behind it


class Skipped(NamedTuple):
    """A line that is passed over, and why."""

    place: Place
    problem: str


@dataclass(slots=True)
class Batch:
    """What is delivered in one step, and the marks before and behind it."""

    log: int
    start: Mark
    end: Mark
    rows: list[Row] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not self.rows and not self.refusals


def next_batch(directory: Path, log: int, start: Mark, head: Head, rows_max: int) -> Batch | None:
    """What is behind a mark, at most so many rows and refusals. None: nothing.

    Raises:
        LogsDiffer: the mark is not of this log, which was restored or replaced.
        LedgerTooNew: a later version wrote what comes next.
    """
    at_head = Position(head.segment, head.offset)
    if start.position == at_head:
        if start.hash not in ("", head.hash):
            raise _differs(log)
        return None
    batch, size, last = Batch(log, start, start), 0, b""
    for line, end in _lines(directory, log, start, head):
        _add(batch, line, end)
        batch.end, last = Mark(end), line
        size += len(line)
        if len(batch.rows) + len(batch.refusals) >= rows_max or size >= BATCH_BYTES_MAX:
            break
    if not size:
        return None
    seq = batch.rows[-1].record["seq"] + 1 if batch.rows else start.seq
    batch.end = Mark(batch.end.position, hash_of(last), head.seq if batch.end.position == at_head else seq)
    return batch


def _lines(directory: Path, log: int, start: Mark, head: Head) -> Iterator[tuple[bytes, Position]]:
    """The lines behind a mark, each with the position behind it."""
    for reached, lines in _onwards(directory, log, start, head):
        offset = reached.offset - sum(map(len, lines)) - len(lines)
        for line in lines:
            offset += len(line) + 1
            yield line, Position(reached.segment, offset)


def _onwards(directory: Path, log: int, start: Mark, head: Head) -> Iterator[tuple[Position, list[bytes]]]:
    """The lines behind a mark, once it is sure that the mark is one of this log."""
    segment, offset = start.position
    if not start.hash or not offset:
        yield from follow(start.position, directory, log, head)
        return
    # One byte earlier: there must be the newline of the line that the mark's hash is of.
    sure = False
    for reached, lines in follow(Position(segment, offset - 1), directory, log, head):
        if not sure:
            if reached.segment == segment:
                if lines[0]:
                    raise _differs(log)
                lines = lines[1:]
            if not all(_follows(line, start.hash) for line in lines[:1]):
                raise _differs(log)
            sure = bool(lines) or reached.segment != segment
        yield reached, lines


def _follows(line: bytes, hash_before: str) -> bool:
    """Whether a line may be the one behind a mark: damage says nothing, and a break says that there was damage."""
    record, _ = parse(line)
    return record is None or record["record"] == "break" or record.get("prev") == hash_before


def _differs(log: int) -> LogsDiffer:
    return LogsDiffer(f"log {log} does not go on where the store stopped: it was restored or replaced")


def _add(batch: Batch, line: bytes, end: Position) -> None:
    if line.startswith(_OPENINGS):
        return
    record, problem = parse(line)
    if record is not None and record["record"] in HEADERS:
        check_version(record)
    elif record is not None and record["record"] in TERMINAL:
        for name in _LATER:  # rows of an older version have none
            record.setdefault(name, None)
        problem = unsound(record, line)
        if not problem:
            batch.rows.append(Row(record, line, end))
    elif record is not None and record["record"] == "refused":
        problem = _unsound_refusal(record)
        if not problem:
            batch.refusals.append(Refusal(record, hash_of(line), end))
    if problem:
        batch.skipped.append(Skipped(Place(end.segment, end.offset - len(line) - 1), problem))


def check_version(header: Record) -> None:
    """Rows of a later version are not shipped in part: what a store has taken it never gets again.

    Raises:
        LedgerTooNew: this is the first record of a segment that a later version wrote.
    """
    if header.get("v", 0) > RECORD_VERSION:
        raise LedgerTooNew(f"the ledger has records of version {header['v']}; this software knows {RECORD_VERSION}")


_sound_types: set[tuple[type, ...]] = set()  # of whole rows: few, because only what may be unknown differs
_SOUND_TYPES_MAX = 1024


def unsound(record: Record, line: bytes) -> str:
    """Why a store could not hold this row; "" for a good one."""
    try:
        types = tuple(map(type, _values_of(record)))
        if types not in _sound_types:
            problem = _mistyped(types)
            if problem:
                return problem
            if len(_sound_types) < _SOUND_TYPES_MAX:
                _sound_types.add(types)
        for name in _TIMES:
            text = record[name]
            if text is not None and rfc3339(parse_us(text)) != text:
                return f"{name} is no moment as the ledger writes it"
    except KeyError as missing:
        return f"has no {missing.args[0]}"
    except (ValueError, OverflowError):
        return "has a moment that cannot be read"
    if any(value is not None and not -INTEGER_BOUND <= value < INTEGER_BOUND for value in _integers_of(record)):
        return "has a number beyond 64 bits"
    if _NUL in line and any(text is not None and "\0" in text for text in _texts_of(record)):
        return "has a text with a NUL character"
    return ""


def _mistyped(types: tuple[type, ...]) -> str:
    for column, found in zip(COLUMNS, types, strict=True):
        if found is not _KINDS[column.kind] and (found is not type(None) or column.name in _ALWAYS):
            return f"{column.name} is not of kind {column.kind}"
    return ""


def _unsound_refusal(record: Record) -> str:
    try:
        if rfc3339(parse_us(record["minute"])) != record["minute"]:
            return "minute is no moment as the ledger writes it"
    except (ValueError, OverflowError):
        return "minute cannot be read"
    if "\0" in record["tenant"] or "\0" in record["reason"]:
        return "has a text with a NUL character"
    return "" if record["count"] < INTEGER_BOUND else "has a number beyond 64 bits"
