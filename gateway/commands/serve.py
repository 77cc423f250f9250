"""`tokenport serve`: run the gateway until it is told to stop."""

import os
from argparse import Namespace

from gateway import app
from gateway.commands.output import fail, report_problems
from gateway.config import ConfigError
from gateway.control.configuration import Configuration
from gateway.control.processes import StartupError


def run(arguments: Namespace) -> int:
    try:
        configuration = Configuration(arguments.config, os.environ)
        return app.serve(configuration, os.environ, lambda line: print(line, flush=True))
    except ConfigError as error:
        return report_problems(error)
    except StartupError as error:
        return fail(str(error))
