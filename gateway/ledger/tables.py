"""The tables of the index.

    exports     one row per export, the columns of the contract, and the quarter of an hour it ended in: a view of
      ends        what a row has of its own, and by number
      places      what it has in common with many others for long: who, from where to where, how it ended; and
      prices      the unit prices of the moment, with their version
    rollups     sums per quarter and key; days: the same per UTC day, so that a month is some thousand rows
      keys        place, tenant, model, outcome and currency of a sum; quarter_sums, day_sums: views with both
    spent       tokens that count for budgets, per UTC day, tenant and log
    refusals    counts per minute, tenant and reason
    expired     segments whose rows are gone: they are in rollups, days, spent and refusals only
    folded      how far each log has been read

A row is recomputed from itself, so every line of a log carries all of its prices, and says twice what its only attempt
did. Here this is stored once or derived: ids are bytes, moments are numbers, and of the attempt of a row that needed no
other only its two times are kept (`attempts_json` is empty then). Prices change every quarter of an hour and places do
not, so they have numbers apart: together they would be as many as there are rows.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from zlib import crc32

from gateway.ledger.instants import DAY_US, MICROS, QUARTER_US
from gateway.ledger.segment import Record
from pricing.export import ATTEMPT_COSTS, COLUMNS, FIRST_COLUMNS, NAMES, Column
from pricing.unit_prices import UnitPrices

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
QUARTERS_OF_DAY = DAY_US // QUARTER_US

UNITS = tuple(name for name in NAMES if name in UnitPrices().columns() and name != "zone")
_MOMENTS = ("opened_at", "ended_at")  # as ended_us, and as took_us before it
_OF_ITS_OWN = frozenset(
    (
        *("export_id", "request_id", "seq", "log", *_MOMENTS, "ttft_ms", "duration_ms"),
        *("attempts_json", *SUMS, *(name for name in NAMES[FIRST_COLUMNS:] if name not in UNITS)),
    )
)
OWN = tuple(column for column in COLUMNS if column.name in _OF_ITS_OWN and column.name not in _MOMENTS)
PRICES = tuple(column for column in COLUMNS if column.name in (*UNITS, "price_version"))
PLACE = tuple(column for column in COLUMNS if column.name not in _OF_ITS_OWN and column not in PRICES)
# By which they are found: few have these in common.
PLACE_KEY = ("tenant", "key_id", "origin_backend", "destination_country")
PRICES_KEY = ("price_version", "unit_energy_nano_per_kwh")

ATTEMPT_UNITS_MARK = "\1"  # in attempts_json, in place of `prices.attempt`

_SQL_TYPES = {"integer": "INTEGER", "bool": "INTEGER"}


def _names(columns: Iterable[Column]) -> list[str]:
    return [column.name for column in columns]


def _definitions(columns: Iterable[Column]) -> str:
    return ", ".join(f"{column.name} {_SQL_TYPES.get(column.kind, 'TEXT')}" for column in columns)


ENDS = (
    f"{_definitions(OWN)}, ended_us INTEGER NOT NULL, took_us INTEGER NOT NULL,"
    " attempt_ttft_ms INTEGER, attempt_duration_ms INTEGER, place INTEGER NOT NULL, price INTEGER NOT NULL"
)
# The only attempt of a row, as `settlement` writes it: what lies between the stored pieces.
ATTEMPT_TOKENS = (
    *NAMES[NAMES.index("input_tokens") : NAMES.index("reasoning_tokens") + 1],
    *("bytes_to_backend", "bytes_from_backend"),
)


def _attempt() -> str:
    parts = ["'[' || places.attempt || ',\"ttft_ms\":' || coalesce(ends.attempt_ttft_ms, 'null')"]
    parts.append("',\"duration_ms\":' || coalesce(ends.attempt_duration_ms, 'null')")
    parts += [f"',\"{name}\":' || ends.{name}" for name in ATTEMPT_TOKENS]
    parts.append("',' || prices.attempt")
    parts += [f"',\"{name}\":' || ends.{name}" for name in ATTEMPT_COSTS]
    return " || ".join((*parts, "'}]'"))


def _moment(us: str) -> str:
    seconds = f"strftime('%Y-%m-%dT%H:%M:%S', ({us}) / {MICROS}, 'unixepoch')"
    return f"{seconds} || printf('.%06dZ', ({us}) % {MICROS})"


_DIGITS = "lower(hex(ends.export_id))"
_GROUPS = " || '-' || ".join(
    f"substr({_DIGITS}, {start}, {length})" for start, length in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
)
_DERIVED = {
    "export_id": f"CASE typeof(ends.export_id) WHEN 'blob' THEN {_GROUPS} ELSE ends.export_id END",
    "opened_at": _moment("ends.ended_us - ends.took_us"),
    "ended_at": _moment("ends.ended_us"),
    "attempts_json": f"CASE WHEN ends.attempts_json = '' THEN {_attempt()}"
    f" ELSE replace(ends.attempts_json, char({ord(ATTEMPT_UNITS_MARK)}), prices.attempt) END",
}


def _shown(name: str) -> str:
    if name in _DERIVED:
        return f"{_DERIVED[name]} AS {name}"
    if name in _OF_ITS_OWN:
        return f"ends.{name} AS {name}"
    return f"{'prices' if name in _names(PRICES) else 'places'}.{name} AS {name}"


_FIGURE_COLUMNS = ", ".join(f"{name} INTEGER NOT NULL" for name in FIGURES)


def _summed(period: str, table: str) -> str:
    columns = ", ".join(
        (*(f"keys.{name} AS {name}" for name in ROLLUP_KEY), *(f"{table}.{name} AS {name}" for name in FIGURES))
    )
    return f"SELECT {table}.{period} AS {period}, {columns} FROM {table} CROSS JOIN keys ON keys.id = {table}.key"


SCHEMA = (
    f"CREATE TABLE keys (id INTEGER PRIMARY KEY, {', '.join(f'{name} TEXT NOT NULL' for name in ROLLUP_KEY)},"
    f" UNIQUE ({', '.join(ROLLUP_KEY)}))",
    f"CREATE TABLE places (id INTEGER PRIMARY KEY, {_definitions(PLACE)}, attempt TEXT NOT NULL, key INTEGER NOT NULL)",
    f"CREATE INDEX places_found ON places ({', '.join(PLACE_KEY)})",
    f"CREATE TABLE prices (id INTEGER PRIMARY KEY, {_definitions(PRICES)}, attempt TEXT NOT NULL)",
    f"CREATE INDEX prices_found ON prices ({', '.join(PRICES_KEY)})",
    # In the order in which they are read: no second index for that. The id is in the key, so that no damage to a log
    # can make two exports one.
    f"CREATE TABLE ends ({ENDS}, PRIMARY KEY (ended_us, log, seq, export_id), UNIQUE (export_id)) WITHOUT ROWID",
    # CROSS: the ends are looked through, and each finds the rest of it; never the other way round.
    f"CREATE VIEW exports AS SELECT {', '.join(map(_shown, NAMES))}, ends.ended_us AS ended_us,"
    f" ends.ended_us / {QUARTER_US} AS quarter, ends.export_id AS id FROM ends"
    " CROSS JOIN places ON places.id = ends.place CROSS JOIN prices ON prices.id = ends.price",
    f"CREATE TABLE rollups (quarter INTEGER NOT NULL, key INTEGER NOT NULL, {_FIGURE_COLUMNS},"
    " PRIMARY KEY (quarter, key)) WITHOUT ROWID",
    f"CREATE TABLE days (day INTEGER NOT NULL, key INTEGER NOT NULL, {_FIGURE_COLUMNS},"
    " PRIMARY KEY (day, key)) WITHOUT ROWID",
    f"CREATE VIEW quarter_sums AS {_summed('quarter', 'rollups')}",
    f"CREATE VIEW day_sums AS {_summed('day', 'days')}",
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


def added(names: Iterable[str]) -> str:
    """What an insert does with these columns of a row that is there."""
    return ", ".join(f"{name} = {name} + excluded.{name}" for name in names)


ADD_REFUSAL = f"INSERT INTO main.refusals VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET {added(('count',))}"
_INSERT_KEY = f"INSERT INTO main.keys VALUES (NULL, {marks(len(ROLLUP_KEY))}) ON CONFLICT DO NOTHING"
_FIND_KEY = f"SELECT id FROM main.keys WHERE {' AND '.join(f'{name} = ?' for name in ROLLUP_KEY)}"


def key_of_sum(connection: sqlite3.Connection, values: Sequence[str]) -> int:
    """The number of a rollup's key, which gets one if it is new."""
    connection.execute(_INSERT_KEY, values)
    [[number]] = connection.execute(_FIND_KEY, values)
    return int(number)


