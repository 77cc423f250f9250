"""`tokenport`: the commands. Parses arguments, nothing else; each command lives in `gateway/commands`.

Data goes to stdout, progress and messages to stderr. Exit status: 0 good, 1 a finding or difference, 2 usage or
configuration, 3 gateway unreachable.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.commands.query import EXAMPLES as QUERY_EXAMPLES
from gateway.commands.selection import add_filters, add_period, add_source
from gateway.ledger.focus import CHARGE_PERIODS, VIEWS
from gateway.ledger.reading import PERIODS
from gateway.ledger.tables import DIMENSIONS

USAGE_ERROR = 2
EXPORT_FORMATS = ("jsonl", "csv", "parquet", "focus")

EXPLAIN = """
examples:
  tokenport serve --config tokenport.toml
  tokenport explain --model qwen3 --destination DE --input-tokens 2000
  tokenport report --by tenant,model --period day --tz Europe/Berlin --from 2026-11-01
  tokenport export --from 2026-11-01 --format csv --output november.csv
  tokenport query "SELECT tenant, sum(exported_tokens) FROM rollups GROUP BY tenant"
  tokenport statement --period 2026-11 --tenant acme --tz Europe/Berlin --format html --output acme.html
  tokenport reconcile --backend bought-1 usage.csv --from 2026-11-01 --to 2026-12-01
"""

STATEMENT = """
A statement is final once its period is over and all of its rows are sealed; before that it is provisional and says why.
Rows belong to the period they ended in. Amounts in json and csv are the exact integers of the ledger.

examples:
  tokenport statement --period 2026-11                                   # all tenants, for the terminal
  tokenport statement --period 2026-11 --tenant acme --tz Europe/Berlin --format html --output acme-2026-11.html
  tokenport statement --period 2026 --format csv > 2026.csv
"""

RECONCILE = """
FILE is what the provider exports: CSV with a header, or JSON Lines, with a line for each request (matched by its id) or
for each hour or day and model (matched by that). Columns are found under the names that providers use; --columns names
those that are not. Every attempt at the backend counts on our side, those that failed too.

examples:
  tokenport reconcile --backend bought-1 usage.csv --from 2026-11-01 --to 2026-12-01
  tokenport reconcile --backend bought-1 log.csv --columns id=trace,input=tokens_in,output=tokens_out
  tokenport reconcile --backend bought-1 usage.jsonl --by day --models big-2026-08-01=big --format csv > differences.csv

exit status: 0 no difference, 1 differences or lines that cannot be read, 2 usage
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    command = importlib.import_module(f"gateway.commands.{arguments.command}")
    try:
        status: int = command.run(arguments)
    except BrokenPipeError:
        # The reader of our output left (`| head`): not an error. Nothing may flush to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tokenport",
        description="A cross-region token export routing gateway.",
        epilog=EXPLAIN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, "serve", "run the gateway")
    _add(commands, "check", "validate a configuration: one line per mistake, with its key and the fix")
    _explain(_add(commands, "explain", "which route would a request take, and why not the others", output=True))
    _report(_add(commands, "report", "export volume, cost and revenue, summed", output=True))
    _export(_add(commands, "export", "one row per request, with every column"))
    _statement(_add(commands, "statement", "the export statement of a tenant for a period, with the seals it rests on"))
    _reconcile(_add(commands, "reconcile", "a provider's own usage beside ours: what differs", output=True))
    _query(_add(commands, "query", "SQL over the ledger, read-only (extra `query`)", output=True))
    _verify(_add(commands, "verify", "check the ledger: hash chain, seals, one end per request, index", output=True))
    _simulate(_add(commands, "simulate", "what a routing policy costs in a described world", config=False, output=True))
    _keys(_add(commands, "keys", "make API keys; show the key that seals the ledger"))
    _demo(_add(commands, "demo", "a whole world on this machine, with a real model", config=False))
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    *,
    config: bool = True,
    output: bool = False,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    if config:
        default = os.environ.get("TOKENPORT_CONFIG", "tokenport.toml")
        command.add_argument(
            "--config",
            type=Path,
            default=Path(default),
            metavar="FILE",
            help="configuration (default: $TOKENPORT_CONFIG, else tokenport.toml)",
        )
    if output:
        command.add_argument("--format", choices=["table", "json", "csv"], default="table", help="default: table")
    return command


def _explain(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, help="public model name")
    command.add_argument("--tenant", default="", help="as this tenant: its residency, country and value of time")
    command.add_argument("--destination", default="", metavar="CC", help="destination country (ISO 3166)")
    command.add_argument("--input-tokens", type=int, default=500, metavar="N", help="prompt size (default: 500)")
    command.add_argument("--max-tokens", type=int, default=None, metavar="N", help="as the request would limit it")
    command.add_argument(
        "--at", default="", metavar="TIME", help="at the prices of another time; UTC unless it says otherwise"
    )


