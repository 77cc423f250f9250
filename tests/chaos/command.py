"""The command line of a campaign: progress on stderr, the seed with it, findings and figures on stdout.

What comes and what is planned for it follow from the seed; how they meet does not.
"""

import argparse
import asyncio
import secrets
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.campaign import campaign
from tests.chaos.world import Deed

FINDINGS_SHOWN_MAX = 50


def arguments_of(program: str, description: str | None, requests: int) -> argparse.ArgumentParser:
    """The options that all campaigns have."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run; default: a new one")
    parser.add_argument("--requests", type=int, default=requests)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=None, help="directory for the ledger and the gateway's output")
    return parser


def run(arguments: argparse.Namespace, deeds: Sequence[tuple[Deed, int]], say: Callable[[str], None]) -> int:
    """The campaign. Returns the exit status: 1 if anything was not as it must be."""
    seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.keep or Path(temporary)
        running = campaign(
            directory,
            seed=seed,
            requests=arguments.requests,
            deeds=deeds,
            workers=arguments.workers,
            say=say,
        )
        report = asyncio.run(running)
    for finding in report.findings[:FINDINGS_SHOWN_MAX]:
        print(finding)
    print(f"manners   {dict(report.manners.most_common())}")
    print(f"outcomes  {dict(report.outcomes.most_common())}")
    print(f"sources   {dict(report.sources.most_common())}")
    print(f"{report.line()} in {report.seconds:.0f} s (seed {seed})")
    return 1 if report.findings else 0


def sayer(name: str) -> Callable[[str], None]:
    """Progress, for a person who waits."""
    return lambda text: print(f"{name}: {text}", file=sys.stderr, flush=True)
