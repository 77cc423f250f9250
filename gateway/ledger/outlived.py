"""What the index keeps of segments whose rows are gone: their sums, and which segments they were.

Two ways lead here. An index that has the rows lets go of them, a few at a time, and keeps its sums. A view that is
built anew takes the sums from the files that outlived the segments (`rollups`).
"""

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gateway.ledger.instants import parse_us
from gateway.ledger.rollups import BadRollups, Rollups, read_rollups, rollup_numbers
from gateway.ledger.seals import BadSeal, Seal, read_seal
from gateway.ledger.segment import segment_numbers
from gateway.ledger.tables import ADD_REFUSAL, ADD_ROLLUP, ADD_SPENT

_ROWS_AT_ONCE = 5000


def gone(directory: Path) -> list[int]:
    """The segments of a log of which only the sums are left, in order."""
    there = set(segment_numbers(directory))
    return [segment for segment in rollup_numbers(directory) if segment not in there]


def take_sums(connection: sqlite3.Connection, directory: Path, log: int, schemas: Sequence[str]) -> int:
    """Add the sums of segments that this view has never read. In the caller's transaction; returns how many rows they
    stand for. A file that is not as it was written counts for nothing, as a damaged line does: `verify` names it."""
    rows = 0
    if connection.execute("SELECT 1 FROM main.folded WHERE log = ?", (log,)).fetchone():
        return rows  # nothing goes that it has not read
    for segment in gone(directory):
        if _is_known(connection, log, segment, schemas):
            continue
        with suppress(BadRollups, BadSeal, OSError):
            rollups, seal = read_rollups(directory, segment), read_seal(directory, segment)
            _add(connection, rollups)
            rows += _note(connection, seal)
    return rows


def _add(connection: sqlite3.Connection, rollups: Rollups) -> None:
    connection.executemany(ADD_ROLLUP, rollups.sums)
    connection.executemany(ADD_SPENT, rollups.spent())
    connection.executemany(ADD_REFUSAL, rollups.refusals)


def _is_known(connection: sqlite3.Connection, log: int, segment: int, schemas: Sequence[str]) -> bool:
    asked = [f"SELECT 1 FROM {schema}.expired WHERE log = ?1 AND segment = ?2" for schema in schemas]
    return connection.execute(" UNION ".join(asked), (log, segment)).fetchone() is not None


def _note(connection: sqlite3.Connection, seal: Seal) -> int:
    first_us, last_us = (parse_us(text) if text else 0 for text in (seal.first_ended_at, seal.last_ended_at))
    values = seal.log, seal.segment, seal.rows, first_us, last_us
    connection.execute("INSERT OR IGNORE INTO main.expired VALUES (?, ?, ?, ?, ?)", values)
    return seal.rows


def forget_rows(connection: sqlite3.Connection, directory: Path, log: int) -> int:
    """Take a step on the way of letting go: the rows of one segment, or some of them. Returns how many went; 0: there
    is nothing left to do.

    A step is a short transaction, so that folding and readers go on beside it.
    """
    for segment in gone(directory):
        if _is_known(connection, log, segment, ("main",)):
            continue
        try:
            seal = read_seal(directory, segment)
        except (BadSeal, OSError):
            continue
        bounds = log, seal.seq_before, seal.seq_before + seal.rows
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = connection.execute(
                "DELETE FROM ends WHERE rowid IN (SELECT rowid FROM ends WHERE log = ? AND seq >= ? AND seq < ?"
                f" LIMIT {_ROWS_AT_ONCE})",
                bounds,
            ).rowcount
            if found < _ROWS_AT_ONCE:
                _note(connection, seal)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return max(found, 1)
    return 0


def forget_alike(connection: sqlite3.Connection) -> None:
    """Let go of what no row has in common any more, and of the pages that became free. Looks through all rows."""
    connection.execute("DELETE FROM alike WHERE id NOT IN (SELECT DISTINCT alike FROM ends)")
    connection.executescript("PRAGMA incremental_vacuum")  # `execute` would stop after one page