# How a row counts in a sum; the same for rollups and for sums over rows.
FIGURES_OF_ROW = ", ".join(
    (
        "1 AS requests",
        "CASE WHEN exported = 1 THEN coalesce(delivered_tokens, 0) ELSE 0 END AS exported_tokens",
        *(f"coalesce({name}, 0) AS {name}" for name in SUMS),
    )
)
_KEY_OF_ROW = ", ".join(f"coalesce({name}, '') AS {name}" for name in ROLLUP_KEY)
_TOTALS = ", ".join(f"sum({name})" for name in FIGURES)
# What the rollups have to be, for who checks them: the sums of the rows, but for those of segments that are gone (which
# may still be there, all or some: stretches of seq), and what their files of sums say.
OUTLIVED = (
    "CREATE TEMP TABLE gone (of_log INTEGER NOT NULL, first INTEGER NOT NULL, past INTEGER NOT NULL)",
    f"CREATE TEMP TABLE outlived (quarter INTEGER, {', '.join((*ROLLUP_KEY, *FIGURES))})",
    "CREATE TEMP TABLE outlived_spent (day INTEGER, tenant TEXT, log INTEGER, tokens INTEGER)",
)
IS_THERE = "NOT EXISTS (SELECT 1 FROM temp.gone WHERE of_log = log AND seq >= first AND seq < past)"
ROLLUPS_OF_EXPORTS = (
    f"SELECT quarter, {', '.join(ROLLUP_KEY)}, {_TOTALS}"
    f" FROM (SELECT quarter, {_KEY_OF_ROW}, {FIGURES_OF_ROW} FROM exports WHERE {IS_THERE}"
    " UNION ALL SELECT * FROM temp.outlived)"
    f" WHERE true GROUP BY quarter, {', '.join(ROLLUP_KEY)}"
)
DAYS_OF_ROLLUPS = f"SELECT quarter / {QUARTERS_OF_DAY} AS day, key, {_TOTALS} FROM rollups GROUP BY 1, 2"
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
