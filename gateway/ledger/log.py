"""The log of one worker: appended to by its event loop, written by one thread of its own.

`append` and `terminal` never block: they put the encoded record in a queue and return a ticket. The thread takes what
gathered, commits it (`tail`: one write, one sync) and wakes the loop once. It commits at once when it is idle; what
gathers while it is busy is one commit. A ticket is durable when its commit is; `wait` gives a future for that.

When a write or sync fails, the ledger has failed: it is not writable, everyone who waits is told, no new `open` is
taken. What was not acknowledged stays in memory, in order, and the thread tries to reopen until it can write it; ends
of live requests queue behind it. Nothing is lost and nothing is written twice.
"""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

import orjson

from gateway.ledger import lock
from gateway.ledger.segment import TERMINAL, LedgerTooNew, Place, Record
from gateway.ledger.storage import SegmentIO
from gateway.ledger.tail import MIB, Entry, LogLimits, Tail

DURABLE = 0  # the ticket of what needs no commit
_NUDGE: list[Entry] = []  # wakes the thread and brings nothing
_CLOSE_S_MAX = 10.0  # a sync may hang for ever


class LedgerUnavailable(Exception):
    """The ledger cannot write now; the reason is fit for a log line and for the page."""


class _News(NamedTuple):
    """What the thread tells the loop of one commit."""

    tickets: range
    calls: list[Callable[[], None]]
    failure: str = ""


