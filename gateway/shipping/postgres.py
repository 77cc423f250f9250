"""PostgreSQL: one table of exports for many gateways, partitioned by the month in which a row ended.

    TABLE             the columns of the contract in their order, then `gateway`; attempts_json is text, byte for byte
    TABLE_refusals    refused requests by minute, tenant and reason, as the logs count them
    TABLE_marks       how far each log of each gateway is in here

Rows and mark go in together, in one transaction that finds the mark where this gateway left it: after a crash of either
side, or a backup of either brought back, the store itself says where to go on, and two that ship the same log stop each
other. Should rows come again all the same, they meet the primary key (export_id, ended_at). A partitioned table allows
no key without `ended_at`; but a row that has ended never changes, so an export id has one `ended_at`, and the pair is
unique exactly where the export id is. Nothing is unique by (gateway, log, seq): a ledger that was restored from a
backup counts on from there, and both rows of one number are exports that happened.

Partitions are made when their month comes, and attached, so that no report is held up.
"""

import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Composed, Identifier, Literal

from gateway.ledger.following import Position
from gateway.shipping.batch import Batch, Mark
from gateway.shipping.shipper import SinkError
from pricing.export import COLUMNS, NAMES

CONNECT_S = 10
DELIVER_S_MAX = 30.0  # for one batch, commit included; then the connection is cut
LOCK_MS = 5_000  # somebody else changes the tables: later

TYPES = {"text": "text", "json": "text", "integer": "bigint", "bool": "boolean", "time": "timestamptz"}
_SHOWN_TYPES = {"timestamptz": "timestamp with time zone"}  # as the catalog calls them
_SQL_TYPES = {
    "text": SQL("text"),
    "bigint": SQL("bigint"),
    "boolean": SQL("boolean"),
    "timestamptz": SQL("timestamptz"),
}
_NEEDED = frozenset(("export_id", "seq", "ended_at", "log", "gateway"))
_values_of = itemgetter(*NAMES)
_SCHEMA_LOCK = 0x746B_7074  # "tkpt": who makes tables or partitions does it alone


def columns() -> dict[str, str]:
    """The columns of the table of exports, with their types."""
    return {**{column.name: TYPES[column.kind] for column in COLUMNS}, "gateway": "text"}


def table_name(table: str, suffix: str = "") -> Identifier:
    """A table that may be named with its schema."""
    *schema, name = table.split(".")
    return Identifier(*schema, name + suffix)


