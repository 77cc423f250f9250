"""The loop of one store: what comes next of each log, delivered, and the mark moved.

It blocks, and so runs in a thread of its own. Logs take turns, a batch each. Whatever goes wrong is told once, and the
store is tried again later and later, from scratch: its own marks say where to go on.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Protocol

from gateway.ledger.following import LogsDiffer, Position
from gateway.ledger.instants import MICROS, parse_us
from gateway.ledger.segment import (
    HEADERS,
    Head,
    LedgerTooNew,
    Place,
    Record,
    logs,
    read_head,
    segment_numbers,
    segment_path,
)
from gateway.ledger.segmentfile import read_record
from gateway.shipping import cursor
from gateway.shipping.batch import Batch, Mark, check_version, next_batch
from gateway.telemetry import SINK_BACK, SINK_FAILED, SINK_REREAD, SINK_SKIPPED

logger = logging.getLogger("tokenport.shipping")

POLL_S = 1.0  # how old a row is at most before it is looked for
BACKOFF_S_MIN = 0.5
BACKOFF_S_MAX = 30.0  # a store that is back is noticed within this
LAST_S = 3.0  # for what is left when the gateway stops; the rest is shipped after the next start
SKIPPED_TOLD_MAX = 20  # log lines about one batch: a whole segment may be damaged


class SinkError(Exception):
    """A store did not take what it was given, for a reason that can be told in a line."""


class Sink(Protocol):
    """A store, seen by its shipper. All of it may block, for a time that the store's driver bounds."""

    @property
    def keyed(self) -> bool:
        """Whether delivering a row again changes nothing, however much later."""
        ...

    def open(self) -> Mapping[int, Mark]:
        """Connect. Returns how far the store has taken each log of this gateway, as far as it can tell."""
        ...

    def deliver(self, batch: Batch) -> None:
        """Take a batch, whole or not at all; durable when it returns."""
        ...

    def close(self) -> None:
        """Let go of the connection; may be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class Condition:
    """How a store is doing, as far as its shipper knows. Times are epoch seconds."""

    name: str
    kind: str
    reachable: bool | None = None  # None: not tried yet
    since: float = 0.0  # when `reachable` became what it is
    problem: str = ""
    rows: int = 0  # shipped since the start
    skipped: int = 0  # lines passed over
    failures: int = 0
    lag_rows: int = 0
    lag_bytes: int = 0  # of the logs, as they lie on disk
    oldest_at: float | None = None  # end of the oldest row that waits

    def lag_s(self, now: float) -> float:
        return max(0.0, now - self.oldest_at) if self.lag_rows and self.oldest_at is not None else 0.0


def backoff_s(failures: int, rng: Random) -> float:
    """Half of it is chance: many gateways come back to one store."""
    longest = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2.0 ** min(failures - 1, 16))
    return rng.uniform(longest / 2, longest)


@dataclass(slots=True)
class _Lag:
    rows: int = 0
    size: int = 0
    oldest_at: float | None = None
    seen: Position | None = None  # where `oldest_at` was looked for


@dataclass(slots=True)
class Shipper:
    """One store and all logs of a data directory."""

    name: str
    kind: str
    sink: Sink
    data_dir: Path
    batch_rows: int
    now: Callable[[], float]
    rng: Random = field(default_factory=Random)
    condition: Condition = field(init=False)  # replaced whole: others look at it from their threads
    _marks: dict[int, Mark] = field(init=False)
    _saved: dict[int, Position] = field(init=False)
    _lags: dict[int, _Lag] = field(init=False, default_factory=dict)
    _open: bool = field(init=False, default=False)
    _failed_in_a_row: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.condition = Condition(self.name, self.kind)
        self._saved = cursor.load(self.data_dir, self.name)
        self._marks = {log: self._from_file(log, position) for log, position in self._saved.items()}

    def run(self, wait: Callable[[float], bool]) -> None:
        """Ship until `wait(seconds)` says that it is time to stop; then once more what is there, if the store is."""
        pause_s = 0.0
        while not wait(pause_s):
            pause_s = self.turn()
        until = self.now() + LAST_S
        while self._open and self.now() < until and self.turn() == 0.0:
            pass
        self._close()

    def turn(self) -> float:
        """One batch of each log. Returns how long to wait for the next turn."""
        try:
            if not self._open:
                self._connect()
            more = [self._ship(log) for log in logs(self.data_dir / "ledger")]
        except Exception as error:
            # The boundary of this store: whatever it was, everything else goes on, and it is tried again.
            return self._fail(error)
        self._failed_in_a_row = 0
        self._tell(reachable=True)
        return 0.0 if any(more) else POLL_S

    def _connect(self) -> None:
        known = self.sink.open()
        self._open = True
        if self.sink.keyed:
            self._marks.clear()  # what the store does not know of, it does not have
        self._marks.update(known)
        self._lags.clear()
        for log, mark in self._marks.items():
            check_version(self._first_record(log, mark.position) or {})

    def _ship(self, log: int) -> bool:
        """Whether there may be more."""
        directory, mark = self.data_dir / "ledger" / str(log), self._marks.get(log, Mark())
        head = _head(directory)
        if head is None:
            return False
        try:
            batch = next_batch(directory, log, mark, head, self.batch_rows)
        except LogsDiffer as difference:
            if not self.sink.keyed or mark == Mark():
                raise
            logger.warning(SINK_REREAD, extra={"sink": self.name, "log": log, "problem": str(difference)})
            self._marks[log] = Mark()
            return True
        if batch is None:
            self._measure(log, directory, head, None)
            return False
        self._measure(log, directory, head, batch)
        if not batch.empty:
            self.sink.deliver(batch)
        self._marks[log] = batch.end
        self._note(batch)
        self._save(log, batch.end.position)
        self._measure(log, directory, head, None)
        return batch.end.position != Position(head.segment, head.offset)

    def _save(self, log: int, position: Position) -> None:
        self._saved[log] = position
        cursor.save(self.data_dir, self.name, self._saved)

    def _note(self, batch: Batch) -> None:
        told = self.condition
        rows, skipped = told.rows + len(batch.rows), told.skipped + len(batch.skipped)
        self.condition = replace(told, rows=rows, skipped=skipped)
        for place, problem in batch.skipped[:SKIPPED_TOLD_MAX]:
            where = {"log": batch.log, "segment": place.segment, "offset": place.offset}
            logger.warning(SINK_SKIPPED, extra={"sink": self.name, **where, "problem": problem})

    # ---- failures

    def _fail(self, error: Exception) -> float:
        self._close()
        self._failed_in_a_row += 1
        problem = " ".join(f"{type(error).__name__}: {error}".split()) or repr(error)
        if isinstance(error, (SinkError, LogsDiffer, LedgerTooNew)):
            problem = str(error)
        if problem != self.condition.problem or self.condition.reachable is not False:
            logger.error(SINK_FAILED, extra={"sink": self.name, "problem": problem})
        self.condition = replace(self.condition, failures=self.condition.failures + 1)
        try:
            for log in logs(self.data_dir / "ledger"):
                self._look_ahead(log, self.data_dir / "ledger" / str(log))
        except Exception:
            # What waits is then as it was last known: to ship again matters more.
            logger.exception("lag not measured", extra={"sink": self.name})
        self._tell(reachable=False, problem=problem)
        return backoff_s(self._failed_in_a_row, self.rng)

    def _close(self) -> None:
        self._open = False
        try:
            self.sink.close()
        except Exception as error:
            logger.debug("sink not closed", extra={"sink": self.name, "problem": str(error)})

    # ---- lag

    def _tell(self, *, reachable: bool, problem: str = "") -> None:
        before, lags = self.condition, self._lags.values()
        oldest = [lag.oldest_at for lag in lags if lag.rows and lag.oldest_at is not None]
        if reachable and before.reachable is False:
            logger.info(SINK_BACK, extra={"sink": self.name})
        self.condition = replace(
            before,
            reachable=reachable,
            since=before.since if before.reachable is reachable else self.now(),
            problem=problem,
            lag_rows=sum(lag.rows for lag in lags),
            lag_bytes=sum(lag.size for lag in lags),
            oldest_at=min(oldest, default=None),
        )

    def _measure(self, log: int, directory: Path, head: Head, batch: Batch | None) -> None:
        """What a log has beyond the mark of the store; `batch` is what comes next of it, if that was read."""
        mark = self._marks.get(log, Mark())
        lag = self._lags.setdefault(log, _Lag())
        lag.rows = max(0, head.seq - mark.seq)
        lag.size = bytes_between(directory, mark.position, Position(head.segment, head.offset))
        if batch is not None and batch.rows:
            lag.oldest_at, lag.seen = _ended(batch.rows[0].record), mark.position

    def _look_ahead(self, log: int, directory: Path) -> None:
        """The same while the store takes nothing: the oldest row is looked for once."""
        head = _head(directory)
        if head is None:
            return
        mark = self._marks.get(log, Mark())
        self._measure(log, directory, head, None)
        lag = self._lags[log]
        if lag.rows and lag.seen != mark.position:
            try:
                self._measure(log, directory, head, next_batch(directory, log, mark, head, 1))
            except (LogsDiffer, LedgerTooNew):
                lag.oldest_at = None

    def _from_file(self, log: int, position: Position) -> Mark:
        """A mark of which only the position is known; its `seq` is that of its segment's beginning, so that the lag is
        rather too large."""
        first = self._first_record(log, position)
        return Mark(position, "", first["seq"] if first is not None else 0)

    def _first_record(self, log: int, position: Position) -> Record | None:
        """Of the segment that a position is in."""
        found = read_record(self.data_dir / "ledger" / str(log), Place(position.segment, 0))
        return found if found is not None and found["record"] in HEADERS else None


def bytes_between(directory: Path, start: Position, end: Position) -> int:
    """Bytes of a log that lie between two positions; of a segment that is compressed already, those it has now."""
    total = 0
    for segment in segment_numbers(directory):
        if start.segment <= segment <= end.segment:
            first = start.offset if segment == start.segment else 0
            last = end.offset if segment == end.segment else _size(directory, segment)
            total += max(0, last - first)
    return total


def _size(directory: Path, segment: int) -> int:
    plain = segment_path(directory, segment)
    for path in (plain, plain.with_name(plain.name + ".zst")):
        try:
            return path.stat().st_size
        except FileNotFoundError:
            continue
    return 0


def _head(directory: Path) -> Head | None:
    """None where the head cannot be read: its worker, or recovery, will write it anew."""
    try:
        return read_head(directory)
    except ValueError:
        return None


def _ended(record: Record) -> float:
    return parse_us(record["ended_at"]) / MICROS
