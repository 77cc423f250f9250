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
from gateway.ledger.tables import ADD_REFUSAL, FIGURES, QUARTERS_OF_DAY, ROLLUP_KEY, added, key_of_sum, marks

_ROWS_AT_ONCE = 5000
_END_KEY = "ended_us, log, seq, export_id"
_EPOCH = "1970-01-01T00:00:00Z"


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


_PLACES = f"VALUES ({marks(2 + len(FIGURES))}) ON CONFLICT DO UPDATE SET {added(FIGURES)}"
_ADD_SPENT = f"INSERT INTO main.spent VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET {added(('tokens',))}"


def _add(connection: sqlite3.Connection, rollups: Rollups) -> None:
    behind_key = 1 + len(ROLLUP_KEY)
    for each in rollups.sums:
        sums = key_of_sum(connection, each[1:behind_key]), *each[behind_key:]
        connection.execute(f"INSERT INTO main.rollups {_PLACES}", (each[0], *sums))
        connection.execute(f"INSERT INTO main.days {_PLACES}", (each[0] // QUARTERS_OF_DAY, *sums))
    connection.executemany(_ADD_SPENT, rollups.spent())
    connection.executemany(ADD_REFUSAL, rollups.refusals)


def _is_known(connection: sqlite3.Connection, log: int, segment: int, schemas: Sequence[str]) -> bool:
    asked = [f"SELECT 1 FROM {schema}.expired WHERE log = ?1 AND segment = ?2" for schema in schemas]
    return connection.execute(" UNION ".join(asked), (log, segment)).fetchone() is not None


def _note(connection: sqlite3.Connection, seal: Seal) -> int:
    values = seal.log, seal.segment, seal.rows, *_span(seal)
    connection.execute("INSERT OR IGNORE INTO main.expired VALUES (?, ?, ?, ?, ?)", values)
    return seal.rows


def _span(seal: Seal) -> tuple[int, int]:
    """The first and the last end of a segment."""
    return parse_us(seal.first_ended_at or _EPOCH), parse_us(seal.last_ended_at or _EPOCH)


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
        bounds = *_span(seal), log, seal.seq_before, seal.seq_before + seal.rows
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = connection.execute(
                f"DELETE FROM ends WHERE ({_END_KEY}) IN (SELECT {_END_KEY} FROM ends WHERE ended_us BETWEEN ? AND ?"
                f" AND log = ? AND seq >= ? AND seq < ? LIMIT {_ROWS_AT_ONCE})",
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


def forget_shared(connection: sqlite3.Connection) -> None:
    """Let go of what no row shares with others any more, and of the pages that became free. Looks through all rows."""
    connection.execute("DELETE FROM places WHERE id NOT IN (SELECT DISTINCT place FROM ends)")
    connection.execute("DELETE FROM prices WHERE id NOT IN (SELECT DISTINCT price FROM ends)")
    connection.executescript("PRAGMA incremental_vacuum")  # `execute` would stop after one page
