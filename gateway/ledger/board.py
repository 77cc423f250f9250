"""The board: live counts of every stream, in a mapped file that survives `kill -9`.

    page 0        magic, version, number of slots
    n slots       of 640 bytes: 24 cells of 8 bytes, and the first 448 bytes of the first record
    n spares      of 3,456 bytes: the rest of the first record, and the second

A cell is written by one aligned store (a memoryview of 64-bit cells), so whoever reads after a kill finds the old
number or the new one. `struct.pack_into` would not do: it zeroes its target before it writes. Counts move before the
bytes they count are handed on, so what is found is never below what a client received.

A slot holds the opening of its request, and a retry on another backend replaces that opening together with all that was
counted for the attempt. Hence two sides: the next attempt is written to the side that is not in use, and becomes the
current one by a single store of the selector. A slot gets its id before its live mark, and loses the mark first.

What nearly every request needs lies in its slot (an opening is 300 to 450 bytes); long openings and second tries reach
into the spare. So of the mapped file a stream brings 0.6 KiB into memory, not 4: a twelfth of what it costs in all.

One process writes; all others map read-only.
"""

import mmap
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PAGE = 4096
_SLOT_BYTES, _SPARE_BYTES = 640, 3456
_MAGIC = int.from_bytes(b"tpboard\0", "little")
_VERSION = 3

# Cells of a slot.
_LIVE, _ID_HIGH, _ID_LOW = 0, 1, 2
_DELIVERED_EVENTS, _DELIVERED_TOKENS, _TO_CLIENT, _FROM_CLIENT, _TTFT, _STATUS = 3, 4, 5, 6, 7, 8
_SELECTOR = 9  # side in bit 16, length of its record below
_SIDES = (10, 16)  # six cells each, for what is counted per attempt
_GENERATED_EVENTS, _GENERATED_TOKENS, _FROM_BACKEND, _TO_BACKEND, _INPUT, _CACHED = 0, 1, 2, 3, 4, 5
_SIDE_CELLS = 6
_HEADER_CELLS = 24

_SIDE_BIT = 16
_LENGTH_MASK = (1 << _SIDE_BIT) - 1
_LOW_MASK = (1 << 64) - 1
AREA_BYTES = (_SLOT_BYTES + _SPARE_BYTES - _HEADER_CELLS * 8) // 2  # 1,952
_NEAR_BYTES = _SLOT_BYTES - _HEADER_CELLS * 8  # of the first record, in the slot itself: 448

_ZEROS = memoryview(bytes(_HEADER_CELLS * 8)).cast("Q")


class BoardEntry(NamedTuple):
    """A live slot as found. None: not known, which is not zero."""

    export_id: str
    opening: bytes
    delivered_events: int
    delivered_tokens: int | None
    generated_events: int
    generated_tokens: int | None
    bytes_from_client: int
    bytes_to_client: int
    bytes_to_backend: int
    bytes_from_backend: int
    ttft_us: int | None
    status: int | None
    input_tokens: int | None
    cached_input_tokens: int


