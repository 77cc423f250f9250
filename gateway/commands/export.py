"""`tokenport export`: one row per request, every column of the contract."""

import sys
from argparse import Namespace

from gateway.commands.output import UsageError, fail, moment, report_problems, settings_of, zone
from gateway.config import ConfigError
from gateway.ledger.formats import write_csv, write_jsonl
from gateway.ledger.reading import Reader


def run(arguments: Namespace) -> int:
    try:
        settings = settings_of(arguments)
        tz = zone(arguments.tz)
        start, end = moment(arguments.start, tz, "--from"), moment(arguments.end, tz, "--to")
    except ConfigError as error:
        return report_problems(error)
    except UsageError as error:
        return fail(str(error))
    write = write_csv if arguments.format == "csv" else write_jsonl
    with Reader(settings.gateway.data_dir) as reader:
        write(reader.rows(start, end), sys.stdout)
    return 0
