"""What a worker decides from: tables and prices, swapped whole, beside what it has learned, which survives a swap."""

from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import NamedTuple, TypeAlias

from gateway.clock import PriceTime, wall
from gateway.config import Settings
from gateway.config.build import price_book, route_table
from gateway.edge.sharing import Sharing
from gateway.ledger.cells import Cells
from gateway.upstream.backends import Backends
from pricing.book import PriceBook, PriceSlice
from pricing.energy import PriceCurve
from pricing.units import GB
from routing import decide as chooser
from routing.backend import BackendState
from routing.decide import Decision
from routing.demand import Demand
from routing.estimate import BytesPerToken, LengthEstimate
from routing.fairness import spread
from routing.forecast import Tally
from routing.health import HealthLimits
from routing.link import LinkState
from routing.occupancy import SlotPrice
from routing.retry import RetryBudget, RetryLimits
from routing.shadow import LinePrice
from routing.table import RouteTable

# For the page: what was chosen lately, and what it would have cost elsewhere.
DECISIONS_KEPT = 200
# One decision in this many is logged with all its candidates, the first one included.
LOGGED_EVERY = 100


Chooser: TypeAlias = Callable[..., Decision]


class Tables(NamedTuple):
    """One version of routes and prices: a request keeps the one it began with."""

    table: RouteTable
    book: PriceBook


