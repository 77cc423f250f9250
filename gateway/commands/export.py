"""`tokenport export`: one row per request, every column of the contract."""

import sys
from argparse import Namespace

from gateway.commands.output import UsageError, fail, report_problems, settings_of
from gateway.commands.selection import selection
from gateway.config import ConfigError
from gateway.ledger.formats import write_csv, write_jsonl
from gateway.ledger.reading import Reader


def run(arguments: Namespace) -> int:
    try:
        settings = settings_of(arguments)
        asked = selection(arguments)
    except ConfigError as error:
        return report_problems(error)
    except UsageError as error:
        return fail(str(error))
    write = write_csv if arguments.format == "csv" else write_jsonl
    with Reader(settings.gateway.data_dir) as reader:
        write(reader.rows(asked.start, asked.end, asked.where), sys.stdout)
    return 0
