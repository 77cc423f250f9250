"""decide(): which route serves this request. The only chooser in the house.

Hard constraints first (`constraint`), then the least money by `pricing.quote`: energy, tokens bought, link, capacity
and the time the customer waits. The rule's objective says what time is worth and by which figure routes are ordered
(`policy`). Synchronous and pure: it reads the states and changes nothing; the caller takes the lease in the same
tick. Equal arguments give equal decisions: ties go to the smaller share of slots in use, then to the name, and chance
enters in three places only: the slow start of a site that came back, the trial of one that was slow, and the minute
after a price change.

    TTFT  = link RTT + overhead + prompt over prefill rate + wait
    wait  = place in the queue beyond the slots x service time / slots
    delay = TTFT + output tokens x what the gap between them exceeds its target
    bytes = request up, expected tokens x learned bytes per token down

A price change moves a full share in no less than a minute: within it the newcomer, once it has more than eight
requests in flight, is taken with a probability that grows from 0 to 1, and otherwise the route that would have won at
the prices before. Everything else (failure, ejection, residency, caps) moves traffic at once, because it is no matter
of price.

A site that was slow is not measured again while its estimates keep requests away. When nobody has measured it for a
while, one request in twenty looks at it as if it were well (`estimate.Standing`), and if it would win then, it is
tried, one request at a time. What is decided by price is so at any speed, and stays so.

All of this is one loop, `_least_two`, and every question is put to it: which route now, which at the prices before,
what each would cost. It runs for every candidate of every request, and in Python a call or an object costs as much as
the arithmetic of half a route. Hence it is written flat: estimates read in place, sums in local floats, one call, into
the cost formula. Nothing is worked out in it that could be known before or may never be asked: rates come bound to
their routes (`Rule.lanes`), constraints are asked where something is wrong, only the best two become Candidates, and a
Quote is made when somebody looks at it.
"""

from collections.abc import Collection, Iterable, Mapping
from math import inf
from random import Random
from types import MappingProxyType
from typing import Final, NamedTuple

from pricing.book import PriceSlice
from pricing.quote import FlatRates, total
from routing.backend import BackendState, Lease
from routing.candidate import Candidate, Entry
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
from routing.near import noticed_figure, spread
from routing.occupancy import FREE, SlotPrice
from routing.policy import CHEAPEST_ENERGY, ITL_TARGET_S, rank
from routing.table import Lane, Route, RouteTable, Rule

RAMP_S: Final = 60.0  # of the price clock
RAMP_INFLIGHT: Final = 8  # up to here the cheapest wins directly: too little to be a herd

# Why the chosen route is not simply the least.
LAST_SITE: Final = "last_site"
SLOW_START: Final = "slow_start"
RAMP: Final = "ramp"
TRIAL: Final = "trial"
NEAR: Final = "near"  # as quick as the least, as far as anybody notices, and cheaper or less loaded

TRIAL_CHANCE: Final = 0.05  # bounds the share of a slow site where requests are rare

NO_LINKS: Final[Mapping[str, LinkState]] = MappingProxyType({})
NO_SLOT_PRICES: Final[Mapping[str, SlotPrice]] = MappingProxyType({})


