"""The index on disk: a view of the logs that can be deleted and rebuilt at any time (tables and fold: `folding`).

One connection, the supervisor's, writes and checkpoints (before 3.51.3 SQLite could corrupt a file otherwise); everyone
else opens it read-only (`reading`). It takes what the heads of the logs acknowledge and nothing beyond: a record that a
power loss may still take back must not outlive it here.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from gateway.ledger.folding import Fold
from gateway.ledger.following import LogsDiffer, Position
from gateway.ledger.outlived import forget_rows, forget_shared
from gateway.ledger.segment import Head, logs, read_head
from gateway.ledger.tables import SCHEMA, SCHEMA_VERSION, create_tables

INDEX_NAME = "index.db"

_CHECKED_BYTES_MAX = 256 * 1024 * 1024  # up to this a start looks through the whole file, in about a second

# Primary result codes of SQLite that say that the file itself is wrong, not the disk, the rights or the moment.
_DAMAGE_CODES = frozenset(
    (
        sqlite3.SQLITE_ERROR,  # no such table
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_NOTADB,
    )
)


def is_damage(error: sqlite3.Error) -> bool:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF in _DAMAGE_CODES or code == sqlite3.SQLITE_IOERR_SHORT_READ)


class Index:
    """The writing connection. May be used from one thread at a time, whichever that is."""

    def __init__(self, path: Path) -> None:
        """Open the index, or begin an empty one where there is none, a damaged one or one of another version.

        Raises:
            OSError: the file cannot be used.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._begin()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise _unusable(path, error) from error
            self._remove()
            self._begin()

    def fold(self, ledger: Path) -> int:
        """Take in what the logs acknowledge by now. Returns the number of new records.

        Raises:
            OSError: not possible now (disk full); nothing is lost by trying again.
        """
        try:
            return self._fold(ledger)
        except LogsDiffer:
            self.rebuild()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise _unusable(self.path, error) from error
            self.rebuild()
        return self._fold(ledger)

    def shrink(self, ledger: Path) -> int:
        """Take a step on the way of letting go of rows whose segments are gone. Returns how many went; 0: nothing is
        left to do.

        Raises:
            OSError: not possible now; nothing is lost by trying again.
        """
        try:
            for log in logs(ledger):
                if found := forget_rows(self._connection, ledger / str(log), log):
                    self._shrinking = True
                    return found
            if self._shrinking:
                self._fold_in = Fold(self._connection)  # it remembers what may go now
                forget_shared(self._connection)
                self._shrinking = False
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from error
        return 0

    def rebuild(self) -> None:
        """Begin again with an empty index."""
        self.close()
        self._remove()
        self._begin()

    def close(self) -> None:
        with suppress(sqlite3.Error):  # a damaged file may not even close cleanly
            self._connection.close()

    def _fold(self, ledger: Path) -> int:
        total = 0
        for log in logs(ledger):
            head = _acknowledged(ledger / str(log))
            if head is not None:
                total += self._fold_in.add_log(ledger / str(log), log, head)
        return total

    def _begin(self) -> None:
        self._connection = self._open()
        self._fold_in = Fold(self._connection)
        self._shrinking = False

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file, before anything else
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
            if tables and (version != SCHEMA_VERSION or tables != set(SCHEMA)):
                raise _damage(f"{self.path} has another schema")
            if not tables:
                connection.execute("BEGIN IMMEDIATE")
                create_tables(connection)
                connection.execute("COMMIT")
            elif self.path.stat().st_size <= _CHECKED_BYTES_MAX:
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if found != "ok":
                    raise _damage(f"{self.path}: {found}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


def folded_positions(path: Path) -> dict[int, Position]:
    """How far each log is in the index at this path; nowhere, if there is none or it cannot be read."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
                return {}
            found = connection.execute("SELECT log, segment, offset FROM folded").fetchall()
    except sqlite3.Error:
        return {}
    return {log: Position(segment, offset) for log, segment, offset in found}


def _acknowledged(directory: Path) -> Head | None:
    """None where the head cannot be read: its worker, or recovery, will write it anew."""
    try:
        return read_head(directory)
    except ValueError:
        return None


def _unusable(path: Path, error: sqlite3.Error) -> OSError:
    return OSError(f"{path}: {error}")


def _damage(problem: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(problem)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
