"""What a comparison found, as a table for people, as JSON and as CSV. Differences are theirs less ours.

Pairs are written as they come, so that there may be millions of them. A table shows the first of those that differ;
JSON and CSV have all that do. Their costs are amounts of `currency`; ours are beside them only where both are in one.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import TextIO

from gateway.finance import shown
from gateway.finance.comparison import (
    CLASSES,
    DIFFERING,
    FINDINGS,
    MATCHED,
    ONLY_OURS,
    ONLY_THEIRS,
    REQUEST,
    UNBILLED,
    Comparison,
    Pair,
)
from gateway.ledger.formats import csv_cell
from gateway.ledger.instants import rfc3339

PAIRS_SHOWN = 50  # of a table for people
_NAMES = ("requests", *CLASSES, "cost_nano")
_WORDS = {"cache_write": "cache write", "cost_nano": "cost"}
_KEY_CHARS = 40
_COST_DECIMALS = 6  # as providers write them

Json = dict[str, object]


def write_json(comparison: Comparison, about: Mapping[str, object], out: TextIO) -> None:
    out.write("{\n")
    for name, value in about.items():
        out.write(f"  {json.dumps(name)}: {json.dumps(value)},\n")
    out.write('  "differences": [')
    between = "\n    "
    for pair in _findings(comparison):
        out.write(between + json.dumps(_pair(comparison, pair)))
        between = ",\n    "
    out.write('\n  ],\n  "unreadable": [')
    between = "\n    "
    for each in comparison.unreadable():
        out.write(between + json.dumps({"line": each.line, "problem": each.problem}))
        between = ",\n    "
    pairs = comparison.found.pairs
    counts = {name.replace(" ", "_"): pairs[name] for name in (MATCHED, *FINDINGS, UNBILLED)}
    out.write(f'\n  ],\n  "pairs": {json.dumps(counts)},\n  "totals": {json.dumps(_totals(comparison))}\n}}\n')


def write_csv(comparison: Comparison, about: Mapping[str, object], out: TextIO) -> None:
    columns = ("verdict", "key", "model", "export_id", "line", "estimated", "ended_as")
    figured = [f"{name}_{side}" for name in _NAMES for side in ("ours", "theirs", "difference")]
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow((*columns, *figured, "currency", "problem"))
    for pair in _findings(comparison):
        record = _pair(comparison, pair)
        writer.writerow([csv_cell(record.get(name)) for name in (*columns, *figured, "currency", "problem")])
    for each in comparison.unreadable():
        bad: Json = {"verdict": "unreadable", "line": each.line, "problem": each.problem}
        writer.writerow([csv_cell(bad.get(name)) for name in (*columns, *figured, "currency", "problem")])
    total = {"verdict": "total", **_flat(_totals(comparison)), "currency": comparison.currency or None}
    writer.writerow([csv_cell(total.get(name)) for name in (*columns, *figured, "currency", "problem")])


def write_table(comparison: Comparison, about: Mapping[str, object], out: TextIO) -> None:
    out.write(f"{about['backend']}: our ledger beside {about['file']}, by {comparison.by}\n")
    start, end = (shown.moment(str(about[name] or "")) for name in ("from", "to"))
    out.write(f"  from {start or 'the beginning'} to {end or 'the end'}, not included\n\n")
    lines: list[tuple[str, ...]] = []
    for number, pair in enumerate(_findings(comparison)):
        if number < PAIRS_SHOWN:
            lines += _shown(comparison, pair)
    if lines:
        _write_aligned([("", comparison.by, "tokens", "ours", "theirs", "difference", ""), *lines], out)
    found = comparison.found
    if found.differences > PAIRS_SHOWN:
        out.write(f"  and {found.differences - PAIRS_SHOWN:,} more; json and csv have all of them\n")
    totals = [
        ("total", "", _WORDS.get(name, name), *_amounts(comparison, name, each), "")
        for name, each in _totals(comparison).items()
    ]
    out.write("\n" if lines else "")
    _write_aligned([("", "", "", "ours", "theirs", "difference", ""), *totals], out)
    out.write(f"\n  {found.pairs[MATCHED]:,} matched, {found.pairs[DIFFERING]:,} differing,")
    out.write(f" {found.pairs[ONLY_OURS]:,} only ours, {found.pairs[ONLY_THEIRS]:,} only theirs\n")
    if found.pairs[UNBILLED]:
        out.write(f"  {found.pairs[UNBILLED]:,} more of ours made no token and are not in the file\n")
    for number, bad in enumerate(comparison.unreadable()):
        if number < PAIRS_SHOWN:
            out.write(f"  line {bad.line} {shown.printable(bad.problem)}\n")
    if comparison.unreadable_count > PAIRS_SHOWN:
        out.write(f"  and {comparison.unreadable_count - PAIRS_SHOWN:,} more lines that cannot be read\n")


# ---- records


def _findings(comparison: Comparison) -> Iterator[Pair]:
    return (pair for pair in comparison.pairs() if pair.verdict in FINDINGS)


def _names(comparison: Comparison) -> tuple[str, ...]:
    return ("requests", *comparison.classes, *(("cost_nano",) if comparison.currency else ()))


def _pair(comparison: Comparison, pair: Pair) -> Json:
    sides = {name: _sides(comparison, name, pair.ours, pair.theirs) for name in _names(comparison)}
    return {
        "verdict": pair.verdict,
        "key": pair.key,
        "model": pair.model or None,
        "export_id": pair.export_id or None,
        "line": pair.line,
        "estimated": pair.estimated if pair.ours["requests"] else None,
        "ended_as": pair.ended_as or None,
        **_flat(sides),
        "currency": comparison.currency or None,
    }


def _totals(comparison: Comparison) -> dict[str, dict[str, int | None]]:
    found = comparison.found
    return {name: _sides(comparison, name, found.ours, found.theirs) for name in _names(comparison)}


def _sides(
    comparison: Comparison, name: str, ours: Mapping[str, int], theirs: Mapping[str, int]
) -> dict[str, int | None]:
    if name == "cost_nano" and not comparison.compares_cost:
        return {"ours": None, "theirs": theirs[name], "difference": None}
    return {"ours": ours[name], "theirs": theirs[name], "difference": theirs[name] - ours[name]}


def _flat(sides: Mapping[str, Mapping[str, int | None]]) -> Json:
    return {f"{name}_{side}": amount for name, each in sides.items() for side, amount in each.items()}


# ---- for people


def _shown(comparison: Comparison, pair: Pair) -> Iterator[tuple[str, ...]]:
    """A line for each class of tokens that differs, and for a cost that alone does."""
    key = shown.printable(pair.key)
    if pair.model and comparison.by != REQUEST:
        key = f"{key} {shown.printable(pair.model)}"
    told = "; ".join(each for each in ("estimated" if pair.estimated else "", pair.ended_as) if each)
    first = True
    for name in _names(comparison):
        sides = _sides(comparison, name, pair.ours, pair.theirs)
        differs = pair.cost_differs if name == "cost_nano" else sides["difference"] and name != "requests"
        if differs:
            amounts = _amounts(comparison, name, sides)
            yield (pair.verdict if first else "", _cut(key) if first else "", _WORDS.get(name, name), *amounts, told)
            first, told = False, ""
    if first:
        yield (pair.verdict, _cut(key), "", "", "", "", told)


def _amounts(comparison: Comparison, name: str, sides: Mapping[str, int | None]) -> tuple[str, str, str]:
    def text(value: int | None, sign: str) -> str:
        if value is None:
            return "-"
        return f"{value:{sign},}" if name != "cost_nano" else _cost(value, sign)

    return (
        text(sides["ours"], ""),
        text(sides["theirs"], ""),
        text(sides["difference"], "+" if sides["difference"] else ""),
    )


def _cost(nano: int, sign: str) -> str:
    rounded = round(Decimal(nano).scaleb(-9), _COST_DECIMALS)
    return f"{rounded:{sign if rounded else ''},.{_COST_DECIMALS}f}".replace("-0.000000", "0.000000")


def _cut(text: str) -> str:
    return text if len(text) <= _KEY_CHARS else text[: _KEY_CHARS - 3] + "..."


def _write_aligned(lines: list[tuple[str, ...]], out: TextIO) -> None:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = [
            cell.rjust(width) if 3 <= column <= 5 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        out.write(f"  {'  '.join(cells).rstrip()}\n")


def span_text(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339(at_us)