class Decision(NamedTuple):
    route: Route | None  # None: refused
    refusal: str  # "", unknown_model, no_rule or what `constraint` names
    rule: Rule | None
    best: Candidate | None  # the chosen one with its quote and predictions
    runner_up: Candidate | None  # what would have been taken without it
    special: str  # "", last_site, slow_start, ramp, trial or near
    output_tokens: float  # expected
    mbps: float  # expected on the link
    power_w: float  # expected at the site, 0 where no cap asks
    price_version: str
    route_version: str
    candidates: tuple[Candidate, ...] = ()  # from `explain` only

    def lease(
        self,
        states: Mapping[str, BackendState],
        now: float,
        links: Mapping[str, LinkState] = NO_LINKS,
        tenant: str = "",
    ) -> Lease:
        """The place on the chosen backend and link, with what the request is expected to put on them. It counts against
        the fair share of `tenant`, if one is named."""
        if self.route is None:
            raise ValueError(f"a refusal ({self.refusal}) has no place")
        link = links.get(self.route.link.name)
        state = states[self.route.backend.name]
        if self.special == TRIAL:
            state.tried(now)
        return state.lease(now, power_w=self.power_w, link=link, mbps=self.mbps, tenant=tenant)


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
    slot_prices: Mapping[str, SlotPrice] | None = None,
    link_prices: Mapping[str, float] | None = None,
    warm: Mapping[str, float] | None = None,
) -> Decision:
    """`now` is the monotonic clock of the states, `at` the price clock. `excluded` names backends (or routes) already
    tried. Without `links` every link is up, has its configured RTT and no capacity. `slot_prices` is the shadow price
    of a slot per second, by backend and its load; absent is 0. `link_prices` is what a byte costs at the margin, by
    link; absent is the book's price. `warm` is how many tokens of this prompt a backend is expected to have in its
    cache; absent is 0.
    """
    rule = table.match(demand.model, demand.destination)
    if rule is None or (not demand.destination and (demand.deny_origins or rule.deny_origins)):
        return _nowhere(table, rule, demand, prices)
    links = NO_LINKS if links is None else links
    view = View(
        table,
        rule,
        states,
        demand,
        prices,
        now,
        at,
        rng,
        excluded,
        bytes_per_token,
        links,
        slot_prices,
        link_prices,
        warm,
    )
    return _choose(view, {})


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
    slot_prices: Mapping[str, SlotPrice] | None = None,
    link_prices: Mapping[str, float] | None = None,
    warm: Mapping[str, float] | None = None,
) -> Decision:
    """The same decision, with every route of the rule as a candidate, priced, and why it is out."""
    rule = table.match(demand.model, demand.destination)
    if rule is None or (not demand.destination and (demand.deny_origins or rule.deny_origins)):
        return _nowhere(table, rule, demand, prices)
    links = NO_LINKS if links is None else links
    view = View(
        table,
        rule,
        states,
        demand,
        prices,
        now,
        at,
        rng,
        excluded,
        bytes_per_token,
        links,
        slot_prices,
        link_prices,
        warm,
    )
    view.plain = False  # every constraint is asked of every route, whatever the shortcuts say
    out: dict[str, str] = {}
    seen: list[Entry] = []
    decision = _choose(view, out)
    view.noticed = inf  # no route is too far behind to be seen
    _least_two(view, view.rule.lanes(prices), near=seen)
    candidates = [_candidate(view, entry, out.get(entry[3], "")) for entry in seen]
    return decision._replace(candidates=tuple(sorted(candidates)))


def _choose(view: View, out: dict[str, str]) -> Decision:
    """`out` learns which routes are out, and why."""
    pool: Iterable[Lane] = view.rule.lanes(view.prices)
    near: list[Entry] = []
    best, runner_up = _least_two(view, pool, out, near)
    special = ""
    if best is None:
        pool = [lane for lane in pool if out[lane[0].name] == SLOW_START]
        best, runner_up = _least_two(view, pool)
        special = SLOW_START
    if best is None:
        best = _last_site(view, out)
        special = LAST_SITE
    if best is None:
        refusal = max(REFUSALS[reason] for reason in out.values())[1]
        return _refuse(refusal, view.table, view.prices, view.demand, view.rule)
    if len(near) > 1 and not special:
        chosen = spread(view, best, near)
        if chosen is not best:
            runner_up = best
            best, special = chosen, NEAR
    if runner_up is not None and 0.0 <= view.at - view.prices.since < RAMP_S:
        kept = _kept(view, best, pool if special == SLOW_START else [lane for lane in pool if lane[0].name not in out])
        if kept is not None:
            best, runner_up, special = kept, best, RAMP
    if special in ("", NEAR) and best[3] in view.trials:
        # No trial if it would have come here without one.
        as_known, _ = _least_two(view, [lane for lane in view.rule.lanes(view.prices) if lane[0] is best[4]])
        if as_known is not None and (runner_up is None or as_known < runner_up):
            best = as_known
        else:
            special = TRIAL
    return _accept(view, best, runner_up, special)


