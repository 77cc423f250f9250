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
from gateway.ledger.instants import DAY_US, QUARTER_US, parse_stamp, parse_us
from gateway.ledger.outlived import take_sums
from gateway.ledger.segment import TERMINAL, Head, Record, parse
from gateway.ledger.tables import (
    ADD_REFUSAL,
    ATTEMPT_TOKENS,
    ATTEMPT_UNITS_MARK,
    ENDS,
    FIGURES,
    FIGURES_OF_ROW,
    OWN,
    PLACE,
    PLACE_KEY,
    PRICES,
    PRICES_KEY,
    ROLLUP_KEY,
    UNITS,
    added,
    key_of_sum,
    marks,
)
from pricing.export import ATTEMPT_COSTS, FIRST_COLUMNS, NAMES

_KNOWN_MAX = 16_384  # places, or prices, kept in memory: about 20 MB; the tables have all
_BATCHES = 8  # of the log in one transaction: 4 MB, so that the rows of a quarter meet in one sum
_INTEGER_BOUND = 2**63  # SQLite's
_SCALARS = frozenset((str, int, bool, type(None)))
_NUMBERS = frozenset((int, type(None)))  # None: unknown, or of a row that is older than its column
_OPENINGS = (b'{"record":"open"', b'{"record":"attempt"')  # half of all lines: not worth parsing

_LATER = NAMES[FIRST_COLUMNS:]
_OWN_NAMES = tuple(column.name for column in OWN)
_ID_AT, _REQUEST_AT, _NUMBERS_FROM = 0, 1, 2  # where they are in `OWN`: texts first, and one text among the numbers
_LOG_AT, _ATTEMPTS_AT = _OWN_NAMES.index("log"), _OWN_NAMES.index("attempts_json")
_own_of = itemgetter(*_OWN_NAMES)
_place_of = itemgetter(*(column.name for column in PLACE))
_prices_of = itemgetter(*(column.name for column in PRICES))
_tokens_of, _costs_of = itemgetter(*ATTEMPT_TOKENS), itemgetter(*ATTEMPT_COSTS)


# New rows gather in a table of the connection's own, where SQLite sums them up.
_FRESH = "temp.fresh CROSS JOIN main.places ON places.id = fresh.place"
_TOTALS = ", ".join(f"sum({name})" for name in FIGURES)


def _sum_up(table: str, period_us: int) -> str:
    rows = f"SELECT ended_us / {period_us} AS period, key, {FIGURES_OF_ROW} FROM {_FRESH}"
    sums = f"SELECT period, key, {_TOTALS} FROM ({rows}) WHERE true GROUP BY period, key"
    return f"INSERT INTO main.{table} {sums} ON CONFLICT DO UPDATE SET {added(FIGURES)}"


_MAKE_FRESH = f"CREATE TEMP TABLE IF NOT EXISTS fresh ({ENDS})"
_CLEAR_FRESH = "DELETE FROM temp.fresh"
_INSERT_FRESH = f"INSERT INTO temp.fresh VALUES ({marks(len(OWN) + 6)})"
_INSERT_ENDS = "INSERT INTO main.ends SELECT * FROM temp.fresh"
_SUM_UP = (_sum_up("rollups", QUARTER_US), _sum_up("days", DAY_US))
_SPEND = (
    f"INSERT INTO main.spent SELECT ended_us / {DAY_US}, coalesce(tenant, ''), log,"
    f" sum(coalesce(input_tokens, 0) + coalesce(billed_output_tokens, 0)) FROM {_FRESH} GROUP BY 1, 2, 3"
    " ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens"
)


class _Kept(NamedTuple):
    """What a row has in common with others, in a table: its number, and what such an attempt says."""

    id: int
    attempt: str


class _Row(NamedTuple):
    """A terminal record on its way into the tables."""

    export_id: object
    ended_us: int
    took_us: int
    own: tuple[Any, ...]
    place: tuple[Any, ...]
    prices: tuple[Any, ...]
    record: Record


def folded_position(connection: sqlite3.Connection, log: int) -> Position:
    row = connection.execute("SELECT segment, offset FROM main.folded WHERE log = ?", (log,)).fetchone()
    return Position(*row) if row else Position(0, 0)


