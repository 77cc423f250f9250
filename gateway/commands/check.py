"""`tokenport check`: one line per mistake, or one that says all is well."""

import sys
from argparse import Namespace
from collections.abc import Sized

from gateway.commands.output import report_problems, settings_of
from gateway.config import ConfigError


def run(arguments: Namespace) -> int:
    try:
        settings = settings_of(arguments)
    except ConfigError as error:
        return report_problems(error)
    for note in settings.notes:
        print(f"note: {note}", file=sys.stderr)
    backends, regions = _count(settings.backends, "backend"), _count(settings.regions, "region")
    links, routes = _count(settings.links, "link"), _count(settings.rules, "route")
    tenants = _count(settings.tenants, "tenant")
    print(f"{arguments.config}: good: {backends} in {regions}, {links}, {routes}, {tenants}")
    for sink in settings.sinks:
        print(f"ships to {sink.name}: {sink.kind}, {sink.place}")
    return 0


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}" if len(things) == 1 else f"{len(things)} {name}s"