class PostgresSink:
    """The way into one table of exports. Used by one thread at a time."""

    keyed = True

    def __init__(self, url: str, gateway: str, table: str) -> None:
        self._url = url
        self._gateway = gateway
        self._table = table
        self._connection: psycopg.Connection[Any] | None = None
        self._marks: dict[int, Mark] = {}
        self._months: set[str] = set()  # that have their partition

    def open(self) -> Mapping[int, Mark]:
        with told(self._table):
            connection = self._connection = connect(self._url)
            with _cut_after(connection, DELIVER_S_MAX):
                self._prepare(connection)
                sql = SQL("SELECT log, segment, position, hash, seq FROM {} WHERE gateway = %s")
                found = connection.execute(sql.format(table_name(self._table, "_marks")), (self._gateway,))
                self._marks = {log: Mark(Position(segment, at), hashed, seq) for log, segment, at, hashed, seq in found}
        return dict(self._marks)

    def deliver(self, batch: Batch) -> None:
        connection = self._connection
        assert connection is not None
        with told(self._table), _cut_after(connection, DELIVER_S_MAX):
            for month in sorted({row.record["ended_at"][:7] for row in batch.rows} - self._months):
                self._make_partition(connection, month)
            with connection.transaction():
                self._take_turn(connection, batch)
                if batch.rows:
                    self._add_rows(connection, batch)
                if batch.refusals:
                    self._add_refusals(connection, batch)
        self._marks[batch.log] = batch.end

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._months.clear()
        if connection is not None:
            connection.close()

    # ---- a batch, within its transaction

    def _take_turn(self, connection: psycopg.Connection[Any], batch: Batch) -> None:
        """Move the mark, if it is where it was left."""
        expected = self._marks.get(batch.log)
        (segment, position), hashed, seq = batch.end
        values = {"gateway": self._gateway, "log": batch.log, "segment": segment, "position": position}
        values |= {"hash": hashed, "seq": seq}
        marks = table_name(self._table, "_marks")
        if expected is None:
            sql = SQL(
                "INSERT INTO {} (gateway, log, segment, position, hash, seq) VALUES (%(gateway)s, %(log)s, %(segment)s,"
                " %(position)s, %(hash)s, %(seq)s) ON CONFLICT DO NOTHING"
            )
        else:
            sql = SQL(
                "UPDATE {} SET segment = %(segment)s, position = %(position)s, hash = %(hash)s, seq = %(seq)s,"
                " moved_at = now() WHERE gateway = %(gateway)s AND log = %(log)s AND segment = %(from_segment)s"
                " AND position = %(from_position)s AND hash = %(from_hash)s"
            )
            values |= {"from_segment": expected.position.segment, "from_position": expected.position.offset}
            values |= {"from_hash": expected.hash}
        if connection.execute(sql.format(marks), values).rowcount != 1:
            raise SinkError(
                f"another gateway ships log {batch.log} as {self._gateway}: is gateway.id a copy of another's?"
            )

    def _add_rows(self, connection: psycopg.Connection[Any], batch: Batch) -> None:
        names = SQL(", ").join(map(Identifier, columns()))
        with connection.cursor().copy(SQL("COPY pg_temp.tokenport_incoming ({}) FROM STDIN").format(names)) as copy:
            for row in batch.rows:
                copy.write_row((*_values_of(row.record), self._gateway))
        sql = SQL("INSERT INTO {} ({}) SELECT {} FROM pg_temp.tokenport_incoming ON CONFLICT DO NOTHING")
        connection.execute(sql.format(table_name(self._table), names, names))

    def _add_refusals(self, connection: psycopg.Connection[Any], batch: Batch) -> None:
        sql = SQL(
            "INSERT INTO {} (gateway, log, hash, minute, tenant, reason, count) VALUES (%s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING"
        )
        values = [
            (self._gateway, batch.log, hashed, *(record[name] for name in ("minute", "tenant", "reason", "count")))
            for record, hashed, _ in batch.refusals
        ]
        connection.cursor().executemany(sql.format(table_name(self._table, "_refusals")), values)

    # ---- tables

    def _prepare(self, connection: psycopg.Connection[Any]) -> None:
        encoding = connection.execute("SHOW server_encoding").fetchone()
        if encoding != ("UTF8",):
            raise SinkError(f"the database holds {encoding and encoding[0]} text; make one with encoding UTF8")
        with _alone(connection):
            for suffix, statements in _definitions(self._table):
                found = self._columns(connection, suffix)
                if not found:
                    for statement in statements:
                        connection.execute(statement)
                elif not suffix:
                    self._fit(connection, found)
        connection.execute(
            SQL("CREATE TEMP TABLE tokenport_incoming (LIKE {}) ON COMMIT DELETE ROWS").format(table_name(self._table))
        )

    def _columns(self, connection: psycopg.Connection[Any], suffix: str) -> dict[str, str]:
        """Names and types of the columns of a table; none if there is no such table."""
        sql = (
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
        )
        return dict(connection.execute(sql, (table_name(self._table, suffix).as_string(connection),)).fetchall())

    def _fit(self, connection: psycopg.Connection[Any], found: Mapping[str, str]) -> None:
        """A table that was there: ours, perhaps from before some columns, or somebody else's."""
        wanted = {name: _SHOWN_TYPES.get(kind, kind) for name, kind in columns().items()}
        if not {"export_id", "ended_at", "gateway"} <= found.keys():
            raise SinkError(f"the table {self._table} is not one of exports; set `table` to a name of its own")
        for name in wanted:
            if found.get(name, wanted[name]) != wanted[name]:
                problem = f"its column {name} is {found[name]} and not {wanted[name]}"
                raise SinkError(f"the table {self._table} is another one: {problem}; set `table` to a name of its own")
        for name, kind in columns().items():
            if name not in found:
                sql = SQL("ALTER TABLE {} ADD COLUMN {} {}")
                connection.execute(sql.format(table_name(self._table), Identifier(name), _SQL_TYPES[kind]))

    def _make_partition(self, connection: psycopg.Connection[Any], month: str) -> None:
        partition = table_name(self._table, f"_{month.replace('-', '_')}")
        with _alone(connection):
            there = connection.execute("SELECT to_regclass(%s)", (partition.as_string(connection),)).fetchone()
            if there == (None,):
                whole = table_name(self._table)
                connection.execute(SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(partition, whole))
                first, after = (Literal(f"{bound}-01T00:00:00Z") for bound in (month, _next_month(month)))
                sql = SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})")
                connection.execute(sql.format(whole, partition, first, after))
        self._months.add(month)


