"""The tables of the index, and the fold: how records of a log become rows, rollups and refusals.

    exports    one row per export, the columns of the contract, and the quarter of an hour it ended in
    rollups    sums per quarter, place, tenant, model, outcome and currency
    refusals   counts per minute, tenant and reason
    folded     how far each log has been read

Records and the new position go in together, in one transaction: a crash repeats nothing and loses nothing. An export id
is taken once. The same code fills the index and, for readers, the part of the logs that is not in it yet.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from gateway.ledger.instants import QUARTER_US, parse_us
from gateway.ledger.segment import (
    TERMINAL,
    Head,
    Record,
    parse,
    read_lines,
    segment_numbers,
    segment_path,
)
from pricing.export import COLUMNS, FIRST_COLUMNS, NAMES, Column

DIMENSIONS = (
    "origin_country",
    "destination_country",
    "tenant",
    "model",
    "origin_region",
    "origin_backend",
    "outcome",
)
SUMS = (
    *("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"),
    *("delivered_tokens", "billed_output_tokens"),
    *("bytes_from_client", "bytes_to_client", "bytes_to_backend", "bytes_from_backend", "attempts"),
    *("energy_uwh", "carbon_mg"),
    *("cost_energy_nano", "cost_tokens_nano", "cost_link_nano", "cost_waste_nano", "cost_nano", "revenue_nano"),
)
FIGURES = ("requests", "exported_tokens", *SUMS)  # what a sum holds

_first_values = itemgetter(*NAMES[:FIRST_COLUMNS])
_LATER_NAMES = NAMES[FIRST_COLUMNS:]
# Amounts of two currencies have no sum, so a rollup has one currency.
ROLLUP_KEY = (*DIMENSIONS, "currency")

_BATCH_LINES = 1000  # one transaction; about 3 MB in memory
_INTEGER_BOUND = 2**63  # SQLite's
_SCALARS = frozenset((str, int, bool, type(None)))
_SQL_TYPES = {"integer": "INTEGER", "bool": "INTEGER"}


def _definition(column: Column) -> str:
    key = " PRIMARY KEY NOT NULL" if column.name == "export_id" else ""
    return f"{column.name} {_SQL_TYPES.get(column.kind, 'TEXT')}{key}"


_ROW_COLUMNS = ", ".join((*map(_definition, COLUMNS), "ended_us INTEGER NOT NULL", "quarter INTEGER NOT NULL"))
_ROLLUP_COLUMNS = ", ".join(f"{name} TEXT NOT NULL" for name in ROLLUP_KEY)
_FIGURE_COLUMNS = ", ".join(f"{name} INTEGER NOT NULL" for name in FIGURES)
_ROLLUP_PRIMARY = ", ".join(("quarter", *ROLLUP_KEY))

SCHEMA = (
    f"CREATE TABLE exports ({_ROW_COLUMNS})",
    "CREATE INDEX exports_ended ON exports (ended_us, log, seq)",
    f"CREATE TABLE rollups (quarter INTEGER NOT NULL, {_ROLLUP_COLUMNS}, {_FIGURE_COLUMNS},"
    f" PRIMARY KEY ({_ROLLUP_PRIMARY})) WITHOUT ROWID",
    "CREATE TABLE refusals (minute TEXT NOT NULL, tenant TEXT NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL,"
    " PRIMARY KEY (minute, tenant, reason)) WITHOUT ROWID",
    "CREATE TABLE folded (log INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL)",
)
_BATCH_SCHEMA = f"CREATE TEMP TABLE batch ({_ROW_COLUMNS})"
SCHEMA_VERSION = crc32("\n".join(SCHEMA).encode()) & 0x7FFFFFFF  # another schema is another index

# How a row counts in a sum; the same for rollups and for sums over rows.
FIGURES_OF_ROW = ", ".join(
    (
        "1 AS requests",
        "CASE WHEN exported = 1 THEN coalesce(delivered_tokens, 0) ELSE 0 END AS exported_tokens",
        *(f"coalesce({name}, 0) AS {name}" for name in SUMS),
    )
)
KEY_OF_ROW = ", ".join(f"coalesce({name}, '') AS {name}" for name in ROLLUP_KEY)

_INSERT_BATCH = f"INSERT OR IGNORE INTO temp.batch VALUES ({', '.join('?' * (len(NAMES) + 2))})"
ROLLUPS_OF_ROWS = (
    f"SELECT quarter, {', '.join(ROLLUP_KEY)}, {', '.join(f'sum({name})' for name in FIGURES)}"
    f" FROM (SELECT quarter, {KEY_OF_ROW}, {FIGURES_OF_ROW} FROM {{table}}) WHERE true GROUP BY {_ROLLUP_PRIMARY}"
)
_ADD_ROLLUPS = (
    f"INSERT INTO main.rollups {ROLLUPS_OF_ROWS.format(table='temp.batch')}"
    f" ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in FIGURES)}"
)
_ADD_REFUSAL = "INSERT INTO main.refusals VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count"


class Position(NamedTuple):
    segment: int
    offset: int


class LogsDiffer(Exception):
    """The index was folded from other logs than these."""


def create_tables(connection: sqlite3.Connection) -> None:
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def create_batch(connection: sqlite3.Connection) -> None:
    connection.execute(_BATCH_SCHEMA)


def fold_log(
    connection: sqlite3.Connection, directory: Path, log: int, end: Head | None, *, known: Iterable[str]
) -> int:
    """Add a log's records behind the folded position; `end` bounds the reading, None means as far as there are whole
    lines. `known`: schemas whose exports are not taken again. Returns the number of records.

    Raises:
        LogsDiffer: what was folded is not in the log.
    """
    total = 0
    for lines_end, records in _batches(connection, directory, log, end):
        connection.execute("SAVEPOINT fold")
        try:
            _add(connection, records, known)
            connection.execute("INSERT OR REPLACE INTO main.folded VALUES (?, ?, ?)", (log, *lines_end))
        except BaseException:
            if connection.in_transaction:  # a full disk may have rolled it back already
                connection.execute("ROLLBACK TO fold")
                connection.execute("RELEASE fold")
            raise
        connection.execute("RELEASE fold")
        total += len(records)
    return total


def folded_position(connection: sqlite3.Connection, log: int) -> Position:
    row = connection.execute("SELECT segment, offset FROM main.folded WHERE log = ?", (log,)).fetchone()
    return Position(*row) if row else Position(0, 0)


def _batches(
    connection: sqlite3.Connection, directory: Path, log: int, end: Head | None
) -> Iterator[tuple[Position, list[Record]]]:
    position = folded_position(connection, log)
    numbers = segment_numbers(directory)
    if position.segment > max(numbers, default=0):
        raise LogsDiffer(f"log {log} ends before what was folded of it")
    for segment in numbers:
        if segment < position.segment or (end is not None and segment > end.segment):
            continue
        start = position.offset if segment == position.segment else 0
        path = segment_path(directory, segment)
        if not path.exists():
            return  # a segment in which nothing was ever acknowledged, taken back by a writer whose disk fails
        if start > path.stat().st_size:
            raise LogsDiffer(f"log {log} is shorter than what was folded of it")
        stop = end.offset if end is not None and segment == end.segment else None
        yield from _segment_batches(path, segment, start, stop)


def _segment_batches(path: Path, segment: int, start: int, stop: int | None) -> Iterator[tuple[Position, list[Record]]]:
    records: list[Record] = []
    reached = start
    for number, line in enumerate(read_lines(path, segment, start), 1):
        if not line.whole or (stop is not None and line.end > stop):
            break
        reached = line.end
        record = fold_record(line.data)
        if record is not None:
            records.append(record)
        if number % _BATCH_LINES == 0:
            yield Position(segment, reached), records
            records = []
    if reached > start:
        yield Position(segment, reached), records


def fold_record(data: bytes) -> Record | None:
    """The record of a line, if it is one that the index holds. Damaged ones are not: `verify` names them."""
    if data.startswith((b'{"record":"open"', b'{"record":"attempt"')):  # half of all lines: not worth parsing
        return None
    record, _ = parse(data)
    if record is None:
        return None
    if record["record"] in TERMINAL:
        return record if _is_row(record) else None
    return record if record["record"] == "refused" else None


def _is_row(record: Record) -> bool:
    try:
        parse_us(record["ended_at"])
        values = _in_order(record)
    except (KeyError, TypeError, ValueError):
        return False
    integers = [value for value in values if type(value) is int]
    return _SCALARS.issuperset(map(type, values)) and -_INTEGER_BOUND <= min(integers) <= max(integers) < _INTEGER_BOUND


def _add(connection: sqlite3.Connection, records: Iterable[Record], known: Iterable[str]) -> None:
    rows: list[tuple[object, ...]] = []
    for record in records:
        if record["record"] == "refused":
            connection.execute(_ADD_REFUSAL, (record["minute"], record["tenant"], record["reason"], record["count"]))
        else:
            rows.append(row_values(record))
    if not rows:
        return
    connection.executemany(_INSERT_BATCH, rows)
    for schema in known:
        connection.execute(f"DELETE FROM temp.batch WHERE export_id IN (SELECT export_id FROM {schema}.exports)")
    connection.execute(_ADD_ROLLUPS)
    connection.execute("INSERT INTO main.exports SELECT * FROM temp.batch")
    connection.execute("DELETE FROM temp.batch")


def row_values(record: Record) -> tuple[object, ...]:
    """A terminal record as a row of `exports`."""
    ended_us = parse_us(record["ended_at"])
    return (*_in_order(record), ended_us, ended_us // QUARTER_US)


def _in_order(record: Record) -> tuple[object, ...]:
    """The values of the columns. Rows of an older version have none in later columns: NULL, which sums count as 0."""
    return (*_first_values(record), *map(record.get, _LATER_NAMES))


def row_of(values: Iterable[object]) -> Record:
    """A row of `exports` as the record it came from, without the chain."""
    return {
        column.name: bool(value) if column.kind == "bool" and value is not None else value
        for column, value in zip(COLUMNS, values, strict=True)
    }
