"""The writing end of one log: one write and one sync for what gathered, and the way back after a failure.

`commit` either acknowledges everything it was given or raises and leaves this object as it was. After a failure nobody
knows what the file holds beyond the acknowledged length, and a second sync that succeeds would prove nothing (the
kernel may have dropped the pages that failed). So `repair` cuts the segment back to that length, reads its last line
again, and the next commit begins a fresh segment.

No threads and no waiting in here: `log` calls it from its writer thread.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gateway.ledger.entry import Entry
from gateway.ledger.instants import MICROS, micros, parse_us, rfc3339
from gateway.ledger.resume import Damage, Resumed, resume
from gateway.ledger.segment import (
    OPENING,
    RECORD_VERSION,
    TERMINAL,
    ChainState,
    Head,
    Place,
    encode_head,
    hash_of,
    link,
    segment_path,
)
from gateway.ledger.storage import SegmentIO, write_all

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogLimits:
    commit_rows_max: int = 256  # keeps a wake-up of the loop short
    commit_ms: float = 5.0  # between the beginnings of two commits while many requests are under way
    commit_s_max: float = 1.0  # a commit that takes longer: no new work
    pending_rows_max: int = 65_536  # records in memory, written or not, that are not acknowledged (about 150 MB)
    segment_bytes_max: int = 64 * MIB
    segment_s_max: float = 3600.0
    disk_reserve_bytes: int = 64 * MIB  # below it no new work; live requests settle into it
    disk_check_s: float = 1.0
    retry_s: float = 0.5  # between attempts to reopen a ledger that failed


class _Chained(NamedTuple):
    data: bytes
    offsets: list[int]
    last_hash: str


class Tail:
    """Owner of the open segment of one log. The caller holds the log's lock."""

    def __init__(self, directory: Path, log: int, limits: LogLimits, io: SegmentIO, now: Callable[[], float]) -> None:
        """Check the log and make ready to write.

        Raises:
            LedgerTooNew: a later version wrote it.
            OSError: it cannot be read or cut.
        """
        self._directory = directory
        self._log = log
        self._limits = limits
        self._io = io
        self._now = now
        resumed = resume(directory)
        self.damage: Damage | None = resumed.damage  # what the next segment's first record has to name
        self.state: ChainState = resumed.state  # acknowledged
        self.segment = resumed.segment
        self.length = resumed.length
        self._last_offset = resumed.last_offset
        self._lines = resumed.lines  # in the open segment
        self._used_since_us = 0
        self._suspect = False  # bytes beyond the acknowledged length may be in the segment
        self._descriptor: int | None = None  # None: the next commit begins a segment
        self._unborn: int | None = None  # descriptor of a segment that nothing was acknowledged in
        self._head = os.open(directory / "head", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            self._settle_in(resumed)
        except BaseException:
            self.close()
            raise

    def _settle_in(self, resumed: Resumed) -> None:
        for segment in resumed.unborn:
            segment_path(self._directory, segment).unlink()
        if self.damage is not None or self.segment == 0:
            return
        path = segment_path(self._directory, self.segment)
        if resumed.torn:
            self._io.truncate(path, self.length)
        if not resumed.current:
            return
        self._descriptor = self._io.append_to(path)
        # Whole lines beyond the head survived a kill in memory only; from here on they are relied on.
        self._io.sync(self._descriptor)
        self._used_since_us = parse_us(resumed.opened_at)
        self._write_head()

    @property
    def begins_segment(self) -> bool:
        """The next commit will begin a segment."""
        return self._descriptor is None or self.length >= self._limits.segment_bytes_max or self._is_old()

    def _is_old(self) -> bool:
        return self._lines > 1 and micros(self._now()) - self._used_since_us >= self._limits.segment_s_max * MICROS

    def commit(self, entries: Sequence[Entry]) -> None:
        """Write the entries, in order, behind a segment's first record where one is due. No entries: only that.

        Raises:
            OSError: nothing is acknowledged; call `repair` before the next commit.
        """
        now_us = micros(self._now())
        begins = self.begins_segment
        if begins:
            entries = [self._header(now_us), *entries]
        if not entries:
            return
        start = 0 if begins else self.length
        chained = _chain(entries, self.state.hash, start)
        if begins:
            self._unborn = self._io.create(segment_path(self._directory, self.segment + 1))
            self._write(self._unborn, chained.data)
            self._io.sync_directory(self._directory)
            self._close_segment()
            self._descriptor, self._unborn = self._unborn, None
            self.segment += 1
            self._lines = 0
            self._used_since_us = now_us
            self.damage = None
        else:
            assert self._descriptor is not None
            if self._lines == 1:
                self._used_since_us = now_us
            self._suspect = True
            self._write(self._descriptor, chained.data)
            self._suspect = False
        self._acknowledge(entries, chained, start)

    def _write(self, descriptor: int, data: bytes) -> None:
        write_all(self._io, descriptor, data)
        self._io.sync(descriptor)

    def _acknowledge(self, entries: Sequence[Entry], chained: _Chained, start: int) -> None:
        state, segment = self.state, self.segment
        opens = state.opens
        for entry, offset in zip(entries, chained.offsets, strict=True):
            kind = entry.kind
            if kind in TERMINAL:
                opens.pop(entry.export_id, None)
                state.seq += 1
            elif kind in OPENING:
                opens[entry.export_id] = Place(segment, offset)
        state.count += len(entries)
        self._lines += len(entries)
        state.hash = chained.last_hash
        self.length = start + len(chained.data)
        self._last_offset = chained.offsets[-1]
        self._write_head()

    def repair(self) -> None:
        """Undo what a failed commit may have left behind.

        Raises:
            OSError: not possible now; may be tried again.
        """
        if self._unborn is not None:
            os.close(self._unborn)
            self._unborn = None
        # Nothing in a segment of this number was ever acknowledged, even if it was only half created.
        segment_path(self._directory, self.segment + 1).unlink(missing_ok=True)
        if self._suspect:
            self._close_segment()
            path = segment_path(self._directory, self.segment)
            self.damage = self._cut(path)
            self._suspect = False

    def _cut(self, path: Path) -> Damage | None:
        """Cut the segment to what was acknowledged, and see that this is what it holds."""
        found = path.stat().st_size
        if found >= self.length:
            self._io.truncate(path, self.length)
            with path.open("rb") as file:
                file.seek(self._last_offset)
                if hash_of(file.read().removesuffix(b"\n")) == self.state.hash:
                    return None
        with path.open("rb") as file:
            line = sum(1 for _ in file)
        return Damage(self.segment, max(line, 1), "its acknowledged end is not on disk after a failed sync")

    def close(self) -> None:
        if self._unborn is not None or self._suspect:
            # The next start would find what a failed sync left in the page cache, and take it for written.
            with suppress(OSError):
                self.repair()
        self._close_segment()
        os.close(self._head)

    def _close_segment(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def _header(self, now_us: int) -> Entry:
        kind = "segment" if self.damage is None else "break"
        header: dict[str, object] = {
            "record": kind,
            "v": RECORD_VERSION,
            "log": self._log,
            "segment": self.segment + 1,
            "at": rfc3339(now_us),
            "count": self.state.count,
            "seq": self.state.seq,
            "carried": self.state.carried(),
        }
        if self.damage is not None:
            header |= {"broken_segment": self.damage.segment, "broken_line": self.damage.line}
            header["problem"] = self.damage.problem
        return Entry.of(header)

    def _write_head(self) -> None:
        head = Head(self.state.count, self.state.hash, self.segment, self.length, self.state.seq)
        # Not synced, and allowed to fail: a head that lags behind is no finding, and the records are safe.
        with suppress(OSError):
            os.pwrite(self._head, encode_head(head), 0)


def _chain(entries: Sequence[Entry], prev: str, start: int) -> _Chained:
    pieces: list[bytes] = []
    offsets: list[int] = []
    last = prev.encode()
    for entry in entries:
        head, body = entry.head, entry.body
        end, last = link(head, body, entry.tail, last)
        pieces += (head, body, end, b"\n")
        offsets.append(start)
        start += len(head) + len(body) + len(end) + 1
    return _Chained(b"".join(pieces), offsets, last.decode())
