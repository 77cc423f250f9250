"""decide(): which route serves this request. The only chooser in the house.

Hard constraints first (`constraint`), then the least money by `pricing.quote`: energy, tokens bought, link, capacity
and the time the customer waits. The rule's objective says what time is worth and by which figure routes are ordered
(`policy`). Synchronous and pure: it reads the states and changes nothing; the caller takes the lease in the same
tick. Equal arguments give equal decisions: ties go to the smaller share of slots in use, then to the name, and chance
enters in two places only, the slow start of a site that came back and the minute after a price change.

    TTFT  = link RTT + overhead + prompt over prefill rate + wait
    wait  = place in the queue beyond the slots x service time / slots
    delay = TTFT + output tokens x what the gap between them exceeds its target
    bytes = request up, expected tokens x learned bytes per token down

A price change moves a full share in no less than a minute: within it the newcomer, once it has more than eight
requests in flight, is taken with a probability that grows from 0 to 1, and otherwise the route that would have won at
the prices before. Everything else (failure, ejection, residency, caps) moves traffic at once, because it is no matter
of price.
"""

from collections.abc import Collection, Mapping
from random import Random
from types import MappingProxyType
from typing import Final, NamedTuple

from pricing.book import PriceSlice
from pricing.quote import Quote, quote
from routing.backend import BackendState, Lease
from routing.constraint import (
    DESTINATION_UNKNOWN,
    NO_RULE,
    REFUSALS,
    UNKNOWN_MODEL,
    View,
    barrier,
    crowded,
    may_be_last,
)
from routing.demand import Demand
from routing.estimate import BYTES_PER_OUTPUT_TOKEN
from routing.health import EJECTED
from routing.link import LinkState
from routing.policy import ITL_TARGET_S, rank
from routing.table import Route, RouteTable, Rule

RAMP_S: Final = 60.0  # of the price clock
RAMP_INFLIGHT: Final = 8  # up to here the cheapest wins directly: too little to be a herd

# Why the chosen route is not simply the least.
LAST_SITE: Final = "last_site"
SLOW_START: Final = "slow_start"
RAMP: Final = "ramp"

NO_LINKS: Final[Mapping[str, LinkState]] = MappingProxyType({})
NO_SLOT_PRICES: Final[Mapping[str, float]] = MappingProxyType({})


class Candidate(NamedTuple):
    """One route as the decision saw it. The first four fields are the order: the least tuple wins."""

    first: float
    second: float
    share: float  # of the backend's slots in use
    name: str
    route: Route
    quote: Quote
    ttft_s: float  # predicted
    known_s: float  # of it the link and the queue; the rest is the backend's own
    service_s: float  # how long a slot would be held
    excluded: str = ""  # the constraint that rules it out; "" if feasible. Set by `explain` only


class Decision(NamedTuple):
    route: Route | None  # None: refused
    refusal: str  # "", unknown_model, no_rule or what `constraint` names
    rule: Rule | None
    best: Candidate | None  # the chosen one with its quote and predictions
    runner_up: Candidate | None  # what would have been taken without it
    special: str  # "", last_site, slow_start or ramp
    output_tokens: float  # expected
    mbps: float  # expected on the link
    power_w: float  # expected at the site, 0 where no cap asks
    price_version: str
    route_version: str
    candidates: tuple[Candidate, ...] = ()  # from `explain` only

    def lease(self, states: Mapping[str, BackendState], now: float, links: Mapping[str, LinkState] = NO_LINKS) -> Lease:
        """The place on the chosen backend and link, with what the request is expected to put on them."""
        if self.route is None:
            raise ValueError(f"a refusal ({self.refusal}) has no place")
        link = links.get(self.route.link.name)
        return states[self.route.backend.name].lease(now, power_w=self.power_w, link=link, mbps=self.mbps)


def decide(
    table: RouteTable,
    states: Mapping[str, BackendState],
    demand: Demand,
    prices: PriceSlice,
    now: float,
    at: float,
    rng: Random,
    *,
    excluded: Collection[str] = (),
    bytes_per_token: float = BYTES_PER_OUTPUT_TOKEN,
    links: Mapping[str, LinkState] | None = None,
    slot_prices: Mapping[str, float] | None = None,
) -> Decision:
    """`now` is the monotonic clock of the states, `at` the price clock. `excluded` names backends (or routes) already
    tried. Without `links` every link is up, has its configured RTT and no capacity. `slot_prices` is the shadow price
    of a slot per second, by backend; absent is 0.
    """
    found = _look(table, states, demand, prices, now, excluded, bytes_per_token, links, slot_prices)
    return found if isinstance(found, Decision) else _choose(found, at, rng, None)


def explain(
    table: RouteTable,
    states: Mapping[str, BackendState],
    demand: Demand,
    prices: PriceSlice,
    now: float,
    at: float,
    rng: Random,
    *,
    excluded: Collection[str] = (),
    bytes_per_token: float = BYTES_PER_OUTPUT_TOKEN,
    links: Mapping[str, LinkState] | None = None,
    slot_prices: Mapping[str, float] | None = None,
) -> Decision:
    """The same decision, with every route of the rule as a candidate, priced, and why it is out."""
    found = _look(table, states, demand, prices, now, excluded, bytes_per_token, links, slot_prices)
    if isinstance(found, Decision):
        return found
    seen: list[Candidate] = []
    decision = _choose(found, at, rng, seen)
    return decision._replace(candidates=tuple(sorted(seen)))


