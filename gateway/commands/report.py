"""`tokenport report`: export volume, cost and revenue, summed along the contract's dimensions."""

from argparse import Namespace
from collections.abc import Sequence

from gateway.commands.output import Row, UsageError, fail, moment, print_rows, report_problems, zone
from gateway.commands.source import UNREACHABLE, Unreachable, figures
from gateway.config import ConfigError
from gateway.ledger.tables import DIMENSIONS, FIGURES

PERIOD = "period"
DEFAULT_PERIOD = "day"
# What a person wants to see first; JSON and CSV carry every sum.
SHOWN = (
    "requests",
    "input_tokens",
    "output_tokens",
    "delivered_tokens",
    "exported_tokens",
    "cost_nano",
    "revenue_nano",
)
REFUSAL_COLUMNS = ("minute", "tenant", "reason", "count")


def run(arguments: Namespace) -> int:
    try:
        tz = zone(arguments.tz)
        start, end = moment(arguments.start, tz, "--from"), moment(arguments.end, tz, "--to")
        by = _dimensions(arguments.by, arguments.period)
        with figures(arguments) as reader:
            if arguments.refusals:
                print_rows(list(reader.refusals(start, end)), REFUSAL_COLUMNS, arguments.format)
                return 0
            keys = [name for name in by if name != PERIOD]
            period = arguments.period or DEFAULT_PERIOD if PERIOD in by else None
            rows = reader.sums(keys, period=period, tz=arguments.tz, start=start, end=end)
    except ConfigError as error:
        return report_problems(error)
    except UsageError as error:
        return fail(str(error))
    except Unreachable as error:
        return fail(str(error), UNREACHABLE)
    if arguments.format == "table":
        currencies = {row["currency"] for row in rows}
        _print_for_people(rows, by, str(currencies.pop()) if len(currencies) == 1 else "")
    else:
        columns = [*([PERIOD] if period else []), *keys, "currency", *FIGURES]
        print_rows(rows, columns, arguments.format)
    return 0


def _dimensions(text: str, period: str | None) -> list[str]:
    """What to sum by, each once. A period that was asked for is one of them, named in `text` or not."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in (*DIMENSIONS, PERIOD):
            raise UsageError(f"--by {name}: not a dimension; choose from {', '.join((*DIMENSIONS, PERIOD))}")
    return [*names, PERIOD] if period and PERIOD not in names else names


def _print_for_people(rows: Sequence[Row], by: Sequence[str], currency: str) -> None:
    cost, revenue = f"cost {currency}", f"revenue {currency}"
    shown = [{**row, cost: _money(row["cost_nano"]), revenue: _money(row["revenue_nano"])} for row in rows]
    columns = [*by, *(name for name in SHOWN if not name.endswith("_nano")), cost, revenue]
    print_rows(shown, columns, "table")


def _money(nano: object) -> float:
    assert isinstance(nano, int)
    return nano / 1e9
