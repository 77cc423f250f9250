"""The log of one worker: appended to by its event loop, written by one thread of its own.

`append` and `terminal` never block: they put the encoded record in an outbox and return a ticket. The thread takes what
gathered and commits it (`tail`: one write, one sync). A ticket is durable when its commit is; `wait` gives a future for
that.

When to commit. A sync costs the same for one record and for a hundred, and each time the thread takes the interpreter
away from the loop. So a commit begins at once when the last one began at least `commit_ms` ago, or when few requests
are under way: a single client never waits for company. Otherwise the thread rests until then, and the rest ends as soon
as everyone whose open is not durable waits for just that: nothing more will come before they go on.

When to tell the loop. It is woken only if somebody waits. Who does not (ends, whose board slots are freed once they are
durable) is called with the next record that is appended, or by a timer.

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
from typing import NamedTuple

from gateway.ledger import lock
from gateway.ledger.entry import Entry
from gateway.ledger.segment import OPENING, TERMINAL, LedgerTooNew, Place
from gateway.ledger.storage import SegmentIO
from gateway.ledger.tail import MIB, LogLimits, Tail

DURABLE = 0  # the ticket of what needs no commit
_CLOSE_S_MAX = 10.0  # a sync may hang for ever
_FEW = 4  # so many open exports are no crowd: their records are committed at once
_SWEEP_S = 0.01  # the longest that a durable end waits for its call


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
        # Written by the loop.
        self._ticket = 0
        self._openings = 0  # records that somebody will wait for
        self._waiters: dict[int, asyncio.Future[None]] = {}
        self._uncalled = 0  # ends that have a call to come
        self._sweeping: asyncio.TimerHandle | None = None
        self._turning = False  # `_end_turn` is due
        self._closing = False
        # Written by the thread: single assignments.
        self._committed = 0
        self._openings_committed = 0
        self._failure = ""
        self._disk_low = ""
        self._retry_at = 0.0
        self._busy_since: float | None = None
        self._began_at = float("-inf")  # the last commit
        self._flushed: tuple[int, threading.Event] | None = None
        # Between the two.
        self._outbox: deque[Entry] = deque()
        self._news: deque[_News] = deque()
        self._hurry = False  # nothing is gained by a rest
        self._asleep = self._resting = False  # the thread waits for the bell
        self._bell = threading.Lock()
        self._bell.acquire()
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

    def append(self, entry: Entry, *, refusable: bool = True) -> int:
        """Queue an `open`, `attempt` or `refused` record and return its ticket.

        An `open` is refused while the ledger is not writable, unless `refusable` is false (one found after a crash);
        a `refused` record while too many wait.

        Raises:
            LedgerUnavailable: the record was not taken.
        """
        kind = entry.kind
        if kind in TERMINAL:
            raise ValueError("an end goes through terminal()")
        if kind == "open":
            if entry.export_id in self._open:
                raise ValueError(f"{entry.export_id} is open already")
            if refusable and (reason := self.reason):
                raise LedgerUnavailable(reason)
            self._open.add(entry.export_id)
        elif kind == "refused" and self._ticket - self._committed >= self._limits.pending_rows_max:
            raise LedgerUnavailable(self.reason)
        self._openings += kind in OPENING
        return self._post(entry)

    def terminal(self, end: Entry, then: Callable[[], None] | None = None) -> int:
        """Queue the end of an open; gives it its `seq` and `log`. `then` is called in the loop soon after it is durable
        (to free the board slot, which must outlive the record's way to the disk) and must not raise.

        Never refused: every end was announced by an open, so the bound on opens bounds ends too. Ending twice is
        ending once: without an open of this id nothing is written or called.
        """
        if end.export_id not in self._open:
            return DURABLE
        end.number(self._seq, self.log)
        end.then = then
        self._open.remove(end.export_id)
        self._seq += 1
        if then is not None:
            self._uncalled += 1
            if self._sweeping is None and self._loop is not None:
                self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)
        return self._post(end)

    def _post(self, entry: Entry) -> int:
        self._ticket += 1
        self._outbox.append(entry)
        if self._news:
            self._tell()
        if self._asleep and not self._resting:
            self._turn()
        return self._ticket

    def _turn(self) -> None:
        """Think of the thread once this turn of the loop is over: to wake it for every record would make it fight the
        loop for the interpreter, and before the turn ends it could not run anyway."""
        if self._loop is None:
            self._ring()
        elif not self._turning:
            self._turning = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turning = False
        if self._news:
            self._tell()
        waiting = len(self._waiters)
        if waiting and waiting >= self._openings - self._openings_committed:
            self._hurry = True
        if self._hurry or not self._resting:
            self._ring()

    def _ring(self) -> None:
        """Wake the thread, if it sleeps; if not, it looks around before it does."""
        if self._asleep:
            self._asleep = False
            self._bell.release()

    # ---- waiting

    def wait(self, ticket: int) -> asyncio.Future[None] | None:
        """A future that is done when the ticket is durable and fails with LedgerUnavailable when the ledger fails
        first; None if it is durable already."""
        if ticket <= self._committed:
            return None
        assert self._loop is not None
        if self._news:
            self._tell()  # old news are not for this one
        future = self._waiters.get(ticket)
        if future is None or future.cancelled():
            future = self._waiters[ticket] = self._loop.create_future()
            # Committed or failed meanwhile: the thread may have looked for waiters just before there was this one.
            if ticket <= self._committed:
                del self._waiters[ticket]
                return None
            if failure := self._failure:
                self._fail_waiters(failure)
            self._turn()
        return future

    def flush(self, timeout_s: float = 30.0) -> None:
        """Block until everything appended so far is durable. For starts and ends, not for a serving loop.

        Raises:
            LedgerUnavailable: it failed, or took longer.
        """
        event = threading.Event()
        self._flushed = (self._ticket, event)
        self._hurry = True
        self._ring()
        if self._committed < self._ticket:
            event.wait(timeout_s)
        self._tell()
        if self._committed < self._ticket:
            raise LedgerUnavailable(self._failure or f"the ledger did not commit within {timeout_s:g} s")

    def close(self) -> None:
        """Write what is left, stop the thread, and give the lock back. After a failure there is one last attempt; what
        still cannot be written is found open, and on the board, at the next start."""
        if self._closing:
            return
        self._closing = True
        self._hurry = True
        self._ring()
        self._thread.join(_CLOSE_S_MAX)
        self._tell()
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._fail_waiters(self._failure or "the ledger is closed")
        if not self._thread.is_alive():  # else it may still be inside a write: the kernel closes the files
            self._tail.close()
            os.close(self._lock)

    def _tell(self) -> None:
        """In the loop: hand on what the thread reported."""
        while self._news:
            news = self._news.popleft()
            if news.failure:
                self._fail_waiters(news.failure)
            for ticket in news.tickets if self._waiters else ():
                future = self._waiters.pop(ticket, None)
                if future is not None and not future.done():
                    future.set_result(None)
            self._uncalled -= len(news.calls)
            for call in news.calls:
                call()

    def _sweep(self) -> None:
        """Hand on what nobody waits for."""
        self._tell()
        self._sweeping = None
        if self._uncalled and self._loop is not None:
            self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)

    def _fail_waiters(self, reason: str) -> None:
        waiters, self._waiters = self._waiters, {}
        for future in waiters.values():
            if not future.done():
                future.set_exception(LedgerUnavailable(reason))
                future.exception()  # its owner may be gone; that is no unobserved failure

    # ---- in the thread

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # a fault of ours has to stop the port, not the counting
            self._fail(f"the writer stopped: {error!r}")

    def _serve(self) -> None:
        pending: list[Entry] = []  # taken from the outbox and not acknowledged
        if self._tail.begins_segment:
            self._commit(pending)
        check_at = self._clock() + self._limits.disk_check_s
        while True:
            if self._failure:
                self._rest(self._limits.retry_s)
            else:
                self._await_records()
            closing = self._closing
            if not pending:
                rows = min(len(self._outbox), self._limits.commit_rows_max)
                pending.extend(self._outbox.popleft() for _ in range(rows))
            now = self._clock()
            if now >= check_at or self._tail.begins_segment:
                self._check_disk()
                check_at = now + self._limits.disk_check_s
            if closing and not pending:
                return
            if self._failure and now < self._retry_at and not closing:
                continue
            if self._commit(pending):
                pending.clear()
            elif closing:
                return

    def _await_records(self) -> None:
        """Until there are records, and it is time for their commit."""
        if not self._outbox:
            self._sleep(self._limits.disk_check_s)
        if len(self._open) > _FEW and len(self._outbox) < self._limits.commit_rows_max:
            rest_s = self._began_at + self._limits.commit_ms / 1000 - self._clock()
            if rest_s > 0:
                self._rest(rest_s)
        self._hurry = False

    def _rest(self, timeout_s: float) -> None:
        """A sleep that only hurry ends."""
        self._resting = True
        self._sleep(timeout_s)
        self._resting = self._hurry = False

    def _sleep(self, timeout_s: float) -> None:
        """Until the bell, or so long."""
        self._bell.acquire(blocking=False)  # a ring that came when the last sleep was over
        self._asleep = True
        if not self._hurry and not self._closing and (self._resting or not self._outbox):
            self._bell.acquire(timeout=timeout_s)
        self._asleep = False

    def _commit(self, pending: list[Entry]) -> bool:
        """Commit all of it; after a failure, the way back first."""
        if pending:
            self._began_at = self._clock()
            if not self._failure:
                self._busy_since = self._began_at
        try:
            if self._failure:
                self._tail.repair()
            self._tail.commit(pending)
        except OSError as error:
            self._fail(str(error))
            return False
        self._failure = ""
        self._busy_since = None
        first = self._committed + 1
        self._openings_committed += len([entry for entry in pending if entry.kind in OPENING])
        self._committed += len(pending)
        if pending:
            calls = [entry.then for entry in pending if entry.then is not None]
            self._report(_News(range(first, first + len(pending)), calls))
        self._end_flush(failed=False)
        return True

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self._busy_since = None
        self._retry_at = self._clock() + self._limits.retry_s
        self._report(_News(range(0), [], reason))
        self._end_flush(failed=True)

    def _report(self, news: _News) -> None:
        self._news.append(news)
        if self._waiters and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: `close` hands on the rest
                self._loop.call_soon_threadsafe(self._tell)

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