class Board:
    """A mapped file of slots; made by `create` or `open_readonly`."""

    def __init__(self, path: Path, mapped: mmap.mmap, slots: int, *, writable: bool) -> None:
        self.path = path
        self.slots = slots
        self._map = mapped
        self._bytes = memoryview(mapped)
        self._cells = self._bytes.cast("Q")
        # Last in, first out: the pages that were touched are touched again, so memory follows concurrency.
        self._free = list(range(slots - 1, -1, -1)) if writable else []

    @classmethod
    def create(cls, path: Path, slots: int) -> "Board":
        """A fresh board in place of whatever is at `path`; recovery has to have read that before.

        Raises:
            OSError: there is no room. The blocks are taken now: a store into a page that the disk has no room for
                would kill the process.
        """
        fresh = path.with_name(path.name + ".new")
        size = _size(slots)
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            os.ftruncate(descriptor, size)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)
            board = cls(path, mmap.mmap(descriptor, size), slots, writable=True)
        finally:
            os.close(descriptor)
        board._cells[0], board._cells[1], board._cells[2] = _MAGIC, _VERSION, slots
        os.replace(fresh, path)
        return board

    @classmethod
    def open_readonly(cls, path: Path) -> "Board":
        """Somebody else's board, or that of a process that was killed.

        Raises:
            FileNotFoundError: there is none.
            ValueError: the file is no board this version can read.
        """
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            slots = (size - _PAGE) // (_SLOT_BYTES + _SPARE_BYTES)
            if slots < 0 or size != _size(slots):
                raise ValueError(f"{path} is not a board")
            mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        board = cls(path, mapped, slots, writable=False)
        if board._cells[0] != _MAGIC or board._cells[1] != _VERSION or board._cells[2] != board.slots:
            board.close()
            raise ValueError(f"{path} is not a board of version {_VERSION}")
        return board

    def claim(self, export_id: bytes, opening: bytes) -> "Slot | None":
        """A slot for a request, before it leaves for a backend; None if all are taken.

        Raises:
            ValueError: the opening is larger than a slot's record area.
        """
        _check_size(opening)
        if not self._free:
            return None
        index = self._free.pop()
        base = _base(index)
        cells = self._cells
        cells[base : base + _HEADER_CELLS] = _ZEROS  # not live yet: nobody looks
        self._put(index, 0, opening)
        cells[base + _SELECTOR] = len(opening)
        number = int.from_bytes(export_id, "big")
        cells[base + _ID_HIGH] = number >> 64
        cells[base + _ID_LOW] = number & _LOW_MASK
        cells[base + _LIVE] = 1
        return Slot(self, index)

    @property
    def live(self) -> int:
        """How many slots are taken, for the process that writes."""
        return self.slots - len(self._free)

    def entries(self) -> Iterator[BoardEntry]:
        """The live slots. Of a board that is being written, those that did not change hands while they were read."""
        for index in range(self.slots):
            if not self._cells[_base(index) + _LIVE]:
                continue
            entry = self._entry(index)
            if entry is not None:
                yield entry

    def _entry(self, index: int) -> BoardEntry | None:
        base = _base(index)
        before = tuple(self._cells[base : base + _SELECTOR + 1])
        selector = before[_SELECTOR]
        side, length = (selector >> _SIDE_BIT) & 1, selector & _LENGTH_MASK
        opening = self._record(index, side, min(length, AREA_BYTES))
        at = base + _SIDES[side]
        counts = tuple(self._cells[at : at + _SIDE_CELLS])
        now = tuple(self._cells[base : base + _SELECTOR + 1])
        if any(before[cell] != now[cell] for cell in (_LIVE, _ID_HIGH, _ID_LOW, _SELECTOR)):
            return None
        return BoardEntry(
            export_id=str(uuid.UUID(int=(now[_ID_HIGH] << 64) | now[_ID_LOW])),
            opening=opening,
            delivered_events=now[_DELIVERED_EVENTS],
            delivered_tokens=_known(now[_DELIVERED_TOKENS]),
            generated_events=counts[_GENERATED_EVENTS],
            generated_tokens=_known(counts[_GENERATED_TOKENS]),
            bytes_from_client=now[_FROM_CLIENT],
            bytes_to_client=now[_TO_CLIENT],
            bytes_to_backend=counts[_TO_BACKEND],
            bytes_from_backend=counts[_FROM_BACKEND],
            ttft_us=_known(now[_TTFT]),
            status=now[_STATUS] or None,
            input_tokens=_known(counts[_INPUT]),
            cached_input_tokens=counts[_CACHED],
        )

    def _put(self, index: int, side: int, record: bytes) -> None:
        """Write a record of at most AREA_BYTES to one side."""
        far = self._far(index, side)
        if side == 0:
            start = _base(index) * 8 + _HEADER_CELLS * 8
            near, record = record[:_NEAR_BYTES], record[_NEAR_BYTES:]
            self._bytes[start : start + len(near)] = near
        if record:
            self._bytes[far : far + len(record)] = record

    def _record(self, index: int, side: int, length: int) -> bytes:
        far, near = self._far(index, side), b""
        if side == 0:
            start = _base(index) * 8 + _HEADER_CELLS * 8
            near = bytes(self._bytes[start : start + min(length, _NEAR_BYTES)])
        return near + bytes(self._bytes[far : far + length - len(near)])

    def _far(self, index: int, side: int) -> int:
        """Where a side's record lies in the spare, or what of it does not fit into the slot."""
        spare = _PAGE + self.slots * _SLOT_BYTES + index * _SPARE_BYTES
        return spare + side * (AREA_BYTES - _NEAR_BYTES)

    def close(self) -> None:
        """Unmap. Slots of this board must not be used afterwards; the file stays as it is."""
        self._cells.release()
        self._bytes.release()
        self._map.close()