class LogWriter:
    """Log number `log`, in a directory of its own (`ledger/K`). All methods are for the thread of the loop.

    Without a loop (recovery of a log that no worker has) tickets become durable in `flush` and `close`.
    """

    def __init__(
        self,
        directory: Path,
        log: int,
        loop: asyncio.AbstractEventLoop | None,
        *,
        limits: LogLimits | None = None,
        io: SegmentIO | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the log's lock, check its open segment, and start the thread.

        Raises:
            LedgerBusy: another process holds the lock.
            LedgerUnavailable: the directory or its files cannot be used, or a later version wrote them.
        """
        self.directory = directory
        self.log = log
        self._loop = loop
        self._limits = limits or LogLimits()
        self._io = io or SegmentIO()
        self._clock = clock
        self._lock, self._tail = self._take(now)
        self.found_damage = self._tail.damage
        self.found_open: Mapping[str, Place] = dict(self._tail.state.opens)  # for recovery
        self._open = set(self.found_open)
        self._seq = self._tail.state.seq
        # Of the loop.
        self._ticket = 0
        self._waiters: dict[int, asyncio.Future[None]] = {}
        self._closing = False
        # Written by the thread, read by the loop: single assignments.
        self._committed = 0
        self._failure = ""
        self._disk_low = ""
        self._retry_at = 0.0
        self._busy_since: float | None = None
        self._flushed: tuple[int, threading.Event] | None = None
        # Between the two.
        self._outbox: list[Entry] = []  # of this turn of the loop
        self._queue: SimpleQueue[list[Entry]] = SimpleQueue()
        self._news: deque[_News] = deque()
        self._check_disk()
        self._thread = threading.Thread(target=self._run, name=f"ledger-{log}", daemon=True)
        self._thread.start()

    def _take(self, now: Callable[[], float]) -> tuple[int, Tail]:
        try:
            descriptor = lock.take(self.directory)
            try:
                return descriptor, Tail(self.directory, self.log, self._limits, self._io, now)
            except BaseException:
                os.close(descriptor)
                raise
        except (OSError, LedgerTooNew) as error:
            raise LedgerUnavailable(f"log {self.log}: {error}") from error

    # ---- may it write?

    @property
    def reason(self) -> str:
        """Why no new request can be recorded; empty if it can."""
        if self._failure:
            return self._failure
        if self._disk_low:
            return self._disk_low
        busy_since = self._busy_since
        if busy_since is not None and self._clock() - busy_since > self._limits.commit_s_max:
            return f"a commit takes longer than {self._limits.commit_s_max:g} s"
        if self._ticket - self._committed >= self._limits.pending_rows_max:
            return f"{self._limits.pending_rows_max} records wait for their commit"
        return ""

    @property
    def writable(self) -> bool:
        return not self.reason

    # ---- appending

    def append(self, record: Mapping[str, object], *, refusable: bool = True) -> int:
        """Queue an `open`, `attempt` or `refused` record and return its ticket.

        An `open` is refused while the ledger is not writable, unless `refusable` is false (one found after a crash);
        a `refused` record while too many wait.

        Raises:
            LedgerUnavailable: the record was not taken.
        """
        kind, export_id = str(record["record"]), str(record.get("export_id", ""))
        if kind in TERMINAL:
            raise ValueError("an end goes through terminal()")
        if kind == "open":
            if export_id in self._open:
                raise ValueError(f"{export_id} is open already")
            if refusable and (reason := self.reason):
                raise LedgerUnavailable(reason)
        elif kind == "refused" and self._ticket - self._committed >= self._limits.pending_rows_max:
            raise LedgerUnavailable(self.reason)
        body = orjson.dumps(record)
        if kind == "open":
            self._open.add(export_id)
        return self._put(Entry(kind, export_id, body))

    def terminal(self, record: Record, then: Callable[[], None] | None = None) -> int:
        """Queue the end of an open; sets its `seq` and `log`. `then` is called in the loop once it is durable (to free
        the board slot, which must outlive the record's way to the disk) and must not raise.

        Never refused: every end was announced by an open, so the bound on opens bounds ends too. Ending twice is
        ending once: without an open of this id nothing is written or called.
        """
        export_id = str(record["export_id"])
        if export_id not in self._open:
            return DURABLE
        record["seq"], record["log"] = self._seq, self.log
        entry = Entry(str(record["record"]), export_id, orjson.dumps(record), then)
        self._open.remove(export_id)
        self._seq += 1
        return self._put(entry)

    def _put(self, entry: Entry) -> int:
        self._ticket += 1
        self._outbox.append(entry)
        if self._loop is None:
            self._hand_over()
        elif len(self._outbox) == 1:
            # Once per turn of the loop: waking the thread for every record makes it fight the loop for the
            # interpreter, and before the turn ends it could not run anyway.
            self._loop.call_soon(self._hand_over)
        return self._ticket

    def _hand_over(self) -> None:
        """Give the thread what gathered."""
        if self._outbox:
            entries, self._outbox = self._outbox, []
            self._queue.put(entries)

    # ---- waiting

    def wait(self, ticket: int) -> asyncio.Future[None] | None:
        """A future that is done when the ticket is durable and fails with LedgerUnavailable when the ledger fails
        first; None if it is durable already."""
        if ticket <= self._committed:
            return None
        assert self._loop is not None
        future = self._waiters.get(ticket)
        if future is None or future.cancelled():
            future = self._waiters[ticket] = self._loop.create_future()
            if failure := self._failure:
                self._fail_waiters(failure)
        return future

    def flush(self, timeout_s: float = 30.0) -> None:
        """Block until everything appended so far is durable. For starts and ends, not for a serving loop.

        Raises:
            LedgerUnavailable: it failed, or took longer.
        """
        event = threading.Event()
        self._flushed = (self._ticket, event)
        self._hand_over()
        self._queue.put(_NUDGE)
        event.wait(timeout_s)
        self._wake()
        if self._committed < self._ticket:
            raise LedgerUnavailable(self._failure or f"the ledger did not commit within {timeout_s:g} s")

    def close(self) -> None:
        """Write what is left, stop the thread, and give the lock back. After a failure there is one last attempt; what
        still cannot be written is found open, and on the board, at the next start."""
        if self._closing:
            return
        self._hand_over()
        self._closing = True
        self._queue.put(_NUDGE)
        self._thread.join(_CLOSE_S_MAX)
        self._wake()
        self._fail_waiters(self._failure or "the ledger is closed")
        if not self._thread.is_alive():  # else it may still be inside a write: the kernel closes the files
            self._tail.close()
            os.close(self._lock)

    def _wake(self) -> None:
        """In the loop: hand on what the thread reported."""
        while self._news:
            news = self._news.popleft()
            if news.failure:
                self._fail_waiters(news.failure)
            for ticket in news.tickets if self._waiters else ():
                future = self._waiters.pop(ticket, None)
                if future is not None and not future.done():
                    future.set_result(None)
            for call in news.calls:
                call()

    def _fail_waiters(self, reason: str) -> None:
        waiters, self._waiters = self._waiters, {}
        for future in waiters.values():
            if not future.done():
                future.set_exception(LedgerUnavailable(reason))
                future.exception()  # its owner may be gone; that is no unobserved failure

    # ---- in the thread

    def _run(self) -> None:
        try:
            self._serve(deque())
        except Exception as error:  # a fault of ours has to stop the port, not the counting
            self._fail(f"the writer stopped: {error!r}")

    def _serve(self, pending: deque[Entry]) -> None:
        if self._tail.begins_segment:
            self._attempt(pending)
        check_at = self._clock() + self._limits.disk_check_s
        while True:
            self._gather(pending)
            closing = self._closing and self._queue.empty()
            now = self._clock()
            if now >= check_at or self._tail.begins_segment:
                self._check_disk()
                check_at = now + self._limits.disk_check_s
            if closing and not pending:
                return
            if self._failure and now < self._retry_at and not closing:
                continue
            self._attempt(pending)
            if closing and (self._failure or not pending):
                return

    def _gather(self, pending: deque[Entry]) -> None:
        """Add what is in the queue to what is pending; wait only if there is nothing to do."""
        if self._failure or not pending:
            wait_s = self._limits.retry_s if self._failure else self._limits.disk_check_s
            try:
                pending.extend(self._queue.get(timeout=wait_s))
            except Empty:
                return
        if not self._failure:
            self._busy_since = self._clock()
        until = self._clock() + self._limits.commit_ms / 1000
        while len(pending) < self._limits.commit_rows_max and self._clock() < until:
            try:
                pending.extend(self._queue.get_nowait())
            except Empty:
                return

    def _attempt(self, pending: deque[Entry]) -> None:
        """One commit; after a failure, the way back first."""
        batch = [pending[index] for index in range(min(len(pending), self._limits.commit_rows_max))]
        try:
            if self._failure:
                self._tail.repair()
            self._tail.commit(batch)
        except OSError as error:
            self._fail(str(error))
            return
        for _ in batch:
            pending.popleft()
        self._failure = ""
        self._busy_since = None
        first = self._committed + 1
        self._committed += len(batch)
        if batch:
            calls = [entry.then for entry in batch if entry.then is not None]
            self._report(_News(range(first, first + len(batch)), calls))
        self._end_flush(failed=False)

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self._busy_since = None
        self._retry_at = self._clock() + self._limits.retry_s
        self._report(_News(range(0), [], reason))
        self._end_flush(failed=True)

    def _report(self, news: _News) -> None:
        self._news.append(news)
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: `close` hands on the rest
                self._loop.call_soon_threadsafe(self._wake)

    def _end_flush(self, *, failed: bool) -> None:
        flushed = self._flushed
        if flushed is not None and (failed or self._committed >= flushed[0]):
            flushed[1].set()

    def _check_disk(self) -> None:
        try:
            free = self._io.free_bytes(self.directory)
        except OSError as error:
            self._disk_low = f"free disk space is unknown: {error}"
            return
        reserve = self._limits.disk_reserve_bytes
        low = free < reserve
        self._disk_low = f"{free // MIB} MiB of disk are free, the reserve is {reserve // MIB} MiB" if low else ""