class Live:
    """One worker's tables, prices and estimates. All methods belong to the event loop's thread."""

    def __init__(
        self,
        settings: Settings,
        curves: Mapping[str, PriceCurve],
        price_time: PriceTime,
        rng: Random,
        cells: Cells | None = None,
    ) -> None:
        """`cells` are those of all workers; without them there are no others."""
        self.rng = rng
        self.sharing = Sharing(Cells.alone() if cells is None else cells)
        self.backends = Backends()
        self.states: dict[str, BackendState] = {}
        self.links: dict[str, LinkState] = {}
        self.lengths = LengthEstimate()
        self.input_bytes = BytesPerToken()
        self.answer_bytes = BytesPerToken()
        self.decisions: deque[tuple[float, Demand, Decision]] = deque(maxlen=DECISIONS_KEPT)
        self.decided = 0
        self.wanted = Tally()
        self.slot_prices: dict[str, SlotPrice] = {}
        self._by_line: Mapping[str, LinePrice] = {}
        self._line_prices: dict[str, tuple[float, LinePrice]] = {}  # with what the line itself takes
        self.retry_limits = _retry_limits(settings)
        self.retries = RetryBudget(self.retry_limits)
        self.hedges = RetryBudget(_hedge_limits(settings))
        self.tables: Tables
        self._installed = False
        self.install(settings, curves, price_time)

    def install(self, settings: Settings, curves: Mapping[str, PriceCurve], price_time: PriceTime) -> None:
        """Swap configuration and prices whole. Requests under way keep the ones they started with."""
        table, book = route_table(settings), price_book(settings, curves)
        if self._installed:
            # Prices that arrive after their hour began count as changed when they arrive.
            book = book.following(self.book, price_time.at(wall()))
        # What may fail (a certificate file, no room for more cells) comes before anything is swapped.
        self.sharing.claim(table.backends, table.links)
        self.backends.install(settings.backends, settings.limits)
        self._installed = True
        limits = _health_limits(settings)
        for backend in table.backends.values():
            if backend.name in self.states:
                self.states[backend.name].adopt(backend)
            else:
                self.states[backend.name] = BackendState(backend, limits)
        for link in table.links.values():
            if link.name in self.links:
                self.links[link.name].adopt(link)
            else:
                self.links[link.name] = LinkState(link)
        self.sharing.install(self.states, self.links)
        self.settings: Settings = settings
        self.tables = Tables(table, book)
        self.price_room(self.slot_prices, self._by_line)
        self.price_time = price_time
        if self.retry_limits != _retry_limits(settings):
            self.retry_limits = _retry_limits(settings)
            self.retries = RetryBudget(self.retry_limits)
        self.hedges.adopt(_hedge_limits(settings))

    @property
    def table(self) -> RouteTable:
        return self.tables.table

    @property
    def book(self) -> PriceBook:
        return self.tables.book

    def prices(self, wall_s: float) -> PriceSlice:
        """The prices in force at a wall time."""
        return self.book.at(self.price_time.at(wall_s))

    def decide(
        self, tables: Tables, demand: Demand, now: float, wall_s: float, excluded: frozenset[str]
    ) -> tuple[Decision, PriceSlice]:
        """The route for a demand, and the prices it was chosen at."""
        at = self.price_time.at(wall_s)
        prices = tables.book.at(at)
        self.decided += 1
        if not excluded:
            self.wanted.add(tables.table.edge, demand)
        # The sampled ones keep every candidate with its reason; the choice is the same.
        choose = chooser.explain if self.decided % LOGGED_EVERY == 1 else chooser.decide
        shared = not self.sharing.alone
        if shared:
            self.sharing.look(now)
        decision = self._chosen(choose, tables.table, demand, prices, now, at, excluded)
        if shared and self.sharing.is_stale(decision, now):
            decision = self._chosen(choose, tables.table, demand, prices, now, at, excluded)
        return decision, prices

    def _chosen(
        self,
        choose: Chooser,
        table: RouteTable,
        demand: Demand,
        prices: PriceSlice,
        now: float,
        at: float,
        excluded: frozenset[str] = frozenset(),
    ) -> Decision:
        return choose(
            table,
            self.states,
            demand,
            prices,
            now,
            at,
            self.rng,
            excluded=excluded,
            links=self.links,
            slot_prices=self.slot_prices,
            link_prices=self._link_prices() if self._line_prices else None,
        )

    def _link_prices(self) -> dict[str, float]:
        """Of a byte on lines that have a capacity: what the line takes for it, and what its place is worth now."""
        return {
            name: listed + price.at((link.mbps + link.mbps_elsewhere) / capacity_mbps)
            for name, (listed, price) in self._line_prices.items()
            if (link := self.links.get(name)) is not None
            and (capacity_mbps := self.table.links[name].capacity_mbps) > 0.0
        }

    def price_room(self, by_site: Mapping[str, SlotPrice], by_line: Mapping[str, LinePrice]) -> None:
        """What places are worth from now on: prices by load, which every decision reads at the load it finds."""
        self.slot_prices, self._by_line = dict(by_site), by_line
        self._line_prices = {
            name: (self._listed_per_byte(name), price)
            for name, price in by_line.items()
            if name in self.table.links and max(price.by_share) > 0.0
        }

    def _listed_per_byte(self, link: str) -> float:
        price = self.book.transit[link]
        return price.marginal_per_gb() * float(self.book.exchange(price.currency)) / GB

    def turned_away(self, decision: Decision, tenant: str) -> None:
        """A request was refused for the sake of other tenants: its own asks for more than it has."""
        if decision.rule is not None:
            for route in decision.rule.routes:
                self.states[route.backend.name].holdings.refuse(tenant)

    def sweep(self, now: float, elsewhere: Mapping[str, int]) -> None:
        """Look how the backends are shared among the tenants. `elsewhere`: their requests in other workers."""
        holdings = {name: state.holdings for name, state in self.states.items()}
        if not self.settings.limits.fair_share:
            for each in holdings.values():
                each.forget()
            return
        loads = {name: state.inflight_elsewhere for name, state in self.states.items()}
        parts = spread(holdings, loads, elsewhere)
        for name, each in holdings.items():
            each.sweep(now, parts[name])

    def explain(self, demand: Demand, now: float, at: float) -> tuple[Decision, PriceSlice]:
        """As `decide`, with every candidate and its reason."""
        prices = self.book.at(at)
        return self._chosen(chooser.explain, self.table, demand, prices, now, at), prices


def _health_limits(settings: Settings) -> HealthLimits:
    limits = settings.limits
    return HealthLimits(
        eject_failures=limits.eject_failures,
        eject_share=limits.eject_share,
        eject_s=limits.eject_s,
        eject_s_max=limits.eject_s_max,
        probe_s=limits.probe_s,
        slow_start_s=limits.slow_start_s,
    )


def _hedge_limits(settings: Settings) -> RetryLimits:
    return RetryLimits(share=settings.limits.hedge_share, retries_min=settings.limits.hedges_min)


def _retry_limits(settings: Settings) -> RetryLimits:
    limits = settings.limits
    return RetryLimits(
        share=limits.retry_share, retries_min=limits.retries_min, backoff_s_max=limits.backoff_ms_max / 1000
    )