def _look(
    table: RouteTable,
    states: Mapping[str, BackendState],
    demand: Demand,
    prices: PriceSlice,
    now: float,
    tried: Collection[str],
    bytes_per_token: float,
    links: Mapping[str, LinkState] | None,
    slot_prices: Mapping[str, float] | None,
) -> View | Decision:
    """What there is to choose from, or the refusal that needs no look at a route."""
    rule = table.match(demand.model, demand.destination)
    if rule is None:
        return _refuse(NO_RULE if table.knows(demand.model) else UNKNOWN_MODEL, table, prices, demand, None)
    view = View(
        table,
        rule,
        states,
        demand,
        prices,
        now,
        tried,
        bytes_per_token,
        NO_LINKS if links is None else links,
        NO_SLOT_PRICES if slot_prices is None else slot_prices,
    )
    if view.deny and not demand.destination:
        return _refuse(DESTINATION_UNKNOWN, table, prices, demand, rule)
    return view


def _choose(view: View, at: float, rng: Random, seen: list[Candidate] | None) -> Decision:
    feasible: list[Candidate] = []
    slow: list[Candidate] = []  # on their way back and not drawn this time
    refusal = (0, "")
    for route in view.rule.routes:
        state = view.states[route.backend.name]
        reason = barrier(view, route, state)
        if not reason:
            candidate = _price(view, route, state, view.prices)
            weight = state.health.weight(view.now)
            if weight == 1.0 or rng.random() < weight:
                feasible.append(candidate)
            else:
                reason = SLOW_START
                slow.append(candidate)
        elif REFUSALS[reason] > refusal:
            refusal = REFUSALS[reason]
        if seen is not None:
            seen.append(_price(view, route, state, view.prices)._replace(excluded=reason))
    pool = feasible or slow
    if not pool:
        last = _last_site(view)
        if last is None:
            return _refuse(refusal[1], view.table, view.prices, view.demand, view.rule)
        return _accept(view, [last], LAST_SITE)
    pool.sort()
    special = "" if feasible else SLOW_START
    if len(pool) > 1 and 0.0 <= at - view.prices.since < RAMP_S and _ramp(view, pool, at, rng):
        special = RAMP
    return _accept(view, pool, special)


def _price(view: View, route: Route, state: BackendState, prices: PriceSlice) -> Candidate:
    """Predict what the route would do and what that costs. No constraint is looked at here."""
    backend = route.backend
    name, slots = backend.name, backend.slots
    output_tokens = view.output_tokens
    itl_s = state.itl.value
    service_s = view.service_s(backend, state)
    load = state.inflight + state.inflight_elsewhere
    link = view.links.get(route.link.name)
    known_s = rtt_s = route.link.rtt_s if link is None else link.rtt.value
    if load >= slots:
        known_s += (load + 1 - slots) / slots * (state.service.value or service_s)
    ttft_s = known_s + state.ttft.predict(view.input_tokens, view.now)
    priced = quote(
        prices.rates(name, route.link.name),
        fresh_tokens=view.input_tokens,
        hit_tokens=0.0,
        output_tokens=output_tokens,
        bytes_up=view.demand.request_bytes,
        bytes_down=view.bytes_down(state),
        service_s=service_s,
        slot_price_per_s=view.slot_prices.get(name, 0.0),
        delay_s=ttft_s + (output_tokens * (itl_s - ITL_TARGET_S) if itl_s > ITL_TARGET_S else 0.0),
        value_per_second=view.value_per_second,
    )
    share = load / slots
    first, second = rank(view.kind, priced, ttft_s, view.rule.ttft_slo_s, rtt_s, state.leases, share)
    return Candidate(first, second, share, route.name, route, priced, ttft_s, known_s, service_s)


def _last_site(view: View) -> Candidate | None:
    """The last site stays: of the routes out by ejection only, the one whose backend was ejected longest ago."""
    last: Route | None = None
    since = float("inf")
    for route in view.rule.routes:
        state = view.states[route.backend.name]
        ejected_at = state.health.ejected_at
        if (
            ejected_at is not None
            and ejected_at < since
            and may_be_last(state)
            and barrier(view, route, state) == EJECTED
            and not crowded(view, route, state)
        ):
            last, since = route, ejected_at
    return None if last is None else _price(view, last, view.states[last.backend.name], view.prices)


def _ramp(view: View, pool: list[Candidate], at: float, rng: Random) -> bool:
    """Soon after a price change: whether the winner of the prices before is kept, and if so, move it to the front."""
    newcomer = view.states[pool[0].route.backend.name]
    previous = view.prices.previous
    if previous is None or newcomer.load <= RAMP_INFLIGHT:
        return False
    before = min(_price(view, c.route, view.states[c.route.backend.name], previous) for c in pool)
    if before.route is pool[0].route or rng.random() < (at - view.prices.since) / RAMP_S:
        return False
    kept = next(c for c in pool if c.route is before.route)
    pool.remove(kept)
    pool.insert(0, kept)
    return True


def _accept(view: View, pool: list[Candidate], special: str) -> Decision:
    best = pool[0]
    route = best.route
    state = view.states[route.backend.name]
    capped = route.backend.power_cap_w > 0 or bool(view.table.power_caps_w)
    return Decision(
        route=route,
        refusal="",
        rule=view.rule,
        best=best,
        runner_up=pool[1] if len(pool) > 1 else None,
        special=special,
        output_tokens=view.demand.output_tokens,
        mbps=view.mbps(route, state) if route.link.capacity_mbps > 0 else 0.0,
        power_w=view.power_w(route, state) if capped else 0.0,
        price_version=view.prices.version,
        route_version=view.table.version,
    )


def _refuse(refusal: str, table: RouteTable, prices: PriceSlice, demand: Demand, rule: Rule | None) -> Decision:
    return Decision(
        route=None,
        refusal=refusal,
        rule=rule,
        best=None,
        runner_up=None,
        special="",
        output_tokens=demand.output_tokens,
        mbps=0.0,
        power_w=0.0,
        price_version=prices.version,
        route_version=table.version,
    )
