"""Shadow prices that follow the load: between two plans, and where there is no planner at all.

Two corrections, one above the other.

    every few minutes   dual ascent: each kind is split among its ways by what they cost with the prices of now; where
                        more is wanted than there is room the price rises, where less is, it falls, never below 0
    every request       the price of a slot is a function of how many are taken (`occupancy`), made from what the
                        ascent says the other places are worth

A plan sets where the ascent stands; without one it starts at 0 and needs some rounds longer. Like the plan, the ascent
runs at a few loads around the one that is expected, and what counts is the mean. The split is a soft one: ways that
cost a kind nearly the same share it, because its requests are not all alike; and a step is a Newton step per price, so
it has no gain to be tuned.
"""

from collections.abc import Sequence
from math import exp, inf
from statistics import fmean
from typing import Final, NamedTuple

from routing.occupancy import FREE, SlotPrice, Want, slot_price
from routing.plan import LOADS, MBIT_PER_BYTE, REFUSAL_FACTOR, Duals, Kind, Problem, Way

ROUNDS_MAX: Final = 10  # a round is a Newton step of all prices
SOFTNESS: Final = 0.1  # of the least cost of a kind: ways no further apart share it
LEAST_MIN: Final = 0.01  # of the dearest way: where power is for nothing, costs near 0 still differ
DAMPING: Final = 0.7
STEP_MAX: Final = 0.25  # of the mean cost: a price far from its place moves by no more at a time
SETTLED: Final = 0.01  # of the mean cost: smaller steps change nothing that matters

LINE_STEPS: Final = 20  # the price of a line is one for each twentieth of its capacity in use


class LinePrice(NamedTuple):
    """Money per byte, by the share of the capacity in use."""

    by_share: tuple[float, ...]

    def at(self, share: float) -> float:
        return self.by_share[max(min(int(share * len(self.by_share)), len(self.by_share) - 1), 0)]


class ShadowPrices:
    """Loads are arguments; what is kept is bounded by the number of sites and lines."""

    def __init__(self) -> None:
        self.by_site: dict[str, SlotPrice] = {}
        self.by_line: dict[str, LinePrice] = {}
        self._duals: dict[str, tuple[float, ...]] = {}  # of a site or a line, one for each of LOADS
        self._chains: dict[str, SlotPrice] = {}  # of lines: where their next prices start from

    def anchor(self, problem: Problem, planned: Sequence[Duals]) -> None:
        """A plan says where they are."""
        for number, name in enumerate(problem.sites):
            self._duals[name] = tuple(each.slots[number] for each in planned)
        for number, name in enumerate(problem.lines):
            self._duals[_line(name)] = tuple(each.lines[number] for each in planned)

    def planned(self, problem: Problem) -> Duals:
        """Where they stand, by site and line, whatever the load."""
        sites, lines = problem.sites, problem.lines
        return Duals(
            tuple(fmean(self._duals[name]) for name in sites), tuple(fmean(self._duals[_line(name)]) for name in lines)
        )

    def follow(self, problem: Problem) -> None:
        """The prices for what is wanted now."""
        names = [*problem.sites, *(_line(name) for name in problem.lines)]
        nothing = (0.0,) * len(LOADS)
        before = [self._duals.get(name, nothing) for name in names]
        kinds = [_Split(kind, problem) for kind in problem.kinds]
        room = (*problem.slots, *problem.mbps)
        by_load = [_ascended([each[number] for each in before], kinds, room, load) for number, load in enumerate(LOADS)]
        by_room = list(zip(*by_load, strict=True))
        self._duals = dict(zip(names, by_room, strict=True))
        prices = [fmean(each) for each in by_room]
        totals = [[way.cost(prices) for way in kind.ways] for kind in kinds]
        self.by_site = {
            name: _site_price(number, int(problem.slots[number]), kinds, totals, prices, self.by_site.get(name, FREE))
            for number, name in enumerate(problem.sites)
        }
        self._chains = {
            name: _chain(len(problem.sites) + number, mbps, kinds, totals, prices, self._chains.get(name, FREE))
            for number, (name, mbps) in enumerate(zip(problem.lines, problem.mbps, strict=True))
        }
        self.by_line = {name: _line_price(chain) for name, chain in self._chains.items()}


def _line(name: str) -> str:
    """Sites and lines may be called alike."""
    return f"line {name}"


class _Way:
    """What a way takes of the rooms: sites are numbered first, then lines."""

    __slots__ = ("base", "line", "mbit", "service_s", "site")

    def __init__(self, way: Way, sites: int) -> None:
        self.site = way.site
        self.line = sites + way.line if way.line >= 0 else -1
        self.base = way.cost
        self.service_s = way.service_s
        self.mbit = way.mbit

    def cost(self, prices: Sequence[float]) -> float:
        money = self.base + self.service_s * prices[self.site]
        return money + self.mbit * prices[self.line] if self.line >= 0 else money

    def use(self, room: int) -> float:
        return self.service_s if room == self.site else self.mbit if room == self.line else 0.0


