"""Sealing: closed segments are compressed, then sealed, and some time later their plain files go.

    NNNNNN.jsonl.zst.new  written, synced, renamed to NNNNNN.jsonl.zst, directory synced
    NNNNNN.seal.new       the same, to NNNNNN.seal
    NNNNNN.jsonl          removed, at the earliest `plain_s` after the segment was closed, and only once its seal is on
                          the disk and the compressed file was unpacked and gave the plain bytes that the seal names

Each step leaves what the next one needs, and each is done again from the beginning if a crash came before its rename:
so a pass may be killed anywhere, and the next one ends where it would have ended.

Closed is what lies before the segment that the head names: the head moves to a segment once its first record is on the
disk. What is sealed was checked before: each line of it, what follows it and what it follows. A segment that does not
stand is damaged: it gets no seal, keeps its plain file for ever, and the seals go on behind it. Seals are made in order
and never late: where a later segment of the log has one, an earlier one gets none any more.

One process at a time (the lock of `ledger/`). No threads, no waiting: the caller sees to it that nobody is disturbed.
"""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.ledger import lock
from gateway.ledger.content import Content, whole
from gateway.ledger.frames import FrameDamaged, Packer, in_frames
from gateway.ledger.instants import MICROS, micros, parse_us, rfc3339
from gateway.ledger.resume import started_at
from gateway.ledger.sealkey import sign
from gateway.ledger.seals import BadSeal, Frame, Seal, previous_hash, read_seal, seal_numbers, seal_path
from gateway.ledger.segment import (
    HEADERS,
    NO_HASH,
    RECORD_VERSION,
    TERMINAL,
    ChainLink,
    chained,
    logs,
    parse,
    read_head,
    sealed_path,
    segment_numbers,
    segment_path,
)
from gateway.ledger.segmentfile import first_line, open_frames, read_lines
from gateway.ledger.storage import SegmentIO, write_all

_HASHED_BYTES = 1024 * 1024


class DamagedSegment(NamedTuple):
    """A segment that cannot be sealed, or whose plain file cannot go."""

    log: int
    segment: int
    line: int  # 0: not about one line
    problem: str


@dataclass(slots=True)
class Sealing:
    """What a pass did."""

    sealed: list[tuple[int, int]] = field(default_factory=list)  # log and segment
    removed: list[tuple[int, int]] = field(default_factory=list)  # plain files
    damaged: list[DamagedSegment] = field(default_factory=list)


class _Damage(Exception):
    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


def due(ledger: Path, plain_s: float, now: float, damaged: Collection[tuple[int, int]] = ()) -> bool:
    """Whether a pass would find something to do. Looks at names, and where a plain file may go at one line."""
    for log in logs(ledger):
        directory = ledger / str(log)
        unsealed, plain = _open_work(directory)
        if any((log, segment) not in damaged for segment in unsealed):
            return True
        if any((log, segment) not in damaged and _may_go(directory, segment, plain_s, now) for segment in plain):
            return True
    return False


def _open_work(directory: Path) -> tuple[list[int], list[int]]:
    """Closed segments without a seal that may get one, and sealed ones whose plain file is there."""
    try:
        head = read_head(directory)
    except ValueError:
        return [], []  # its worker will write it anew
    sealed = seal_numbers(directory)
    last = max(sealed, default=0)
    closed = [segment for segment in segment_numbers(directory) if head is not None and segment < head.segment]
    plain = [segment for segment in sealed if segment_path(directory, segment).exists()]
    return [segment for segment in closed if segment > last], plain


def _may_go(directory: Path, segment: int, plain_s: float, now: float) -> bool:
    """Whether the segment was closed, that is the next one begun, long enough ago for its plain file to go."""
    after = [number for number in segment_numbers(directory) if number > segment]
    began = started_at(directory, after[0]) if after else ""
    return began != "" and micros(now) - parse_us(began) >= plain_s * MICROS


