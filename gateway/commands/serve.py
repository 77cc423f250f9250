"""`tokenport serve`: run the gateway until it is told to stop."""

import os
import sys
from argparse import Namespace

import uvloop

from gateway.commands.output import fail, report_problems
from gateway.config import ConfigError
from gateway.control.configuration import Configuration
from gateway.control.processes import StartupError
from gateway.control.supervisor import Supervisor
from gateway.telemetry import configure_logging


def run(arguments: Namespace) -> int:
    try:
        configuration = Configuration(arguments.config, os.environ)
    except ConfigError as error:
        return report_problems(error)
    configure_logging(sys.stderr)
    try:
        return uvloop.run(_serve(configuration))
    except StartupError as error:
        return fail(str(error))


async def _serve(configuration: Configuration) -> int:
    return await Supervisor(configuration, os.environ).run(lambda line: print(line, flush=True))
