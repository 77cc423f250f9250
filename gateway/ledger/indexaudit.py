"""Half of the audit: is the index the view of the logs that it claims to be?

The index is looked at in one moment, before the logs are read, so that it can only be behind them. What it has folded
is then compared row by row as the walk through the logs passes by.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.ledger.folding import id_of, is_held, row_values
from gateway.ledger.following import Position
from gateway.ledger.segment import Line
from gateway.ledger.tables import DAYS_OF_ROLLUPS, ROLLUPS_OF_EXPORTS, SCHEMA_VERSION, SPENT_OF_EXPORTS
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

    def row(self, log: int, record: Mapping[str, Any]) -> str:
        """What is wrong with the index's copy of a row; empty if nothing."""
        expected = row_values(dict(record))
        found = self._fetch("SELECT * FROM exports WHERE id = ?", id_of(record["export_id"]))
        if not found:
            return "is not in the index"
        self._rows[log] += 1
        differing = [name for name, a, b in zip((*NAMES, "", "", ""), found[0], expected, strict=True) if a != b]
        return f"differs in the index: {', '.join(filter(None, differing))}" if differing else ""

    def refused(self, record: Mapping[str, Any]) -> None:
        self._refusals[record["minute"], record["tenant"], record["reason"]] += record["count"]

    def finish(self) -> list[str]:
        """What is wrong with the index as a whole, after all rows went by."""
        problems = [self._problem] if self._problem else []
        if self._connection is None:
            return problems
        for log, count in self._fetch("SELECT log, count(*) FROM exports GROUP BY log"):
            if count > self._rows[log]:
                problems.append(f"has {count - self._rows[log]} rows of log {log} that the log does not have")
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
        if self._problem and self._problem not in problems:
            problems.append(self._problem)
        return list(dict.fromkeys(problems))

    def _fetch(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        if self._connection is None or self._problem:
            return []
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            self._problem = f"cannot be read ({error}): {_DELETE_IT}"
            return []