def _next_month(month: str) -> str:
    year, number = map(int, month.split("-"))
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


def _definitions(table: str) -> Iterator[tuple[str, list[Composed]]]:
    """What makes the tables, by the suffix of each."""
    defined = [
        SQL("{} {}{}").format(Identifier(name), _SQL_TYPES[kind], SQL(" NOT NULL" if name in _NEEDED else ""))
        for name, kind in columns().items()
    ]
    exports, refusals, marks = (table_name(table, suffix) for suffix in ("", "_refusals", "_marks"))
    create = SQL("CREATE TABLE {} ({}, PRIMARY KEY (export_id, ended_at)) PARTITION BY RANGE (ended_at)")
    order = SQL("CREATE INDEX ON {} (ended_at, log, seq)")
    yield "", [create.format(exports, SQL(", ").join(defined)), order.format(exports)]
    create = SQL(
        "CREATE TABLE {} (gateway text NOT NULL, log bigint NOT NULL, hash text NOT NULL, minute timestamptz NOT NULL,"
        " tenant text NOT NULL, reason text NOT NULL, count bigint NOT NULL, PRIMARY KEY (gateway, log, hash))"
    )
    yield "_refusals", [create.format(refusals), SQL("CREATE INDEX ON {} (minute)").format(refusals)]
    create = SQL(
        "CREATE TABLE {} (gateway text NOT NULL, log bigint NOT NULL, segment bigint NOT NULL,"
        " position bigint NOT NULL, hash text NOT NULL, seq bigint NOT NULL,"
        " moved_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (gateway, log))"
    )
    yield "_marks", [create.format(marks)]


# ---- connections


def connect(url: str) -> psycopg.Connection[Any]:
    """A connection that commits by itself and notices a peer that is gone."""
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # The driver would show the part that it cannot read, which may be a password.
        raise SinkError("PostgreSQL: the URL cannot be read; encode special characters in it as %XX") from None
    connection = psycopg.connect(
        url, autocommit=True, connect_timeout=CONNECT_S, application_name="tokenport", keepalives_idle=30
    )
    connection.execute("SET TIME ZONE 'UTC'")
    return connection


@contextmanager
def told(table: str) -> Iterator[None]:
    """Errors of the driver as one line."""
    try:
        yield
    except psycopg.Error as error:
        lines = " ".join(str(error).split()) or type(error).__name__
        raise SinkError(f"PostgreSQL, table {table}: {lines}") from error


@contextmanager
def _alone(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """A transaction that changes tables: one at a time in a database, and never long in the way of others."""
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS}")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
        yield


@contextmanager
def _cut_after(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """A server that says nothing more, and does not close either, must not hold this thread for ever."""
    peer = socket.socket(fileno=os.dup(connection.fileno()))

    def cut() -> None:
        with suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        peer.close()


def rows_of(connection: psycopg.Connection[Any], sql: Composed, values: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """The answer to a query, in pieces, so that a long one needs no memory."""
    with connection.transaction(), connection.cursor("tokenport_rows") as cursor:
        cursor.itersize = 1000
        yield from cursor.execute(sql, tuple(values))
