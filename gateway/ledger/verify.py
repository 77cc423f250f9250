"""The audit: does the ledger say one thing, everywhere, and does every number in it follow from the others?

Of each log: the chain from the first line to the head; segments in order, each beginning where the last one ended;
every open with exactly one end; `seq` without a gap; every row recomputed from itself. Of the index: its rows are the
rows of the logs, its sums are the sums of its rows.

A finding names a segment and a line. A live gateway gives no findings: heads and the index are read before the logs, so
that the logs can only be ahead; and opens without an end belong to whoever holds the log's lock.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gateway.ledger import lock
from gateway.ledger.index import INDEX_NAME
from gateway.ledger.indexaudit import IndexAudit
from gateway.ledger.reading import LEDGER_NAME
from gateway.ledger.segment import (
    HEADERS,
    RECORD_VERSION,
    TERMINAL,
    ChainLink,
    ChainState,
    Head,
    Line,
    chained,
    logs,
    read_head,
    segment_numbers,
    segment_path,
)
from gateway.ledger.segmentfile import read_lines
from pricing.export import FIRST_COLUMNS, NAMES, conservation


class Finding(NamedTuple):
    segment: str  # below the ledger directory: 0/000001.jsonl, 0/head, index.db
    line: int  # 0: not about one line
    problem: str


@dataclass(slots=True)
class Summary:
    """Of the terminal records, whole or not."""

    rows: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    delivered_tokens: int = 0
    billed_output_tokens: int = 0
    exported_tokens: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def flat(self) -> dict[str, int]:
        """As one line of a table."""
        totals = {name: getattr(self, name) for name in self.__slots__ if name != "outcomes"}
        return {**totals, **dict(sorted(self.outcomes.items()))}


@dataclass(slots=True)
class Audit:
    findings: list[Finding] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)


def verify(data_dir: Path, live: Collection[str] | None = None) -> list[Finding]:
    """All findings; none for a good ledger. `live`: the exports that are open in a running gateway; None: every open
    export of a log whose lock is held."""
    return audit(data_dir, live).findings


def summary(data_dir: Path) -> dict[str, int]:
    """What the ledger adds up to: rows, tokens, and rows by outcome."""
    return audit(data_dir).summary.flat()


def audit(data_dir: Path, live: Collection[str] | None = None) -> Audit:
    ledger = data_dir / LEDGER_NAME
    result = Audit()
    index = IndexAudit(ledger / INDEX_NAME)
    try:
        for log in logs(ledger):
            _LogAudit(ledger / str(log), log, result, index).run(live)
        result.findings += [Finding(INDEX_NAME, 0, problem) for problem in index.finish()]
    finally:
        index.close()
    return result


class _LogAudit:
    """One walk through one log."""

    def __init__(self, directory: Path, log: int, result: Audit, index: IndexAudit) -> None:
        self._directory = directory
        self._log = log
        self._result = result
        self._index = index
        self._state = ChainState()
        self._open_at: dict[str, tuple[int, int]] = {}  # segment and line

    def run(self, live: Collection[str] | None) -> None:
        held = live is None and lock.held(self._directory)
        head = self._head()
        numbers = segment_numbers(self._directory)
        for expected, segment in enumerate(numbers, 1):
            if segment != expected:
                self._find(expected, 0, "is missing")
                break
        for segment in numbers:
            if not self._segment(segment, head, last=segment == numbers[-1]):
                break
        if head is not None and head.count > self._state.count:
            missing = head.count - self._state.count
            self._find(max(numbers, default=head.segment), 0, f"ends {missing} records before what the head counts")
        for export_id, (segment, number) in self._open_at.items():
            if not held and (live is None or export_id not in live):
                self._find(segment, number, f"open {export_id} has no end")

    def _head(self) -> Head | None:
        try:
            return read_head(self._directory)
        except ValueError as error:
            self._result.findings.append(Finding(f"{self._log}/head", 0, str(error)))
            return None

    def _segment(self, segment: int, head: Head | None, *, last: bool) -> bool:
        for link in chained(read_lines(self._directory, segment), self._state.hash):
            line, record, problem = link
            acknowledged = head is not None and head.count > self._state.count
            if last and not line.whole and not acknowledged:
                return False  # torn, or being written right now
            if problem:
                self._find(segment, line.number, problem)
            if record is not None:
                self._record(link, record)
            self._state.take(line, record)
            if head is not None and head.count == self._state.count and head.hash != self._state.hash:
                self._find(segment, line.number, "is not the record that the head names")
        return True

    def _record(self, link: ChainLink, record: Mapping[str, Any]) -> None:
        kind, line = record["record"], link.line
        if kind in HEADERS:
            self._header(line, record)
        elif kind in TERMINAL:
            self._end(line, record)
        elif kind == "open":
            if record["export_id"] in self._state.opens:
                self._find(line.segment, line.number, f"opens {record['export_id']} again")
            self._open_at[record["export_id"]] = line.segment, line.number
        elif kind == "attempt":
            if record["export_id"] not in self._state.opens:
                self._find(line.segment, line.number, f"is an attempt of {record['export_id']}, which is not open")
        elif self._index.holds(self._log, line):
            self._index.refused(record)

    def _header(self, line: Line, record: Mapping[str, Any]) -> None:
        if record["v"] > RECORD_VERSION:
            self._find(line.segment, line.number, f"is of version {record['v']}, later than this software")
        if record["log"] != self._log:
            self._find(line.segment, line.number, f"belongs to log {record['log']}")
        if record["record"] == "break":
            self._break(record)
        stated = ChainState()
        stated.adopt(record)
        for name in ("count", "seq", "opens"):
            if getattr(stated, name) != getattr(self._state, name):
                self._find(line.segment, line.number, f"states other {name} than the segments before it")
        self._state.adopt(record)  # what follows is judged by what it started from

    def _break(self, record: Mapping[str, Any]) -> None:
        segment, number = _count(record, "broken_segment"), _count(record, "broken_line")
        place = (self._name(segment), number)
        if all(finding[:2] != place for finding in self._result.findings):
            self._find(segment, number, f"was found damaged: {record.get('problem', '')}")

    def _end(self, line: Line, record: Mapping[str, Any]) -> None:
        export_id = record["export_id"]
        if export_id not in self._state.opens:
            self._find(line.segment, line.number, f"ends {export_id}, which is not open: a second end, or no open")
        self._open_at.pop(export_id, None)
        if record["seq"] != self._state.seq:
            self._find(line.segment, line.number, f"has seq {record['seq']} instead of {self._state.seq}")
        if record.get("log") != self._log:
            self._find(line.segment, line.number, f"belongs to log {record.get('log')}")
        for problem in row_problems(record):
            self._find(line.segment, line.number, problem)
        _add(self._result.summary, record)
        if self._index.holds(self._log, line):
            problem = self._index.row(self._log, record)
            if problem:
                self._find(line.segment, line.number, problem)

    def _find(self, segment: int, line: int, problem: str) -> None:
        self._result.findings.append(Finding(self._name(segment), line, problem))

    def _name(self, segment: int) -> str:
        return f"{self._log}/{segment_path(Path(), segment)}" if segment else f"{self._log}/head"


def row_problems(row: Mapping[str, Any]) -> list[str]:
    """What a terminal record contradicts itself in."""
    problems: list[str] = []
    names = tuple(name for name in row if name != "prev")
    if names != NAMES[: len(names)] or len(names) < FIRST_COLUMNS:  # an older version wrote fewer
        problems.append("has other columns than the contract")
    floats = [name for name, value in row.items() if isinstance(value, float)]
    problems += [f"{name} is not an integer" for name in floats]
    problems += [f"{name} does not follow from the row" for name in conservation(row)]
    billed, delivered, generated = (
        row.get(name) for name in ("billed_output_tokens", "delivered_tokens", "output_tokens")
    )
    if isinstance(billed, int) and isinstance(delivered, int) and isinstance(generated, int):
        if not 0 <= billed <= delivered:
            problems.append("more is billed than delivered")
        if delivered > generated and row.get("count_source") != "estimated":
            problems.append("more is delivered than generated")
    return problems


def _add(summary: Summary, row: Mapping[str, Any]) -> None:
    summary.rows += 1
    outcome = str(row.get("outcome"))
    summary.outcomes[outcome] = summary.outcomes.get(outcome, 0) + 1
    summary.input_tokens += _count(row, "input_tokens")
    summary.output_tokens += _count(row, "output_tokens")
    summary.delivered_tokens += _count(row, "delivered_tokens")
    summary.billed_output_tokens += _count(row, "billed_output_tokens")
    if row.get("exported") is True:
        summary.exported_tokens += _count(row, "delivered_tokens")


def _count(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name)
    return value if isinstance(value, int) else 0