class Sealer:
    """Compresses and seals with one key."""

    def __init__(
        self,
        ledger: Path,
        key: Ed25519PrivateKey,
        plain_s: float,
        now: Callable[[], float],
        *,
        io: SegmentIO | None = None,
    ) -> None:
        self._ledger = ledger
        self._key = key
        self._plain_s = plain_s
        self._now = now
        self._io = io or SegmentIO()
        self._packer = Packer()

    def run(self, damaged: Collection[tuple[int, int]], result: Sealing) -> None:
        """One pass over all logs. `damaged`: segments that were found so and are not looked at again. `result` has what
        was done, also if not all could be.

        Raises:
            LedgerBusy: another process is sealing.
            OSError: the disk is full, or fails. What is done is done, and the next pass goes on there.
        """
        held = lock.take(self._ledger)
        try:
            for log in logs(self._ledger):
                directory = self._ledger / str(log)
                # Room is made first, and each segment goes all the way before the next one begins.
                self._remove_plain(log, directory, damaged, result)
                for segment in _open_work(directory)[0]:
                    if (log, segment) in damaged:
                        continue
                    try:
                        self._seal(directory, log, segment)
                    except _Damage as found:
                        result.damaged.append(DamagedSegment(log, segment, found.line, found.problem))
                        continue
                    result.sealed.append((log, segment))
                    self._remove_plain(log, directory, damaged, result)
        finally:
            os.close(held)

    # ---- sealing

    def _seal(self, directory: Path, log: int, segment: int) -> None:
        fresh = Path(f"{sealed_path(directory, segment)}.new")
        try:
            members = self._pack(directory, log, segment, fresh)
        except BaseException:
            with suppress(OSError):
                self._io.remove(fresh)
            raise
        self._io.rename(fresh, sealed_path(directory, segment))
        self._io.sync_directory(directory)
        members["sealed_at"] = rfc3339(micros(self._now()))
        try:
            members["previous"] = previous_hash(directory, segment)
        except BadSeal as error:
            raise _Damage(0, f"cannot be sealed, because the seal before it is damaged: {error}") from None
        seal = sign(members, self._key)
        fresh = Path(f"{seal_path(directory, segment)}.new")
        self._write(fresh, seal.encoded() + b"\n")
        self._io.rename(fresh, seal_path(directory, segment))
        self._io.sync_directory(directory)

    def _write(self, path: Path, data: bytes) -> None:
        descriptor = self._io.write_over(path)
        try:
            write_all(self._io, descriptor, data)
            self._io.sync(descriptor)
        finally:
            os.close(descriptor)

    def _pack(self, directory: Path, log: int, segment: int, fresh: Path) -> dict[str, Any]:
        """Check and compress a segment in one reading. Returns what its seal says of it."""
        content = Content(log, segment)
        checked = _checked(chained(read_lines(directory, segment), _follows(directory, segment)), content, log)
        frames: list[Frame] = []
        plain, sealed = sha256(), sha256()
        descriptor = self._io.write_over(fresh)
        try:
            for lines in in_frames(checked):
                data = b"".join(lines)
                frame, packed = self._packer.pack(len(lines), data)
                write_all(self._io, descriptor, packed)
                frames.append(frame)
                plain.update(data)
                sealed.update(packed)
            self._io.sync(descriptor)
        finally:
            os.close(descriptor)
        members = content.members()
        _check_next(directory, segment, members)
        return members | {
            "plain_bytes": sum(frame.plain_bytes for frame in frames),
            "plain_sha256": plain.hexdigest(),
            "sealed_bytes": sum(frame.sealed_bytes for frame in frames),
            "sealed_sha256": sealed.hexdigest(),
            "frames": tuple(frames),
        }

    # ---- the end of plain files

    def _remove_plain(self, log: int, directory: Path, damaged: Collection[tuple[int, int]], result: Sealing) -> None:
        known = {each[:2] for each in result.damaged}.union(damaged)
        for segment in _open_work(directory)[1]:
            if (log, segment) in known or not _may_go(directory, segment, self._plain_s, self._now()):
                continue
            try:
                prove(directory, read_seal(directory, segment))
            except (BadSeal, FrameDamaged, FileNotFoundError) as error:
                problem = f"keeps its plain file, because it cannot be unpacked: {error}"
                result.damaged.append(DamagedSegment(log, segment, 0, problem))
                continue
            self._io.remove(segment_path(directory, segment))
            self._io.sync_directory(directory)
            result.removed.append((log, segment))


def prove(directory: Path, seal: Seal) -> None:
    """See that the compressed file is the sealed one and unpacks to the plain bytes that were sealed.

    Raises:
        FrameDamaged: it is not, or does not.
        FileNotFoundError: there is none.
    """
    plain, sealed = sha256(), sha256()
    with open_frames(directory, seal.segment) as file:
        for index in range(len(file.frames)):
            sealed.update(file.sealed(index))
            plain.update(file.unpack(index))
        if file.problem is not None:
            raise file.problem
    if sealed.hexdigest() != seal.sealed_sha256 or plain.hexdigest() != seal.plain_sha256:
        raise FrameDamaged(0, "is not what was sealed")


def _checked(links: Iterator[ChainLink], content: Content, log: int) -> Iterator[bytes]:
    """The lines with their newlines. Raises _Damage at the first that does not stand."""
    for line, record, problem in links:
        if problem or record is None:
            raise _Damage(line.number, problem)
        if line.number == 1 and record["v"] > RECORD_VERSION:
            raise _Damage(1, f"is of version {record['v']}, later than this software")
        if line.number == 1 and record["log"] != log:
            raise _Damage(1, f"belongs to log {record['log']}")
        expected = content.header["seq"] + content.rows
        if record["record"] in TERMINAL and record["seq"] != expected:
            raise _Damage(line.number, f"has seq {record['seq']} instead of {expected}")
        content.take(line, record)
        yield line.data + b"\n"
    if content.count == 0:
        raise _Damage(1, "is empty")


def _follows(directory: Path, segment: int) -> str | None:
    """The hash that the first line of a segment has to name; None if what was before it is damaged or gone."""
    if segment == 1:
        return NO_HASH
    before = [number for number in segment_numbers(directory) if number < segment]
    with suppress(OSError, BadSeal):
        if before:
            return read_seal(directory, before[-1]).last_hash
    return None


def _check_next(directory: Path, segment: int, members: dict[str, Any]) -> None:
    """See that the next segment begins where this one ends: only that shows that nothing is missing at its end.

    Raises:
        _Damage: it does not, or it says that this one was found damaged.
    """
    after = [number for number in segment_numbers(directory) if number > segment]
    record, _ = parse(first_line(directory, after[0])) if after else (None, "")
    if record is None or record["record"] not in HEADERS:
        raise _Damage(members["count"], "ends where the next segment cannot be read")
    if record["record"] == "break" and record.get("broken_segment") == segment:
        raise _Damage(whole(record.get("broken_line")), f"was found damaged: {record.get('problem')}")
    stated = record.get("prev"), record["count"], record["seq"]
    found = members["last_hash"], members["count_before"] + members["count"], members["seq_before"] + members["rows"]
    if stated != found:
        raise _Damage(members["count"], "is not what the next segment follows")
