"""What commands share: reading times, loading the configuration, printing rows."""

import csv
import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import datetime
from os import environ
from typing import TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.config import ConfigError, Settings, load_file

Row = Mapping[str, object]


class UsageError(Exception):
    """The command line is wrong; the message is one line that says what to give instead."""


def fail(message: str, status: int = 2) -> int:
    """One line to stderr, and the exit status."""
    print(f"tokenport: {message}", file=sys.stderr)
    return status


def settings_of(arguments: Namespace) -> Settings:
    """The configuration a command was given. Raises ConfigError."""
    return load_file(arguments.config, environ)


def report_problems(error: ConfigError) -> int:
    """One line per mistake to stderr; exit status 2."""
    for problem in error.problems:
        print(problem, file=sys.stderr)
    return 2


def zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise UsageError(f"--tz {name}: not a time zone; give one such as UTC or Europe/Berlin") from None


def moment(text: str | None, tz: ZoneInfo, option: str) -> float | None:
    """Epoch seconds of a date or time given on the command line; in `tz` unless it says otherwise."""
    if not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text}: not a time; write 2026-11-01 or 2026-11-01T08:00") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=tz)).timestamp()


def print_rows(rows: Sequence[Row], columns: Sequence[str], form: str, out: TextIO | None = None) -> None:
    """Rows as a table for people, as JSON or as CSV; to stdout if not said otherwise."""
    out = out or sys.stdout
    if form == "json":
        json.dump([{name: row.get(name) for name in columns} for row in rows], out, indent=2)
        out.write("\n")
    elif form == "csv":
        writer = csv.writer(out)
        writer.writerow(columns)
        writer.writerows([["" if row.get(name) is None else row.get(name) for name in columns] for row in rows])
    else:
        _print_table(rows, columns, out)


def _print_table(rows: Sequence[Row], columns: Sequence[str], out: TextIO) -> None:
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max([len(name), *(len(line[i]) for line in cells)]) for i, name in enumerate(columns)]
    numeric = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in columns]
    for line in [list(columns), *cells]:
        aligned = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        )
        out.write("  ".join(aligned).rstrip() + "\n")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    return str(value)
