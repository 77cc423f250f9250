"""The world in the terms of routing and pricing, so that the production code decides on it unchanged.

    client region   an edge with a route table of its own: distances differ, and only links with a path to it are there
    site            a backend in a region of its own, with its supply as the price of power or of tokens
    link            one routing link per edge it reaches, since its RTT and its price may differ by region

Backends are shared by all edges, as workers share them. The line behind the links of several edges is one as well:
what one edge puts on it counts as `mbps_elsewhere` at the others (`Line`).

Two settings have no counterpart in the world and are stated here. A site may hold as many rows waiting as it has
slots, the default of a configuration. And a share of each line's capacity is kept back: caps are tested on what flowed,
decisions know only expected rates.
"""

from collections.abc import Mapping
from typing import Final

from pricing.book import EnergyUse, PriceBook, Source
from pricing.energy import Period, PriceCurve, TimeOfUse
from pricing.region import Power, Region
from pricing.tariff import TokenPrice
from pricing.transit import TransitPrice
from pricing.units import KWH_PER_MWH, MILLI, exact, scaled
from routing.backend import Backend, BackendState, Lease
from routing.decide import Decision
from routing.link import Link, LinkState
from routing.policy import Objective
from routing.simulator import world as described
from routing.simulator.world import Market, PowerTariff, TokenSale, World
from routing.table import RouteTable, RuleSpec

MODEL: Final = "simulated"  # the world has one model
CURRENCY: Final = "USD"
LINE_RESERVE: Final = 0.07  # as the published nearest-site yardstick keeps
CONTEXT_TOKENS: Final = 1 << 30  # the world has no context limit


def link_name(link: str, region: str) -> str:
    """A line as an edge sees it."""
    return f"{link}@{region}"


def feed_name(market: Market) -> str:
    """A zone's prices become known at a time that depends on how the site buys."""
    return f"{market.zone} {market.publish}"


def route_tables(world: World, objective: Objective, line_reserve: float = LINE_RESERVE) -> dict[str, RouteTable]:
    """By client region."""
    backends = {name: _backend(site) for name, site in world.sites.items()}
    tables = {}
    for region in world.regions:
        edge = f"edge {region}"
        links = [link for link in world.links.values() if region in link.rtt_s]
        reached = [backends[name] for name in sorted({link.site for link in links})]
        tables[region] = RouteTable.build(
            edge,
            reached,
            [_link(link, region, edge, line_reserve) for link in links],
            [RuleSpec(MODEL, tuple(backend.name for backend in reached), objective=objective)] if reached else [],
        )
    return tables


def _backend(site: described.Site) -> Backend:
    return Backend(
        name=site.name,
        region=site.name,
        country=site.country,
        url="",
        models={MODEL: MODEL},
        slots=site.slots,
        queue_max=site.slots,
        prefill_tokens_per_s=site.prefill_tokens_per_s,
        itl_s=site.itl_s,
        context_tokens=CONTEXT_TOKENS,
    )


def _link(link: described.Link, region: str, edge: str, line_reserve: float) -> Link:
    return Link(
        name=link_name(link.name, region),
        origin=link.site,
        edge=edge,
        rtt_s=link.rtt_s[region],
        transit=link.transit,
        capacity_mbps=link.capacity_mbps * (1 - line_reserve),
    )


def price_book(world: World, curves: Mapping[str, PriceCurve]) -> PriceBook:
    """What everything costs, with these curves of the zones. A p95 line has no planned level yet, so it is free."""
    sites = world.sites.values()
    return PriceBook(
        currency=CURRENCY,
        fx=world.fx,
        regions={site.name: _region(site) for site in sites},
        sources={site.name: _source(site) for site in sites},
        transit={
            link_name(link.name, region): TransitPrice(
                link=link_name(link.name, region),
                billing=link.billing,
                price_per_gb=link.per_gb(region),
                price_per_month=link.usd_per_month,
                price_per_mbps_month=link.usd_per_mbps_month,
            )
            for link in world.links.values()
            for region in link.rtt_s
        },
        tariffs={site.name: _tariff(site.name, site.supply) for site in sites if isinstance(site.supply, PowerTariff)},
        curves=curves,
    )


