"""`tokenport verify`: is the ledger what it was? Prints what was found; exit status 1 if anything was."""

import sys
from argparse import Namespace

from gateway.commands.output import print_rows, report_problems, settings_of
from gateway.config import ConfigError
from gateway.ledger.verify import summary, verify


def run(arguments: Namespace) -> int:
    try:
        settings = settings_of(arguments)
    except ConfigError as error:
        return report_problems(error)
    data_dir = settings.gateway.data_dir
    findings = verify(data_dir)
    if findings:
        rows = [{"segment": each.segment, "line": each.line, "problem": each.problem} for each in findings]
        print_rows(rows, ("segment", "line", "problem"), arguments.format)
        print(f"{len(findings)} findings in {data_dir}", file=sys.stderr)
        return 1
    totals = summary(data_dir)
    print_rows([totals], tuple(totals), arguments.format)
    return 0
