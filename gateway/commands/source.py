"""Where a command reads its figures: this gateway's own ledger, or what `--source` names."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.commands.output import UsageError, settings_of
from gateway.shipping.shipper import SinkError
from gateway.shipping.sources import Figures, SourceError, figures_of

UNREACHABLE = 3


class Unreachable(Exception):
    """The store does not answer, or not with what is asked for; one line."""


@contextmanager
def figures(arguments: Namespace) -> Iterator[Figures]:
    """An address needs no configuration: a fleet is read from anywhere.

    Raises:
        ConfigError: the configuration cannot be read.
        UsageError: there is no such source.
        Unreachable: there is, but it does not answer.
    """
    source: str = arguments.source
    try:
        if "://" in source:
            opened = figures_of(source, (), None)
        else:
            settings = settings_of(arguments)
            opened = figures_of(source, settings.sinks, settings.gateway.data_dir)
        with opened as found:
            yield found
    except SourceError as error:
        raise UsageError(str(error)) from None
    except SinkError as error:
        raise Unreachable(f"--source: {error}") from None