def _region(site: described.Site) -> Region:
    power: Power | None = None
    if isinstance(site.supply, Market):
        adder_per_mwh = float(exact(site.supply.adder_per_kwh) * KWH_PER_MWH)
        power = Power(feed=feed_name(site.supply), adder_per_mwh=adder_per_mwh)
    elif isinstance(site.supply, PowerTariff):
        power = Power(tariff=site.name)
    return Region(site.name, site.country, scaled(site.pue, MILLI), power=power)


def _source(site: described.Site) -> Source:
    if isinstance(site.supply, TokenSale):
        return Source(site.name, tokens=_token_price(site.supply))
    return Source(site.name, EnergyUse.of_joules(prefill=site.prefill_j_per_token, decode=site.decode_j_per_token))


def _tariff(name: str, tariff: PowerTariff) -> TimeOfUse:
    """Its local hours as UTC hours: the world's clocks are never put forward."""
    periods = [
        Period(f"{hour:02d}-{hour + 1:02d}", float(exact(tariff.per_kwh(hour)) * KWH_PER_MWH)) for hour in range(24)
    ]
    return TimeOfUse.build(name, currency=tariff.currency, timezone="UTC", price_per_mwh=0.0, periods=periods)


def _token_price(sale: TokenSale) -> TokenPrice:
    return TokenPrice.per_mtok(
        input=sale.usd_per_mtok_input,
        cached_input=sale.usd_per_mtok_cached,
        output=sale.usd_per_mtok_output,
        currency=CURRENCY,
        periods=[(f"{hour:02d}-{hour + 1:02d}", "mon-fri", sale.peak_multiplier) for hour in sale.peak_utc_hours],
    )


class Line:
    """One line of the world: its links as the edges see them, with one load and one state of health."""

    def __init__(self, link: described.Link) -> None:
        self.name = link.name
        self.site = link.site
        self.links: dict[str, LinkState] = {}
        self.by_region: dict[str, LinkState] = {}

    def add(self, link: Link, region: str) -> LinkState:
        state = self.links[link.name] = self.by_region[region] = LinkState(link)
        return state

    def level(self) -> None:
        """What all edges together put on the line, as each of them sees it."""
        total_mbps = sum(link.mbps for link in self.links.values())
        for link in self.links.values():
            link.mbps_elsewhere = total_mbps - link.mbps

    def set_up(self, up: bool) -> None:
        for link in self.links.values():
            link.up = up


class Fleet:
    """What is live: backends, lines, and the places taken on them."""

    def __init__(self, world: World, tables: Mapping[str, RouteTable]) -> None:
        self.tables = tables
        self.states: dict[str, BackendState] = {}
        self.links: dict[str, LinkState] = {}  # as edges see them, by their routing names
        self.lines = {name: Line(link) for name, link in world.links.items()}
        self._line_of: dict[str, Line] = {}
        for region, table in tables.items():
            for backend in table.backends.values():
                self.states.setdefault(backend.name, BackendState(backend))
            for line in self.lines.values():
                name = link_name(line.name, region)
                if name in table.links:
                    self.links[name] = line.add(table.links[name], region)
                    self._line_of[name] = line

    def line_of(self, link: str) -> Line:
        return self._line_of[link]

    def lease(self, decision: Decision, now: float) -> Lease:
        """The place of a chosen route."""
        assert decision.route is not None
        lease = decision.lease(self.states, now, self.links)
        self._line_of[decision.route.link.name].level()
        return lease

    def release(self, lease: Lease, link: str) -> None:
        lease.release()
        self._line_of[link].level()