def _least_two(
    view: View, lanes: Iterable[Lane], out: dict[str, str] | None = None, near: list[Entry] | None = None
) -> tuple[Entry | None, Entry | None]:
    """The best two of some routes; `near` takes those not far behind. With `out`, constraints and trials are asked."""
    states, links, now, plain = view.states, view.links, view.now, view.plain
    slot_prices, link_prices, warm = view.slot_prices, view.link_prices, view.warm
    input_tokens, output_tokens, value_per_s = view.input_tokens, view.demand.output_tokens, view.value_per_second
    up, bytes_key, bytes_per_token = float(view.demand.request_bytes), view.bytes_key, view.bytes_per_token
    kind, money_decides_within_s = view.rule.objective.kind, view.rule.money_decides_within_s
    best = runner_up = None
    fresh, hit, slot_price, service_s = input_tokens, 0.0, 0.0, 0.0
    noticed, bar = 0.0, inf  # beyond the bar a route is neither of the two, nor near them
    for route, flat, rates in lanes:
        backend = route.backend
        state = states[backend.name]
        link, load = links.get(route.link_name), state.inflight + state.inflight_elsewhere
        clear = plain and load + state.holdings.reserve < route.room and now > state.health.clear_after
        if out is not None and not (clear and (link is None or link.up)):
            reason = barrier(view, route, state) or _not_drawn(view, state)
            if reason:
                out[route.name] = reason
                continue
        if warm is not None:
            hit = warm.get(backend.name, 0.0)
            fresh = input_tokens - hit
        slots, itl_s, ttft, standing = backend.slots, state.itl.value, state.ttft, state.ttft.standing
        known_s = rtt_s = route.link.rtt_s if link is None else link.rtt.value
        if load >= slots:
            known_s += (load + 1 - slots) / slots * (state.service.value or view.service_s(backend, state, fresh))
        overhead_s = ttft.overhead_s(now) if ttft.excess_s else ttft.mean_s
        if now >= standing.trial_at and out is not None and _tried(view, route):
            overhead_s, itl_s = min(overhead_s, standing.well), min(itl_s, state.itl.standing.well or itl_s)
        ttft_s = known_s + (fresh / ttft.prefill_tokens_per_s + overhead_s)
        delay_s = ttft_s + output_tokens * (itl_s - ITL_TARGET_S) if itl_s > ITL_TARGET_S else ttft_s
        down = output_tokens * state.bytes_out.ratios.get(bytes_key, bytes_per_token)
        if slot_prices is not None:
            first_load, by_load = slot_prices.get(backend.name, FREE)
            slot_price = 0.0
            if load >= first_load:
                slot_price = by_load[load - first_load] if load - first_load < len(by_load) else by_load[-1]
                service_s = fresh / backend.prefill_tokens_per_s + output_tokens * state.itl.value
        per_byte = rates.per_byte if link_prices is None else link_prices.get(route.link_name, rates.per_byte)
        money = total(flat, fresh, hit, output_tokens, up, down, per_byte, service_s, slot_price, delay_s, value_per_s)
        if ttft_s <= money_decides_within_s:
            # Between equal prices one that has become slow loses.
            first, second = money, overhead_s if overhead_s > standing.slow < ttft.mean_s else 0.0
        else:
            bill = _bill(flat, fresh, hit, output_tokens) if kind == CHEAPEST_ENERGY.kind else 0.0
            first, second = rank(kind, money, bill, ttft_s, rtt_s, state.leases, load / slots)
        if first > bar:
            continue
        amounts = fresh, hit, down, per_byte, slot_price
        entry = first, second, load / slots, route.name, route, rates, delay_s, ttft_s, known_s, amounts
        if best is None or entry < best:
            runner_up = best
            best = entry
        elif runner_up is None or entry < runner_up:
            runner_up = entry
        if near is not None:
            near.append(entry)
            if best is entry:
                noticed = noticed_figure(view, entry)
        if runner_up is not None:
            bar = max(runner_up[0], best[0] + noticed)
    return best, runner_up


