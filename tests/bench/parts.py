"""Two parts alone, in CPU: one decision among the candidates, and one request's way through the ledger.

`python -m tests.bench.parts CONFIG DIRECTORY SECONDS` prints JSON: a list of microseconds for each, one per repetition.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import uvloop

from gateway.clock import PriceTime
from gateway.config import load_file
from gateway.edge.live import Live
from gateway.ledger.board import Board
from gateway.ledger.export_id import ExportIds
from gateway.ledger.log import LogWriter
from gateway.ledger.opening import Opening
from gateway.ledger.settlement import Ending, settle_row
from pricing.export import Usage
from routing.decide import decide
from routing.demand import Demand
from tests.bench.world import MODEL

REPETITIONS = 5
IN_FLIGHT = 16
WARM_UP_S = 0.1

Micros = list[float]


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


def openings(live: Live) -> Iterator[Opening]:
    """Openings such as requests make, without end."""
    ids = ExportIds(Random(1).getrandbits)
    backend = next(iter(live.table.backends.values()))
    rule = live.table.match(MODEL, "DE")
    assert rule is not None
    prices = live.prices(time.time())
    template = Opening(
        export_id="",
        opened_at_us=round(time.time() * 1e6),
        tenant="acme",
        model=MODEL,
        key_id="0123456789ab",
        upstream_model=backend.models[MODEL],
        origin_backend=backend.name,
        origin_region=backend.region,
        origin_country=backend.country,
        destination_country="DE",
        destination_method="header",
        exported=True,
        input_estimate=40,
        currency=live.book.currency,
        price_version=prices.version,
        route_version=live.table.version,
        edge=live.table.edge,
        units=prices.units(backend.name, rule.routes[0].link.name),
        tariff=prices.charge("acme"),
    )
    while True:
        yield template._replace(export_id=ids.next(time.time())[1])


async def ledgered(live: Live, directory: Path, seconds: float) -> Micros:
    """Microseconds of a request in the ledger at 16 in flight: board slot, open, its sync, row, end; all threads."""
    log = LogWriter(directory, 0, asyncio.get_running_loop())
    board = Board.create(directory / "board", IN_FLIGHT * 64)
    source = openings(live)
    until, count = 0.0, 0

    async def request() -> None:
        nonlocal count
        while time.perf_counter() < until:
            opening = next(source)
            slot = board.claim(os.urandom(16), opening.to_bytes())
            assert slot is not None
            durable = log.wait(log.append(opening.entry()))
            if durable is not None:
                await durable
            ending = Ending("completed", round(time.time() * 1e6), 200, Usage(12, 0, 0, 200), 200, 200, "upstream")
            log.terminal(settle_row(opening, ending), slot.release)
            count += 1

    found = []
    for span_s in (WARM_UP_S, *[seconds] * REPETITIONS):
        until, count, before = time.perf_counter() + span_s, 0, time.process_time()
        await asyncio.gather(*(request() for _ in range(IN_FLIGHT)))
        log.flush()
        found.append((time.process_time() - before) / count * 1e6)
    log.close()
    board.close()
    return found[1:]


def main(config: str, directory: str, seconds: str) -> None:
    settings = load_file(Path(config), os.environ)
    live = Live(settings, {}, PriceTime(None, 0.0), Random(1))
    found = {
        "decide": list(decisions(live, float(seconds))),
        "ledger": uvloop.run(ledgered(live, Path(directory), float(seconds))),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:4])
