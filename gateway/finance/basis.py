"""The sealed segments that hold the rows of a period, and whether the figures of the period are those of the seals.

A seal signs not only the bytes of its segment but the sums of its rows. So figures that were taken from the index,
which is a view, are held against the truth: once all rows of a period are sealed, every sum must be that of the seals.
Of a segment on a bound of the period the rows within it are added up from the segment itself, or from its signed sums
per quarter of an hour where these have outlived it: every period begins and ends on a quarter.

The seals are read before the figures are: then no segment can be sealed that the figures do not hold, and what the
seals do not account for is not sealed yet. All rows of the period count, whosever they are: that a tenant has no other
rows is shown by all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from gateway.finance.period import Period
from gateway.ledger.following import Position, follow
from gateway.ledger.instants import QUARTER_US, parse_us
from gateway.ledger.outlived import gone
from gateway.ledger.rollups import BadRollups, read_rollups
from gateway.ledger.seals import Seal
from gateway.ledger.segment import TERMINAL, Record, parse
from gateway.ledger.tables import SUMS

CHECKED = ("exported_tokens", *SUMS)


@dataclass(frozen=True, slots=True)
class SealedPart:
    """What a sealed segment holds of the period."""

    seal: Seal
    rows: int
    sums: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Basis:
    parts: tuple[SealedPart, ...]
    rows: int  # of the period, in the ledger
    findings: tuple[str, ...]  # what keeps the seals from vouching for the figures

    @property
    def sealed(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def unsealed(self) -> int:
        return max(0, self.rows - self.sealed)

    @property
    def public_keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.seal.public_key for part in self.parts))

    @property
    def fingerprint(self) -> str:
        """One hash over all the seals, so that two people can see that they hold the same; empty without seals."""
        return sha256("".join(f"{part.seal.hash}\n" for part in self.parts).encode()).hexdigest() if self.parts else ""


def basis_of(ledger: Path, seals: Sequence[Seal], period: Period, figures: Mapping[str, int]) -> Basis:
    """`figures`: the sums over all rows of the period, `requests` among them."""
    parts = tuple(part for seal in seals if (part := _part(ledger, seal, period)).rows)
    rows = figures["requests"]
    return Basis(parts, rows, tuple(_findings(parts, rows, figures)))


def _findings(parts: Sequence[SealedPart], rows: int, figures: Mapping[str, int]) -> Iterable[str]:
    for part in parts:
        if not part.seal.signed_by(part.seal.public_key):
            yield f"the seal of segment {part.seal.log}/{part.seal.segment:06d} is not signed by the key it names"
    sealed = sum(part.rows for part in parts)
    if sealed > rows:
        yield f"the seals hold {sealed:,} rows of the period, the figures {rows:,}"
    elif sealed == rows:
        for name in CHECKED:
            vouched = sum(part.sums.get(name, 0) for part in parts)
            if vouched != figures[name]:
                yield f"{name} is {vouched} by the seals and {figures[name]} in the figures"


def _part(ledger: Path, seal: Seal, period: Period) -> SealedPart:
    if not seal.rows:
        return SealedPart(seal, 0, {})
    first, last = parse_us(seal.first_ended_at), parse_us(seal.last_ended_at)
    if last < period.start_us or first >= period.end_us:
        return SealedPart(seal, 0, {})
    if period.start_us <= first and last < period.end_us:
        return SealedPart(seal, seal.rows, seal.sums)
    return _within(ledger / str(seal.log), seal, period)


def _within(directory: Path, seal: Seal, period: Period) -> SealedPart:
    if seal.segment in gone(directory):
        return _outlived(directory, seal, period)
    rows, sums = 0, dict.fromkeys(CHECKED, 0)
    for row in _rows_of(directory, seal):
        if period.start_us <= parse_us(row["ended_at"]) < period.end_us:
            rows += 1
            sums["exported_tokens"] += row["delivered_tokens"] if row["exported"] else 0
            for name in SUMS:
                sums[name] += row.get(name) or 0
    return SealedPart(seal, rows, sums)


def _outlived(directory: Path, seal: Seal, period: Period) -> SealedPart:
    """Nothing where the sums are not as they were written: then rows lack a seal."""
    try:
        rollups = read_rollups(directory, seal.segment, (seal.public_key,))
    except (BadRollups, OSError):
        return SealedPart(seal, 0, {})
    if rollups.problem(seal):
        return SealedPart(seal, 0, {})
    first, last = period.start_us // QUARTER_US, period.end_us // QUARTER_US
    totals = rollups.totals(first, last)
    return SealedPart(seal, totals["requests"], {name: totals[name] for name in CHECKED})


def _rows_of(directory: Path, seal: Seal) -> Iterable[Record]:
    for position, lines in follow(Position(seal.segment, 0), directory, seal.log, None):
        if position.segment != seal.segment:
            return
        for line in lines:
            record, _ = parse(line)
            if record is not None and record["record"] in TERMINAL:
                yield record
