"""The figures of all gateways that ship into one ClickHouse: what `gateway.ledger.reading.Reader` answers over one
ledger, from the table of exports."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.ledger.instants import micros, rfc3339
from gateway.ledger.reading import EVERYTHING, Filter
from gateway.ledger.segment import Record
from gateway.ledger.tables import FIGURES, SUMS
from gateway.shipping.clickhouse import ClickHouse
from gateway.shipping.periods import period_starts
from pricing.export import COLUMNS

_TEXTS = frozenset(column.name for column in COLUMNS if column.kind == "text")
_MOMENT = "fromUnixTimestamp64Micro({{{}:Int64}}, 'UTC')"
_FIGURES = ", ".join(
    (
        "count()",
        "sumIf(coalesce(delivered_tokens, 0), coalesce(exported, false))",
        *(f"sum(coalesce({name}, 0))" for name in SUMS),
    )
)


class ClickHouseReader:
    """Read-only, a context manager. Bounds of time are epoch seconds; None: no bound."""

    def __init__(self, url: str, table: str = "exports", ca_file: Path | None = None) -> None:
        self._table = table
        self._database = ClickHouse(url, ca_file)

    def __enter__(self) -> "ClickHouseReader":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def rows(
        self, start: float | None = None, end: float | None = None, where: Filter = EVERYTHING
    ) -> Iterator[Record]:
        """The exports that ended in [start, end), in order of their end, log and seq; columns as in the contract."""
        names = ", ".join(
            f"toUnixTimestamp64Micro({column.name})" if column.kind == "time" else column.name for column in COLUMNS
        )
        condition, values = _within("ended_at", start, end, where)
        sql = f"SELECT {names} FROM {self._table} FINAL WHERE {condition} ORDER BY ended_at, log, seq, gateway"
        for row in self._database.rows(sql, values):
            yield {column.name: _value(column.kind, value) for column, value in zip(COLUMNS, row, strict=True)}

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
        starts, labels = self._periods(period, tz, condition, values)
        number = "0"
        if starts:
            number = (
                "indexOf({starts:Array(Int64)}, roundDown(toUnixTimestamp64Micro(ended_at), {starts:Array(Int64)}))"
            )
            values = {**values, "starts": starts}
        grouped = ", ".join(f"coalesce({name}, '') AS key_{name}" for name in (*keys, "currency"))
        group = ", ".join(("number", *(f"key_{name}" for name in (*keys, "currency"))))
        sql = f"SELECT {number} AS number, {grouped}, {_FIGURES} FROM {self._table} FINAL WHERE {condition}"
        found = self._database.rows(f"{sql} GROUP BY {group} ORDER BY {group}", values)
        return [_sum(row, keys, labels if period is not None else None) for row in found]

    def expired(self, start: float | None = None, end: float | None = None) -> int:
        """Of how many exports only sums are left: of none, a store keeps all rows."""
        return 0

    def refusals(self, start: float | None = None, end: float | None = None) -> list[Record]:
        """Refused requests by minute, tenant and reason, of the minutes that began in [start, end)."""
        condition, values = _within("minute", start, end, {})
        sql = (
            f"SELECT toUnixTimestamp64Micro(minute), tenant, reason, sum(count) FROM {self._table}_refusals FINAL"
            f" WHERE {condition} GROUP BY minute, tenant, reason ORDER BY minute, tenant, reason"
        )
        return [
            {"minute": rfc3339(minute), "tenant": tenant, "reason": reason, "count": total}
            for minute, tenant, reason, total in self._database.rows(sql, values)
        ]

    def _periods(
        self, period: str | None, tz: str, condition: str, values: Mapping[str, object]
    ) -> tuple[list[int], list[str]]:
        """The beginnings and names of the periods that there are rows in; checked, even if there are none."""
        period_starts(period, tz, 0, 0)
        if period is None:
            return [], []
        bounds = "toUnixTimestamp64Micro(min(ended_at)), toUnixTimestamp64Micro(max(ended_at)), count()"
        found = list(self._database.rows(f"SELECT {bounds} FROM {self._table} WHERE {condition}", values))
        first, last, count = found[0]
        return period_starts(period, tz, first, last) if count else ([], [])


def _within(column: str, start: float | None, end: float | None, where: Filter) -> tuple[str, dict[str, object]]:
    parts, values = ["true"], dict[str, object]()
    for name, bound, sign in (("start", start, ">="), ("end", end, "<")):
        if bound is not None:
            parts.append(f"{column} {sign} {_MOMENT.format(name)}")
            values[name] = micros(bound)
    for name, wanted in where.items():
        parts.append(f"coalesce({name}, '') IN {{wanted_{name}:Array(String)}}")
        values[f"wanted_{name}"] = list(wanted)
    return " AND ".join(parts), values


def _value(kind: str, value: Any) -> object:
    return rfc3339(value) if kind == "time" and value is not None else value


def _sum(row: Sequence[Any], keys: Sequence[str], labels: Sequence[str] | None) -> Record:
    number, *texts = row[: len(keys) + 2]
    found: Record = {} if labels is None else {"period": labels[number - 1]}
    found |= {name: text or None for name, text in zip((*keys, "currency"), texts, strict=True)}
    return found | dict(zip(FIGURES, map(int, row[len(keys) + 2 :]), strict=True))
