"""A statement as a table for people, as JSON and as CSV.

CSV is one rectangle, so that any program reads it: `section` says what a record is (about, line, total, overall,
counted, flag, outcome, refused, seal), and columns that do not belong to it are empty. Amounts are the exact integers
of the ledger.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from gateway.finance import shown
from gateway.finance.basis import SealedPart
from gateway.finance.statement import COUNTED, EXPIRED, PLACES, Section, Statement
from gateway.ledger.formats import csv_cell
from gateway.ledger.tables import FIGURES

_SEAL = ("log", "segment", "rows", "first_ended_at", "last_ended_at", "sealed_sha256", "plain_sha256")
_SIGNED = ("sealed_at", "public_key", "signature")
SEALS_SHOWN = 20  # of a table for people; a month of one worker has 720

Json = dict[str, object]


def about(statement: Statement) -> Json:
    """What is to know before any figure."""
    basis = statement.basis
    return {
        "state": statement.state,
        "reasons": list(statement.reasons),
        "period": statement.period.name,
        "tz": statement.period.tz,
        "from": statement.period.start,
        "to": statement.period.end,
        "tenant": statement.tenant or None,
        "edge": statement.edge,
        "made_at": statement.made_at,
        "version": statement.version,
        "record_version": statement.record_version,
        "rows": basis.rows,
        "rows_sealed": basis.sealed,
        "rows_not_sealed": basis.unsealed,
        "public_keys": list(basis.public_keys),
        "seals_sha256": basis.fingerprint or None,
    }


def write_json(statement: Statement, out: TextIO) -> None:
    document = {
        **about(statement),
        "tenants": [_section_json(section) for section in statement.sections],
        "overall": None if statement.overall is None else _section_json(statement.overall),
        "seals": [_seal(part) for part in statement.basis.parts],
    }
    json.dump(document, out, indent=2)
    out.write("\n")


def _section_json(section: Section) -> Json:
    return {
        "tenant": section.tenant or None,
        "lines": section.lines,
        "totals": section.totals,
        "counted": section.counted,
        "flags": section.flags,
        "flagged_requests": section.flagged,
        "outcomes": section.outcomes,
        "refused": section.refused,
    }


def _seal(part: SealedPart) -> Json:
    names = (*_SEAL, *_SIGNED)
    return {**{name: getattr(part.seal, name) for name in names}, "rows_of_period": part.rows}


# ---- CSV

_COLUMNS = (
    *("section", "tenant", *PLACES, "currency", "count_source", "count_flag", "outcome", "reason", *FIGURES, "count"),
    *(*_SEAL, "rows_of_period", *_SIGNED, "name", "value"),
)


def write_csv(statement: Statement, out: TextIO) -> None:
    """`out` must not translate line ends."""
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for record in _records(statement):
        writer.writerow([csv_cell(record.get(name)) for name in _COLUMNS])


def _records(statement: Statement) -> Iterator[Mapping[str, object]]:
    for name, value in about(statement).items():
        for each in value if isinstance(value, list) else [value]:
            yield {"section": "about", "name": name, "value": each}
    for section in statement.sections:
        yield from _section_records(section, "total")
    if statement.overall is not None:
        yield from _section_records(statement.overall, "overall")
    for part in statement.basis.parts:
        yield {"section": "seal", **_seal(part)}


def _section_records(section: Section, total: str) -> Iterator[Mapping[str, object]]:
    kinds = {
        "line": section.lines if total == "total" else (),  # all lines together are those of the tenants, again
        total: section.totals,
        "counted": section.counted,
        "flag": section.flags,
        "outcome": section.outcomes,
        "refused": section.refused,
    }
    for kind, rows in kinds.items():
        for row in rows:
            yield {"section": kind, "tenant": section.tenant, **row}


# ---- for people


def write_table(statement: Statement, out: TextIO) -> None:
    out.write(f"Export statement {statement.period.name} ({statement.period.tz}): {statement.state.upper()}\n")
    out.writelines(f"  {statement.state}: {reason}\n" for reason in statement.reasons)
    period = statement.period
    out.write(f"  period   from {shown.moment(period.start)} to {shown.moment(period.end)}, not included\n")
    out.write(f"  edge     {statement.edge}\n")
    out.write(f"  made at  {shown.moment(statement.made_at)} by tokenport {statement.version}\n")
    for section in statement.sections:
        _write_section(section, f"Tenant {shown.printable(section.tenant)}", out)
    if statement.overall is not None:
        _write_section(statement.overall, "All tenants", out)
    _write_basis(statement, out)


def _write_section(section: Section, title: str, out: TextIO) -> None:
    out.write(f"\n{title}\n")
    if not section.lines:
        out.write("\n  no requests in the period\n")
    for total in section.totals:
        currency = total["currency"]
        lines = [line for line in section.lines if line["currency"] == currency]
        out.write("\n  Tokens\n")
        _write_columns([*lines, total], PLACES, shown.TOKENS, out)
        out.write(f"\n  Energy, and money in {currency or shown.UNKNOWN}\n")
        _write_columns([*lines, total], PLACES, shown.MONEY, out)
    if section.counted:
        out.write(f"\n  How exact: {exactness(section)}\n")
        _write_columns(section.counted, ("count_source",), COUNTED, out)
    if section.flags:
        out.write("\n  Flags of counts\n")
        _write_columns(section.flags, ("count_flag",), COUNTED, out)
    if section.outcomes:
        out.write("\n  How requests ended\n")
        _write_columns(section.outcomes, ("outcome",), COUNTED, out)
    if section.refused:
        out.write("\n  Refused, in no figure above\n")
        _write_columns(section.refused, ("reason",), ("count",), out)


def exactness(section: Section) -> str:
    """One sentence for finance."""
    if any(each["count_source"] == EXPIRED for each in section.counted):
        return "rows of this period have expired, and with them what each count rests on; sums are as they were"
    estimated = section.delivered_by_estimate
    flagged = f"{section.flagged:,} of {section.requests:,} requests have a flag"
    if not estimated:
        return f"no delivered token is an estimate; {flagged}"
    share = 100 * estimated / section.delivered
    return f"{estimated:,} of {section.delivered:,} delivered tokens are estimates ({share:.3g} %); {flagged}"


def _write_basis(statement: Statement, out: TextIO) -> None:
    basis = statement.basis
    segments = "1 sealed segment" if len(basis.parts) == 1 else f"{len(basis.parts):,} sealed segments"
    out.write(f"\nRests on {segments} with {basis.sealed:,} of the {basis.rows:,} rows of the period, all tenants;")
    out.write(f" {basis.unsealed:,} not sealed yet\n")
    out.writelines(f"  public key     {key}\n" for key in basis.public_keys)
    if basis.fingerprint:
        out.write(f"  over all seals {basis.fingerprint}\n\n")
    names = ("log", "segment", "rows", "of period", "sealed at", "SHA-256")
    seals = [_seal_shown(part) for part in basis.parts[:SEALS_SHOWN]]
    if seals:
        _write_aligned([dict(zip(names, names, strict=True)), *seals], names[:0], names, out)
    if len(basis.parts) > SEALS_SHOWN:
        out.write(f"  and {len(basis.parts) - SEALS_SHOWN:,} more; json, csv and html have all of them, and whole\n")


def _seal_shown(part: SealedPart) -> dict[str, str]:
    seal = part.seal
    return {
        "log": str(seal.log),
        "segment": str(seal.segment),
        "rows": f"{seal.rows:,}",
        "of period": f"{part.rows:,}",
        "sealed at": shown.moment(seal.sealed_at),
        "SHA-256": f"{seal.sealed_sha256[:16]}...",
    }


def _write_columns(
    rows: Sequence[Mapping[str, object]], keys: Sequence[str], figures: Sequence[str], out: TextIO
) -> None:
    """Keys to the left, figures to the right, all in the unit of their column. A row without a key is a total."""
    beside = shown.largest(rows, figures)
    lines = [{name: shown.HEADS.get(name, name) for name in (*keys, *figures)}]
    for row in rows:
        told = {name: shown.printable(str(row.get(name) or "-")) for name in keys}
        if not any(name in row for name in keys):
            told = {**dict.fromkeys(keys, ""), keys[0]: "total"}
        for name in figures:
            told[name] = shown.text_of(shown.figure_of(row, name), name, beside[name]).replace("−", "-")
        lines.append(told)
    _write_aligned(lines, keys, figures, out)


def _write_aligned(lines: Sequence[Mapping[str, str]], left: Sequence[str], right: Iterable[str], out: TextIO) -> None:
    names = (*left, *right)
    widths = {name: max(len(line[name]) for line in lines) for name in names}
    for line in lines:
        cells = [line[name].ljust(widths[name]) if name in left else line[name].rjust(widths[name]) for name in names]
        out.write(f"  {'  '.join(cells).rstrip()}\n")
