"""The figures of all gateways that ship into one PostgreSQL: what `gateway.ledger.reading.Reader` answers over one
ledger, from the table of exports."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.sql import SQL, Composable, Composed, Identifier

from gateway.ledger.instants import DAY_US, micros
from gateway.ledger.reading import EVERYTHING, Filter
from gateway.ledger.segment import Record
from gateway.ledger.tables import FIGURES, SUMS
from gateway.shipping.periods import period_starts
from gateway.shipping.postgres import connect, rows_of, table_name, told
from pricing.export import COLUMNS

_TEXTS = frozenset(column.name for column in COLUMNS if column.kind == "text")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_FIGURES = SQL(", ").join(
    [
        SQL("count(*)"),
        SQL("coalesce(sum(delivered_tokens) FILTER (WHERE exported), 0)"),
        *(SQL("coalesce(sum({}), 0)").format(Identifier(name)) for name in SUMS),
    ]
)


class PostgresReader:
    """Read-only, a context manager. Bounds of time are epoch seconds; None: no bound.

    Every question is answered as of the moment it is asked; rows that are shipped meanwhile are in the next answer.
    """

    def __init__(self, url: str, table: str = "exports") -> None:
        self._table = table
        with told(table):
            self._connection = connect(url)

    def __enter__(self) -> "PostgresReader":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def rows(
        self, start: float | None = None, end: float | None = None, where: Filter = EVERYTHING
    ) -> Iterator[Record]:
        """The exports that ended in [start, end), in order of their end, log and seq; columns as in the contract."""
        names = SQL(", ").join(
            SQL(_RFC3339 if column.kind == "time" else "{}").format(Identifier(column.name)) for column in COLUMNS
        )
        condition, values = _within("ended_at", start, end, where)
        sql = SQL("SELECT {} FROM {} WHERE {} ORDER BY exports.ended_at, log, seq, gateway").format(
            names, self._exports(), condition
        )
        with told(self._table):
            for row in rows_of(self._connection, sql, values):
                yield dict(zip((column.name for column in COLUMNS), row, strict=True))

    def sums(
        self,
        by: Sequence[str] = (),
        period: str | None = None,
        tz: str = "UTC",
        start: float | None = None,
        end: float | None = None,
        where: Filter = EVERYTHING,
    ) -> list[Record]:
        """Sums over the exports that ended in [start, end), as those over one ledger.

        Raises:
            ValueError: no such column, period or time zone.
        """
        unknown = [name for name in (*by, *where) if name not in _TEXTS]
        if unknown:
            raise ValueError(f"{unknown[0]} is not a column to group by")
        keys = [name for name in dict.fromkeys(by) if name != "currency"]
        condition, values = _within("ended_at", start, end, where)
        with told(self._table):
            starts, labels = self._periods(period, tz, condition, values)
            number = SQL("width_bucket(ended_at, %s::timestamptz[])" if starts else "%s::bigint")
            named = [SQL("coalesce({}, '') COLLATE \"C\"").format(Identifier(name)) for name in (*keys, "currency")]
            places = SQL(", ").join(SQL(str(place)) for place in range(1, len(keys) + 3))
            sql = SQL("SELECT {}, {} FROM {} WHERE {} GROUP BY {} ORDER BY {}").format(
                SQL(", ").join([number, *named]), _FIGURES, self._exports(), condition, places, places
            )
            found = self._connection.execute(sql, (starts or 1, *values)).fetchall()
        return [_sum(row, keys, labels if period is not None else None) for row in found]

    def expired(self, start: float | None = None, end: float | None = None) -> int:
        """Of how many exports only sums are left: of none, a store keeps all rows."""
        return 0

    def refusals(self, start: float | None = None, end: float | None = None) -> list[Record]:
        """Refused requests by minute, tenant and reason, of the minutes that began in [start, end)."""
        condition, values = _within("minute", start, end, {})
        sql = SQL(
            "SELECT {}, tenant, reason, sum(count) FROM {} WHERE {} GROUP BY minute, tenant, reason"
            ' ORDER BY minute, tenant COLLATE "C", reason COLLATE "C"'
        ).format(SQL(_RFC3339).format(Identifier("minute")), table_name(self._table, "_refusals"), condition)
        with told(self._table):
            found = self._connection.execute(sql, values).fetchall()
        return [
            {"minute": minute, "tenant": tenant, "reason": reason, "count": int(count)}
            for minute, tenant, reason, count in found
        ]

    def _exports(self) -> Composed:
        return SQL("{} AS exports").format(table_name(self._table))

    def _periods(
        self, period: str | None, tz: str, condition: Composed, values: list[Any]
    ) -> tuple[list[datetime], list[str]]:
        """The beginnings and names of the periods that there are rows in; checked, even if there are none."""
        period_starts(period, tz, 0, 0)
        if period is None:
            return [], []
        sql = SQL("SELECT min(ended_at), max(ended_at) FROM {} WHERE {}").format(self._exports(), condition)
        first, last = self._connection.execute(sql, values).fetchone() or (None, None)
        if first is None or last is None:
            return [], []
        starts, labels = period_starts(period, tz, _us(first), _us(last))
        return [_moment(start_us) for start_us in starts], labels


def _within(column: str, start: float | None, end: float | None, where: Filter) -> tuple[Composed, list[Any]]:
    """Bounds as a condition, so that the store looks into the months it needs."""
    parts: list[Composable] = [SQL("true")]
    values: list[Any] = []
    for bound, sign in ((start, SQL("{} >= %s")), (end, SQL("{} < %s"))):
        if bound is not None:
            parts.append(sign.format(Identifier(column)))
            values.append(_moment(micros(bound)))
    for name, wanted in where.items():
        parts.append(SQL("coalesce({}, '') = ANY(%s)").format(Identifier(name)))
        values.append(list(wanted))
    return SQL(" AND ").join(parts), values


def _sum(row: Sequence[Any], keys: Sequence[str], labels: Sequence[str] | None) -> Record:
    number, *texts = row[: len(keys) + 2]
    found: Record = {} if labels is None else {"period": labels[number - 1]}
    found |= {name: text or None for name, text in zip((*keys, "currency"), texts, strict=True)}
    return found | dict(zip(FIGURES, map(int, row[len(keys) + 2 :]), strict=True))


def _moment(instant_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=instant_us)


def _us(moment: datetime) -> int:
    since = moment - _EPOCH
    return since.days * DAY_US + since.seconds * 1_000_000 + since.microseconds
