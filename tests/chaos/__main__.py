"""`make chaos`: the fault campaign at length. Ends with 1 if anything was not as it must be.

What comes and what is planned for it follow from the seed, which is printed; how they meet does not.
"""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.campaign import campaign

FINDINGS_SHOWN_MAX = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run; default: a new one")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=None, help="of workers; default: one for 1,500 requests")
    parser.add_argument("--reloads", type=int, default=None, help="of the configuration; default: one for 800 requests")
    parser.add_argument("--keep", type=Path, default=None, help="directory for the ledger and the gateway's output")
    arguments = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
    kills = arguments.requests // 1500 if arguments.kills is None else arguments.kills
    reloads = arguments.requests // 800 if arguments.reloads is None else arguments.reloads
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.keep or Path(temporary)
        running = campaign(
            directory,
            seed=seed,
            requests=arguments.requests,
            kills=kills,
            reloads=reloads,
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


def say(text: str) -> None:
    print(f"chaos: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
