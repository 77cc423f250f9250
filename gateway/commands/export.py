"""`tokenport export`: one row per request with every column of the contract, or the charges of FOCUS."""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO

from gateway.commands.output import UsageError, fail, report_problems
from gateway.commands.output_file import output_file
from gateway.commands.progress import Progress
from gateway.commands.selection import selection
from gateway.commands.source import UNREACHABLE, Unreachable, figures
from gateway.config import ConfigError
from gateway.extras import MissingExtra
from gateway.ledger import focus_columns
from gateway.ledger.focus import FocusTerms, focus_rows
from gateway.ledger.formats import Rows, write_csv, write_jsonl
from gateway.ledger.parquet import UnfitValue, write_parquet
from gateway.ledger.segment import Record

Writer = Callable[[Rows, BinaryIO], int]

_ADVANCE_ROWS = 1000


def run(arguments: Namespace) -> int:
    path: Path | None = arguments.output
    try:
        asked = selection(arguments)
        if arguments.format == "parquet" and path is None and sys.stdout.isatty():
            raise UsageError("--format parquet: is binary and not for a terminal; give --output FILE")
        write = _focus_writer(arguments) if arguments.format == "focus" else WRITERS[arguments.format]
        with figures(arguments) as reader, output_file(path) as out:
            sums = reader.sums((), None, "UTC", asked.start, asked.end, asked.where)
            with Progress(sum(row["requests"] for row in sums), "rows") as progress:
                write(_watched(reader.rows(asked.start, asked.end, asked.where), progress), out)
            if expired := reader.expired(asked.start, asked.end):
                print(f"tokenport: {expired:,} rows have expired and are not in it; report has sums", file=sys.stderr)
    except ConfigError as error:
        return report_problems(error)
    except UsageError as error:
        return fail(str(error))
    except Unreachable as error:
        return fail(str(error), UNREACHABLE)
    except (MissingExtra, UnfitValue) as error:
        return fail(f"--format {arguments.format}: {error}")
    except BrokenPipeError:
        raise
    except OSError as error:
        return fail(f"cannot export: {error}")
    return 0


def _focus_writer(arguments: Namespace) -> Writer:
    """FOCUS is CSV, or Parquet in a file that is called so."""
    terms = FocusTerms(arguments.provider, arguments.view, arguments.period)
    path: Path | None = arguments.output
    if path is not None and path.suffix == ".parquet":
        return lambda rows, out: write_parquet(focus_rows(rows, terms), out, focus_columns.COLUMNS)
    return _as_text(lambda rows, out: write_csv(focus_rows(rows, terms), out, focus_columns.NAMES))


def _watched(rows: Iterator[Record], progress: Progress) -> Iterator[Mapping[str, object]]:
    since = 0
    for row in rows:
        yield row
        since += 1
        if since == _ADVANCE_ROWS:
            progress.advance(since)
            since = 0


def _as_text(write: Callable[[Rows, TextIO], int]) -> Writer:
    def write_text(rows: Rows, out: BinaryIO) -> int:
        text = TextIOWrapper(out, encoding="utf-8", newline="")
        try:
            return write(rows, text)
        finally:
            text.detach()  # flushes, and leaves the file open

    return write_text


WRITERS: Mapping[str, Writer] = {
    "jsonl": _as_text(write_jsonl),
    "csv": _as_text(write_csv),
    "parquet": write_parquet,
}