def _report(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--by",
        help=f"{', '.join(DIMENSIONS)} and period; comma separated (default: origin_country,destination_country)",
    )
    command.add_argument(
        "--period", choices=PERIODS, help="one line for each of them (default: one for all; with period in --by: day)"
    )
    kinds = command.add_mutually_exclusive_group()
    kinds.add_argument("--refusals", action="store_true", help="requests refused by limit, budget or residency instead")
    kinds.add_argument(
        "--budgets",
        action="store_true",
        help="what is used of each budget now instead, as the limiter counts it, with a forecast: used + mean of the"
        " last 28 whole days (or since the first export) x time left",
    )
    kinds.add_argument(
        "--sites",
        action="store_true",
        help="what each site makes of its power instead: delivered tokens per kWh, income per MWh and per MW of"
        " power_cap_w, token spread (tariff - energy - tokens bought - link) per million, share of its hours with a"
        " negative one, and, estimated, what the same tokens and bytes would have cost more at the nearest site"
        " (least rtt_ms) at the prices that the configuration gives for those hours",
    )
    add_source(command)
    add_period(command)
    add_filters(command)


def _export(command: argparse.ArgumentParser) -> None:
    command.add_argument("--format", choices=EXPORT_FORMATS, default=EXPORT_FORMATS[0], help="default: jsonl")
    command.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="written whole or not at all (default: stdout)",
    )
    add_source(command)
    add_period(command)
    add_filters(command)
    focus = command.add_argument_group(
        "FOCUS 1.2", "Charges by tenant, model, token class, origin and destination; Parquet if FILE ends in .parquet."
    )
    focus.add_argument(
        "--view",
        choices=tuple(VIEWS),
        default="billing",
        help="billing: what tenants are charged (default); cost: what serving them cost",
    )
    focus.add_argument(
        "--period", choices=tuple(CHARGE_PERIODS), default="day", help="of a charge, in UTC (default: day)"
    )
    focus.add_argument("--provider", default="tokenport", metavar="NAME", help="who bills (default: tokenport)")


def _query(command: argparse.ArgumentParser) -> None:
    command.add_argument("sql", metavar="SQL", help="one query, in the SQL of DuckDB")
    command.epilog = QUERY_EXAMPLES
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    add_period(command)
    add_filters(command)


def _verify(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--deep", action="store_true", help="unpack sealed segments too: every line, every row, every row of the index"
    )
    command.add_argument(
        "--public-key",
        action="append",
        default=[],
        metavar="FILE|HEX",
        help="whose seals are believed (tokenport keys seal); may be given again for an older key"
        " (default: the key that all seals name)",
    )
    command.add_argument(
        "--ledger", type=Path, metavar="DIR", help="a copied ledger directory, instead of the configuration's"
    )


def _keys(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "action",
        choices=["new", "seal"],
        help="new: print a key and the hash that goes into the configuration;"
        " seal: print the public key that the ledger's seals are checked with",
    )
    command.add_argument("--format", choices=["table", "json"], default="table", help="of seal (default: table)")


def _statement(command: argparse.ArgumentParser) -> None:
    _teach(command, STATEMENT)
    command.add_argument("--period", required=True, help="a year, month or day: 2026, 2026-11 or 2026-11-24")
    command.add_argument("--tenant", default="", help="of this tenant (default: a section for each)")
    command.add_argument("--tz", default="UTC", help="time zone of the period (default: UTC)")
    command.add_argument("--format", choices=["table", "json", "csv", "html"], default="table", help="default: table")
    command.add_argument("--output", type=Path, metavar="FILE", help="written whole or not at all (default: stdout)")


def _reconcile(command: argparse.ArgumentParser) -> None:
    _teach(command, RECONCILE)
    command.add_argument("file", type=Path, metavar="FILE", help="the provider's usage: CSV or JSON Lines")
    command.add_argument("--backend", required=True, metavar="NAME", help="which backend the provider is")
    add_period(command)
    command.add_argument(
        "--by", choices=["request", "hour", "day"], help="what is matched (default: request, if the file has ids)"
    )
    command.add_argument(
        "--columns", default="", metavar="OURS=THEIRS,...", help="what the file calls a column; see the error for names"
    )
    command.add_argument(
        "--models", default="", metavar="THEIRS=OURS,...", help="what the file calls a model that we call otherwise"
    )
    command.add_argument(
        "--tolerance-tokens", type=int, default=0, metavar="N", help="differences up to N tokens are none (default: 0)"
    )


def _teach(command: argparse.ArgumentParser, text: str) -> None:
    command.epilog = text
    command.formatter_class = argparse.RawDescriptionHelpFormatter


def _simulate(command: argparse.ArgumentParser) -> None:
    command.add_argument("scenario", type=Path, metavar="SCENARIO.toml", help="names its requests and prices")
    command.add_argument(
        "--assignments", type=Path, required=True, metavar="OUT.csv", help="written: which route each request took"
    )
    command.add_argument(
        "--policy",
        default="money",
        metavar="NAME",
        help="money (the production formula, default), nearest, round_robin, least_outstanding, cheapest_energy",
    )


def _demo(command: argparse.ArgumentParser) -> None:
    command.add_argument("--speed", type=float, default=1.0, help="hours of prices per hour; 600: an hour in 6 s")
    command.add_argument("--port", type=int, default=8080, help="public port (default: 8080)")
    command.add_argument("--admin-port", type=int, default=8081, help="page and metrics (default: 8081)")
    command.add_argument("--data-dir", type=Path, default=Path("var/demo"), help="default: var/demo")
