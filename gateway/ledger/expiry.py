"""Retention: sealed segments that are old enough, or too many, go. What they add up to stays.

    NNNNNN.rollup.jsonl   written, synced, read back and held against the seal (`rollups`)
    NNNNNN.jsonl.zst      removed; NNNNNN.seal stays, so that the chain of seals is whole
    index                 its rows go in small steps, beside everything else that is done with it; its sums stay

Never goes what is not sealed, what still has its plain file, what a store that is configured has not taken, what the
index has not folded, and what holds the opening of a request that is still under way. Such a segment stops nothing but
itself: it goes with a later pass.

Each step leaves what the next one needs, and is done again from the beginning if a crash came first.
"""

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.ledger import lock
from gateway.ledger.folding import Fold
from gateway.ledger.following import Position
from gateway.ledger.instants import DAY_US, micros, parse_us
from gateway.ledger.rollups import BadRollups, Rollups, last_line, read_rollups, rollup_path
from gateway.ledger.sealkey import public_hex
from gateway.ledger.seals import Seal, read_seal, sealed_segments
from gateway.ledger.segment import Head, logs, parse, sealed_path, segment_numbers, segment_path
from gateway.ledger.segmentfile import first_line
from gateway.ledger.storage import SegmentIO, write_all
from gateway.ledger.tables import FIGURES, ROLLUP_KEY, create_tables


class Keep(NamedTuple):
    """What is to be kept at least. 0: all of it."""

    days: float = 0.0  # since the last end in a segment
    bytes: int = 0  # of all segments of all logs as they are on the disk


def expirable(
    ledger: Path, keep: Keep, now: float, shipped: Callable[[int], Position | None], folded: Mapping[int, Position]
) -> list[Seal]:
    """What may go by now, the oldest first. `shipped`: up to where all stores have taken a log; None: none is there."""
    candidates = [seal for log in logs(ledger) for seal in _free(ledger, log, shipped(log), folded)]
    candidates.sort(key=lambda seal: (_age_mark(seal), seal.log, seal.segment))
    too_many = _bytes(ledger) - keep.bytes if keep.bytes else 0
    oldest_us = micros(now) - round(keep.days * DAY_US) if keep.days else 0
    going: list[Seal] = []
    for seal in candidates:
        if too_many > 0 or _age_mark(seal) < oldest_us:
            too_many -= seal.sealed_bytes
            going.append(seal)
    return going


def _free(ledger: Path, log: int, shipped: Position | None, folded: Mapping[int, Position]) -> list[Seal]:
    """The segments of a log that nobody needs any more."""
    directory = ledger / str(log)
    numbers = segment_numbers(directory)
    first_needed = min((folded.get(log, Position(0, 0)), *([] if shipped is None else [shipped]))).segment
    first_needed = min(first_needed, *_carried(directory, numbers))
    return [
        read_seal(directory, segment)
        for segment in sealed_segments(directory)
        if segment < first_needed and not segment_path(directory, segment).exists()
    ]


def _carried(directory: Path, numbers: list[int]) -> list[int]:
    """The last segment, and those that hold openings it may still need."""
    if not numbers:
        return [0, 0]
    record, _ = parse(first_line(directory, numbers[-1]))
    carried = record.get("carried", []) if record is not None else []
    return [numbers[-1], numbers[-1], *(item["segment"] for item in carried)]


def _age_mark(seal: Seal) -> int:
    return parse_us(seal.last_ended_at or seal.sealed_at)


def _bytes(ledger: Path) -> int:
    """Of all segments, plain and compressed."""
    paths = [
        path
        for log in logs(ledger)
        for segment in segment_numbers(ledger / str(log))
        for path in (segment_path(ledger / str(log), segment), sealed_path(ledger / str(log), segment))
    ]
    return sum(path.stat().st_size for path in paths if path.exists())


class Expirer:
    """Lets segments go, one by one."""

    def __init__(self, ledger: Path, key: Ed25519PrivateKey, *, io: SegmentIO | None = None) -> None:
        self._ledger = ledger
        self._key = key
        self._io = io or SegmentIO()

    def expire(self, seal: Seal) -> None:
        """Write the sums of a segment, then remove it.

        Raises:
            LedgerBusy: another process is sealing.
            BadRollups: its rows do not add up to what was sealed; it stays.
            OSError: not possible now.
        """
        directory = self._ledger / str(seal.log)
        held = lock.take(self._ledger)
        try:
            rollups = _sums(directory, seal)
            problem = rollups.problem(seal)
            if problem:
                raise BadRollups(f"the sums of {seal.log}/{seal.segment:06d} {problem}")
            self._write(directory, rollups)
            if read_rollups(directory, seal.segment, (public_hex(self._key),)) != rollups:
                raise BadRollups(f"the sums of {seal.log}/{seal.segment:06d} are not what was written")
            self._io.remove(sealed_path(directory, seal.segment))
            self._io.sync_directory(directory)
        finally:
            os.close(held)

    def _write(self, directory: Path, rollups: Rollups) -> None:
        lines = rollups.lines(public_hex(self._key))
        path = rollup_path(directory, rollups.segment)
        fresh = Path(f"{path}.new")
        descriptor = self._io.write_over(fresh)
        try:
            write_all(self._io, descriptor, lines + last_line(lines, self._key.sign(lines).hex()))
            self._io.sync(descriptor)
        finally:
            os.close(descriptor)
        self._io.rename(fresh, path)
        self._io.sync_directory(directory)


def _sums(directory: Path, seal: Seal) -> Rollups:
    """What a segment adds up to, by the code that fills the index."""
    end = Head(0, "", seal.segment, seal.plain_bytes, 0)
    with closing(sqlite3.connect("", isolation_level=None)) as connection:
        create_tables(connection)
        connection.execute("INSERT INTO folded VALUES (?, ?, 0)", (seal.log, seal.segment))
        Fold(connection).add_log(directory, seal.log, end)
        columns = ", ".join(("quarter", *ROLLUP_KEY, *FIGURES))
        sums = connection.execute(f"SELECT {columns} FROM quarter_sums ORDER BY {columns}").fetchall()
        refusals = connection.execute("SELECT minute, tenant, reason, count FROM refusals ORDER BY 1, 2, 3").fetchall()
    return Rollups(seal.log, seal.segment, seal.hash, tuple(sums), tuple(refusals))
