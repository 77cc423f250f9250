"""`tokenport reconcile`: a provider's own usage beside ours. Exit status 1 if anything differs or cannot be read."""

import sqlite3
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import TextIO, TypeVar
from zoneinfo import ZoneInfo

from gateway.commands.output import UsageError, fail, moment, report_problems, settings_of, zone
from gateway.commands.progress import Progress
from gateway.config import ConfigError, Settings
from gateway.config.settings import BackendSettings
from gateway.finance.attempts import attempts_at
from gateway.finance.comparison import REQUEST, Comparison
from gateway.finance.comparison_text import span_text, write_csv, write_json, write_table
from gateway.finance.headers import UnknownHeaders
from gateway.finance.provider import ProviderFile, UnreadableFile
from gateway.finance.shown import printable
from gateway.ledger.instants import MICROS, micros
from gateway.ledger.reading import Reader

Item = TypeVar("Item")

_WRITERS: dict[str, Callable[[Comparison, Mapping[str, object], TextIO], None]] = {
    "table": write_table,
    "json": write_json,
    "csv": write_csv,
}


def run(arguments: Namespace) -> int:
    try:
        settings = settings_of(arguments)
        tz = zone(arguments.tz)
        if arguments.tolerance_tokens < 0:
            raise UsageError(f"--tolerance-tokens {arguments.tolerance_tokens}: not below 0")
        comparison = Comparison(tz, arguments.tolerance_tokens)
        with closing(comparison):
            return _run(arguments, settings, comparison, tz)
    except ConfigError as error:
        return report_problems(error)
    except (UsageError, UnknownHeaders, UnreadableFile) as error:
        return fail(printable(str(error)))
    except sqlite3.Error as error:
        return fail(f"the comparison needs room for temporary files: {error}")


def _run(arguments: Namespace, settings: Settings, comparison: Comparison, tz: ZoneInfo) -> int:
    backend = _backend(settings, arguments.backend)
    has = _take_file(arguments, comparison, tz)
    start, end = moment(arguments.start, tz, "--from"), moment(arguments.end, tz, "--to")
    comparison.set_span(None if start is None else micros(start), None if end is None else micros(end))
    currency = settings.gateway.currency
    if backend.tokens is not None:
        currency = backend.tokens.currency
    reaches = comparison.reaches
    with Reader(settings.gateway.data_dir) as reader:
        rows = reader.rows(_seconds(reaches.start_us), _seconds(reaches.end_us))
        with Progress(0, "rows") as progress:
            attempts = attempts_at(_watched(rows, progress), backend.name, backend.models)
            comparison.take_attempts(attempts, has, currency)
    about = {
        "backend": backend.name,
        "file": str(arguments.file),
        "by": comparison.by,
        "from": span_text(comparison.span.start_us),
        "to": span_text(comparison.span.end_us),
        "currency": comparison.currency or None,
    }
    _WRITERS[arguments.format](comparison, about, sys.stdout)
    _advise(comparison)
    return 1 if comparison.found.differences or comparison.unreadable_count else 0


def _backend(settings: Settings, name: str) -> BackendSettings:
    for backend in settings.backends:
        if backend.name == name:
            return backend
    known = ", ".join(backend.name for backend in settings.backends)
    raise UsageError(f"--backend {name}: not in the configuration; it has {known}")


def _take_file(arguments: Namespace, comparison: Comparison, tz: ZoneInfo) -> set[str]:
    """Which of our columns the file has."""
    given = _pairs(arguments.columns, "--columns", "input=tokens_in,output=tokens_out")
    models = _pairs(arguments.models, "--models", "big-2026-08-01=big")
    try:
        with arguments.file.open("rb") as file:
            usages = ProviderFile(file, arguments.file, given, tz)
            by = arguments.by
            if by is None and "id" in usages.has and "requests" not in usages.has:
                by = REQUEST
            needed = "id" if by == REQUEST else "time"
            if needed not in usages.has:
                raise UsageError(f"to compare by {by or 'hour or day'} the file needs a column for {needed}: --columns")
            with Progress(0, "lines") as progress:
                comparison.take_file(_watched(usages, progress), by, models)
            return usages.has
    except OSError as error:
        raise UsageError(f"{arguments.file}: {error.strerror}") from None


def _pairs(text: str, option: str, example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, (each.strip() for each in text.split(","))):
        name, between, value = pair.partition("=")
        if not name or not between or name in found:
            raise UsageError(f"{option} {pair}: write pairs, each once, as in {example}")
        found[name.strip()] = value.strip()
    return found


def _watched(items: Iterable[Item], progress: Progress) -> Iterator[Item]:
    for item in items:
        progress.advance()
        yield item


def _seconds(at_us: int | None) -> float | None:
    return None if at_us is None else at_us / MICROS


def _advise(comparison: Comparison) -> None:
    found = comparison.found
    if (
        comparison.by == REQUEST
        and found.ours["requests"]
        and found.theirs["requests"]
        and not comparison.ids_in_common
    ):
        print(
            "none of the file's ids is one of ours: they may be the provider's own. Compare by hour or day: --by hour",
            file=sys.stderr,
        )
    if comparison.currency and not comparison.compares_cost:
        print(f"costs are not compared: theirs are in {comparison.currency}, ours are not", file=sys.stderr)
    if comparison.unreadable_count:
        lines = comparison.unreadable_count
        told = "1 line of the file cannot be read, and is" if lines == 1 else f"{lines:,} lines cannot be read, and are"
        print(f"{told} in no sum", file=sys.stderr)
