"""The fold: how records of a log become rows, rollups and refusals (tables: `tables`).

Records and the new position go in together, in one transaction: a crash repeats nothing and loses nothing. An export id
is taken once. The same code fills the index and, for readers, the part of the logs that is not in it yet.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gateway.ledger.following import Position, follow
from gateway.ledger.instants import DAY_US, QUARTER_US, parse_us
from gateway.ledger.outlived import take_sums
from gateway.ledger.segment import TERMINAL, Head, Record, parse
from gateway.ledger.tables import (
    ADD_REFUSAL,
    ADD_ROLLUP,
    ADD_SPENT,
    ALIKE,
    ALIKE_KEY,
    OWN,
    ROLLUP_KEY,
    SUMS,
    UNITS,
    UNITS_MARK,
    marks,
)
from pricing.export import FIRST_COLUMNS, NAMES

_ALIKE_MAX = 4096  # kept in memory, about 8 MB; the table has all
_INTEGER_BOUND = 2**63  # SQLite's
_SCALARS = frozenset((str, int, bool, type(None)))
_AMOUNTS = frozenset((int, type(None)))  # None: of a row that is older than its column
_OPENINGS = (b'{"record":"open"', b'{"record":"attempt"')  # half of all lines: not worth parsing

_LATER = NAMES[FIRST_COLUMNS:]
_OWN_NAMES = tuple(column.name for column in OWN)
_ALIKE_NAMES = tuple(column.name for column in ALIKE)
_own_of = itemgetter(*_OWN_NAMES)
_alike_of = itemgetter(*_ALIKE_NAMES)
_amounts_of = itemgetter(*SUMS)
_ATTEMPTS_AT = _OWN_NAMES.index("attempts_json")
_DELIVERED_AT = SUMS.index("delivered_tokens")
_EXPORTED_AT = _ALIKE_NAMES.index("exported")
_TENANT_AT, _LOG_AT = _ALIKE_NAMES.index("tenant"), _OWN_NAMES.index("log")
_INPUT_AT, _BILLED_AT = SUMS.index("input_tokens"), SUMS.index("billed_output_tokens")
_key_of_alike = itemgetter(*map(_ALIKE_NAMES.index, ALIKE_KEY))
_units_of_alike = itemgetter(*map(_ALIKE_NAMES.index, UNITS))
_rollup_of_alike = itemgetter(*map(_ALIKE_NAMES.index, ROLLUP_KEY))


_INSERT_END = f"INSERT OR IGNORE INTO main.ends VALUES ({marks(len(OWN) + 3)})"
_INSERT_ALIKE = f"INSERT INTO main.alike VALUES (NULL, {marks(len(ALIKE) + 1)})"
_FIND_ALIKE = f"SELECT * FROM main.alike WHERE {' AND '.join(f'{name} IS ?' for name in ALIKE_KEY)}"


class _Row(NamedTuple):
    """A terminal record as the tables have it."""

    ended_us: int
    own: tuple[Any, ...]
    alike: tuple[Any, ...]
    amounts: tuple[int | None, ...]


def folded_position(connection: sqlite3.Connection, log: int) -> Position:
    row = connection.execute("SELECT segment, offset FROM main.folded WHERE log = ?", (log,)).fetchone()
    return Position(*row) if row else Position(0, 0)


class Fold:
    """The way into the tables of one connection."""

    def __init__(self, connection: sqlite3.Connection, others: Sequence[str] = ()) -> None:
        """`others`: schemas whose exports are not taken again."""
        self._connection = connection
        self._others = others
        self._alike: dict[tuple[Any, ...], tuple[int, str]] = {}  # its id, and its unit prices in attempts_json

    def add_log(self, directory: Path, log: int, end: Head | None) -> int:
        """Add a log's records behind the folded position, and the sums of what is gone of it; `end` bounds the reading,
        None means as far as there are whole lines. Returns the number of records.

        Raises:
            LogsDiffer: what was folded is not in the log.
        """
        connection = self._connection
        with self._together():
            total = take_sums(connection, directory, log, ("main", *self._others))
        for reached, lines in follow(folded_position(connection, log), directory, log, end):
            rows, refusals = _read(lines)
            with self._together():
                self._add(rows, refusals)
                connection.execute("INSERT OR REPLACE INTO main.folded VALUES (?, ?, ?)", (log, *reached))
            total += len(rows) + len(refusals)
        return total

    @contextmanager
    def _together(self) -> Iterator[None]:
        """All or nothing."""
        connection = self._connection
        connection.execute("SAVEPOINT fold")
        try:
            yield
        except BaseException:
            self._alike.clear()  # ids that were not given after all
            if connection.in_transaction:  # a full disk may have rolled it back already
                connection.execute("ROLLBACK TO fold")
                connection.execute("RELEASE fold")
            raise
        connection.execute("RELEASE fold")

    def _add(self, rows: list[_Row], refusals: Iterable[Record]) -> None:
        for refused in refusals:
            values = (refused["minute"], refused["tenant"], refused["reason"], refused["count"])
            self._connection.execute(ADD_REFUSAL, values)
        rows = self._unknown(rows, self._others) if self._others else rows
        try:
            with self._together():
                self._add_rows(rows)
        except (_Known, OverflowError):  # both are rare, and looking first would cost each row
            self._add_rows(self._unknown(filter(_fits, rows), ("main",)))

    def _add_rows(self, rows: Iterable[_Row]) -> None:
        """Add rows and what they sum up to.

        Raises:
            _Known: there is one of them already.
            OverflowError: there is a number that SQLite cannot hold.
        """
        connection, known_alike = self._connection, self._alike
        ends: list[tuple[object, ...]] = []
        groups: dict[tuple[int, int], list[_Row]] = {}
        for row in rows:
            ended_us, own, alike, _ = row
            alike_id, units = known_alike.get(alike) or self._find(alike)
            attempts = own[_ATTEMPTS_AT]
            if isinstance(attempts, str):
                own = (*own[:_ATTEMPTS_AT], attempts.replace(units, UNITS_MARK), *own[_ATTEMPTS_AT + 1 :])
            quarter = ended_us // QUARTER_US
            ends.append((*own, ended_us, quarter, alike_id))
            groups.setdefault((quarter, alike_id), []).append(row)
        before = connection.total_changes
        connection.executemany(_INSERT_END, ends)
        if connection.total_changes - before < len(ends):
            raise _Known
        connection.executemany(ADD_ROLLUP, [_rollup(quarter, group) for (quarter, _), group in groups.items()])
        connection.executemany(ADD_SPENT, _spent(groups.values()))

    def _find(self, alike: tuple[Any, ...]) -> tuple[int, str]:
        """The id of what many rows have in common, which is written down if it is new."""
        units = orjson.dumps(dict(zip(UNITS, _units_of_alike(alike), strict=True)))[1:-1].decode()
        found = self._connection.execute(_FIND_ALIKE, _key_of_alike(alike))
        ids = [number for number, *columns, _ in found if tuple(columns) == alike]
        if not ids:
            ids = [self._connection.execute(_INSERT_ALIKE, (*alike, units)).lastrowid or 0]
        if len(self._alike) >= _ALIKE_MAX:
            self._alike.clear()
        self._alike[alike] = ids[0], units
        return self._alike[alike]

    def _unknown(self, rows: Iterable[_Row], schemas: Iterable[str]) -> list[_Row]:
        """Those whose export ids are not taken, each once."""
        first: dict[str, _Row] = {}
        for row in rows:
            first.setdefault(row.own[0], row)
        for schema in schemas:
            sql = f"SELECT 1 FROM {schema}.ends WHERE export_id = ?"
            taken = [number for number in first if self._connection.execute(sql, (number,)).fetchone()]
            for number in taken:
                del first[number]
        return list(first.values())


class _Known(Exception):
    """An export id is taken."""


def _rollup(quarter: int, group: Sequence[_Row]) -> tuple[object, ...]:
    """What rows of one quarter that are alike sum up to."""
    alike = group[0].alike
    sums = [sum(filter(None, amounts)) for amounts in zip(*[row.amounts for row in group], strict=True)]
    exported = sums[_DELIVERED_AT] if alike[_EXPORTED_AT] else 0
    key = ["" if value is None else value for value in _rollup_of_alike(alike)]
    return quarter, *key, len(group), exported, *sums


def _spent(groups: Iterable[Sequence[_Row]]) -> list[tuple[object, ...]]:
    """What rows that are alike count for budgets, by day, tenant and log."""
    tokens: dict[tuple[int, str, object], int] = {}
    for group in groups:
        tenant = group[0].alike[_TENANT_AT] or ""
        for row in group:
            key = row.ended_us // DAY_US, tenant, row.own[_LOG_AT]
            count = (row.amounts[_INPUT_AT] or 0) + (row.amounts[_BILLED_AT] or 0)
            tokens[key] = tokens.get(key, 0) + count
    return [(*key, count) for key, count in tokens.items()]


# ---- lines


def _read(lines: Iterable[bytes]) -> tuple[list[_Row], list[Record]]:
    """The rows and the refusals of these lines. Damaged ones are neither: `verify` names them."""
    rows: list[_Row] = []
    refusals: list[Record] = []
    for data in lines:
        if data.startswith(_OPENINGS):
            continue
        record, _ = parse(data)
        if record is None:
            continue
        if record["record"] in TERMINAL:
            row = _row(record)
            if row is not None:
                rows.append(row)
        elif record["record"] == "refused":
            refusals.append(record)
    return rows, refusals


def is_held(data: bytes) -> bool:
    """Whether a line is a record that the index holds."""
    rows, refusals = _read((data,))
    return bool(refusals) or any(map(_fits, rows))


def _row(record: Record) -> _Row | None:
    for name in _LATER:  # rows of an older version have none: NULL, which sums count as 0
        record.setdefault(name, None)
    try:
        row = _Row(parse_us(record["ended_at"]), _own_of(record), _alike_of(record), _amounts_of(record))
    except (KeyError, TypeError, ValueError):
        return None
    sound = _SCALARS.issuperset(map(type, row.own)) and _SCALARS.issuperset(map(type, row.alike))
    return row if sound and _AMOUNTS.issuperset(map(type, row.amounts)) else None


def _fits(row: _Row) -> bool:
    integers = [value for value in (*row.own, *row.alike) if isinstance(value, int)]
    return -_INTEGER_BOUND <= min(integers) <= max(integers) < _INTEGER_BOUND


def row_values(record: Record) -> tuple[object, ...]:
    """A terminal record as a row of `exports`."""
    ended_us = parse_us(record["ended_at"])
    return (*map(record.get, NAMES), ended_us, ended_us // QUARTER_US)
