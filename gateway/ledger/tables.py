"""The tables of the index.

    exports    one row per export, the columns of the contract, and the quarter of an hour it ended in: a view of
      ends       what a row has of its own, and
      alike      what it has in common with many others (who, where, at which prices), once
    rollups    sums per quarter, place, tenant, model, outcome and currency
    spent      tokens that count for budgets, per UTC day, tenant and log
    refusals   counts per minute, tenant and reason
    expired    segments whose rows are gone: they are in rollups, spent and refusals only
    folded     how far each log has been read

A row is recomputed from itself, so every line of a log carries all of its prices. In the index they would be two thirds
of what is written, again and again the same: the unit prices of the row, and those of its attempts, which are stored as
one character that JSON cannot contain.
"""

import sqlite3
from collections.abc import Iterable
from zlib import crc32

from gateway.ledger.instants import DAY_US
from gateway.ledger.segment import Record
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
# Amounts of two currencies have no sum, so a rollup has one currency.
ROLLUP_KEY = (*DIMENSIONS, "currency")

_OF_ITS_OWN = frozenset(
    (
        *("export_id", "request_id", "seq", "log", "opened_at", "ended_at", "ttft_ms", "duration_ms"),
        *("attempts_json", *SUMS, *NAMES[FIRST_COLUMNS:]),
    )
)
OWN = tuple(column for column in COLUMNS if column.name in _OF_ITS_OWN)
ALIKE = tuple(column for column in COLUMNS if column.name not in _OF_ITS_OWN)
ALIKE_KEY = ("price_version", "tenant", "origin_backend")  # few rows have these in common

UNITS = NAMES[NAMES.index("unit_energy_nano_per_kwh") : NAMES.index("unit_output_nano_per_mtok") + 1]
UNITS_MARK = "\1"  # in attempts_json, in place of `attempt_units`

_SQL_TYPES = {"integer": "INTEGER", "bool": "INTEGER"}


def _definitions(columns: Iterable[Column]) -> str:
    return ", ".join(f"{column.name} {_SQL_TYPES.get(column.kind, 'TEXT')}" for column in columns)


def _shown(name: str) -> str:
    if name == "attempts_json":
        return f"replace(ends.{name}, char({ord(UNITS_MARK)}), alike.attempt_units) AS {name}"
    return f"{'ends' if name in _OF_ITS_OWN else 'alike'}.{name} AS {name}"


_ROLLUP_COLUMNS = ", ".join(f"{name} TEXT NOT NULL" for name in ROLLUP_KEY)
_FIGURE_COLUMNS = ", ".join(f"{name} INTEGER NOT NULL" for name in FIGURES)
_ROLLUP_PRIMARY = ", ".join(("quarter", *ROLLUP_KEY))

SCHEMA = (
    f"CREATE TABLE alike (id INTEGER PRIMARY KEY, {_definitions(ALIKE)}, attempt_units TEXT NOT NULL)",
    f"CREATE INDEX alike_found ON alike ({', '.join(ALIKE_KEY)})",
    f"CREATE TABLE ends ({_definitions(OWN)}, ended_us INTEGER NOT NULL, quarter INTEGER NOT NULL,"
    " alike INTEGER NOT NULL, PRIMARY KEY (export_id))",
    "CREATE INDEX ends_ended ON ends (ended_us, log, seq)",
    # CROSS: the ends are looked through, and each finds its other half; never the other way round.
    f"CREATE VIEW exports AS SELECT {', '.join(map(_shown, NAMES))}, ends.ended_us AS ended_us,"
    " ends.quarter AS quarter FROM ends CROSS JOIN alike ON alike.id = ends.alike",
    f"CREATE TABLE rollups (quarter INTEGER NOT NULL, {_ROLLUP_COLUMNS}, {_FIGURE_COLUMNS},"
    f" PRIMARY KEY ({_ROLLUP_PRIMARY})) WITHOUT ROWID",
    "CREATE TABLE spent (day INTEGER NOT NULL, tenant TEXT NOT NULL, log INTEGER NOT NULL, tokens INTEGER NOT NULL,"
    " PRIMARY KEY (day, tenant, log)) WITHOUT ROWID",
    "CREATE TABLE refusals (minute TEXT NOT NULL, tenant TEXT NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL,"
    " PRIMARY KEY (minute, tenant, reason)) WITHOUT ROWID",
    "CREATE TABLE expired (log INTEGER NOT NULL, segment INTEGER NOT NULL, rows INTEGER NOT NULL,"
    " first_us INTEGER NOT NULL, last_us INTEGER NOT NULL, PRIMARY KEY (log, segment)) WITHOUT ROWID",
    "CREATE TABLE folded (log INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL)",
)
SCHEMA_VERSION = crc32("\n".join(SCHEMA).encode()) & 0x7FFFFFFF  # another schema is another index