_nowhere = memoryview(bytearray(_HEADER_CELLS * 8)).cast("Q")


class Slot:
    """One request's place on the board. Counts are totals, not increments; of tokens that are not known, pass 0, else
    their number plus one."""

    __slots__ = ("_attempt", "_base", "_board", "_index", "_side", "cells")

    def __init__(self, board: Board | None, index: int) -> None:
        """Without a board it is of an attempt that is not the one to count: what is told to it is forgotten."""
        self._board = board
        self.cells = board._cells if board is not None else _nowhere
        self._index = index
        self._base = _base(index) if board is not None else 0
        self._side = 0
        self._attempt = self._base + _SIDES[0]

    def reopen(self, opening: bytes) -> None:
        """Another attempt: its opening, with nothing counted for it yet, replaces the last one in a single store.

        Raises:
            ValueError: the opening is larger than a slot's record area.
        """
        board = self._board
        if board is None:
            raise ValueError("the slot is released")
        _check_size(opening)
        side = 1 - self._side
        attempt = self._base + _SIDES[side]
        self.cells[attempt : attempt + _SIDE_CELLS] = _ZEROS[:_SIDE_CELLS]
        board._put(self._index, side, opening)
        self.cells[self._base + _SELECTOR] = (side << _SIDE_BIT) | len(opening)
        self._side, self._attempt = side, attempt

    def generated(self, events: int, tokens_plus_1: int, bytes_from_backend: int) -> None:
        """What this attempt's backend has made."""
        cells, at = self.cells, self._attempt
        cells[at + _GENERATED_EVENTS] = events
        cells[at + _GENERATED_TOKENS] = tokens_plus_1
        cells[at + _FROM_BACKEND] = bytes_from_backend

    def count(self, events: int, tokens_plus_1: int, bytes_to_client: int) -> None:
        """What is about to be handed to the client's socket."""
        cells, base = self.cells, self._base
        cells[base + _DELIVERED_EVENTS] = events
        cells[base + _DELIVERED_TOKENS] = tokens_plus_1
        cells[base + _TO_CLIENT] = bytes_to_client

    def count_plain(self, tokens: int, bytes_to_client: int, *, estimated: bool) -> None:
        """Of an answer that is no stream, and has no events: their cell says whether its tokens are an estimate."""
        self.count(int(estimated), tokens + 1, bytes_to_client)

    @property
    def generated_at(self) -> int:
        """Which of `cells` `generated` writes, three in a row. For who stores a count per token, without a call."""
        return self._attempt + _GENERATED_EVENTS

    @property
    def delivered_at(self) -> int:
        """Which of `cells` `count` writes, three in a row."""
        return self._base + _DELIVERED_EVENTS

    def sent(self, bytes_to_backend: int) -> None:
        self.cells[self._attempt + _TO_BACKEND] = bytes_to_backend

    def received(self, bytes_from_client: int) -> None:
        self.cells[self._base + _FROM_CLIENT] = bytes_from_client

    def input(self, tokens: int, cached_tokens: int) -> None:
        """What the backend says the input is."""
        self.cells[self._attempt + _CACHED] = cached_tokens
        self.cells[self._attempt + _INPUT] = tokens + 1

    def mark_status(self, status: int) -> None:
        """The status that is about to be sent."""
        self.cells[self._base + _STATUS] = status

    def mark_first(self, ttft_us: int, status: int) -> None:
        """The first content event is about to be sent."""
        self.cells[self._base + _STATUS] = status
        self.cells[self._base + _TTFT] = ttft_us + 1

    def release(self) -> None:
        """Free the slot, once the end of the request is durable. Twice is once."""
        board, self._board = self._board, None
        if board is not None:
            self.cells[self._base + _LIVE] = 0
            board._free.append(self._index)


def _known(cell: int) -> int | None:
    return cell - 1 if cell else None


def _size(slots: int) -> int:
    return _PAGE + slots * (_SLOT_BYTES + _SPARE_BYTES)


def _base(index: int) -> int:
    """The first cell of a slot."""
    return (_PAGE + index * _SLOT_BYTES) // 8


def _check_size(opening: bytes) -> None:
    if len(opening) > AREA_BYTES:
        raise ValueError(f"an opening of {len(opening)} bytes is larger than a slot's {AREA_BYTES}")
