"""What a segment holds, as its seal says it: counts, sums and ends, gathered while its lines go by."""

from typing import Any

from gateway.ledger.segment import HEADERS, NO_HASH, TERMINAL, Line, Record, hash_of
from gateway.ledger.tables import SUMS


class Content:
    """Of one segment."""

    def __init__(self, log: int, segment: int) -> None:
        self._log = log
        self._segment = segment
        self.count = 0
        self.rows = 0
        self.refused = 0
        self.header: Record = {"count": 0, "seq": 0, "prev": NO_HASH}
        self._first: Line | None = None
        self._last: Line | None = None
        self._ended: list[str] = []  # the earliest and the latest
        self._sums = dict.fromkeys(("exported_tokens", *SUMS), 0)
        self._outcomes: dict[str, int] = {}

    def take(self, line: Line, record: Record) -> None:
        """One more record."""
        self.count += 1
        self._last = line
        kind = record["record"]
        if kind in TERMINAL:
            self._end(record)
        elif kind in HEADERS and self._first is None:
            self._first, self.header = line, record
        elif kind == "refused":
            self.refused += record["count"]

    def _end(self, record: Record) -> None:
        self.rows += 1
        ended = record.get("ended_at")
        if isinstance(ended, str):
            self._ended = [min((*self._ended, ended)), max((*self._ended, ended))]
        sums = self._sums
        for name in SUMS:
            sums[name] += whole(record.get(name))
        if record.get("exported") is True:
            sums["exported_tokens"] += whole(record.get("delivered_tokens"))
        outcome = str(record.get("outcome"))
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1

    def members(self) -> dict[str, Any]:
        """Of the seal, those that come from the records."""
        return {
            "log": self._log,
            "segment": self._segment,
            "count": self.count,
            "rows": self.rows,
            "refused": self.refused,
            "follows": str(self.header.get("prev", NO_HASH)),
            "count_before": self.header["count"],
            "seq_before": self.header["seq"],
            "first_hash": hash_of(self._first.data) if self._first is not None else NO_HASH,
            "last_hash": hash_of(self._last.data) if self._last is not None else NO_HASH,
            "first_ended_at": self._ended[0] if self._ended else "",
            "last_ended_at": self._ended[1] if self._ended else "",
            "sums": self._sums,
            "outcomes": self._outcomes,
        }


def whole(value: object) -> int:
    """A number of a record; 0 if it is none."""
    return value if type(value) is int else 0
