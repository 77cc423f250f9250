"""Half of the audit: is the index the view of the logs that it claims to be?

The index is looked at in one moment, before the logs are read, so that it can only be behind them. What it has folded
is then compared row by row as the walk through the logs passes by.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.ledger.content import whole
from gateway.ledger.folding import id_of, is_held, row_values
from gateway.ledger.following import Position
from gateway.ledger.rollups import Rollups
from gateway.ledger.seals import Seal
from gateway.ledger.segment import Line
from gateway.ledger.tables import (
    DAYS_OF_ROLLUPS,
    FIGURES,
    FIGURES_OF_ROW,
    IS_THERE,
    OUTLIVED,
    ROLLUP_KEY,
    ROLLUPS_OF_EXPORTS,
    SCHEMA_VERSION,
    SPENT_OF_EXPORTS,
    SUMS,
    marks,
)
from pricing.export import NAMES

_DELETE_IT = "delete it, and it is rebuilt"


class IndexAudit:
    """Without an index, or with one of another version, there is nothing to compare."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problem = ""
        self._connection: sqlite3.Connection | None = None
        self._folded: dict[int, Position] = {}
        self._rows: Counter[int] = Counter()  # by log, those that are in the index
        self._refusals: Counter[tuple[str, str, str]] = Counter()
        self._refused = 0
        self._by_seal = False  # some of it was only told by seals
        self._sums: Counter[str] = Counter()  # over the rows that are in the index
        self._outlived: Counter[str] = Counter()  # over the rows of which only sums are left
        if not path.exists():
            return
        try:
            self._connection = self._open(path)
        except sqlite3.Error as error:
            self._problem = f"cannot be read ({error}): {_DELETE_IT}"

    def _open(self, path: Path) -> sqlite3.Connection | None:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
                connection.close()
                return None
            for statement in OUTLIVED:
                connection.execute(statement)
            connection.execute("BEGIN")
            for log, segment, offset in connection.execute("SELECT log, segment, offset FROM folded"):
                self._folded[log] = Position(segment, offset)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def holds(self, log: int, line: Line) -> bool:
        """Whether the index has read this line, and could."""
        if self._connection is None or not line.whole:
            return False
        folded = self._folded.get(log, Position(0, 0))
        return (line.segment, line.offset) < folded and is_held(line.data)

    def reaches_none_or_all(self, seal: Seal) -> bool:
        """Whether the index has read a sealed segment whole, or nothing of it."""
        folded = self._folded.get(seal.log, Position(0, 0))
        return not (seal.segment, 0) < folded < (seal.segment, seal.plain_bytes)

    def sealed(self, seal: Seal) -> None:
        """A segment that is not walked: what the index has of it is compared by its sums."""
        if self._connection is not None and (seal.segment, seal.plain_bytes) <= self._folded.get(seal.log, (0, 0)):
            self._by_seal = True
            self._rows[seal.log] += seal.rows
            self._sums.update(seal.sums)
            self._refused += seal.refused

    def outlived(self, seal: Seal, rollups: Rollups) -> None:
        """A segment of which only the sums are left: the index has them, and may still have rows of it."""
        connection = self._connection
        if connection is None or self._folded.get(seal.log, Position(0, 0)).segment <= seal.segment:
            return
        bounds = seal.log, seal.seq_before, seal.seq_before + seal.rows
        connection.execute("INSERT INTO temp.gone VALUES (?, ?, ?)", bounds)
        places = 1 + len(ROLLUP_KEY) + len(FIGURES)
        connection.executemany(f"INSERT INTO temp.outlived VALUES ({marks(places)})", rollups.sums)
        connection.executemany("INSERT INTO temp.outlived_spent VALUES (?, ?, ?, ?)", rollups.spent())
        self._outlived.update(rollups.totals())
        for minute, tenant, reason, count in rollups.refusals:
            self._refusals[minute, tenant, reason] += count
            self._refused += count

    def row(self, log: int, record: Mapping[str, Any]) -> str:
        """What is wrong with the index's copy of a row; empty if nothing."""
        expected = row_values(dict(record))
        found = self._fetch("SELECT * FROM exports WHERE id = ?", id_of(record["export_id"]))
        if not found:
            return "is not in the index"
        self._rows[log] += 1
        for name in SUMS:
            self._sums[name] += whole(record.get(name))
        if record.get("exported") is True:
            self._sums["exported_tokens"] += whole(record.get("delivered_tokens"))
        differing = [name for name, a, b in zip((*NAMES, "", "", ""), found[0], expected, strict=True) if a != b]
        return f"differs in the index: {', '.join(filter(None, differing))}" if differing else ""

    def refused(self, record: Mapping[str, Any]) -> None:
        self._refusals[record["minute"], record["tenant"], record["reason"]] += record["count"]
        self._refused += record["count"]

    def finish(self) -> list[str]:
        """What is wrong with the index as a whole, after all rows went by."""
        problems = [self._problem] if self._problem else []
        if self._connection is None:
            return problems
        for log, count in self._fetch(f"SELECT log, count(*) FROM ends WHERE {IS_THERE} GROUP BY log"):
            if count > self._rows[log]:
                problems.append(f"has {count - self._rows[log]} rows of log {log} that the log does not have")
        problems += self._total_problems() if self._by_seal else self._sum_problems()
        if self._problem and self._problem not in problems:
            problems.append(self._problem)
        return list(dict.fromkeys(problems))

    def _sum_problems(self) -> list[str]:
        """Whether every sum is that of its rows, each of which has been looked at."""
        problems: list[str] = []
        sums = ROLLUPS_OF_EXPORTS
        for one, other in (("SELECT * FROM quarter_sums", sums), (sums, "SELECT * FROM quarter_sums")):
            quarters = self._fetch(f"SELECT DISTINCT quarter FROM ({one} EXCEPT {other}) LIMIT 1")
            problems += [f"rollups of quarter {quarter} are not the sums of its rows" for (quarter,) in quarters]
        for one, other in (("SELECT * FROM days", DAYS_OF_ROLLUPS), (DAYS_OF_ROLLUPS, "SELECT * FROM days")):
            days = self._fetch(f"SELECT DISTINCT day FROM ({one} EXCEPT {other}) LIMIT 1")
            problems += [f"sums of day {day} are not the sums of its rollups" for (day,) in days]
        for one, other in (("SELECT * FROM spent", SPENT_OF_EXPORTS), (SPENT_OF_EXPORTS, "SELECT * FROM spent")):
            logs = self._fetch(f"SELECT DISTINCT log FROM ({one} EXCEPT {other}) LIMIT 1")
            problems += [f"what budgets have used by log {log} is not the sum of its rows" for (log,) in logs]
        found = {(minute, tenant, reason): n for minute, tenant, reason, n in self._fetch("SELECT * FROM refusals")}
        if found != dict(self._refusals):
            problems.append("refusals are not those of the logs")
        return problems

    def _total_problems(self) -> list[str]:
        """Whether rows and sums add up to what seals and lines say: one look at each row, where to compare every sum
        with its rows takes ten times as long."""
        expected = {"requests": sum(self._rows.values()), **{name: self._sums[name] for name in FIGURES[1:]}}
        summed = {name: expected[name] + self._outlived[name] for name in FIGURES}
        spent = summed["input_tokens"] + summed["billed_output_tokens"]
        figures = ", ".join(f"coalesce(sum({name}), 0)" for name in FIGURES)
        looks = (
            ("rows", FIGURES, f"SELECT {figures} FROM (SELECT {FIGURES_OF_ROW} FROM exports WHERE {IS_THERE})"),
            ("rollups", FIGURES, f"SELECT {figures} FROM rollups"),
            ("days", FIGURES, f"SELECT {figures} FROM days"),
            ("budgets", ("tokens",), "SELECT coalesce(sum(tokens), 0) FROM spent"),
            ("refusals", ("count",), "SELECT coalesce(sum(count), 0) FROM refusals"),
        )
        problems: list[str] = []
        for what, names, sql in looks:
            values = (expected if what == "rows" else summed) | {"tokens": spent, "count": self._refused}
            found = dict(zip(names, next(iter(self._fetch(sql)), ()), strict=False))
            wrong = [name for name in names if name in found and found[name] != values[name]]
            if wrong:
                problems.append(
                    f"{what} add up to other {', '.join(wrong)} than the logs: verify --deep says where; {_DELETE_IT}"
                )
        return problems

    def _fetch(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        if self._connection is None or self._problem:
            return []
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            self._problem = f"cannot be read ({error}): {_DELETE_IT}"
            return []
