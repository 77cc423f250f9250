"""The hard constraints. Every one is here and nowhere else; `decide` and `explain` both ask `barrier`.

They come before any money: a route that breaks one is not dear, it does not exist. The order is that of the best
reason, from what can never change for this request to what passes by itself. The last ones (`crowded`) are about room
and are asked separately for an ejected site as well, since the last site standing may be used although it is ejected,
but not beyond its room.

Nearly always a request breaks none of them anywhere, and asking sixteen routes costs more than pricing them. So what
must be true for a constraint to matter is summarised where it changes: `View.plain` of the request, `Route.room` and
`Holdings.reserve`, `Health.clear_after` and `LinkState.up` of the route. `decide` reads these and asks `barrier` unless
all are well; they may err towards asking, never the other way. `explain` asks always, and a test holds both to the same
decisions.
"""

from collections.abc import Collection, Mapping
from random import Random
from typing import Final

from pricing.book import PriceSlice
from routing.backend import Backend, BackendState
from routing.demand import Demand
from routing.estimate import BYTES_PER_WHOLE_TOKEN
from routing.health import COOLING, CREDENTIALS, EJECTED
from routing.link import LinkState
from routing.occupancy import SlotPrice
from routing.table import Route, RouteTable, Rule

# Why one route is out.
DIALECT: Final = "dialect"
TRIED: Final = "tried"
RESIDENCY: Final = "residency"
CONTEXT_LENGTH: Final = "context_length"
LINK_DOWN: Final = "link_down"
FULL: Final = "full"
FAIR_SHARE: Final = "fair_share"  # what room is left belongs to other tenants
TTFT_SLO: Final = "ttft_slo"  # the queue is too long for the rule's TTFT objective
LINK_CAPACITY: Final = "link_capacity"
POWER_CAP: Final = "power_cap"

# Why a request is refused. What could change first names the refusal: one busy site among nine forbidden ones is a
# matter of waiting, and says so.
SATURATED: Final = "saturated"
UNAVAILABLE: Final = "unavailable"
REFUSALS: Final[Mapping[str, tuple[int, str]]] = {
    DIALECT: (1, DIALECT),
    RESIDENCY: (2, RESIDENCY),
    CONTEXT_LENGTH: (3, CONTEXT_LENGTH),
    TRIED: (4, UNAVAILABLE),
    LINK_DOWN: (4, UNAVAILABLE),
    EJECTED: (4, UNAVAILABLE),
    COOLING: (5, SATURATED),
    FULL: (5, SATURATED),
    LINK_CAPACITY: (5, SATURATED),
    POWER_CAP: (5, SATURATED),
    TTFT_SLO: (6, TTFT_SLO),
    FAIR_SHARE: (7, FAIR_SHARE),
}
UNKNOWN_MODEL: Final = "unknown_model"
NO_RULE: Final = "no_rule"
DESTINATION_UNKNOWN: Final = "destination_unknown"


class View:
    """What one decision looks at: the arguments of `decide`, and what is the same for all its routes."""

    __slots__ = (
        "at",
        "bytes_key",
        "bytes_per_token",
        "context_tokens",
        "demand",
        "deny",
        "input_tokens",
        "link_prices",
        "links",
        "noticed",
        "now",
        "plain",
        "prices",
        "rng",
        "rule",
        "slot_prices",
        "states",
        "table",
        "trials",
        "tried",
        "value_per_second",
        "warm",
    )

    def __init__(
        self,
        table: RouteTable,
        rule: Rule,
        states: Mapping[str, BackendState],
        demand: Demand,
        prices: PriceSlice,
        now: float,
        at: float,
        rng: Random,
        tried: Collection[str],
        bytes_per_token: float,
        links: Mapping[str, LinkState],
        slot_prices: Mapping[str, SlotPrice] | None,
        link_prices: Mapping[str, float] | None,
        warm: Mapping[str, float] | None,
    ) -> None:
        self.table = table
        self.rule = rule
        self.states = states
        self.demand = demand
        self.input_tokens = float(demand.input_tokens)
        self.prices = prices
        self.now = now
        self.at = at
        self.rng = rng
        self.tried = tried
        self.noticed = 0.0  # how far behind the best a route is still seen, if not as usual
        self.trials: tuple[str, ...] = ()  # routes that were looked at as if they were well
        self.links = links
        self.slot_prices = slot_prices or None
        self.link_prices = link_prices or None
        self.warm = warm or None
        self.bytes_key = (demand.dialect, demand.stream)
        self.bytes_per_token = bytes_per_token if demand.stream else min(bytes_per_token, BYTES_PER_WHOLE_TOKEN)
        self.context_tokens = demand.input_tokens + (demand.max_tokens or 0)
        self.deny = deny = demand.deny_origins | rule.deny_origins if rule.deny_origins else demand.deny_origins
        self.value_per_second = rule.objective.value_of_second(demand.value_per_second)
        # Whether nothing about the request itself can rule a route out.
        self.plain = (
            not tried
            and (not deny or deny.isdisjoint(rule.countries))
            and demand.dialect in rule.dialects
            and self.context_tokens <= rule.context_tokens
        )

    # What the request is expected to put on a route, for the constraints of room and for the books kept about them.

    def bytes_down(self, state: BackendState) -> float:
        return self.demand.output_tokens * state.bytes_out.predict(self.bytes_key, self.bytes_per_token)

    def fresh_tokens(self, backend: Backend) -> float:
        """What of the prompt is not expected in its cache."""
        return self.input_tokens if self.warm is None else self.input_tokens - self.warm.get(backend.name, 0.0)

    def service_s(self, backend: Backend, state: BackendState, fresh_tokens: float) -> float:
        """How long it will hold a slot."""
        return fresh_tokens / backend.prefill_tokens_per_s + self.demand.output_tokens * state.itl.value

    def mbps(self, route: Route, state: BackendState) -> float:
        """The mean rate on the link while it is served."""
        size_bytes = self.demand.request_bytes + self.bytes_down(state)
        return 8e-6 * size_bytes / max(self.service_s(route.backend, state, self.fresh_tokens(route.backend)), 1e-3)

    def power_w(self, route: Route, state: BackendState) -> float:
        """The mean power at the site's meter while it is served: marginal energy with PUE over time."""
        units = self.prices.units(route.backend.name, route.link.name)
        fresh_tokens = self.fresh_tokens(route.backend)
        energy_mj = units.prefill_mj_per_token * fresh_tokens + units.decode_mj_per_token * self.demand.output_tokens
        return energy_mj * units.pue_milli * 1e-6 / max(self.service_s(route.backend, state, fresh_tokens), 1e-3)


