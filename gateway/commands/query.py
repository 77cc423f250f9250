"""`tokenport query`: SQL over the ledger with DuckDB.

What a query names is read once, in chunks, into a private database on disk that goes with the command: memory stays
flat, and whatever the SQL does, the ledger is not there to be touched. The query then runs read-only, without files,
network, extensions, settings or the variables of this program. Needs the extra `query`.
"""

import json
import math
import re
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from gateway.commands.output import UsageError, fail, print_rows, report_problems, settings_of
from gateway.commands.progress import Progress
from gateway.commands.selection import Selection, selection
from gateway.config import ConfigError
from gateway.extras import MissingExtra, extra
from gateway.ledger.formats import write_csv
from gateway.ledger.parquet import Converter, UnfitValue
from gateway.ledger.reading import Reader
from gateway.ledger.segment import Record
from gateway.ledger.tables import DIMENSIONS, FIGURES, ROLLUP_KEY
from pricing.export import COLUMNS, Column

_MEMORY = "512MB"  # DuckDB's; beyond it goes to disk
_TABLE_ROWS_MAX = 1000  # more is nobody's reading, and a table is in memory until its widths are known
_FETCH_ROWS = 1000

ROLLUPS = (
    Column("hour", "time"),
    *(Column(name, "text") for name in ROLLUP_KEY),
    *(Column(name, "integer") for name in FIGURES),
)
REFUSALS = (Column("minute", "time"), Column("tenant", "text"), Column("reason", "text"), Column("count", "integer"))
TABLES = {"exports": COLUMNS, "rollups": ROLLUPS, "refusals": REFUSALS}

EXAMPLES = """
tables, with types and only what --from, --to and the filters leave:
  exports   one row per request, the columns of `tokenport export`
  rollups   the same sums as in `tokenport report`, by hour (UTC), place, tenant, model, outcome and currency
  refusals  refused requests by minute, tenant and reason

examples:
  tokenport query "SELECT origin_country, destination_country, sum(exported_tokens) AS tokens
                   FROM rollups GROUP BY ALL ORDER BY tokens DESC"
  tokenport query --from 2026-11-01 "SELECT tenant, quantile_cont(ttft_ms, 0.99) AS p99_ms, count(*) AS requests
                   FROM exports WHERE stream GROUP BY tenant"
  tokenport query --format csv "SELECT date_trunc('day', hour) AS day, (sum(revenue_nano) - sum(cost_nano)) / 1e9
                   AS earned FROM rollups GROUP BY day ORDER BY day"
"""


def run(arguments: Namespace) -> int:
    try:
        settings = settings_of(arguments)
        asked = selection(arguments)
        duckdb, pa = extra("query", "duckdb", "pyarrow")
    except ConfigError as error:
        return report_problems(error)
    except (UsageError, MissingExtra) as error:
        return fail(str(error))
    named = [name for name in TABLES if re.search(rf"\b{name}\b", arguments.sql, re.IGNORECASE)]
    with tempfile.TemporaryDirectory(prefix="tokenport-query-") as directory:
        path = Path(directory) / "ledger.duckdb"
        try:
            with Reader(settings.gateway.data_dir) as reader:
                _load(duckdb, pa, path, named, reader, asked)
            with _opened(duckdb, path, arguments.tz) as connection:
                _print(_result(connection, arguments.sql), arguments.format)
        except UnfitValue as error:
            return fail(str(error))
        except duckdb.Error as error:
            return fail(str(error).strip())
    return 0


def _load(duckdb: Any, pa: Any, path: Path, named: Sequence[str], reader: Reader, asked: Selection) -> None:
    """All tables, and the rows of those that are asked for."""
    with duckdb.connect(str(path), config={"memory_limit": _MEMORY, "threads": "1"}) as connection:
        for name, columns in TABLES.items():
            converter = Converter(columns, pa)
            connection.register("incoming", converter.schema.empty_table())
            connection.execute(f"CREATE TABLE {name} AS FROM incoming")
            connection.unregister("incoming")
            if name in named:
                _fill(connection, name, converter, reader, asked)


def _fill(connection: Any, name: str, converter: Converter, reader: Reader, asked: Selection) -> None:
    bounds = (asked.start, asked.end)
    total = 0
    rows: Iterable[Record]
    if name == "exports":
        total = sum(row["requests"] for row in reader.sums((), None, "UTC", *bounds, asked.where))
        rows = reader.rows(*bounds, asked.where)
    elif name == "rollups":
        rows = ({**row, "hour": row["period"]} for row in reader.sums(DIMENSIONS, "hour", "UTC", *bounds, asked.where))
    else:
        rows = reader.refusals(*bounds)
    with Progress(total, "rows") as progress:
        for batch in converter.batches(rows):
            connection.register("incoming", batch)
            connection.execute(f"INSERT INTO {name} FROM incoming")
            connection.unregister("incoming")
            progress.advance(batch.num_rows)


def _opened(duckdb: Any, path: Path, tz: str) -> Any:
    """The database, and nothing else of this machine."""
    own = {"memory_limit": _MEMORY, "temp_directory": str(path.with_suffix(".tmp"))}
    connection = duckdb.connect(str(path), read_only=True, config=own)
    connection.execute(f"SET TimeZone = '{tz}'")  # a zone that exists: it was looked up
    # In this order: what is locked cannot be set any more.
    for setting in ("python_enable_replacements = false", "enable_external_access = false"):
        connection.execute(f"SET {setting}")
    connection.execute("SET lock_configuration = true")
    return connection


class _Result:
    """Columns, and rows as they are fetched."""

    def __init__(self, columns: Sequence[str], rows: Iterator[Record]) -> None:
        self.columns = columns
        self.rows = rows


def _result(connection: Any, sql: str) -> _Result:
    result = connection.execute(sql)
    if result is None or not result.description:
        return _Result((), iter(()))
    columns = _distinct(column[0] for column in result.description)

    def rows() -> Iterator[Record]:
        while chunk := result.fetchmany(_FETCH_ROWS):
            for row in chunk:
                yield dict(zip(columns, map(_plain, row), strict=True))

    return _Result(columns, rows())


def _distinct(names: Iterable[str]) -> list[str]:
    """Two columns of one name keep their values apart."""
    found: list[str] = []
    for name in names:
        again = sum(each == name or each.startswith(f"{name}:") for each in found)
        found.append(f"{name}:{again}" if again else name)
    return found


def _plain(value: object) -> object:
    """A value as text and JSON have it; whole numbers stay exact."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, date):
        return value.isoformat()
    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _print(result: _Result, form: str) -> None:
    if form == "csv":
        write_csv(result.rows, sys.stdout, result.columns)
        return
    if form == "json":
        sys.stdout.write("[")
        for number, row in enumerate(result.rows):
            text = json.dumps(row, ensure_ascii=False, default=str)
            sys.stdout.write(f"{',' if number else ''}\n  {text}")
        sys.stdout.write("\n]\n")
        return
    shown = list(islice(result.rows, _TABLE_ROWS_MAX))
    print_rows(shown, result.columns, "table")
    if next(result.rows, None) is not None:
        print(f"tokenport: only the first {_TABLE_ROWS_MAX:,} rows; --format csv has all", file=sys.stderr)
