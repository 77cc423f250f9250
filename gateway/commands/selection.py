"""Which exports a command is about: the options --from, --to, --tz and the filters, the same for all commands."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from gateway.commands.output import UsageError, moment, zone
from gateway.ledger.reading import Filter

# Option, and the column that it narrows.
FILTERS = {
    "origin": "origin_country",
    "destination": "destination_country",
    "tenant": "tenant",
    "model": "model",
    "region": "origin_region",
    "backend": "origin_backend",
    "outcome": "outcome",
}
UNKNOWN = "-"  # as tables show it
_COUNTRIES = ("origin", "destination")


@dataclass(frozen=True, slots=True)
class Selection:
    """Bounds are epoch seconds; None: none."""

    start: float | None
    end: float | None
    tz: ZoneInfo
    where: Filter


def add_period(command: ArgumentParser) -> None:
    command.add_argument("--from", dest="start", metavar="TIME", help="first moment: 2026-11-01 or 2026-11-01T08:00")
    command.add_argument("--to", dest="end", metavar="TIME", help="end, not included")
    command.add_argument("--tz", default="UTC", help="time zone of --from, --to and of periods (default: UTC)")


def add_source(command: ArgumentParser) -> None:
    command.add_argument(
        "--source",
        default="",
        metavar="URL",
        help="read a store that gateways ship to: the name of a sink in the configuration, postgres://... or"
        " clickhouse+https://...; ?table=NAME where it is not exports (default: this gateway's own ledger)",
    )


def add_filters(command: ArgumentParser) -> None:
    group = command.add_argument_group("only some exports", "Each may be repeated: any of them. - stands for unknown.")
    for option, column in FILTERS.items():
        country = option in _COUNTRIES
        text = f"{option} country (ISO 3166)" if country else column.replace("_", " ").removeprefix("origin ")
        group.add_argument(f"--{option}", action="append", metavar="CC" if country else "NAME", help=text)


def selection(arguments: Namespace) -> Selection:
    """What the options say.

    Raises:
        UsageError: a time or zone that is none, or a period that ends before it begins.
    """
    tz = zone(arguments.tz)
    start, end = moment(arguments.start, tz, "--from"), moment(arguments.end, tz, "--to")
    if start is not None and end is not None and end <= start:
        raise UsageError(f"--to {arguments.end}: is not after --from {arguments.start}; --to is not included")
    where = {}
    for option, column in FILTERS.items():
        values = getattr(arguments, option, None)
        if values:
            upper = option in _COUNTRIES
            where[column] = ["" if value == UNKNOWN else value.upper() if upper else value for value in values]
    return Selection(start, end, tz, where)
