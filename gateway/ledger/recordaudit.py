"""The records' part of the audit: is each what may stand there, and does every number in it follow from the others?"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gateway.ledger.content import whole
from gateway.ledger.indexaudit import IndexAudit
from gateway.ledger.seals import Seal
from gateway.ledger.segment import (
    HEADERS,
    RECORD_VERSION,
    TERMINAL,
    ChainLink,
    ChainState,
    Line,
    Place,
    segment_path,
)
from gateway.ledger.segmentfile import SegmentFile
from pricing.export import FIRST_COLUMNS, NAMES, conservation


class Finding(NamedTuple):
    segment: str  # below the ledger directory: 0/000001.jsonl, 0/000001.jsonl.zst, 0/000001.seal, 0/head, index.db
    line: int  # of the plain text; 0: not about one line
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

    def add_row(self, row: Mapping[str, Any]) -> None:
        delivered = whole(row.get("delivered_tokens"))
        self.rows += 1
        self.input_tokens += whole(row.get("input_tokens"))
        self.output_tokens += whole(row.get("output_tokens"))
        self.delivered_tokens += delivered
        self.billed_output_tokens += whole(row.get("billed_output_tokens"))
        self.exported_tokens += delivered if row.get("exported") is True else 0
        self._ended(str(row.get("outcome")), 1)

    def add_seal(self, seal: Seal) -> None:
        self.rows += seal.rows
        for name in self.__slots__:
            if name in seal.sums:
                setattr(self, name, getattr(self, name) + seal.sums[name])
        for outcome, count in seal.outcomes.items():
            self._ended(outcome, count)

    def _ended(self, outcome: str, count: int) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count


@dataclass(slots=True)
class Audit:
    findings: list[Finding] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)
    sealed: int = 0  # segments checked by their seals
    walked: int = 0  # segments of which every line was checked
    outlived: int = 0  # segments of which only the sums are left
    trusted_key: str = ""  # believed because no other was given


class RecordAudit:
    """The records of one log as they go by, in order."""

    def __init__(self, directory: Path, log: int, result: Audit, index: IndexAudit) -> None:
        self._directory = directory
        self._log = log
        self._result = result
        self._index = index
        self.state = ChainState()
        self.name = ""  # of the file that is read
        self.opens_known = True  # not behind a segment that was checked by its seal
        self._open_at: dict[str, tuple[Place, int]] = {}  # with its line; 0: not known

    def take(self, link: ChainLink) -> None:
        """The next line."""
        line, record, problem = link
        if problem:
            self.find(line.number, problem)
        if record is not None:
            self._record(line, record)
        self.state.take(line, record)

    def pass_over(self, seal: Seal, *, counts: bool) -> None:
        """Go to the end of a sealed segment without its lines. `counts`: its sums belong to the ledger's."""
        self.state.count = seal.count_before + seal.count
        self.state.seq = seal.seq_before + seal.rows
        self.state.hash = seal.last_hash
        self.state.opens = {}
        self.opens_known = False
        self._open_at = {}
        if counts:
            self._result.summary.add_seal(seal)

    def unended(self, live: Collection[str]) -> None:
        """Name the opens that have no end, but for those that are live."""
        for export_id, (place, number) in self._open_at.items():
            if export_id not in live:
                self.name = self.plain_name(place.segment)
                self.find(number or self._line_of(place), f"open {export_id} has no end")

    def _line_of(self, place: Place) -> int:
        try:
            with SegmentFile(self._directory, place.segment) as file:
                return file.read(0, place.offset).count(b"\n") + 1
        except FileNotFoundError:
            return 0

    def find(self, line: int, problem: str) -> None:
        self._result.findings.append(Finding(self.name, line, problem))

    def plain_name(self, segment: int) -> str:
        return f"{self._log}/{segment_path(Path(), segment)}" if segment else f"{self._log}/head"

    # ---- kinds

    def _record(self, line: Line, record: Mapping[str, Any]) -> None:
        kind = record["record"]
        if kind in HEADERS:
            self._header(line, record)
        elif kind in TERMINAL:
            self._end(line, record)
        elif kind == "open":
            if record["export_id"] in self.state.opens:
                self.find(line.number, f"opens {record['export_id']} again")
            self._open_at[record["export_id"]] = Place(line.segment, line.offset), line.number
        elif kind == "attempt":
            if record["export_id"] not in self.state.opens:
                self.find(line.number, f"is an attempt of {record['export_id']}, which is not open")
        elif self._index.holds(self._log, line):
            self._index.refused(record)

    def _header(self, line: Line, record: Mapping[str, Any]) -> None:
        if record["v"] > RECORD_VERSION:
            self.find(line.number, f"is of version {record['v']}, later than this software")
        if record["log"] != self._log:
            self.find(line.number, f"belongs to log {record['log']}")
        if record["record"] == "break":
            self._break(record)
        stated = ChainState()
        stated.adopt(record)
        for name in ("count", "seq", "opens"):
            if (name != "opens" or self.opens_known) and getattr(stated, name) != getattr(self.state, name):
                self.find(line.number, f"states other {name} than the segments before it")
        self.state.adopt(record)  # what follows is judged by what it started from
        if not self.opens_known:
            self._open_at = {export_id: (place, 0) for export_id, place in self.state.opens.items()}
            self.opens_known = True

    def _break(self, record: Mapping[str, Any]) -> None:
        segment, number = whole(record.get("broken_segment")), whole(record.get("broken_line"))
        name = self.plain_name(segment)
        if all(
            (finding.segment.removesuffix(".zst"), finding.line) != (name, number) for finding in self._result.findings
        ):
            self._result.findings.append(Finding(name, number, f"was found damaged: {record.get('problem', '')}"))

    def _end(self, line: Line, record: Mapping[str, Any]) -> None:
        export_id = record["export_id"]
        if export_id not in self.state.opens:
            self.find(line.number, f"ends {export_id}, which is not open: a second end, or no open")
        self._open_at.pop(export_id, None)
        if record["seq"] != self.state.seq:
            self.find(line.number, f"has seq {record['seq']} instead of {self.state.seq}")
        if record.get("log") != self._log:
            self.find(line.number, f"belongs to log {record.get('log')}")
        for problem in row_problems(record):
            self.find(line.number, problem)
        self._result.summary.add_row(record)
        if self._index.holds(self._log, line):
            problem = self._index.row(self._log, record)
            if problem:
                self.find(line.number, problem)


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
