"""One million decisions among 16 candidates with everything on, in CPU of the thread: the mean, p50, p99, p99.9.

`python -m tests.bench.decisions [COUNT]`. Demands of many sizes come to sites with prices by load, lines with a
capacity and a price at the margin, and caches that hold part of some prompts; every decision takes its lease and older
ones end, so the loads move. What is timed is decide() alone. Timing itself, of a call that does nearly nothing in the
same minutes, is shown and taken off.
"""

import gc
import sys
import time
from array import array
from collections import deque
from random import Random
from typing import Final

from routing.backend import Lease
from routing.decide import decide
from routing.demand import Demand
from routing.occupancy import slot_price
from tests.routing.world import World, backend, demand

COUNT: Final = 1_000_000
CANDIDATES: Final = 16
DEMANDS: Final = 997
IN_FLIGHT: Final = 600  # of 800 slots


def world() -> World:
    names = [f"site-{number:02d}" for number in range(CANDIDATES)]
    return World(
        [backend(name, slots=50, queue_max=50) for name in names],
        power={name: 30.0 + 4 * number for number, name in enumerate(names)},
        per_gb=dict.fromkeys(names, 0.02),
        rtt_s={name: 0.02 + 0.01 * number for number, name in enumerate(names)},
        capacity_mbps=dict.fromkeys(names[::4], 100.0),
    )


def demands(rng: Random) -> list[Demand]:
    return [
        demand(
            input_tokens=rng.randint(50, 8000),
            output_tokens=float(rng.randint(20, 900)),
            request_bytes=rng.randint(500, 40_000),
            value_per_second=rng.choice((2e-6, 2e-5, 5e-5, 1e-4)),
        )
        for _ in range(DEMANDS)
    ]


def measured(count: int) -> tuple["array[float]", int]:
    """Microseconds of each decision, and how often the collector ran."""
    place, rng = world(), Random(1)
    table, states, links, prices = place.table, place.states, place.links, place.prices()
    slot_prices = {name: slot_price(50, 50, [(60.0, 3e-6, 2e-6)], 5.0) for name in states}
    link_prices = dict.fromkeys(links, 4e-11)
    warm = [{name: rng.choice((0.0, 30.0)) for name in states} for _ in range(16)]
    asked, chance, clock = demands(rng), Random(2), time.thread_time_ns
    leases: deque[Lease] = deque()
    taken = array("d")
    collections = sum(each["collections"] for each in gc.get_stats())
    for number in range(count):
        wanted, hits, now = asked[number % DEMANDS], warm[number % 16], 1000.0 + number * 0.01
        before = clock()
        decision = decide(
            table,
            states,
            wanted,
            prices,
            now,
            now,
            chance,
            links=links,
            slot_prices=slot_prices,
            link_prices=link_prices,
            warm=hits,
        )
        taken.append((clock() - before) / 1000)
        leases.append(decision.lease(states, now, links))
        if len(leases) > IN_FLIGHT:
            leases.popleft().release()
    return taken, sum(each["collections"] for each in gc.get_stats()) - collections


def floor_us(count: int) -> float:
    clock, taken = time.thread_time_ns, array("d")

    def added(left: int, right: int) -> int:
        return left + right

    for number in range(count):
        before = clock()
        added(number, 1)
        taken.append((clock() - before) / 1000)
    return sorted(taken)[count // 2]


def main(count: int = COUNT) -> None:
    floor = floor_us(max(count // 10, 1))
    taken, collections = measured(count)
    mean = sum(taken) / count
    ordered = sorted(taken)
    p50, p99, p999 = (ordered[min(int(count * share), count - 1)] for share in (0.5, 0.99, 0.999))
    print(
        f"decide, {CANDIDATES} candidates, {count:,} decisions: mean {mean - floor:.1f} us, p50 {p50 - floor:.1f}, "
        f"p99 {p99 - floor:.1f}, p99.9 {p999 - floor:.1f}; timing itself {floor:.2f}; collections {collections}"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
