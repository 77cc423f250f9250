"""A small world with real prices, for tests of routing: sites that make tokens, lines, one rule."""

from collections.abc import Iterable, Mapping
from random import Random

from pricing.book import EnergyUse, PriceBook, PriceSlice, Source
from pricing.energy import PriceCurve
from pricing.region import Power, Region
from pricing.tariff import TokenPrice
from pricing.transit import TransitPrice
from routing.backend import Backend, BackendState
from routing.decide import Decision, decide
from routing.demand import Demand
from routing.link import Link, LinkState
from routing.table import RouteTable, RuleSpec

EDGE = "edge"
MODEL = "qwen3"
HOUR = 3600.0
NOW = 1000.0


def backend(name: str, country: str = "NO", **changes: object) -> Backend:
    """One site: by default alone in a region of its own name, 10 slots and as many places in the queue."""
    fields: dict[str, object] = {
        "region": f"region-{name}",
        "url": "http://127.0.0.1:9/v1",
        "models": {MODEL: "served"},
        "slots": 10,
        "queue_max": 10,
        "prefill_tokens_per_s": 10_000.0,
        "itl_s": 0.02,
    }
    return Backend(name=name, country=country, **{**fields, **changes})  # type: ignore[arg-type]


def demand(**changes: object) -> Demand:
    fields: dict[str, object] = {
        "model": MODEL,
        "tenant": "acme",
        "input_tokens": 1000,
        "output_tokens": 200.0,
        "request_bytes": 4000,
        "destination": "DE",
        "value_per_second": 2e-5,
    }
    return Demand(**{**fields, **changes})  # type: ignore[arg-type]


class World:
    """A table, states and prices that fit each other.

    `power` is a fixed price per MWh by backend, or (hour, price) pairs for a market that changes; `per_gb` the price of
    its line; a seller of tokens has its output price in `tokens` instead.
    """

    def __init__(
        self,
        backends: Iterable[Backend],
        power: Mapping[str, float | list[tuple[float, float]]] | None = None,
        *,
        per_gb: Mapping[str, float] | None = None,
        tokens: Mapping[str, float] | None = None,
        rtt_s: Mapping[str, float] | None = None,
        transit: Mapping[str, tuple[str, ...]] | None = None,
        capacity_mbps: Mapping[str, float] | None = None,
        rules: Iterable[RuleSpec] | None = None,
        power_caps_w: Mapping[str, float] | None = None,
        **rule: object,
    ) -> None:
        sites = list(backends)
        power, per_gb, tokens = power or {}, per_gb or {}, tokens or {}
        links = [
            Link(
                name=f"to-{site.name}",
                origin=site.region,
                edge=EDGE,
                rtt_s=(rtt_s or {}).get(site.name, 0.05),
                transit=(transit or {}).get(site.name, ()),
                capacity_mbps=(capacity_mbps or {}).get(site.name, 0.0),
            )
            for site in sites
            if site.region != EDGE
        ]
        if rules is None:
            rules = [RuleSpec(model=MODEL, backends=tuple(site.name for site in sites), **rule)]  # type: ignore[arg-type]
        self.table = RouteTable.build(EDGE, sites, links, rules, power_caps_w or {})
        self.states = {site.name: BackendState(site) for site in sites}
        self.links = {link.name: LinkState(link) for link in self.table.links.values()}
        self.book = _book(sites, power, per_gb, tokens)

    def prices(self, at: float = 0.0) -> PriceSlice:
        return self.book.at(at)

    def decide(self, wanted: Demand | None = None, now: float = NOW, at: float = 0.0, **options: object) -> Decision:
        rng = options.pop("rng", None) or Random(1)
        return decide(
            self.table,
            self.states,
            wanted or demand(),
            self.prices(at),
            now,
            at,
            rng,  # type: ignore[arg-type]
            **{"links": self.links, **options},  # type: ignore[arg-type]
        )

    def chosen(self, wanted: Demand | None = None, now: float = NOW, at: float = 0.0, **options: object) -> str:
        """The name of the chosen backend, or the refusal."""
        decision = self.decide(wanted, now, at, **options)
        return decision.refusal if decision.route is None else decision.route.backend.name

    def load(self, name: str, requests: int, now: float = NOW) -> None:
        for _ in range(requests):
            self.states[name].lease(now)

    def eject(self, name: str, now: float = NOW, cause: str = "status") -> None:
        while self.states[name].health.ejected_at is None:
            self.states[name].health.failed(now, cause)


def _book(
    sites: list[Backend],
    power: Mapping[str, float | list[tuple[float, float]]],
    per_gb: Mapping[str, float],
    tokens: Mapping[str, float],
) -> PriceBook:
    regions: dict[str, Region] = {}
    curves: dict[str, PriceCurve] = {}
    for site in sites:
        price = power.get(site.name, 50.0)
        if isinstance(price, list):
            curves[site.name] = PriceCurve.build([(hour * HOUR, value) for hour, value in price], currency="USD")
            regions[site.region] = Region(
                site.region, site.country, power=Power(feed=site.name, price_per_mwh=price[0][1])
            )
        else:
            regions.setdefault(
                site.region, Region(site.region, site.country, power=Power(price_per_mwh=price, currency="USD"))
            )
    return PriceBook(
        currency="USD",
        regions=regions,
        sources={
            site.name: Source(
                site.region, tokens=TokenPrice(input=0.0, cached_input=0.0, cache_write=0.0, output=tokens[site.name])
            )
            if site.name in tokens
            else Source(site.region, energy=EnergyUse(prefill_mj_per_token=250, decode_mj_per_token=1100))
            for site in sites
        },
        transit={
            f"to-{site.name}": TransitPrice(f"to-{site.name}", "per_gb", "USD", price_per_gb=per_gb.get(site.name, 0.0))
            for site in sites
            if site.region != EDGE
        },
        curves=curves,
    )