class Fold:
    """The way into the tables of one connection."""

    def __init__(self, connection: sqlite3.Connection, others: Sequence[str] = ()) -> None:
        """`others`: schemas whose exports are not taken again."""
        self._connection = connection
        self._others = others
        self._places: dict[tuple[Any, ...], _Kept] = {}
        self._prices: dict[tuple[Any, ...], _Kept] = {}
        connection.execute(_MAKE_FRESH)

    def add_log(self, directory: Path, log: int, end: Head | None) -> int:
        """Add a log's records behind the folded position, and the sums of what is gone of it; `end` bounds the reading,
        None means as far as there are whole lines. Returns the number of records.

        Raises:
            LogsDiffer: what was folded is not in the log.
        """
        connection = self._connection
        with self._together():
            total = take_sums(connection, directory, log, ("main", *self._others))
        for reached, lines in _gathered(follow(folded_position(connection, log), directory, log, end)):
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
            self._places.clear()  # numbers that were not given after all
            self._prices.clear()
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
        except (sqlite3.IntegrityError, OverflowError):  # an id that is taken, a number that SQLite cannot hold: both
            self._add_rows(self._unknown(filter(_fits, rows), ("main",)))  # are rare, and looking first costs each row

    def _add_rows(self, rows: Iterable[_Row]) -> None:
        """Add rows and what they sum up to.

        Raises:
            IntegrityError: there is one of them already.
            OverflowError: there is a number that SQLite cannot hold.
        """
        connection = self._connection
        ends = [self._end(row) for row in rows]
        connection.executemany(_INSERT_FRESH, ends)
        for statement in (_INSERT_ENDS, *_SUM_UP, _SPEND, _CLEAR_FRESH):
            connection.execute(statement)

    def _end(self, row: _Row) -> tuple[object, ...]:
        """A row of `ends`."""
        export_id, ended_us, took_us, own, place_key, prices_key, record = row
        place = self._places.get(place_key) or self._place(place_key, record)
        prices = self._prices.get(prices_key) or self._price(prices_key, record)
        attempts = own[_ATTEMPTS_AT]
        times: tuple[object, object] = (None, None)
        if isinstance(attempts, str):
            found = _only_attempt(attempts, record, place.attempt, prices.attempt)
            if found is not None:
                times, attempts = found, ""
            else:
                attempts = attempts.replace(prices.attempt, ATTEMPT_UNITS_MARK)
        values = (export_id, *own[_ID_AT + 1 : _ATTEMPTS_AT], attempts, *own[_ATTEMPTS_AT + 1 :])
        return (*values, ended_us, took_us, *times, place.id, prices.id)

    def _place(self, key: tuple[Any, ...], record: Record) -> _Kept:
        """Write down a place that is new, with what an attempt there says first."""
        origin = {"backend": record["origin_backend"], "region": record["origin_region"]}
        attempt = orjson.dumps({**origin, "cause": "", "serving": True})[:-1].decode()
        of_sum = ["" if record[name] is None else record[name] for name in ROLLUP_KEY]
        number = key_of_sum(self._connection, of_sum)
        found = _keep(self._connection, "places", key, _find_by(PLACE_KEY, record), (attempt, number))
        return _remember(self._places, key, _Kept(found, attempt))

    def _price(self, key: tuple[Any, ...], record: Record) -> _Kept:
        attempt = orjson.dumps({name: record[name] for name in UNITS})[1:-1].decode()
        found = _keep(self._connection, "prices", key, _find_by(PRICES_KEY, record), (attempt,))
        return _remember(self._prices, key, _Kept(found, attempt))

    def _unknown(self, rows: Iterable[_Row], schemas: Iterable[str]) -> list[_Row]:
        """Those whose export ids are not taken, each once."""
        first: dict[object, _Row] = {}
        for row in rows:
            first.setdefault(row.export_id, row)
        for schema in schemas:
            sql = f"SELECT 1 FROM {schema}.ends WHERE export_id = ?"
            taken = [number for number in first if self._connection.execute(sql, (number,)).fetchone()]
            for number in taken:
                del first[number]
        return list(first.values())