def barrier(view: View, route: Route, state: BackendState) -> str:
    """The first constraint the route breaks, "" if none."""
    backend = route.backend
    if view.demand.dialect not in backend.dialects:
        return DIALECT
    if view.tried and (backend.name in view.tried or route.name in view.tried):
        return TRIED
    if view.deny and not view.deny.isdisjoint(route.countries):
        return RESIDENCY
    if view.context_tokens > backend.context_tokens:
        return CONTEXT_LENGTH
    link = view.links.get(route.link.name)
    if link is not None and not link.up:
        return LINK_DOWN
    return state.health.barred(view.now) or crowded(view, route, state)


def crowded(view: View, route: Route, state: BackendState) -> str:
    """The constraints of room: slots and queue, and who may have them; link, power."""
    backend = route.backend
    load = state.inflight + state.inflight_elsewhere
    if load >= backend.slots + backend.queue_max:
        return FULL
    if state.holdings.closed(view.demand.tenant, load):
        return FAIR_SHARE
    if load >= backend.slots and _queue_too_long(view, route, state, load):
        return TTFT_SLO
    if route.link.capacity_mbps > 0 and _over_capacity(view, route, state):
        return LINK_CAPACITY
    if (backend.power_cap_w > 0 or view.table.power_caps_w) and _over_power(view, route, state):
        return POWER_CAP
    return ""


def _queue_too_long(view: View, route: Route, state: BackendState, load: int) -> bool:
    """Whether the wait for a slot would break the rule's TTFT objective: it would help nobody and delay the next ones.

    The wait may take what the backend's own TTFT leaves of the objective, and half of it in any case: where a backend
    is too slow by itself, it is not the queue that is late. Penalties for failures say nothing about its pace. Before a
    first answer was timed nothing is known of the wait, and a free slot never has one.
    """
    slo_s, share = view.rule.ttft_slo_s, view.rule.queue_slo_share
    if slo_s is None or share <= 0.0:
        return False
    slots, link = route.backend.slots, view.links.get(route.link_name)
    wait_s = (load + 1 - slots) / slots * state.service.value
    rtt_s = route.link.rtt_s if link is None else link.rtt.value
    own_s = rtt_s + view.input_tokens / state.ttft.prefill_tokens_per_s + state.ttft.mean_s
    return wait_s > share * max(slo_s - own_s, slo_s / 2)


def may_be_last(state: BackendState) -> bool:
    """Whether an ejected site may serve when all others are out. One that refuses our credentials never serves."""
    return state.health.cause != CREDENTIALS


def _over_capacity(view: View, route: Route, state: BackendState) -> bool:
    link = view.links.get(route.link.name)
    if link is None:
        return False
    taken_mbps = link.mbps + link.mbps_elsewhere
    # An idle line always takes one: a single large body is no reason to wait for ever.
    return taken_mbps > 0 and taken_mbps + view.mbps(route, state) > route.link.capacity_mbps


def _over_power(view: View, route: Route, state: BackendState) -> bool:
    """Backend and region caps; both see only what our requests draw, and neither stops a first one."""
    backend = route.backend
    more_w = view.power_w(route, state)
    drawn_w = state.power_w + state.power_w_elsewhere
    if 0 < backend.power_cap_w < drawn_w + more_w and drawn_w > 0:
        return True
    cap_w = view.table.power_caps_w.get(backend.region, 0.0)
    if cap_w <= 0:
        return False
    near = [view.states[name] for name in view.table.backends_in(backend.region) if name in view.states]
    region_w = sum(other.power_w + other.power_w_elsewhere for other in near)
    return region_w > 0 and region_w + more_w > cap_w