def _bill(flat: FlatRates, fresh: float, hit: float, output_tokens: float) -> float:
    """What the site alone is paid for."""
    return total(flat, fresh, hit, output_tokens, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def _tried(view: View, route: Route) -> bool:
    """Whether a site that nobody has measured for a while is looked at as if it were well, this time."""
    if view.rng.random() >= TRIAL_CHANCE:
        return False
    view.trials = (*view.trials, route.name)
    return True


def _not_drawn(view: View, state: BackendState) -> str:
    """A site on its way back gets a growing share of its traffic."""
    weight = state.health.weight(view.now)
    return "" if weight == 1.0 or view.rng.random() < weight else SLOW_START


def _candidate(view: View, entry: Entry, excluded: str = "") -> Candidate:
    first, second, share, name, route, rates, delay_s, ttft_s, known_s, amounts = entry
    service_s = view.service_s(route.backend, view.states[route.backend.name], amounts[0])
    output_tokens, up, value_per_s = view.demand.output_tokens, float(view.demand.request_bytes), view.value_per_second
    place = first, second, share, name, route, ttft_s, known_s, service_s
    return Candidate(*place, rates, output_tokens, up, delay_s, value_per_s, amounts, excluded)


def _last_site(view: View, out: Mapping[str, str]) -> Entry | None:
    """The last site stays: of the routes out by ejection only, the one whose backend was ejected longest ago."""
    last: list[Lane] = []
    since = inf
    for lane in view.rule.lanes(view.prices):
        route = lane[0]
        state = view.states[route.backend.name]
        ejected_at = state.health.ejected_at
        if (
            out[route.name] == EJECTED
            and ejected_at is not None
            and ejected_at < since
            and may_be_last(state)
            and not crowded(view, route, state)
        ):
            last, since = [lane], ejected_at
    return _least_two(view, last)[0]


def _kept(view: View, newcomer: Entry, pool: Iterable[Lane]) -> Entry | None:
    """Soon after a price change: the winner at the prices before, if it is to be kept this time."""
    previous = view.prices.previous
    if previous is None or view.states[newcomer[4].backend.name].load <= RAMP_INFLIGHT:
        return None
    names = {lane[0].name for lane in pool}
    before, _ = _least_two(view, [lane for lane in view.rule.lanes(previous) if lane[0].name in names])
    if before is None or before[4] is newcomer[4] or view.rng.random() < (view.at - view.prices.since) / RAMP_S:
        return None
    return _least_two(view, [lane for lane in pool if lane[0] is before[4]])[0]


def _accept(view: View, best: Entry, runner_up: Entry | None, special: str) -> Decision:
    route = best[4]
    mbps = power_w = 0.0
    if route.room == 0:
        state = view.states[route.backend.name]
        if route.link.capacity_mbps > 0:
            mbps = view.mbps(route, state)
        if route.backend.power_cap_w > 0 or view.table.power_caps_w:
            power_w = view.power_w(route, state)
    return Decision(
        route,
        "",
        view.rule,
        _candidate(view, best),
        None if runner_up is None else _candidate(view, runner_up),
        special,
        view.demand.output_tokens,
        mbps,
        power_w,
        view.prices.version,
        view.table.version,
    )


def _nowhere(table: RouteTable, rule: Rule | None, demand: Demand, prices: PriceSlice) -> Decision:
    """The refusals that need no look at a route. Residency fails closed where the destination is unknown."""
    refusal = DESTINATION_UNKNOWN if rule is not None else NO_RULE if table.knows(demand.model) else UNKNOWN_MODEL
    return _refuse(refusal, table, prices, demand, rule)


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
