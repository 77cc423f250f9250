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

from gateway.ledger.reading import PERIODS
from gateway.ledger.tables import DIMENSIONS

USAGE_ERROR = 2

EXPLAIN = """
examples:
  tokenport serve --config tokenport.toml
  tokenport explain --model qwen3 --destination DE --input-tokens 2000
  tokenport report --by tenant,model --period day --tz Europe/Berlin --from 2026-11-01
  tokenport export --from 2026-11-01 --format csv > november.csv
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
    _add(commands, "verify", "check the ledger: hash chain, one end per request, sums, index", output=True)
    _simulate(_add(commands, "simulate", "what a routing policy costs in a described world", config=False, output=True))
    keys = _add(commands, "keys", "make API keys", config=False)
    keys.add_argument("action", choices=["new"], help="new: print a key and the hash that goes into the configuration")
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


def _period(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--source",
        default="",
        metavar="URL",
        help="read a store that gateways ship to: the name of a sink in the configuration, postgres://... or"
        " clickhouse+https://...; ?table=NAME where it is not exports (default: this gateway's own ledger)",
    )
    command.add_argument("--from", dest="start", metavar="TIME", help="first moment: 2026-11-01 or 2026-11-01T08:00")
    command.add_argument("--to", dest="end", metavar="TIME", help="end, not included")
    command.add_argument("--tz", default="UTC", help="time zone of --from, --to and of periods (default: UTC)")


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
        default="origin_country,destination_country",
        help=f"{', '.join(DIMENSIONS)} and period; comma separated (default: origin_country,destination_country)",
    )
    command.add_argument(
        "--period", choices=PERIODS, help="one line for each of them (default: one for all; with period in --by: day)"
    )
    command.add_argument(
        "--refusals", action="store_true", help="requests refused by limit, budget or residency instead"
    )
    _period(command)


def _export(command: argparse.ArgumentParser) -> None:
    command.add_argument("--format", choices=["jsonl", "csv"], default="jsonl", help="default: jsonl")
    _period(command)


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
