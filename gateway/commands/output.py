"""What commands share: reading times, loading the configuration, printing rows."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime
from os import environ
from typing import TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.commands.table import Row, write_table
from gateway.config import ConfigError, Settings, load_file
from gateway.ledger.formats import write_csv


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


def print_rows(
    rows: Sequence[Row],
    columns: Sequence[str],
    form: str,
    out: TextIO | None = None,
    totals: Sequence[Row] = (),
    spare: Sequence[str] = (),
) -> None:
    """Rows as a table for people (with totals beneath, and without `spare` columns where the window is too narrow), as
    JSON or as CSV; to stdout if not said otherwise."""
    out = out or sys.stdout
    if form == "json":
        json.dump([{name: row.get(name) for name in columns} for row in rows], out, indent=2)
        out.write("\n")
    elif form == "csv":
        write_csv(rows, out, columns)
    else:
        write_table(rows, columns, out, totals, spare)
