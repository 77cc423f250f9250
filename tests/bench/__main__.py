"""`make bench`: what requests, tokens and streams cost here, beside the least they could cost in the same minutes.

Three subjects stand between the same load and the same backend, in alternating rounds: a bare relay (the floor), a
plain pass-through written with aiohttp, and tokenport with everything on. Times of a shared machine are noisy; the
ratios within a round are what counts. It never fails on a time, only when something is wrong: an answer that is not
what the backend sent, or a ledger that does not have exactly one whole row per request.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.figures import Figures
from tests.bench.loads import QUICK, WHOLE, Size
from tests.bench.measures import NAMES, Bench
from tests.bench.results import write_results
from tests.bench.stage import BenchFailed, staged
from tests.bench.tables import page
from tests.fakes.gateway import GatewayFailed


async def bench(size: Size, names: Sequence[str], directory: Path) -> Figures:
    """Measure and check.

    Raises:
        BenchFailed: something is wrong.
    """
    async with staged(directory) as stage:
        execution = Bench(stage, size, directory)
        await execution.measure(names)
        return execution.figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round: does it work?")
    parser.add_argument("--only", default=",".join(NAMES), help=f"parts of it, joined by commas: {', '.join(NAMES)}")
    parser.add_argument("--write", action="store_true", help="update tests/bench/RESULTS.md")
    options = parser.parse_args(arguments)
    names = options.only.split(",")
    unknown = set(names) - set(NAMES)
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if options.write and (set(names) != set(NAMES) or options.quick):
        parser.error("RESULTS.md holds whole runs")
    with tempfile.TemporaryDirectory(prefix="tokenport-bench-") as directory:
        try:
            figures = asyncio.run(bench(QUICK if options.quick else WHOLE, names, Path(directory)))
        except (BenchFailed, GatewayFailed, AssertionError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    text = page(figures)
    print(text)
    if options.write:
        write_results(figures, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