def _find_by(names: Sequence[str], record: Record) -> dict[str, object]:
    return {name: record[name] for name in names}


def _keep(
    connection: sqlite3.Connection,
    table: str,
    values: tuple[Any, ...],
    found_by: dict[str, object],
    more: tuple[object, ...],
) -> int:
    """The number of these values in a table, which gets them if they are new."""
    condition = " AND ".join(f"{name} IS ?" for name in found_by)
    for number, *columns in connection.execute(f"SELECT * FROM main.{table} WHERE {condition}", (*found_by.values(),)):
        if tuple(columns[: len(values)]) == values:
            return int(number)
    sql = f"INSERT INTO main.{table} VALUES (NULL, {marks(len(values) + len(more))})"
    return connection.execute(sql, (*values, *more)).lastrowid or 0


def _remember(known: dict[tuple[Any, ...], _Kept], key: tuple[Any, ...], kept: _Kept) -> _Kept:
    if len(known) >= _KNOWN_MAX:
        known.clear()
    known[key] = kept
    return kept


def _only_attempt(text: str, record: Record, place: str, prices: str) -> tuple[int | None, int | None] | None:
    """Its time to the first content and its duration, if `attempts_json` says nothing that the row does not say."""
    start = len(place) + 1
    if not text.startswith("{", 1) or text[1:start] != place:
        return None
    ttft, _, rest = text[start + len(_TTFT) :].partition(",")
    duration = rest[len(_DURATION) :].partition(",")[0]
    expected = _ATTEMPT % (place, ttft, duration, *_tokens_of(record), prices, *_costs_of(record))
    if text != expected:
        return None
    try:
        return _time(ttft), _time(duration)
    except ValueError:
        return None


def _time(text: str) -> int | None:
    if text == "null":
        return None
    number = int(text)
    if str(number) != text:
        raise ValueError(text)
    return number


_TTFT, _DURATION = ',"ttft_ms":', '"duration_ms":'
_ATTEMPT = (
    f"[%s{_TTFT}%s,{_DURATION}%s,"
    + ",".join(f'"{name}":%s' for name in ATTEMPT_TOKENS)
    + ",%s,"
    + ",".join(f'"{name}":%s' for name in ATTEMPT_COSTS)
    + "}]"
)


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
        ended_us, opened_us = parse_stamp(record["ended_at"]), parse_stamp(record["opened_at"])
        own, place, prices = _own_of(record), _place_of(record), _prices_of(record)
    except (KeyError, TypeError, ValueError):
        return None
    numbers = own[_NUMBERS_FROM:_ATTEMPTS_AT] + own[_ATTEMPTS_AT + 1 :]
    sound = (
        _NUMBERS.issuperset(map(type, numbers))
        and isinstance(own[_REQUEST_AT], (str, type(None)))
        and isinstance(own[_LOG_AT], int)
    )
    if not sound or not _SCALARS.issuperset(map(type, place + prices)):
        return None
    return _Row(id_of(own[_ID_AT]), ended_us, ended_us - opened_us, own, place, prices, record)


def id_of(export_id: str) -> bytes | str:
    """As the tables have it."""
    try:
        packed = bytes.fromhex(export_id.replace("-", ""))
    except ValueError:
        return export_id
    return packed if _id_text(packed) == export_id else export_id


def _id_text(packed: bytes) -> str:
    digits = packed.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _fits(row: _Row) -> bool:
    integers = [value for value in row.record.values() if isinstance(value, int)]
    return -_INTEGER_BOUND <= min(integers) <= max(integers) < _INTEGER_BOUND


def _gathered(batches: Iterable[tuple[Position, list[bytes]]]) -> Iterator[tuple[Position, list[bytes]]]:
    """Several batches as one."""
    lines: list[bytes] = []
    position, count = Position(0, 0), 0
    for position, more in batches:
        lines += more
        count += 1
        if count == _BATCHES:
            yield position, lines
            lines, count = [], 0
    if count:
        yield position, lines


def row_values(record: Record) -> tuple[object, ...]:
    """A terminal record as a row of `exports`."""
    ended_us = parse_us(record["ended_at"])
    return (*map(record.get, NAMES), ended_us, ended_us // QUARTER_US, id_of(record["export_id"]))
