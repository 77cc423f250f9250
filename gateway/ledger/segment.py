"""What a log is on disk: segments, lines, the chain through them, and the head.

    ledger/K/000001.jsonl       log K's first segment: one JSON object a line
    ledger/K/000001.jsonl.zst   the same, compressed (`frames`), once it is closed; later this alone is left
    ledger/K/000001.seal        its seal (`seals`)
    ledger/K/000001.rollup.jsonl  what it adds up to (`rollups`), once the rest of it had to go
    ledger/K/head               count and hash of the last acknowledged record, where it ends, and the next `seq`
    ledger/K/lock               held (flock) by the one process that writes the log

Who reads a segment asks `segmentfile` for its bytes; an offset is always one of plain bytes.

Every line ends with the member `"prev":"<hex>"`, the SHA-256 of the line before it (its bytes on disk, without the
newline), so a changed, missing, moved or added line breaks the chain. The first line of a log has 64 zeros.

The first record of a segment is `segment`: its number, how many records the log held before (`count`), the next `seq`
and the opens without an end (`carried`), so that a start reads one segment and not the whole log. After damage it is
`break`: the same, and what was damaged and where.

Record kinds:  open, attempt -> settled | void | recovered  ;  refused  ;  segment, break
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gateway.ledger.instants import parse_us

# Older versions are read for ever; a newer one is refused, and one that gets new members or columns is newer. A segment
# holds one version: a log that an older one wrote goes on in a new segment.
RECORD_VERSION = 1
NO_HASH = "0" * 64
TERMINAL = frozenset(("settled", "void", "recovered"))
OPENING = frozenset(("open", "attempt"))
HEADERS = frozenset(("segment", "break"))

_HEAD_BYTES = 256  # of fixed length: one small write replaces it whole
_UNHASHED_GIL_BYTES = 2047
_SUFFIX = ".jsonl"
_SEALED_SUFFIX = ".jsonl.zst"

Record = dict[str, Any]


class LedgerTooNew(Exception):
    """The log was written by a later version of the software."""


class Place(NamedTuple):
    """Where a line begins."""

    segment: int
    offset: int


class Line(NamedTuple):
    segment: int
    number: int  # from 1
    offset: int
    data: bytes  # without the newline
    whole: bool  # it has its newline

    @property
    def end(self) -> int:
        return self.offset + len(self.data) + self.whole


class ChainLink(NamedTuple):
    """A line as the chain sees it. `record` is None if it cannot be read as one."""

    line: Line
    record: Record | None
    problem: str


@dataclass(frozen=True, slots=True)
class Head:
    count: int
    hash: str
    segment: int
    offset: int  # where the last acknowledged line ends
    seq: int


# ---- names


def segment_path(directory: Path, segment: int) -> Path:
    return directory / f"{segment:06d}{_SUFFIX}"


def sealed_path(directory: Path, segment: int) -> Path:
    return directory / f"{segment:06d}{_SEALED_SUFFIX}"


def segment_numbers(directory: Path) -> list[int]:
    """The segments of a log, plain or compressed, in order."""
    names = [entry.name for entry in os.scandir(directory)] if directory.is_dir() else []
    parts = [name.partition(".") for name in names]
    stems = {stem for stem, dot, suffix in parts if dot + suffix in (_SUFFIX, _SEALED_SUFFIX)}
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())


def logs(ledger: Path) -> list[int]:
    """The numbers of the logs below a ledger directory."""
    if not ledger.is_dir():
        return []
    return sorted(int(entry.name) for entry in os.scandir(ledger) if entry.name.isdigit() and entry.is_dir())


# ---- lines


def hash_of(data: bytes) -> str:
    """SHA-256 of a line. In pieces, because from 2,048 bytes on hashlib drops the interpreter lock, and getting it
    back from a busy event loop takes up to a whole switch interval: a thousand times what the hash takes."""
    if len(data) <= _UNHASHED_GIL_BYTES:
        return sha256(data).hexdigest()
    digest = sha256()
    _update(digest, data)
    return digest.hexdigest()


def _update(digest: Any, data: bytes) -> None:
    for start in range(0, len(data), _UNHASHED_GIL_BYTES):
        digest.update(data[start : start + _UNHASHED_GIL_BYTES])


def link(head: bytes, body: bytes, tail: bytes, prev: bytes) -> tuple[bytes, bytes]:
    """The end of a line that these pieces begin, with its place in the chain; and the hash of the whole line."""
    end = b'%b,"prev":"%b"}' % (tail, prev)
    digest = sha256(head[:_UNHASHED_GIL_BYTES])
    if len(head) > _UNHASHED_GIL_BYTES:
        _update(digest, head[_UNHASHED_GIL_BYTES:])
    if len(body) > _UNHASHED_GIL_BYTES:
        _update(digest, body)
    else:
        digest.update(body)
    digest.update(end)
    return end, digest.hexdigest().encode()


def parse(data: bytes) -> tuple[Record | None, str]:
    """(record, "") or (None, what is wrong with it). Only what every reader relies on is checked."""
    try:
        record = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None, "is not JSON"
    if not isinstance(record, dict):
        return None, "is not a JSON object"
    kind = str(record.get("record"))
    if kind in TERMINAL:
        sound = isinstance(record.get("export_id"), str) and _natural(record.get("seq"))
    elif kind in OPENING:
        sound = isinstance(record.get("export_id"), str)
    elif kind in HEADERS:
        numbers = all(_natural(record.get(name)) for name in ("v", "log", "segment", "count", "seq"))
        sound = numbers and _is_moment(record.get("at")) and _carries(record.get("carried"))
    else:
        sound = kind == "refused" and _natural(record.get("count"))
        sound = sound and all(isinstance(record.get(name), str) for name in ("minute", "tenant", "reason"))
    return (record, "") if sound else (None, f"is no record this version knows: {kind[:40]!r}")


def _natural(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _is_moment(value: object) -> bool:
    try:
        return isinstance(value, str) and parse_us(value) >= 0
    except ValueError:
        return False


def _carries(carried: object) -> bool:
    return isinstance(carried, list) and all(isinstance(item, dict) and _is_carried(item) for item in carried)


def _is_carried(item: Record) -> bool:
    return isinstance(item.get("export_id"), str) and _natural(item.get("segment")) and _natural(item.get("offset"))


# ---- the chain


def chained(lines: Iterable[Line], prev: str | None) -> Iterator[ChainLink]:
    """The lines of a segment with what is wrong with each, checked against the bytes before it.
    `prev`: what the first must follow; None: not known."""
    for line in lines:
        record, problem = parse(line.data)
        if record is not None:
            problem = _misplaced(line, record, prev)
        yield ChainLink(line, record, problem)
        prev = hash_of(line.data)


def _misplaced(line: Line, record: Record, prev: str | None) -> str:
    if prev is not None and record.get("prev") != prev:
        return "does not follow the line before it"
    if (line.number == 1) != (record["record"] in HEADERS):
        return "is not what a segment begins with" if line.number == 1 else "begins a segment in the middle of one"
    if line.number == 1 and record["segment"] != line.segment:
        return f"is the first record of segment {record['segment']}"
    return "" if line.whole else "has no newline"


@dataclass(slots=True)
class ChainState:
    """What is known of a log after reading up to some line."""

    count: int = 0  # records
    hash: str = NO_HASH  # of the last one
    seq: int = 0  # of the next terminal record
    opens: dict[str, Place] = field(default_factory=dict)  # without an end; where their last opening is

    def adopt(self, header: Mapping[str, Any]) -> None:
        """Start from a segment's first record instead of from the records before it."""
        self.count = header["count"]
        self.seq = header["seq"]
        self.opens = {item["export_id"]: Place(item["segment"], item["offset"]) for item in header["carried"]}

    def take(self, line: Line, record: Mapping[str, Any] | None) -> None:
        self.count += 1
        self.hash = hash_of(line.data)
        if record is None:
            return
        kind, export_id = record["record"], record.get("export_id", "")
        if kind in TERMINAL:
            self.opens.pop(export_id, None)
            self.seq = max(self.seq, record["seq"] + 1)
        elif kind in OPENING:
            self.opens[export_id] = Place(line.segment, line.offset)

    def carried(self) -> list[dict[str, object]]:
        return [
            {"export_id": export_id, "segment": place.segment, "offset": place.offset}
            for export_id, place in self.opens.items()
        ]


# ---- the head


def encode_head(head: Head) -> bytes:
    return orjson.dumps(head).ljust(_HEAD_BYTES - 1) + b"\n"


def read_head(directory: Path) -> Head | None:
    """None if there is none: no file, or one of which a power loss left nothing. ValueError if it cannot be read."""
    data = b""
    with suppress(FileNotFoundError):
        data = (directory / "head").read_bytes()
    if not data.strip(b"\0"):
        return None
    try:
        head = Head(**orjson.loads(data))
    except (orjson.JSONDecodeError, TypeError):
        raise ValueError("the head is not readable") from None
    numbers = (head.count, head.segment, head.offset, head.seq)
    sound = all(_natural(number) for number in numbers) and isinstance(head.hash, str)
    if not sound or data != encode_head(head):
        raise ValueError("the head is not readable")
    return head
