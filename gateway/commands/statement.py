"""`tokenport statement`: the export statement of a tenant for a period, with the seals it rests on."""

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from gateway.admin.status import VERSION
from gateway.clock import wall
from gateway.commands.output import UsageError, fail, report_problems, settings_of, zone
from gateway.config import ConfigError
from gateway.finance.period import Period
from gateway.finance.statement import NoSuchTenant, Statement, make_statement
from gateway.finance.statement_html import write_html
from gateway.finance.statement_text import write_csv, write_json, write_table
from gateway.ledger.instants import micros
from gateway.ledger.reading import LEDGER_NAME
from gateway.ledger.seals import BadSeal, read_seals

_WRITERS: dict[str, Callable[[Statement, TextIO], None]] = {
    "table": write_table,
    "json": write_json,
    "csv": write_csv,
    "html": write_html,
}


def run(arguments: Namespace) -> int:
    try:
        settings = settings_of(arguments)
        period = _period(arguments)
        data_dir = settings.gateway.data_dir
        statement = make_statement(
            data_dir,
            read_seals(data_dir / LEDGER_NAME),  # before the figures: see gateway.finance.basis
            period,
            tenant=arguments.tenant,
            tenants=[tenant.name for tenant in settings.tenants],
            edge=settings.gateway.edge,
            version=VERSION,
            now_us=micros(wall()),
        )
    except ConfigError as error:
        return report_problems(error)
    except (UsageError, NoSuchTenant) as error:
        return fail(str(error))
    except BadSeal as error:
        return fail(f"{error}: run tokenport verify", status=1)
    try:
        _write(statement, _WRITERS[arguments.format], arguments.output)
    except BrokenPipeError:
        raise
    except OSError as error:
        return fail(f"--output {arguments.output}: {error.strerror}")
    for reason in statement.reasons:
        print(f"{statement.state}: {reason}", file=sys.stderr)
    return 1 if statement.basis.findings else 0


def _period(arguments: Namespace) -> Period:
    tz = zone(arguments.tz)
    try:
        return Period.of(arguments.period, tz)
    except ValueError:
        raise UsageError(
            f"--period {arguments.period}: not a period; write a year, month or day: 2026, 2026-11, 2026-11-24"
        ) from None


def _write(statement: Statement, write: Callable[[Statement, TextIO], None], output: Path | None) -> None:
    """To a file whole or not at all: a statement that was cut must not look like one."""
    if output is None:
        write(statement, sys.stdout)
        return
    unfinished = output.with_name(f"{output.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as out:
            write(statement, out)
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
