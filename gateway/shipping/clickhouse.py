"""ClickHouse over HTTP: one ReplacingMergeTree of exports for many gateways, partitioned by the month of their end.

    TABLE, TABLE_refusals, TABLE_marks    as in PostgreSQL

There are no transactions, so rows go in before the mark that says so: after a crash in between they come again. Rows
that come again are merged away, because the sorting key (ended_at, export_id) is the row's for ever; until a merge has
happened FINAL leaves them out, and whoever asks without FINAL may see a row twice.
"""

import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import orjson

from gateway.ledger.following import Position
from gateway.shipping.batch import Batch, Mark
from gateway.shipping.shipper import SinkError
from pricing.export import COLUMNS, NAMES

CONNECT_S = 10.0
ANSWER_S = 60.0  # to a batch, or to a report
PROBLEM_CHARS_MAX = 300

_TYPES = {
    "text": "Nullable(String)",
    "json": "Nullable(String)",
    "integer": "Nullable(Int64)",
    "bool": "Nullable(Bool)",
    "time": "Nullable(DateTime64(6, 'UTC'))",
}
_SURE = {"export_id": "String", "ended_at": "DateTime64(6, 'UTC')", "seq": "Int64", "log": "Int64"}


def definitions(table: str) -> tuple[str, ...]:
    """What makes the tables."""
    columns = ", ".join(f"{column.name} {_SURE.get(column.name, _TYPES[column.kind])}" for column in COLUMNS)
    return (
        f"CREATE TABLE IF NOT EXISTS {table} ({columns}, gateway LowCardinality(String))"
        " ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(ended_at) ORDER BY (ended_at, export_id)",
        f"CREATE TABLE IF NOT EXISTS {table}_refusals (gateway LowCardinality(String), log Int64, hash String,"
        " minute DateTime64(6, 'UTC'), tenant String, reason String, count Int64)"
        " ENGINE = ReplacingMergeTree ORDER BY (minute, gateway, log, hash)",
        f"CREATE TABLE IF NOT EXISTS {table}_marks (gateway LowCardinality(String), log Int64, segment Int64,"
        " position Int64, hash String, seq Int64, moved_at DateTime64(6, 'UTC') DEFAULT now64(6))"
        " ENGINE = ReplacingMergeTree(moved_at) ORDER BY (gateway, log)",
    )


class ClickHouse:
    """A database, asked over HTTP. Statements hold no text of others: what varies are parameters."""

    def __init__(self, url: str, ca_file: Path | None) -> None:
        parts = urlsplit(url)
        user, password = (unquote(text) if text else "" for text in (parts.username, parts.password))
        host = parts.netloc.rpartition("@")[2]
        secure = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else False
        self._client = httpx.Client(
            base_url=f"{parts.scheme}://{host}",
            headers={"X-ClickHouse-User": user, "X-ClickHouse-Key": password} if user else {},
            params={"database": parts.path.strip("/")} if parts.path.strip("/") else {},
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            verify=secure,
            trust_env=False,
        )

    def insert(self, table: str, rows: Iterable[Mapping[str, object]], token: str) -> None:
        """Rows as one block, which the server drops if it has seen the token lately."""
        settings = {"insert_deduplication_token": token, "date_time_input_format": "best_effort", "async_insert": "0"}
        self._post(f"INSERT INTO {table} FORMAT JSONEachRow", settings, b"\n".join(map(orjson.dumps, rows)))

    def run(self, sql: str) -> None:
        self._post(sql, {}, b"")

    def rows(self, sql: str, values: Mapping[str, object] | None = None) -> Iterator[list[Any]]:
        """The answer to a query, line by line, so that a long one needs no memory."""
        parameters = {f"param_{name}": _parameter(value) for name, value in (values or {}).items()}
        settings = {"output_format_json_quote_64bit_integers": "0", **parameters}
        with self._stream(f"{sql} FORMAT JSONCompactEachRow", settings, b"") as response:
            for line in response.iter_lines():
                if line:
                    yield orjson.loads(line)

    def close(self) -> None:
        self._client.close()

    def _post(self, sql: str, settings: Mapping[str, str], body: bytes) -> None:
        with self._stream(sql, {**settings, "wait_end_of_query": "1"}, body) as response:
            response.read()

    @contextmanager
    def _stream(self, sql: str, settings: Mapping[str, str], body: bytes) -> Iterator[httpx.Response]:
        try:
            with self._client.stream("POST", "/", params={"query": sql, **settings}, content=body) as response:
                if response.status_code != 200:
                    problem = " ".join(response.read().decode("utf-8", "replace").split())
                    raise SinkError(f"ClickHouse: {problem[:PROBLEM_CHARS_MAX] or response.status_code}")
                yield response
        except (httpx.HTTPError, orjson.JSONDecodeError) as error:
            reason = str(error) or type(error).__name__
            raise SinkError(f"ClickHouse: {reason[:PROBLEM_CHARS_MAX]}") from error


class ClickHouseSink:
    """The way into one table of exports. Used by one thread at a time."""

    keyed = True

    def __init__(self, url: str, gateway: str, table: str, ca_file: Path | None) -> None:
        self._url = url
        self._gateway = gateway
        self._table = table
        self._ca_file = ca_file
        self._database: ClickHouse | None = None

    def open(self) -> Mapping[int, Mark]:
        database = self._database = ClickHouse(self._url, self._ca_file)
        for statement in definitions(self._table):
            database.run(statement)
        self._fit(database)
        marks = f"SELECT log, segment, position, hash, seq FROM {self._table}_marks FINAL"
        found = database.rows(f"{marks} WHERE gateway = {{gateway:String}}", {"gateway": self._gateway})
        return {log: Mark(Position(segment, at), hashed, seq) for log, segment, at, hashed, seq in found}

    def deliver(self, batch: Batch) -> None:
        database, table = self._database, self._table
        assert database is not None
        token = f"{self._gateway}/{batch.log}/{batch.start.hash}/{batch.end.hash}"
        if batch.rows:
            rows = ({name: row.record[name] for name in NAMES} | {"gateway": self._gateway} for row in batch.rows)
            database.insert(table, rows, token)
        own = {"gateway": self._gateway, "log": batch.log}
        if batch.refusals:
            counts = (
                {**own, "hash": hashed, **{name: record[name] for name in ("minute", "tenant", "reason", "count")}}
                for record, hashed, _ in batch.refusals
            )
            database.insert(f"{table}_refusals", counts, token)
        (segment, position), hashed, seq = batch.end
        mark = {**own, "segment": segment, "position": position, "hash": hashed, "seq": seq}
        database.insert(f"{table}_marks", [mark], token)

    def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _fit(self, database: ClickHouse) -> None:
        """A table that was there: ours, perhaps from before some columns, or somebody else's."""
        found = {name for name, *_ in database.rows(f"DESCRIBE TABLE {self._table}")}
        if not {"export_id", "ended_at", "gateway"} <= found:
            raise SinkError(f"the table {self._table} is not one of exports; set `table` to a name of its own")
        for column in COLUMNS:
            if column.name not in found:
                database.run(f"ALTER TABLE {self._table} ADD COLUMN {column.name} {_TYPES[column.kind]}")


def _parameter(value: object) -> str:
    """As ClickHouse reads a parameter of any type; a list as an array of texts or numbers."""
    if isinstance(value, list | tuple):
        return f"[{','.join(_quoted(each) if isinstance(each, str) else str(each) for each in value)}]"
    return str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
