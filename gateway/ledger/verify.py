"""The audit: does the ledger say one thing, everywhere, and does every number in it follow from the others?

Of each log: the chain from the first line to the head; segments in order, each beginning where the last one ended;
every open with exactly one end; `seq` without a gap; every row recomputed from itself (`recordaudit`). Of the index:
its rows are the rows of the logs, its sums are the sums of its rows (`indexaudit`).

A sealed segment went through its chain before it was sealed. It is checked by its seal (`sealaudit`): the hash of the
compressed file, the signature, the chain of seals, and that it begins where the segment before it ends. What the index
has of it is held against the sums in the seal. `deep` unpacks it all the same, and looks at each line and index row.

A finding names a segment and a line, or a frame that does not unpack. A live gateway gives no findings: heads and the
index are read before the logs, so that the logs can only be ahead; and opens without an end belong to whoever holds the
log's lock.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.ledger import lock
from gateway.ledger.content import Content
from gateway.ledger.frames import FrameDamaged
from gateway.ledger.index import INDEX_NAME
from gateway.ledger.indexaudit import IndexAudit
from gateway.ledger.reading import LEDGER_NAME
from gateway.ledger.recordaudit import Audit, Finding, RecordAudit
from gateway.ledger.rollups import BadRollups, read_rollups, rollup_path
from gateway.ledger.sealaudit import (
    Advance,
    SealKeys,
    changed_frames,
    differing,
    file_hash,
    first_difference,
    in_frame,
    unpacked_lines,
)
from gateway.ledger.seals import BadSeal, Seal, read_seal, seal_numbers, seal_path
from gateway.ledger.segment import (
    NO_HASH,
    Head,
    Line,
    chained,
    logs,
    read_head,
    sealed_path,
    segment_numbers,
    segment_path,
)
from gateway.ledger.segmentfile import SegmentFile, open_frames

_HEAD_TRIES = 10  # a head that is written just now may be read torn


def verify(data_dir: Path, live: Collection[str] | None = None) -> list[Finding]:
    """All findings; none for a good ledger. `live`: the exports that are open in a running gateway; None: every open
    export of a log whose lock is held."""
    return audit(data_dir / LEDGER_NAME, live).findings


def summary(data_dir: Path) -> dict[str, int]:
    """What the ledger adds up to: rows, tokens, and rows by outcome."""
    return audit(data_dir / LEDGER_NAME).summary.flat()


def audit(
    ledger: Path,
    live: Collection[str] | None = None,
    *,
    deep: bool = False,
    public_keys: Sequence[str] = (),
    advance: Advance = lambda n: None,
) -> Audit:
    """Findings and sums of a ledger directory. `public_keys`: whose seals are believed; none: those of one key,
    whichever it is. `advance` is told of bytes (of `audit_bytes`) that are done."""
    result = Audit()
    index = IndexAudit(ledger / INDEX_NAME)
    keys = SealKeys(public_keys)
    try:
        for log in logs(ledger):
            _LogAudit(ledger / str(log), log, result, index, keys, deep, advance).run(live)
        result.findings += [Finding(INDEX_NAME, 0, problem) for problem in index.finish()]
    finally:
        index.close()
    result.trusted_key = keys.trusted
    return result


def audit_bytes(ledger: Path, *, deep: bool = False) -> int:
    """How many bytes an audit goes through: of files, and if `deep` of what is in the compressed ones."""
    total = 0
    for log in logs(ledger):
        directory = ledger / str(log)
        for path in (*directory.glob("*.jsonl"), *directory.glob("*.jsonl.zst")):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        for segment in seal_numbers(directory) if deep else ():
            with suppress(BadSeal, FileNotFoundError):
                total += read_seal(directory, segment).plain_bytes
    return total


class _LogAudit:
    """One walk through one log."""

    def __init__(
        self,
        directory: Path,
        log: int,
        result: Audit,
        index: IndexAudit,
        keys: SealKeys,
        deep: bool,
        advance: Advance,
    ) -> None:
        self._directory = directory
        self._log = log
        self._result = result
        self._index = index
        self._keys = keys
        self._deep = deep
        self._advance = advance
        self._records = RecordAudit(directory, log, result, index)
        self._state = self._records.state
        self._head: Head | None = None
        self._lines = 0  # of the last segment that was walked
        self._last_seal: str | None = NO_HASH  # hash of the seal before; None: not known

    def run(self, live: Collection[str] | None) -> None:
        held = live is None and lock.held(self._directory)
        self._head = self._read_head()
        sealed = seal_numbers(self._directory)
        numbers = sorted({*segment_numbers(self._directory), *sealed})
        for expected, segment in enumerate(numbers, 1):
            if segment != expected:
                self._find(f"{expected:06d}.jsonl", 0, "is missing")
                break
        for segment in numbers:
            before = len(self._result.findings)
            seal = self._read_seal(segment) if segment in sealed else None
            if not self._segment(segment, seal, last=segment == numbers[-1]):
                break
            sound = len(self._result.findings) == before  # what is damaged gets no seal
            if sound and segment not in sealed and segment < max(sealed, default=0):
                self._find(f"{segment:06d}.seal", 0, "is missing, and later segments are sealed")
        head = self._head
        if head is not None and head.count > self._state.count:
            missing = head.count - self._state.count
            name = f"{max(numbers, default=head.segment):06d}.jsonl"
            self._find(name, self._lines + 1, f"ends {missing} records before what the head counts")
        if head is None and not self._result.findings and self._state.count and not lock.held(self._directory):
            self._find("head", 0, "is missing or empty: that nothing is missing at the end of the log cannot be shown")
        if not held:
            self._records.unended(live or ())

    def _find(self, name: str, line: int, problem: str) -> None:
        self._result.findings.append(Finding(f"{self._log}/{name}", line, problem))

    # ---- the head

    def _read_head(self) -> Head | None:
        head: Head | None = None
        problem = ""
        for _ in range(_HEAD_TRIES):
            before = head
            try:
                head, problem = read_head(self._directory), ""
            except ValueError as error:
                problem = str(error)
                continue
            if head == before:
                return head
        if problem:
            self._find("head", 0, problem)
            return None
        return head

    def _check_head(self, segment: int, end: int, line: int) -> None:
        """At the end of a record: is it what the head says of it, if it is its last one?"""
        head = self._head
        if head is None or head.count != self._state.count:
            return
        if head.hash != self._state.hash:
            self._records.find(line, "is not the record that the head names")
        elif (head.segment, head.offset, head.seq) != (segment, end, self._state.seq):
            self._find("head", 0, f"does not end where its last record does: segment {segment}, byte {end}")

    # ---- segments

    def _segment(self, segment: int, seal: Seal | None, *, last: bool) -> bool:
        """Whether the log goes on behind it."""
        if seal is None:
            return self._walk(segment, last=last)
        records = self._records
        records.name = f"{self._log}/{sealed_path(Path(), segment)}"
        try:
            intact = file_hash(sealed_path(self._directory, segment), self._advance) == seal.sealed_sha256
        except FileNotFoundError:
            self._outlived(seal)
            records.pass_over(seal, counts=True)
            return True
        if intact and not self._deep and self._passed(seal):
            self._index.sealed(seal)
            self._result.sealed += 1
            records.pass_over(seal, counts=True)
            self._check_head(segment, seal.plain_bytes, seal.count)
        else:
            self._unpack(seal, intact=intact)
        self._compare_plain(seal)
        return True

    def _passed(self, seal: Seal) -> bool:
        """Whether nothing asks for single lines of a sealed segment: neither the head nor the index ends within it."""
        within = self._head.count - seal.count_before if self._head is not None else 0
        return not 0 < within < seal.count and self._index.reaches_none_or_all(seal)

    def _walk(self, segment: int, *, last: bool) -> bool:
        """Every line of a segment without a good seal."""
        records, head = self._records, self._head
        records.name = records.plain_name(segment)
        self._result.walked += 1
        self._lines = 0
        try:
            file = SegmentFile(self._directory, segment)
        except FileNotFoundError:
            return not last  # a segment that was never acknowledged, taken back
        with file:
            if file.packed and not seal_path(self._directory, segment).exists():
                self._find(seal_path(Path(), segment).name, 0, "is missing, and the plain file is gone")
            for link in chained(file.lines(), self._state.hash):
                line = link.line
                acknowledged = head is not None and head.count > self._state.count
                if last and not line.whole and not acknowledged:
                    return False  # torn, or being written right now
                records.take(link)
                self._lines = line.number
                self._check_head(segment, line.end, line.number)
                self._advance(line.end - line.offset)
        return True

    # ---- sealed segments

    def _outlived(self, seal: Seal) -> None:
        """A segment that is gone: are its sums left, and are they what was sealed?"""
        try:
            rollups = read_rollups(self._directory, seal.segment, (seal.public_key,))
        except FileNotFoundError:
            self._records.find(0, "is missing, and sealed")
            return
        except (BadRollups, OSError) as error:
            self._find(rollup_path(Path(), seal.segment).name, 0, _without_name(str(error)))
            return
        problem = rollups.problem(seal)
        if problem:
            self._find(rollup_path(Path(), seal.segment).name, 0, f"has sums that {problem}")
        self._result.outlived += 1
        self._index.outlived(seal, rollups)

    def _read_seal(self, segment: int) -> Seal | None:
        """The seal of a segment, checked, but for what it says of the segment. None if it is not readable."""
        try:
            seal = read_seal(self._directory, segment)
        except (BadSeal, OSError) as error:
            self._find(f"{segment:06d}.seal", 0, _without_name(str(error)))
            self._last_seal = None
            return None
        name = f"{segment:06d}.seal"
        problem = self._keys.problem(seal)
        if problem:
            self._find(name, 0, problem)
        if self._last_seal is not None and seal.previous != self._last_seal:
            self._find(name, 0, "does not follow the seal before it: that was changed, or one is missing")
        self._last_seal = seal.hash
        state = self._state
        stated = {"hash": seal.follows, "count": seal.count_before, "seq": seal.seq_before}
        for what, value in stated.items():
            if value != getattr(state, what):
                self._find(name, 0, f"states other {what} than the segments before it")
        return None if problem else seal

    def _unpack(self, seal: Seal, *, intact: bool) -> None:
        """Every line of a sealed segment."""
        records, segment = self._records, seal.segment
        before = len(self._result.findings)
        content = Content(self._log, segment)
        prev: str | None = self._state.hash
        with open_frames(self._directory, segment) as file:
            for part in unpacked_lines(file, seal, segment):
                if isinstance(part, FrameDamaged):
                    records.find(0, f"{in_frame(seal, part.frame)} {part.problem}")
                    prev = None
                    continue
                prev = self._frame(part, prev, content)
                self._advance(sum(line.end - line.offset for line in part))
            if not intact:
                for number in changed_frames(file, seal):
                    records.find(0, f"{in_frame(seal, number)} is not what was sealed")
        self._result.walked += 1
        if len(self._result.findings) == before:
            for name in differing(seal, content.members()):
                self._find(f"{segment:06d}.seal", 0, f"states other {name} than the segment")
        else:
            records.pass_over(seal, counts=False)  # the segments behind it are judged by what was sealed

    def _frame(self, lines: list[Line], prev: str | None, content: Content) -> str | None:
        """The lines of a frame. Returns the hash of the last one."""
        for link in chained(lines, prev):
            self._records.take(link)
            self._check_head(link.line.segment, link.line.end, link.line.number)
            if link.record is not None:
                content.take(link.line, link.record)
        return self._state.hash if lines else prev

    def _compare_plain(self, seal: Seal) -> None:
        """While the plain file is there, it is what is read; so it has to be the same."""
        path = segment_path(self._directory, seal.segment)
        try:
            if file_hash(path, self._advance) == seal.plain_sha256:
                return
            with (
                SegmentFile(self._directory, seal.segment) as plain,
                open_frames(self._directory, seal.segment) as file,
            ):
                line = first_difference(file, seal, plain)
        except FileNotFoundError:
            return
        self._find(path.name, line, "is not what was sealed")


def _without_name(problem: str) -> str:
    """What is wrong with a file, without the name of the file that begins it."""
    return problem.split(" ", 1)[-1]
