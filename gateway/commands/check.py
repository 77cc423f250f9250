"""`tokenport check`: one line per mistake, or one that says all is well."""

import sys
from argparse import Namespace

from gateway.commands.output import report_problems, settings_of
from gateway.config import ConfigError


def run(arguments: Namespace) -> int:
    try:
        settings = settings_of(arguments)
    except ConfigError as error:
        return report_problems(error)
    for note in settings.notes:
        print(f"note: {note}", file=sys.stderr)
    print(
        f"{arguments.config}: good: {len(settings.backends)} backends in {len(settings.regions)} regions, "
        f"{len(settings.links)} links, {len(settings.rules)} routes, {len(settings.tenants)} tenants"
    )
    return 0
