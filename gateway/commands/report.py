"""`tokenport report`: export volume, cost and revenue, summed along the contract's dimensions."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from decimal import Decimal

from gateway.clock import wall
from gateway.commands.budgets import budget_rows, print_budgets
from gateway.commands.output import UsageError, fail, print_rows, report_problems, settings_of
from gateway.commands.selection import Selection, selection
from gateway.commands.sites import print_sites
from gateway.commands.source import UNREACHABLE, Unreachable, figures
from gateway.commands.table import Row, decimals_for
from gateway.config import ConfigError, Settings
from gateway.ledger.reading import Reader, RowsExpired
from gateway.ledger.segment import Record
from gateway.ledger.tables import DIMENSIONS, FIGURES
from gateway.shipping.sources import Figures

PERIOD = "period"
DEFAULT_PERIOD = "day"
DEFAULT_BY = "origin_country,destination_country"
# What a person wants to see first; JSON and CSV carry every sum.
COUNTS = ("requests", "input_tokens", "output_tokens", "delivered_tokens", "exported_tokens")
AMOUNTS = ("cost_nano", "revenue_nano")
SPARE = ("output_tokens", "input_tokens", "requests")  # in a narrow window, in this order
REFUSAL_COLUMNS = ("minute", "tenant", "reason", "count")


def run(arguments: Namespace) -> int:
    try:
        asked = selection(arguments)
        _check_kind(arguments, asked)
        by = _dimensions(arguments.by or DEFAULT_BY, arguments.period)
        if arguments.budgets:
            return _budgets(settings_of(arguments), asked, arguments.format)
        if arguments.sites:
            return _told(print_sites(settings_of(arguments), asked, arguments.period, arguments.format))
        with figures(arguments) as reader:
            if arguments.refusals:
                return _refusals(reader, asked, arguments.format)
            return _sums(reader, arguments, asked, by)
    except ConfigError as error:
        return report_problems(error)
    except (UsageError, RowsExpired) as error:
        return fail(str(error))
    except Unreachable as error:
        return fail(str(error), UNREACHABLE)


def _sums(reader: Figures, arguments: Namespace, asked: Selection, by: Sequence[str]) -> int:
    keys = [name for name in by if name != PERIOD]
    period = arguments.period or DEFAULT_PERIOD if PERIOD in by else None
    rows = reader.sums(keys, period, arguments.tz, asked.start, asked.end, asked.where)
    if arguments.format == "table":
        _print_for_people(rows, by)
    else:
        columns = [*([PERIOD] if period else []), *keys, "currency", *FIGURES]
        print_rows(rows, columns, arguments.format)
    return _told(bool(rows))


def _check_kind(arguments: Namespace, asked: Selection) -> None:
    """Raises UsageError for options of another kind of report."""
    if arguments.by and (arguments.refusals or arguments.sites or arguments.budgets):
        raise UsageError("--by: sums exports; --refusals, --sites and --budgets have columns of their own")
    if arguments.source and (arguments.sites or arguments.budgets):
        raise UsageError("--source: --sites and --budgets are about the sites and tenants of this gateway")
    if arguments.refusals and set(asked.where) - {"tenant"}:
        raise UsageError("--refusals: a refused request went nowhere; only --tenant narrows them")
    if arguments.budgets and (set(asked.where) - {"tenant"} or arguments.start or arguments.end or arguments.period):
        raise UsageError("--budgets: are those of now, in periods of their own; only --tenant narrows them")


def _budgets(settings: Settings, asked: Selection, form: str) -> int:
    with Reader(settings.gateway.data_dir) as reader:
        rows = budget_rows(settings, reader, wall(), asked.where.get("tenant"))
    print_budgets(rows, asked.tz, form)
    if not rows:
        print("tokenport: no tenant has a budget", file=sys.stderr)
    return 0


def _refusals(reader: Figures, asked: Selection, form: str) -> int:
    rows = reader.refusals(asked.start, asked.end)
    tenants = asked.where.get("tenant")
    rows = [row for row in rows if tenants is None or row["tenant"] in tenants]
    total = {"minute": "total", "count": sum(row["count"] for row in rows)}
    print_rows(rows, REFUSAL_COLUMNS, form, totals=[total] if len(rows) > 1 else ())
    return _told(bool(rows))


def _told(anything: bool) -> int:
    if not anything:
        print("tokenport: there is nothing in this period", file=sys.stderr)
    return 0


def _dimensions(text: str, period: str | None) -> list[str]:
    """What to sum by, each once. A period that was asked for is one of them, named in `text` or not."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in (*DIMENSIONS, PERIOD):
            raise UsageError(f"--by {name}: not a dimension; choose from {', '.join((*DIMENSIONS, PERIOD))}")
    return [*names, PERIOD] if period and PERIOD not in names else names


def _print_for_people(rows: Sequence[Record], by: Sequence[str]) -> None:
    """A line of totals for each currency, since amounts of two have no sum."""
    currencies = sorted({row["currency"] or "" for row in rows})
    several = len(currencies) > 1
    unit = f" {currencies[0]}" if len(currencies) == 1 else ""
    decimals = [decimals_for([_units(row[name]) for row in rows]) for name in AMOUNTS]
    titles = {name: name.removesuffix("_nano") + unit for name in AMOUNTS}
    titles |= {name: name.replace("_", " ") for name in COUNTS}

    def shown(row: Row) -> Row:
        amounts = {
            titles[name]: round(_units(row[name]), places) for name, places in zip(AMOUNTS, decimals, strict=True)
        }
        return {**row, **{titles[name]: row[name] for name in COUNTS}, **amounts}

    totals = [_total([row for row in rows if (row["currency"] or "") == currency]) for currency in currencies]
    keys = [*by, *(["currency"] if several or not by else [])]
    named = [{**dict.fromkeys(keys, ""), "currency": total["currency"], keys[0]: "total"} for total in totals]
    columns = [*keys, *(titles[name] for name in (*COUNTS, *AMOUNTS))]
    sums = [{**shown(total), **name} for total, name in zip(totals, named, strict=True)] if len(rows) > 1 else []
    spare = [titles[name] for name in SPARE]
    print_rows(list(map(shown, rows)), columns, "table", totals=sums, spare=spare)


def _total(rows: Sequence[Record]) -> Record:
    return {"currency": rows[0]["currency"], **{name: sum(row[name] for row in rows) for name in FIGURES}}


def _units(nano: object) -> Decimal:
    assert isinstance(nano, int)
    return Decimal(nano).scaleb(-9)
