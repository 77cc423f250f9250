"""The shared cells: how N workers are one gateway, in a mapped file that survives `kill -9`.

    page 0         magic, version, places, rows
    directory      one key per row: the hash of what the row is about ("tenant acme"); 0: free
    place 0..N-1   a worker's own copy of every row, `CELLS` cells of 8 bytes each

Worker k writes the cells of place k and no others; whoever wants to know about all workers adds up (or takes the
newest of) the same cell of all places. So no number is ever read, changed and written back by two processes. A cell is
written by one aligned store, as on the stream board, and read as an integer or as a float, whichever was written.

What must not happen twice at the same time (to draw on what is left of a limit, to take a row) happens under a lock on
a byte of the file, which the kernel frees with its holder. It is held for microseconds without any I/O; a holder that
is stopped just there is waited for no longer than `LOCK_S`, then not at all for a while: better a block too much is
drawn than that every worker stands still.

The supervisor makes the file, one for its lifetime, and clears what a worker that died had under way (`bury`); what it
had used up stays, until its successor has read the ledger.
"""

import fcntl
import mmap
import os
import time
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

_PAGE = 4096
_MAGIC = int.from_bytes(b"tpcells\0", "little")
_VERSION = 1
_DIRECTORY = _PAGE // 8
CELLS = 24
CELLS_NAME = "cells"

# Of every row, whatever it is about.
IN_USE, IN_FLIGHT, LOAD = 0, 1, 2  # LOAD is a float: watts, Mbit/s, or when a worker was last seen
FIRST = 3  # the first cell whose meaning is its owner's

# A row costs 200 bytes a worker. Tenants, backends and links come and go by reloads: as many again three times over.
ROWS_MIN = 1024
ROWS_PER_NAME = 4

LOCK_S = 0.005
LOCK_TRY_S = 0.0001
LOCK_BROKEN_S = 1.0
# A worker sweeps four times a second; one that has not for this long is stuck, and nobody leaves work to it.
ALIVE_S = 1.0


class CellsFull(Exception):
    """More names than the file has rows; a restart makes a larger file."""


class Row:
    """One thing's cells: where this worker writes, and where the others do."""

    __slots__ = ("elsewhere", "floats", "here", "ints", "number")

    def __init__(self, cells: "Cells", number: int) -> None:
        bases = [cells.base(place, number) for place in range(cells.places)]
        self.number = number
        self.here = bases[cells.place]
        self.elsewhere = tuple(base for place, base in enumerate(bases) if place != cells.place)
        self.ints = cells.ints
        self.floats = cells.floats

    def sum_elsewhere(self, cell: int) -> int:
        """What the other workers' integers in this cell add up to."""
        ints, total = self.ints, 0
        for base in self.elsewhere:
            total += ints[base + cell]
        return total

    def load_elsewhere(self) -> float:
        floats, total = self.floats, 0.0
        for base in self.elsewhere:
            total += floats[base + LOAD]
        return total


