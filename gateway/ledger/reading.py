"""Reading what happened: rows, sums and refusals, from the index and from what is not folded into it yet.

A reader opens the index read-only beside a private temporary database, and folds the tail of the logs into that with
the same code. So it works beside a running gateway, without one, and without an index (then all of the logs are folded;
a temporary database spills to disk, so that this needs time and not memory). An index that turns out to be damaged is
left out, and the answer comes from the logs.

A reader is one moment: it does not see what is written after it was opened. Keep it short, because as long as it is
open the index cannot shrink its journal.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.ledger.folding import Fold
from gateway.ledger.following import LogsDiffer
from gateway.ledger.index import INDEX_NAME, is_damage
from gateway.ledger.instants import DAY_US, QUARTER_US, micros, rfc3339
from gateway.ledger.segment import Record, logs
from gateway.ledger.tables import (
    DIMENSIONS,
    FIGURES,
    FIGURES_OF_ROW,
    QUARTERS_OF_DAY,
    SCHEMA_VERSION,
    create_tables,
    row_of,
)
from pricing.export import COLUMNS, NAMES

PERIODS = ("hour", "day", "month", "year")
LEDGER_NAME = "ledger"

Filter = Mapping[str, Sequence[str]]  # column -> the values that are wanted; "": unknown

_TEXTS = frozenset(column.name for column in COLUMNS if column.kind == "text")
EVERYTHING: Filter = {}
_CHUNK_ROWS = 1000
_STRETCHES_MAX = 120  # ten years of months; a day that is cut for the viewer every day (`period="day"`) has none
_FOREVER_US = 2**62 // QUARTER_US * QUARTER_US
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LABELS = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}


class RowsExpired(Exception):
    """What is asked needs rows that were not to be kept; says which of it, and how many."""


class Reader:
    """Read-only, a context manager. Bounds of time are epoch seconds; None: no bound."""

    def __init__(self, data_dir: Path) -> None:
        self._ledger = data_dir / LEDGER_NAME
        self._schemas: tuple[str, ...] = ()
        try:
            self._connection = self._open(self._ledger / INDEX_NAME)
        except (LogsDiffer, sqlite3.DatabaseError):
            self._connection = self._open(None)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def rows(
        self, start: float | None = None, end: float | None = None, where: Filter = EVERYTHING
    ) -> Iterator[Record]:
        """The exports that ended in [start, end), in order of their end, then log and seq; columns as in the contract.
        In chunks, so that nothing is held open and damage half way through is survived.

        Raises:
            ValueError: no such column to filter by.
        """
        _check_texts(where)
        after = (_from(start), -1, -1)
        until = _until(end)
        while True:
            chunk = self._query(self._chunk, after, until, where)
            for row in chunk:
                yield row_of(row[:-1])
            if len(chunk) < _CHUNK_ROWS:
                return
            last = dict(zip(NAMES, chunk[-1], strict=False))
            after = (chunk[-1][-1], last["log"], last["seq"])

    def sums(
        self,
        by: Sequence[str] = (),
        period: str | None = None,
        tz: str = "UTC",
        start: float | None = None,
        end: float | None = None,
        where: Filter = EVERYTHING,
    ) -> list[Record]:
        """Sums over the exports that ended in [start, end), grouped by columns and by a period of a time zone.

        Each has `period` (if asked for: 2026-10-25T02:00+01:00, 2026-10-25, 2026-10 or 2026), the columns of `by`, the
        currency (two currencies have no sum) and the figures: requests, exported_tokens and the summable columns.

        Raises:
            ValueError: no such column, period or time zone.
            RowsExpired: only sums are left of rows that this needs.
        """
        _check_texts((*by, *where))
        label = period_labels(period, tz)
        bounds = (_from(start), _until(end))
        aligned = not any(bound % QUARTER_US for bound in bounds)
        keys = [name for name in dict.fromkeys(by) if name != "currency"]
        others = [] if aligned else ["bounds within a quarter of an hour"]
        others += sorted({*keys, *where} - {*DIMENSIONS, "currency"})
        if others and (rows := self.expired(start, end)):
            raise RowsExpired(f"{', '.join(others)}: of {rows:,} rows that ended then only sums are left")
        if not others:
            figures = _rolled_up(keys, self._query(self._whole_days, label, *bounds), _conditions(where, 3))
        else:
            figures = _of_rows(keys, _conditions(where, 3))
        found = self._query(self._sums, figures, keys, label, *bounds, *_wanted(where))
        names = ["period", *keys, "currency", *FIGURES]
        sums = [dict(zip(names, (value if value != "" else None for value in row), strict=True)) for row in found]
        if period is None:
            for figure in sums:
                del figure["period"]
        return sums

    def expired(self, start: float | None = None, end: float | None = None) -> int:
        """Of how many exports only sums are left, of segments with ends in [start, end)."""
        [[rows]] = self._query(self._expired, _from(start), _until(end))
        return int(rows)

    def spent(self, start: float, end: float) -> dict[str, dict[int, int]]:
        """Tokens that count for budgets (input + billed output) of the UTC days in [start, end): by tenant and log."""
        found: dict[str, dict[int, int]] = {}
        for tenant, log, tokens in self._query(self._spent, _from(start) // DAY_US, _until(end) // DAY_US):
            found.setdefault(tenant, {})[log] = tokens
        return found

    def refusals(self, start: float | None = None, end: float | None = None) -> list[Record]:
        """Refused requests by minute, tenant and reason, of the minutes that began in [start, end)."""
        bounds = ("" if start is None else rfc3339(micros(start)), "~" if end is None else rfc3339(micros(end)))
        found = self._query(self._refusals, *bounds)
        return [dict(zip(("minute", "tenant", "reason", "count"), row, strict=True)) for row in found]

    # ---- queries

    def _query(self, ask: Callable[..., list[tuple[Any, ...]]], *arguments: object) -> list[tuple[Any, ...]]:
        try:
            return ask(*arguments)
        except sqlite3.Error as error:
            if len(self._schemas) == 1 or not is_damage(error):
                raise
            self.close()
            self._connection = self._open(None)
            return ask(*arguments)

    def _union(self, part: str) -> str:
        return " UNION ALL ".join(part.format(schema=schema) for schema in self._schemas)

    def _chunk(self, after: tuple[int, int, int], end: int, where: Filter) -> list[tuple[Any, ...]]:
        part = f"SELECT {', '.join(NAMES)}, ended_us FROM {{schema}}.exports"
        part += f" WHERE (ended_us, log, seq) > (?1, ?2, ?3) AND ended_us < ?4{_conditions(where, 5)}"
        order = f" ORDER BY ended_us, log, seq LIMIT {_CHUNK_ROWS}"
        return self._connection.execute(self._union(part) + order, (*after, end, *_wanted(where))).fetchall()

    def _sums(
        self, figures: str, keys: Sequence[str], label: Callable[[int], str], *bound: object
    ) -> list[tuple[Any, ...]]:
        self._connection.create_function("period_of", 1, label, deterministic=True)
        group = ", ".join(("period", *keys, "currency"))
        totals = ", ".join(f"sum({name})" for name in FIGURES)
        asked = ", ".join(("period_of(quarter) AS period", *keys, "currency", totals))
        began = "min(min(quarter)) OVER (PARTITION BY period_of(quarter))"  # the name of an hour tells no order
        order = ", ".join((began, *keys, "currency"))
        sql = f"SELECT {asked} FROM ({self._union(figures)}) GROUP BY {group} ORDER BY {order}"
        return self._connection.execute(sql, bound).fetchall()

    def _whole_days(self, label: Callable[[int], str], start: int, end: int) -> list[tuple[int, int]]:
        """Stretches of UTC days, [since, until), that lie within the bounds and each in one period: all but the days
        on which a month begins where the viewer is."""
        known = self._union("SELECT min(day), max(day) FROM {schema}.days")
        (first, last) = self._connection.execute(
            f"SELECT min(a), max(b) FROM (SELECT NULL AS a, NULL AS b UNION ALL {known})"
        ).fetchone()
        if first is None:
            return []
        stretches: list[tuple[int, int]] = []
        for day in range(max(first, -(-start // DAY_US)), min(last + 1, end // DAY_US)):
            if label(day * QUARTERS_OF_DAY) != label((day + 1) * QUARTERS_OF_DAY - 1):
                continue
            if stretches and stretches[-1][1] == day:
                stretches[-1] = (stretches[-1][0], day + 1)
            else:
                stretches.append((day, day + 1))
        return stretches if len(stretches) <= _STRETCHES_MAX else []

    def _spent(self, start: int, end: int) -> list[tuple[Any, ...]]:
        part = self._union("SELECT * FROM {schema}.spent WHERE day >= ?1 AND day < ?2")
        sql = f"SELECT tenant, log, sum(tokens) FROM ({part}) GROUP BY tenant, log"
        return self._connection.execute(sql, (start, end)).fetchall()

    def _expired(self, start: int, end: int) -> list[tuple[Any, ...]]:
        sql = "SELECT coalesce(sum(rows), 0) FROM main.expired WHERE rows > 0 AND last_us >= ? AND first_us < ?"
        return self._connection.execute(sql, (start, end)).fetchall()

    def _refusals(self, start: str, end: str) -> list[tuple[Any, ...]]:
        part = self._union("SELECT * FROM {schema}.refusals WHERE minute >= ?1 AND minute < ?2")
        sql = (
            f"SELECT minute, tenant, reason, sum(count) FROM ({part}) GROUP BY minute, tenant, reason ORDER BY 1, 2, 3"
        )
        return self._connection.execute(sql, (start, end)).fetchall()

    # ---- opening

    def _open(self, index: Path | None) -> sqlite3.Connection:
        """A private database with what the index at this path does not have."""
        connection = sqlite3.connect("", isolation_level=None, check_same_thread=False, uri=True)
        try:
            create_tables(connection)
            self._schemas = ("main",)
            if index is not None and index.exists():
                connection.execute("ATTACH ? AS indexed", (f"{index.absolute().as_uri()}?mode=ro",))
                if connection.execute("PRAGMA indexed.user_version").fetchone()[0] != SCHEMA_VERSION:
                    raise LogsDiffer(f"{index} has another schema")
                connection.execute("BEGIN")  # from the first look on, the index stands still for this reader
                connection.execute("INSERT INTO main.folded SELECT * FROM indexed.folded")
                connection.execute("INSERT INTO main.expired SELECT * FROM indexed.expired")
                self._schemas = ("main", "indexed")
            fold = Fold(connection, others=self._schemas[1:])
            for log in logs(self._ledger):
                fold.add_log(self._ledger / str(log), log, None)
        except BaseException:
            connection.close()
            raise
        return connection


def _rolled_up(keys: Sequence[str], days: Sequence[tuple[int, int]], wanted: str) -> str:
    """What sums are taken over, for one schema: whole days from the sums of days, the rest from those of quarters."""
    columns = ", ".join((*keys, "currency", *FIGURES))
    quarters = f"SELECT quarter, {columns} FROM {{schema}}.quarter_sums WHERE {{bounds}}{wanted}"
    first, last = f"?1 / {QUARTER_US}", f"?2 / {QUARTER_US}"
    parts, reached = [], first
    for since, until in days:
        parts.append(quarters.replace("{bounds}", f"quarter >= {reached} AND quarter < {since * QUARTERS_OF_DAY}"))
        reached = str(until * QUARTERS_OF_DAY)
        of_days = f"SELECT day * {QUARTERS_OF_DAY} AS quarter, {columns} FROM {{schema}}.day_sums"
        parts.append(f"{of_days} WHERE day >= {since} AND day < {until}{wanted}")
    parts.append(quarters.replace("{bounds}", f"quarter >= {reached} AND quarter < {last}"))
    return " UNION ALL ".join(parts)


def _of_rows(keys: Sequence[str], wanted: str) -> str:
    """The same where the rollups do not tell what is asked."""
    named = ", ".join(f"coalesce({name}, '') AS {name}" for name in (*keys, "currency"))
    bounds = "ended_us >= ?1 AND ended_us < ?2"
    return f"SELECT quarter, {named}, {FIGURES_OF_ROW} FROM {{schema}}.exports WHERE {bounds}{wanted}"


def _conditions(where: Filter, number: int) -> str:
    """What follows WHERE for a filter; its values are bound from `number` on, in the order of `_wanted`."""
    text = ""
    for name, values in where.items():
        places = ", ".join(f"?{number + each}" for each in range(len(values)))
        text += f" AND coalesce({name}, '') IN ({places})"
        number += len(values)
    return text


def _wanted(where: Filter) -> list[str]:
    return [value for values in where.values() for value in values]


def _check_texts(names: Iterable[str]) -> None:
    """ValueError if one of these is not a column of text."""
    for name in names:
        if name not in _TEXTS:
            raise ValueError(f"{name} is not a column to group or filter by")


def _from(start: float | None) -> int:
    return 0 if start is None else micros(start)


def _until(end: float | None) -> int:
    return _FOREVER_US if end is None else micros(end)


def period_labels(period: str | None, tz: str) -> Callable[[int], str]:
    """Quarter of an hour -> the name of the period it is in."""
    if period is None:
        return lambda quarter: ""
    if period not in PERIODS:
        raise ValueError(f"{period} is not a period: {', '.join(PERIODS)}")
    try:
        zone = ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{tz} is not a time zone") from None

    @cache  # 35,000 quarters a year, asked for once per group
    def label(quarter: int) -> str:
        local = (_EPOCH + timedelta(microseconds=quarter * QUARTER_US)).astimezone(zone)
        if period == "hour":  # with its offset: an hour that a clock change repeats is two hours
            return local.replace(minute=0).isoformat(timespec="minutes")
        return local.strftime(_LABELS[period])

    return label
