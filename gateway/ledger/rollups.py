"""The sums of a segment, which outlive its rows.

    ledger/K/NNNNNN.rollup.jsonl   written when a sealed segment has to go, before it goes; its seal stays beside it

One JSON object a line: first what the sums are of, with the hash of the segment's seal; then a line for each quarter of
an hour, place, tenant, model, outcome and currency, and one for each minute, tenant and reason of its refusals; last
the number of lines before it and an Ed25519 signature over their bytes. So the index, reports, budgets and statements
are rebuilt from these files as they were from the rows, and `verify` holds their sums against those of the seal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson

from gateway.ledger.instants import DAY_US, QUARTER_US, parse_us, rfc3339
from gateway.ledger.seals import Seal
from gateway.ledger.segment import Record
from gateway.ledger.tables import FIGURES, ROLLUP_KEY

ROLLUP_VERSION = 1

_SUFFIX = ".rollup.jsonl"
_HEADER = ("version", "log", "segment", "seal", "public_key")
_figures_of = itemgetter(*FIGURES)
_key_of = itemgetter(*ROLLUP_KEY)

Sum = tuple[Any, ...]  # a row of the index's `quarter_sums`: quarter, key, figures
Refusal = tuple[str, str, str, int]  # minute, tenant, reason, how many


class BadRollups(ValueError):
    """A file of sums that is not as it was written; says which and what."""


@dataclass(frozen=True, slots=True)
class Rollups:
    """What a segment's rows and refusals add up to."""

    log: int
    segment: int
    seal: str  # hash of the segment's seal
    sums: tuple[Sum, ...]
    refusals: tuple[Refusal, ...]

    def spent(self) -> list[tuple[int, str, int, int]]:
        """Tokens that count for budgets, by UTC day and tenant: rows of the index's table."""
        tokens: dict[tuple[int, str], int] = {}
        tenant_at, first = 1 + ROLLUP_KEY.index("tenant"), 1 + len(ROLLUP_KEY)
        counted = [first + FIGURES.index(name) for name in ("input_tokens", "billed_output_tokens")]
        for each in self.sums:
            key = each[0] * QUARTER_US // DAY_US, each[tenant_at]
            tokens[key] = tokens.get(key, 0) + sum(each[place] for place in counted)
        return [(day, tenant, self.log, count) for (day, tenant), count in sorted(tokens.items())]

    def totals(self, first: int = 0, past: int = 2**62) -> dict[str, int]:
        """The figures, over its quarters from `first` on and before `past`."""
        found = [each[1 + len(ROLLUP_KEY) :] for each in self.sums if first <= each[0] < past]
        return (
            dict(zip(FIGURES, map(sum, zip(*found, strict=True)), strict=True)) if found else dict.fromkeys(FIGURES, 0)
        )

    def problem(self, seal: Seal) -> str:
        """What these sums say otherwise than the seal; empty if nothing."""
        if self.seal != seal.hash:
            return "belong to another seal"
        totals = self.totals()
        wrong = [name for name, count in seal.sums.items() if totals.get(name) != count]
        if totals["requests"] != seal.rows:
            wrong.insert(0, "requests")
        if sum(count for *_, count in self.refusals) != seal.refused:
            wrong.append("refusals")
        return f"are not those of the seal: {', '.join(wrong)}" if wrong else ""

    def lines(self, public_key: str) -> bytes:
        """All lines but the last, as they are signed."""
        header = ROLLUP_VERSION, self.log, self.segment, self.seal, public_key
        records: list[Mapping[str, object]] = [dict(zip(_HEADER, header, strict=True))]
        for quarter, *values in self.sums:
            names = (*ROLLUP_KEY, *FIGURES)
            records.append({"quarter": rfc3339(quarter * QUARTER_US), **dict(zip(names, values, strict=True))})
        for minute, tenant, reason, count in self.refusals:
            records.append({"minute": minute, "tenant": tenant, "reason": reason, "count": count})
        return b"".join(orjson.dumps(record) + b"\n" for record in records)


def rollup_path(directory: Path, segment: int) -> Path:
    return directory / f"{segment:06d}{_SUFFIX}"


def rollup_numbers(directory: Path) -> list[int]:
    """The segments of a log whose sums were written, in order."""
    stems = [path.name.removesuffix(_SUFFIX) for path in directory.glob(f"*{_SUFFIX}")]
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())


def last_line(lines: bytes, signature: str) -> bytes:
    """What ends the file of these lines."""
    return orjson.dumps({"lines": lines.count(b"\n"), "signature": signature}) + b"\n"


def read_rollups(directory: Path, segment: int, public_keys: tuple[str, ...] = ()) -> Rollups:
    """The sums of a segment. The signature is checked where `public_keys` says whose are believed.

    Raises:
        FileNotFoundError: there are none.
        BadRollups: the file is not one that was written so, or is signed by somebody else.
    """
    path = rollup_path(directory, segment)
    data = path.read_bytes()
    name = f"{directory.name}/{path.name}"
    lines, _, end = data[:-1].rpartition(b"\n")
    lines += b"\n"
    try:
        ending, (header, *records) = orjson.loads(end), map(orjson.loads, lines.splitlines())
        public_key, signature = str(header["public_key"]), str(ending["signature"])
        if header["version"] > ROLLUP_VERSION:
            raise BadRollups(f"{name} is of version {header['version']}, later than this software")
        found = _decoded(header, records)
    except (ValueError, TypeError, KeyError) as error:
        raise error if isinstance(error, BadRollups) else BadRollups(f"{name} is not readable") from None
    if data != found.lines(public_key) + last_line(lines, signature):
        raise BadRollups(f"{name} is not as it was written")
    if str(found.log) != directory.name or found.segment != segment:
        raise BadRollups(f"{name} has the sums of {found.log}/{found.segment:06d}")
    if public_keys and (public_key not in public_keys or not _is_signed(lines, public_key, signature)):
        raise BadRollups(f"{name} is not signed by the key of the seals")
    return found


def _decoded(header: Record, records: list[Record]) -> Rollups:
    sums: list[Sum] = []
    refusals: list[Refusal] = []
    for record in records:
        if "quarter" in record:
            figures = _figures_of(record)
            key = _key_of(record)
            if set(map(type, figures)) != {int} or set(map(type, key)) != {str}:
                raise ValueError
            sums.append((parse_us(record["quarter"]) // QUARTER_US, *key, *figures))
        else:
            refusals.append((record["minute"], record["tenant"], record["reason"], record["count"]))
    return Rollups(header["log"], header["segment"], header["seal"], tuple(sums), tuple(refusals))


def _is_signed(lines: bytes, public_key: str, signature: str) -> bool:
    # Here, because a reader without a key to check by does without 7 MB of cryptography.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), lines)
    except (ValueError, InvalidSignature):
        return False
    return True