def marks(count: int) -> str:
    """Places for so many values in a statement."""
    return ", ".join("?" * count)


ADD_ROLLUP = (
    f"INSERT INTO main.rollups VALUES ({marks(1 + len(ROLLUP_KEY) + len(FIGURES))})"
    f" ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in FIGURES)}"
)
ADD_SPENT = "INSERT INTO main.spent VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens"
ADD_REFUSAL = "INSERT INTO main.refusals VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count"

# How a row counts in a sum; the same for rollups and for sums over rows.
FIGURES_OF_ROW = ", ".join(
    (
        "1 AS requests",
        "CASE WHEN exported = 1 THEN coalesce(delivered_tokens, 0) ELSE 0 END AS exported_tokens",
        *(f"coalesce({name}, 0) AS {name}" for name in SUMS),
    )
)
_KEY_OF_ROW = ", ".join(f"coalesce({name}, '') AS {name}" for name in ROLLUP_KEY)
# What the rollups have to be, for who checks them: the sums of the rows, but for those of segments that are gone (which
# may still be there, all or some: stretches of seq), and what their files of sums say.
OUTLIVED = (
    "CREATE TEMP TABLE gone (of_log INTEGER NOT NULL, first INTEGER NOT NULL, past INTEGER NOT NULL)",
    f"CREATE TEMP TABLE outlived (quarter INTEGER, {', '.join((*ROLLUP_KEY, *FIGURES))})",
    "CREATE TEMP TABLE outlived_spent (day INTEGER, tenant TEXT, log INTEGER, tokens INTEGER)",
)
IS_THERE = "NOT EXISTS (SELECT 1 FROM temp.gone WHERE of_log = log AND seq >= first AND seq < past)"
ROLLUPS_OF_EXPORTS = (
    f"SELECT quarter, {', '.join(ROLLUP_KEY)}, {', '.join(f'sum({name})' for name in FIGURES)}"
    f" FROM (SELECT quarter, {_KEY_OF_ROW}, {FIGURES_OF_ROW} FROM exports WHERE {IS_THERE}"
    f" UNION ALL SELECT * FROM temp.outlived) WHERE true GROUP BY {_ROLLUP_PRIMARY}"
)
# And what budgets have used.
SPENT_OF_EXPORTS = (
    "SELECT day, tenant, log, sum(tokens) FROM ("
    f"SELECT ended_us / {DAY_US} AS day, coalesce(tenant, '') AS tenant, log,"
    " coalesce(input_tokens, 0) + coalesce(billed_output_tokens, 0) AS tokens"
    f" FROM exports WHERE {IS_THERE} UNION ALL SELECT * FROM temp.outlived_spent) GROUP BY 1, 2, 3"
)


def create_tables(connection: sqlite3.Connection) -> None:
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def row_of(values: Iterable[object]) -> Record:
    """A row of `exports` as the record it came from, without the chain."""
    return {
        column.name: bool(value) if column.kind == "bool" and value is not None else value
        for column, value in zip(COLUMNS, values, strict=True)
    }
