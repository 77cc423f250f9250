"""The plan of an hour as plain data: who asks for how much, what each way of serving it costs, what there is room for.

    least    sum over kinds k and their ways w of     cost(w) x flow(k, w)
    so that  sum over w of flow(k, w)               = rate(k)            every kind is served, or refused at a price
             sum of service_s(w) x flow             <= slots of a site
             sum of mbit(w) x flow                  <= capacity of a line

Flows are requests per second, so the left side of the second line is the mean number of slots in use. What the plan is
made for is the duals of the last two: the money that one more slot, or one more Mbps, would save in a second. They are
the shadow prices lambda and mu. Hours do not hang together except by what is still queued when one ends, so each is a
small program of its own. The solver is an argument. A cap on a site's power is a bound on its slots as well: how many
at their mean power fit under it.

The load of an hour is not known, and the price of room bends upwards in it: the price at the mean load is less than
the mean of the prices. Hence every hour is solved at a few loads around the forecast (`LOADS`), and what is used is the
mean over them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from pricing.book import PriceSlice
from pricing.quote import total
from routing.backend import Backend
from routing.demand import Demand
from routing.estimate import BYTES_PER_OUTPUT_TOKEN
from routing.table import RouteTable

# Around a forecast of 1; equally likely. As wide as traffic strays from its mean within an hour.
LOADS: Final = (0.85, 1.0, 1.15)
# A refusal is as dear as so many times the dearest way to serve any: room that some kinds need has a price.
REFUSAL_FACTOR: Final = 10.0
KINDS_MAX: Final = 64  # what is planned with: the busiest ones, so that a plan stays small
MBIT_PER_BYTE: Final = 8e-6


class Way(NamedTuple):
    """A kind served at a site over a line. Per request."""

    site: int  # among Problem.sites
    line: int  # among Problem.lines; -1: it has no capacity
    cost: float  # money, time included, prices of room left out
    service_s: float
    mbit: float


class Kind(NamedTuple):
    """Requests that are alike: where they come from, where they may go, what a second is worth to them."""

    rate_per_s: float
    value_per_second: float
    ways: tuple[Way, ...]


class Problem(NamedTuple):
    sites: tuple[str, ...]  # backends
    slots: tuple[float, ...]
    lines: tuple[str, ...]  # links with a capacity
    mbps: tuple[float, ...]
    kinds: tuple[Kind, ...]
    refusal: float  # cost of not serving a request

    def at_load(self, load: float) -> "Problem":
        """The same with so many times the requests."""
        return self._replace(kinds=tuple(kind._replace(rate_per_s=kind.rate_per_s * load) for kind in self.kinds))


class Duals(NamedTuple):
    """Shadow prices, in the order of the problem: money per second of a slot, money per Mbit on a line."""

    slots: tuple[float, ...]
    lines: tuple[float, ...]


Solve: TypeAlias = Callable[[Problem], Duals | None]  # None: not solved


class Expected(NamedTuple):
    """So many requests a second of a kind, and one that stands for all: its sizes are their means."""

    edge: str
    demand: Demand
    rate_per_s: float


class Surroundings(NamedTuple):
    """What ways cost and may be used depends on, beside prices."""

    tables: Mapping[str, RouteTable]  # by edge
    out: Collection[str] = ()  # backends and links that cannot be used now
    itl_s: Mapping[str, float] = MappingProxyType({})  # measured, by backend; absent: as configured
    lines: Mapping[str, str] = MappingProxyType({})  # the line behind links that several edges see; absent: the link
    bytes_per_token: float = BYTES_PER_OUTPUT_TOKEN
    link_prices: Mapping[str, float] | None = None  # of a byte, where the book's is not what counts


def plan(problem: Problem, solve: Solve) -> tuple[Duals, ...] | None:
    """Shadow prices at each of LOADS; None if any could not be had."""
    found = []
    for load in LOADS:
        duals = solve(problem.at_load(load))
        if duals is None:
            return None
        found.append(duals)
    return tuple(found)


def pose(expected: Iterable[Expected], prices: PriceSlice, around: Surroundings) -> Problem:
    """The problem of these kinds at these prices, with what is known to be down left out."""
    backends = {backend.name: backend for table in around.tables.values() for backend in table.backends.values()}
    capacity_mbps = {
        around.lines.get(link.name, link.name): link.capacity_mbps
        for table in around.tables.values()
        for link in table.links.values()
        if link.capacity_mbps > 0
    }
    caps_w = _power_caps_w(around.tables.values(), backends.values())
    sites = {name: number for number, name in enumerate(backends)}
    lines = {name: number for number, name in enumerate(capacity_mbps)}
    busiest = sorted(expected, key=lambda each: -each.rate_per_s)[:KINDS_MAX]
    kinds = [kind for each in busiest if (kind := _kind(each, prices, around, sites, lines)).ways]
    dearest = max((way.cost for kind in kinds for way in kind.ways), default=0.0)
    slots = [float(backend.slots) for backend in backends.values()]
    for name, cap_w in caps_w.items():
        slot_w = _slot_w(backends[name], busiest, prices, around)
        if slot_w > 0.0:
            slots[sites[name]] = min(slots[sites[name]], max(cap_w / slot_w, 1.0))
    return Problem(
        tuple(sites),
        tuple(slots),
        tuple(lines),
        tuple(capacity_mbps[name] for name in lines),
        tuple(kinds),
        REFUSAL_FACTOR * max(dearest, 0.0),
    )


def _kind(
    each: Expected, prices: PriceSlice, around: Surroundings, sites: Mapping[str, int], lines: Mapping[str, int]
) -> Kind:
    demand, table = each.demand, around.tables[each.edge]
    rule = table.match(demand.model, demand.destination)
    if rule is None or (not demand.destination and (demand.deny_origins or rule.deny_origins)):
        return Kind(each.rate_per_s, 0.0, ())
    value_per_second = rule.objective.value_of_second(demand.value_per_second)
    deny = demand.deny_origins | rule.deny_origins
    ways = []
    for route, flat, rates in rule.lanes(prices):
        backend = route.backend
        if deny & route.countries or backend.name in around.out or route.link_name in around.out:
            continue
        prefill_s = demand.input_tokens / backend.prefill_tokens_per_s
        bytes_up, bytes_down = float(demand.request_bytes), demand.output_tokens * around.bytes_per_token
        per_byte = rates.per_byte
        if around.link_prices is not None:
            per_byte = around.link_prices.get(route.link_name, per_byte)
        delay_s = prefill_s + route.link.rtt_s
        cost = total(
            flat,
            float(demand.input_tokens),
            0.0,
            demand.output_tokens,
            bytes_up,
            bytes_down,
            per_byte,
            0.0,
            0.0,
            delay_s,
            value_per_second,
        )
        line = lines.get(around.lines.get(route.link_name, route.link_name), -1)
        mbit = MBIT_PER_BYTE * (bytes_up + bytes_down)
        ways.append(Way(sites[backend.name], line, cost, _service_s(backend, demand, around), mbit))
    return Kind(each.rate_per_s, value_per_second, tuple(ways))


def _power_caps_w(tables: Iterable[RouteTable], backends: Iterable[Backend]) -> dict[str, float]:
    """By backend; of a region's cap each has the part of its slots."""
    caps_w: dict[str, float] = {}
    regions = {region: cap_w for table in tables for region, cap_w in table.power_caps_w.items() if cap_w > 0}
    slots: dict[str, int] = {}
    backends = list(backends)
    for backend in backends:
        slots[backend.region] = slots.get(backend.region, 0) + backend.slots
    for backend in backends:
        caps = [backend.power_cap_w] if backend.power_cap_w > 0 else []
        if backend.region in regions:
            caps.append(regions[backend.region] * backend.slots / slots[backend.region])
        if caps:
            caps_w[backend.name] = min(caps)
    return caps_w


def _slot_w(backend: Backend, expected: Iterable[Expected], prices: PriceSlice, around: Surroundings) -> float:
    """What a slot in use draws: the mean power while a request is served, over all that could come."""
    energy_mj = service_s = 0.0
    for each in expected:
        demand, table = each.demand, around.tables[each.edge]
        rule = table.match(demand.model, demand.destination)
        route = next((route for route in rule.routes if route.backend.name == backend.name), None) if rule else None
        if route is not None:
            units = prices.units(backend.name, route.link_name)
            energy_mj += (
                each.rate_per_s
                * units.pue_milli
                * (units.prefill_mj_per_token * demand.input_tokens + units.decode_mj_per_token * demand.output_tokens)
            )
            service_s += each.rate_per_s * _service_s(backend, demand, around)
    return energy_mj * 1e-6 / service_s if service_s > 0.0 else 0.0


def _service_s(backend: Backend, demand: Demand, around: Surroundings) -> float:
    itl_s = around.itl_s.get(backend.name, backend.itl_s)
    return max(demand.input_tokens / backend.prefill_tokens_per_s + demand.output_tokens * itl_s, 1e-6)
