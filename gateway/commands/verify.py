"""`tokenport verify`: is the ledger what it was? Prints what was found; exit status 1 if anything was.

Works on a running gateway, and elsewhere on a copy of the ledger directory.
"""

import sys
from argparse import Namespace
from pathlib import Path

from gateway.commands.output import UsageError, fail, print_rows, report_problems, settings_of
from gateway.commands.progress import Progress
from gateway.config import ConfigError
from gateway.ledger.reading import LEDGER_NAME
from gateway.ledger.recordaudit import Audit
from gateway.ledger.sealkey import SealKeyError, parse_public_key
from gateway.ledger.segment import logs
from gateway.ledger.verify import audit, audit_bytes


def run(arguments: Namespace) -> int:
    try:
        ledger = _ledger(arguments)
        keys = [parse_public_key(text) for text in arguments.public_key]
    except ConfigError as error:
        return report_problems(error)
    except (UsageError, SealKeyError) as error:
        return fail(str(error))
    with Progress(audit_bytes(ledger, deep=arguments.deep), "bytes") as progress:
        result = audit(ledger, deep=arguments.deep, public_keys=keys, advance=progress.advance)
    _say_what_was_done(result)
    if result.findings:
        rows = [{"segment": each.segment, "line": each.line, "problem": each.problem} for each in result.findings]
        print_rows(rows, ("segment", "line", "problem"), arguments.format)
        print(f"{len(rows)} findings in {ledger}", file=sys.stderr)
        return 1
    totals = result.summary.flat()
    print_rows([totals], tuple(totals), arguments.format)
    return 0


def _ledger(arguments: Namespace) -> Path:
    given: Path | None = arguments.ledger
    if given is None:
        return settings_of(arguments).gateway.data_dir / LEDGER_NAME
    for directory in (given, given / LEDGER_NAME):
        if logs(directory):
            return directory
    raise UsageError(f"--ledger {given}: there is no ledger; give the directory that holds 0, 1, ...")


def _say_what_was_done(result: Audit) -> None:
    """On stderr: how much of the answer rests on seals, and on whose."""
    if result.sealed:
        print(
            f"{result.sealed} segments checked by their seals, {result.walked} line by line"
            " (--deep: every line, and every row of the index)",
            file=sys.stderr,
        )
    if result.outlived:
        print(f"of {result.outlived} segments only sealed sums are left; their rows have expired", file=sys.stderr)
    if result.trusted_key:
        print(
            f"the seals are believed because they all name one key, {result.trusted_key};"
            " give --public-key to see that it is yours",
            file=sys.stderr,
        )
