"""`tokenport export`: one row per request, every column of the contract."""

import sys
from argparse import Namespace

from gateway.commands.output import UsageError, fail, moment, report_problems, zone
from gateway.commands.source import UNREACHABLE, Unreachable, figures
from gateway.config import ConfigError
from gateway.ledger.formats import write_csv, write_jsonl


def run(arguments: Namespace) -> int:
    write = write_csv if arguments.format == "csv" else write_jsonl
    try:
        tz = zone(arguments.tz)
        start, end = moment(arguments.start, tz, "--from"), moment(arguments.end, tz, "--to")
        with figures(arguments) as reader:
            write(reader.rows(start, end), sys.stdout)
    except ConfigError as error:
        return report_problems(error)
    except UsageError as error:
        return fail(str(error))
    except Unreachable as error:
        return fail(str(error), UNREACHABLE)
    return 0