class _Split:
    """A kind, and how far apart in cost its ways may be to share it."""

    __slots__ = ("rate_per_s", "refusal", "softness", "value_per_second", "ways")

    def __init__(self, kind: Kind, problem: Problem) -> None:
        self.rate_per_s = kind.rate_per_s
        self.value_per_second = kind.value_per_second
        self.ways = [_Way(way, len(problem.sites)) for way in kind.ways]
        self.refusal = problem.refusal
        least = min(way.cost for way in kind.ways)
        self.softness = SOFTNESS * max(abs(least), LEAST_MIN * problem.refusal / REFUSAL_FACTOR)


def _ascended(prices: list[float], kinds: Sequence[_Split], room: Sequence[float], load: float) -> list[float]:
    """Dual ascent from these prices."""
    for _ in range(ROUNDS_MAX):
        wanted, slope, mean_cost, mean_s = _wanted(prices, kinds, len(room), load)
        if mean_s <= 0.0:
            return prices
        unit = mean_cost / mean_s
        settled = True
        for number, there in enumerate(room):
            step = (wanted[number] - there) / max(slope[number], 1e-30) * DAMPING
            most = STEP_MAX * unit
            price = max(prices[number] + max(min(step, most), -most), 0.0)
            if abs(price - prices[number]) > SETTLED * unit:
                settled = False
            prices[number] = price
        if settled:
            break
    return prices


def _wanted(
    prices: Sequence[float], kinds: Sequence[_Split], rooms: int, load: float
) -> tuple[list[float], list[float], float, float]:
    """What is wanted of each room at these prices, by how much it would fall per unit of price; and the mean cost and
    the mean use of a way."""
    wanted, slope = [0.0] * rooms, [0.0] * rooms
    cost_sum = use_sum = rate_sum = 0.0
    for kind in kinds:
        costs = [way.cost(prices) for way in kind.ways]
        least = min(costs)
        softness, rate = kind.softness, kind.rate_per_s * load
        weights = [exp((least - cost) / softness) if cost - least < 20.0 * softness else 0.0 for cost in costs]
        whole = sum(weights)
        rate_sum += rate
        cost_sum += rate * abs(least)
        for way, weight in zip(kind.ways, weights, strict=True):
            if weight == 0.0:
                continue
            share = weight / whole
            flow, bend = rate * share, rate * share * (1.0 - share) / softness
            use_sum += flow * way.service_s
            wanted[way.site] += flow * way.service_s
            slope[way.site] += bend * way.service_s * way.service_s
            if way.line >= 0:
                wanted[way.line] += flow * way.mbit
                slope[way.line] += bend * way.mbit * way.mbit
    return (wanted, slope, cost_sum / rate_sum, use_sum / rate_sum) if rate_sum > 0.0 else (wanted, slope, 0.0, 0.0)


def _wants(
    room: int, kinds: Sequence[_Split], totals: Sequence[Sequence[float]], prices: Sequence[float]
) -> tuple[list[Want], float, float]:
    """Who would come, and what that is worth beside the next best place. And of all that could come: the mean use and
    the mean time in service."""
    wants: list[Want] = []
    use_sum = service_sum = rate_sum = 0.0
    for kind, costs in zip(kinds, totals, strict=True):
        here, elsewhere, taken, service_s = inf, kind.refusal, 0.0, 0.0
        for way, cost in zip(kind.ways, costs, strict=True):
            use = way.use(room)
            if use <= 0.0:
                elsewhere = min(elsewhere, cost)
            elif cost - use * prices[room] < here:
                here, taken, service_s = cost - use * prices[room], use, way.service_s
        if taken > 0.0:
            rate_sum += kind.rate_per_s
            use_sum += kind.rate_per_s * taken
            service_sum += kind.rate_per_s * service_s
            if here < elsewhere:
                wants.append((kind.rate_per_s * taken, (elsewhere - here) / taken, kind.value_per_second / taken))
    return (wants, use_sum / rate_sum, service_sum / rate_sum) if rate_sum > 0.0 else (wants, 0.0, 0.0)


def _site_price(
    site: int,
    slots: int,
    kinds: Sequence[_Split],
    totals: Sequence[Sequence[float]],
    prices: Sequence[float],
    before: SlotPrice,
) -> SlotPrice:
    wants, _, service_s = _wants(site, kinds, totals, prices)
    return slot_price(slots, slots, wants, service_s, before)


def _chain(
    line: int,
    mbps: float,
    kinds: Sequence[_Split],
    totals: Sequence[Sequence[float]],
    prices: Sequence[float],
    before: SlotPrice,
) -> SlotPrice:
    """A line as a site with as many slots as requests of the mean rate fit on it; none of them queues."""
    wants, mbit, service_s = _wants(line, kinds, totals, prices)
    if mbit <= 0.0:
        return FREE
    rate_mbps = mbit / service_s
    places = max(int(mbps / rate_mbps), 1)
    return slot_price(places, 0, [(each[0] / rate_mbps, each[1], 0.0) for each in wants], 0.0, before)


def _line_price(chain: SlotPrice) -> LinePrice:
    places = chain.first + len(chain.by_load)
    return LinePrice(
        tuple(chain.at(int(places * (step + 0.5) / LINE_STEPS)) * MBIT_PER_BYTE for step in range(LINE_STEPS))
    )