class Cells:
    """The mapped file as one worker sees it; made by `create`, `open` or `alone`."""

    def __init__(self, mapped: mmap.mmap, descriptor: int, place: int) -> None:
        self._map = mapped
        self._fd = descriptor
        view = memoryview(mapped)
        self.ints, self.floats = view.cast("q"), view.cast("d")
        self._views = (self.ints, self.floats, view)
        self.place = place
        self.places, self.rows = self.ints[2], self.ints[3]
        self._rows: dict[tuple[str, str], Row] = {}
        self._unlocked_until = 0.0

    @classmethod
    def create(cls, path: Path, places: int, names: int = 0) -> "Cells":
        """A fresh file in place of whatever is at `path`, for so many workers and about so many names.

        Raises:
            OSError: there is no room. The blocks are taken now: a store into a page that the disk has no room for
                would kill the process.
        """
        rows = max(ROWS_MIN, ROWS_PER_NAME * names)
        fresh = path.with_name(path.name + ".new")
        size = _size(places, rows)
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            os.ftruncate(descriptor, size)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)
            mapped = mmap.mmap(descriptor, size)
            _head(mapped, places, rows)
            os.replace(fresh, path)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(mapped, descriptor, 0)

    @classmethod
    def open(cls, path: Path, place: int) -> "Cells":
        """The cells of a running gateway, as the worker of a place.

        Raises:
            OSError: there are none.
            ValueError: the file is none this version can use, or has no such place.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            mapped = mmap.mmap(descriptor, 0)
            with memoryview(mapped) as view, view.cast("q") as ints:
                magic, version, places, rows = ints[:4].tolist()
            if (magic, version) != (_MAGIC, _VERSION) or len(mapped) != _size(places, rows) or not 0 <= place < places:
                raise ValueError(f"{path} does not hold the cells of worker {place}")
        except BaseException:
            os.close(descriptor)
            raise
        return cls(mapped, descriptor, place)

    @classmethod
    def alone(cls) -> "Cells":
        """Those of a worker that has no others, without a file."""
        mapped = mmap.mmap(-1, _size(1, ROWS_MIN))
        _head(mapped, 1, ROWS_MIN)
        return cls(mapped, -1, 0)

    def close(self) -> None:
        """Unmap. Rows must not be used afterwards; the file stays as it is."""
        for view in self._views:
            view.release()
        self._map.close()
        if self._fd >= 0:
            os.close(self._fd)

    # ---- rows

    def base(self, place: int, row: int) -> int:
        """Where a worker's copy of a row begins."""
        return _first(self.rows) + (place * self.rows + row) * CELLS

    def claim(self, kind: str, names: Iterable[str]) -> None:
        """Have a row for each of these names: all of them, or none.

        Raises:
            CellsFull: there are not so many rows.
        """
        missing = {_key(kind, name): name for name in names if (kind, name) not in self._rows}
        if not missing:
            return
        self.lock(self.rows)
        try:
            taken = {key: row for row in range(self.rows) if (key := self.ints[_DIRECTORY + row])}
            fresh = [key for key in missing if key not in taken]
            free = self._free(len(fresh)) if fresh else []
            for key, number in zip(fresh, free, strict=True):
                taken[key] = number
                for place in range(self.places):
                    base = self.base(place, number)
                    for cell in range(base, base + CELLS):
                        self.ints[cell] = 0
                self.ints[_DIRECTORY + number] = key
            for key, name in missing.items():
                row = self._rows[kind, name] = Row(self, taken[key])
                self.ints[row.here + IN_USE] = 1
        finally:
            self.unlock(self.rows)

    def row(self, kind: str, name: str) -> Row:
        """The row of a name, claimed if need be."""
        self.claim(kind, (name,))
        return self._rows[kind, name]

    def release(self, kind: str, name: str) -> None:
        """This worker needs the row no more. It is another's once no worker does; until then its figures stay."""
        row = self._rows.pop((kind, name), None)
        if row is not None:
            self.ints[row.here + IN_FLIGHT] = 0
            self.ints[row.here + IN_USE] = 0

    def _free(self, count: int) -> list[int]:
        """So many rows: those that never had a name first, then those that nobody uses."""
        empty = [row for row in range(self.rows) if not self.ints[_DIRECTORY + row]][:count]
        if len(empty) < count:
            named = (row for row in range(self.rows) if self.ints[_DIRECTORY + row])
            unused = [row for row in named if not any(self._in_use(place, row) for place in range(self.places))]
            empty += unused[: count - len(empty)]
        if len(empty) < count:
            message = f"more tenants, backends and links than the {self.rows} rows this gateway began with; restart it"
            raise CellsFull(message)
        return empty

    def _in_use(self, place: int, row: int) -> int:
        return self.ints[self.base(place, row) + IN_USE]

    # ---- workers

    def bury(self, place: int) -> None:
        """The worker of this place is dead: nothing is in flight there. Called when its process is gone."""
        for row in range(self.rows):
            if self.ints[_DIRECTORY + row]:
                base = self.base(place, row)
                self.ints[base + IN_FLIGHT] = 0
                self.floats[base + LOAD] = 0.0
                self.ints[base + IN_USE] = 0

    # ---- locks

    def lock(self, byte: int) -> None:
        """Alone with this row among all workers, for a few microseconds; nothing to do for one that has no others."""
        if self.places == 1:
            return
        give_up_at = 0.0
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
                return
            except OSError:
                now = time.monotonic()
                give_up_at = give_up_at or now + LOCK_S
                if now < self._unlocked_until:
                    return
                if now >= give_up_at:
                    self._unlocked_until = now + LOCK_BROKEN_S
                    return
                time.sleep(LOCK_TRY_S)

    def unlock(self, byte: int) -> None:
        if self.places > 1:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)


class Workers:
    """Who is there, and how busy: the row every worker has about itself."""

    __slots__ = ("_cells", "_row")

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._row = cells.row("worker", "")

    @property
    def alone(self) -> bool:
        return not self._row.elsewhere

    def beat(self, now: float) -> None:
        """Still here. Called with every sweep."""
        row = self._row
        row.floats[row.here + LOAD] = now

    def hold(self, connections: int) -> None:
        """How many connections this worker has."""
        row = self._row
        row.ints[row.here + IN_FLIGHT] = connections

    def fewest(self, now: float) -> int:
        """The connections of the live worker that has the fewest, but for this one; -1 if there is no other."""
        row, fewest = self._row, -1
        for base in row.elsewhere:
            if now - row.floats[base + LOAD] < ALIVE_S:
                held = row.ints[base + IN_FLIGHT]
                if fewest < 0 or held < fewest:
                    fewest = held
        return fewest

    def first(self, now: float) -> bool:
        """Whether this is the first of the live workers: what one is to do for all, it does."""
        row = self._row
        return all(base > row.here or now - row.floats[base + LOAD] >= ALIVE_S for base in row.elsewhere)


def _key(kind: str, name: str) -> int:
    """64 bits of a hash: two of ten thousand names meet once in 10^11 gateways."""
    return int.from_bytes(blake2b(f"{kind} {name}".encode(), digest_size=8).digest(), "little", signed=True) or 1


def _first(rows: int) -> int:
    """The first cell behind the directory, at the beginning of a page."""
    return -(-(_DIRECTORY + rows) // _DIRECTORY) * _DIRECTORY


def _size(places: int, rows: int) -> int:
    return (_first(rows) + places * rows * CELLS) * 8


def _head(mapped: mmap.mmap, places: int, rows: int) -> None:
    with memoryview(mapped) as view, view.cast("q") as ints:
        ints[1], ints[2], ints[3] = _VERSION, places, rows
        ints[0] = _MAGIC
