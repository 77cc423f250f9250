"""One decision among the candidates, alone, in CPU.

`python -m tests.bench.parts CONFIG SECONDS` prints JSON: a list of microseconds, one per repetition.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from gateway.clock import PriceTime
from gateway.config import load_file
from gateway.edge.live import Live
from routing.decide import decide
from routing.demand import Demand
from tests.bench.world import MODEL

REPETITIONS = 5


def decisions(live: Live, seconds: float) -> Iterator[float]:
    """Microseconds of a decision, per repetition."""
    demand = Demand(
        model=MODEL,
        tenant="acme",
        input_tokens=40,
        output_tokens=200.0,
        request_bytes=700,
        max_tokens=None,
        destination="DE",
        value_per_second=2e-5,
    )
    at, now, rng = time.time(), time.monotonic(), Random(1)
    prices = live.book.at(at)
    for _ in range(REPETITIONS):
        until, count, before = time.perf_counter() + seconds, 0, time.process_time()
        while time.perf_counter() < until:
            for _ in range(100):
                decide(live.table, live.states, demand, prices, now, at, rng, links=live.links)
            count += 100
        yield (time.process_time() - before) / count * 1e6


def main(config: str, seconds: str) -> None:
    settings = load_file(Path(config), os.environ)
    live = Live(settings, {}, PriceTime(None, 0.0), Random(1))
    print(json.dumps({"decide": list(decisions(live, float(seconds)))}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
