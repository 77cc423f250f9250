"""The export, written as JSON Lines or CSV, a row at a time.

CSV as in RFC 4180: CRLF, quotes where needed, a header. Unknown is empty; true and false are words. Text that a
spreadsheet would run as a formula (it begins with = + - @, their full-width forms, tab, CR or LF) gets a single quote
in front; plain numbers do not.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TextIO

import orjson

from pricing.export import NAMES

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)

Rows = Iterable[Mapping[str, object]]


def write_jsonl(rows: Rows, out: TextIO, names: Sequence[str] = NAMES) -> int:
    """One JSON object a line; null is unknown. Returns the number of rows."""
    written = 0
    for row in rows:
        out.write(orjson.dumps({name: row[name] for name in names}).decode() + "\n")
        written += 1
    return written


def write_csv(rows: Rows, out: TextIO, names: Sequence[str] = NAMES) -> int:
    """`out` must not translate line ends (open it with newline=""). Returns the number of rows."""
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(names)
    written = 0
    for row in rows:
        writer.writerow([csv_cell(row.get(name)) for name in names])
        written += 1
    return written


def csv_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}"
    text = str(value)
    if isinstance(value, str) and text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        return "'" + text
    return text
