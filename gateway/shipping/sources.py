"""Where figures come from: the ledger of this gateway, or a store that many gateways ship to."""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from gateway.config import SinkSettings
from gateway.ledger.reading import Filter, Reader
from gateway.ledger.segment import Record

_POSTGRES = ("postgres", "postgresql")
_CLICKHOUSE = {"clickhouse+http": "http", "clickhouse+https": "https", "clickhouse": "https"}
_TABLE = re.compile(r"[A-Za-z0-9_.]{1,100}")


class SourceError(Exception):
    """Figures cannot be read from there; one line that says what to do."""


class Figures(Protocol):
    """What `Reader` answers over one ledger, whatever is asked."""

    def rows(self, start: float | None = None, end: float | None = None, where: Filter = ...) -> Iterator[Record]: ...

    def sums(
        self,
        by: Sequence[str] = (),
        period: str | None = None,
        tz: str = "UTC",
        start: float | None = None,
        end: float | None = None,
        where: Filter = ...,
    ) -> list[Record]: ...

    def expired(self, start: float | None = None, end: float | None = None) -> int: ...

    def refusals(self, start: float | None = None, end: float | None = None) -> list[Record]: ...


def figures_of(source: str, sinks: Sequence[SinkSettings], data_dir: Path | None) -> AbstractContextManager[Figures]:
    """The figures of a source: the name of a sink, a URL, or "" for the ledger in `data_dir`.

    Raises:
        SourceError: there is no such source, or its driver is not installed.
    """
    if not source:
        if data_dir is None:
            raise SourceError("no configuration names a ledger; give --config FILE, or --source URL")
        return Reader(data_dir)
    for sink in sinks:
        if sink.name == source:
            return _store(sink.kind, sink.url, sink.table, sink.ca_file)
    parts = urlsplit(source)
    given = dict(parse_qsl(parts.query))
    table = given.pop("table", "exports")
    if not _TABLE.fullmatch(table):
        raise SourceError(f"--source: {table} is not the name of a table")
    rest = urlunsplit(parts._replace(query=urlencode(given)))
    if parts.scheme in _POSTGRES:
        return _store("postgres", rest, table, None)
    if parts.scheme in _CLICKHOUSE:
        return _store("clickhouse", urlunsplit(parts._replace(scheme=_CLICKHOUSE[parts.scheme], query="")), table, None)
    names = ", ".join(sink.name for sink in sinks if sink.kind != "nats")
    known = f" or one of: {names}" if names else ""
    raise SourceError(f"--source is no store; give postgres://USER@HOST/DATABASE, clickhouse+https://USER@HOST{known}")


def _store(kind: str, url: str, table: str, ca_file: Path | None) -> AbstractContextManager[Figures]:
    if kind == "postgres":
        try:
            from gateway.shipping.postgres_reader import PostgresReader
        except ImportError:
            raise SourceError("PostgreSQL needs an extra; install it: pip install 'tokenport[postgres]'") from None
        return PostgresReader(url, table)
    if kind == "clickhouse":
        from gateway.shipping.clickhouse_reader import ClickHouseReader

        return ClickHouseReader(url, table, ca_file)
    raise SourceError("a NATS stream holds rows and no sums; give a store of kind postgres or clickhouse")
