"""RouteTable: which backends, over which links, may serve which model for which destination.

Immutable, built once per configuration change and swapped whole; a request sees one table from start to end.
Everything that does not depend on the request is worked out here: a `Route` is one backend over one link, a `Rule`
knows its routes and their rates at the prices in force, and a backend that stands at the edge gets the implicit link
"local". The version is the hash of the canonical content, so all workers agree on it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field, fields, replace
from types import MappingProxyType
from typing import TypeAlias, TypeVar

from pricing.book import PriceSlice
from pricing.quote import FlatRates, Rates
from pricing.transit import LOCAL_LINK
from pricing.version import version_of
from routing.backend import Backend
from routing.link import Link
from routing.policy import BALANCED, Objective, money_decides_within_s

ANYWHERE = "*"
Part = TypeVar("Part", Backend, Link)


@dataclass(frozen=True, slots=True)
class Route:
    """A backend over a link."""

    backend: Backend
    link: Link
    capped: InitVar[bool] = False  # whether the table caps power by region
    name: str = field(init=False)
    link_name: str = field(init=False)
    countries: frozenset[str] = field(init=False)  # where the request is served and what it passes
    room: int = field(init=False)  # slots: below them no room is missing; 0 where a cap is to be asked as well

    def __post_init__(self, capped: bool) -> None:
        backend, link = self.backend, self.link
        capped = capped or link.capacity_mbps > 0 or backend.power_cap_w > 0
        object.__setattr__(self, "name", f"{backend.name}/{link.name}")
        object.__setattr__(self, "link_name", link.name)
        object.__setattr__(self, "countries", frozenset((backend.country, *link.transit)))
        object.__setattr__(self, "room", 0 if capped else backend.slots)


Lane: TypeAlias = tuple[Route, FlatRates, Rates]  # a route at certain prices


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One `[[routes]]` entry as configured. Backends and regions are names; both may be given."""

    model: str
    backends: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    destinations: tuple[str, ...] = (ANYWHERE,)
    objective: Objective = BALANCED
    ttft_slo_s: float | None = None
    queue_slo_share: float = 0.0  # of it that a queue may take, see `constraint`; 0: all queues are used
    deny_origins: frozenset[str] = frozenset()
    first_content_s: float | None = None  # None: the gateway's limit
    gap_s: float | None = None
    stream_s: float | None = None
    hedge_after_s: float = 0.0  # without content for so long, a second attempt goes out; 0: never


@dataclass(frozen=True, slots=True)
class Rule:
    """A `RuleSpec` with its routes found, and what is true of all of them."""

    model: str
    destinations: tuple[str, ...]
    objective: Objective
    ttft_slo_s: float | None
    queue_slo_share: float
    deny_origins: frozenset[str]
    routes: tuple[Route, ...]  # in the order of their names
    first_content_s: float | None
    gap_s: float | None
    stream_s: float | None
    hedge_after_s: float
    countries: frozenset[str] = field(init=False)  # that any of its routes touches
    dialects: frozenset[str] = field(init=False)  # that all of them speak
    context_tokens: int = field(init=False)  # that fit into all of them
    money_decides_within_s: float = field(init=False)
    _lanes: list[tuple[PriceSlice, tuple[Lane, ...]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        routes, kind = self.routes, self.objective.kind
        derived = {
            "countries": frozenset[str]().union(*(route.countries for route in routes)),
            "dialects": frozenset.intersection(*(frozenset(route.backend.dialects) for route in routes)),
            "context_tokens": min(route.backend.context_tokens for route in routes),
            "money_decides_within_s": money_decides_within_s(kind, self.ttft_slo_s),
            "_lanes": [],
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def lanes(self, prices: PriceSlice) -> tuple[Lane, ...]:
        """Its routes with their rates, in the order of their names; KeyError for one that has no price.

        Two slices are remembered, by identity: the one in force, and the one before it that the ramp after a price
        change compares it with.
        """
        for known, lanes in self._lanes:
            if known is prices:
                return lanes
        rates = [prices.rates(route.backend.name, route.link_name) for route in self.routes]
        lanes = tuple((route, each.flat(), each) for route, each in zip(self.routes, rates, strict=True))
        self._lanes[:] = [(prices, lanes), *self._lanes[:1]]
        return lanes

    def serves(self, destination: str) -> bool:
        """An unknown destination is served by a rule for anywhere only."""
        return ANYWHERE in self.destinations or (destination != "" and destination in self.destinations)


@dataclass(frozen=True, slots=True)
class RouteTable:
    edge: str
    rules: tuple[Rule, ...]
    backends: Mapping[str, Backend]
    links: Mapping[str, Link]
    power_caps_w: Mapping[str, float]  # by region
    version: str
    _by_model: Mapping[str, tuple[Rule, ...]] = field(repr=False)
    _by_region: Mapping[str, tuple[str, ...]] = field(repr=False)

    @classmethod
    def build(
        cls,
        edge: str,
        backends: Iterable[Backend],
        links: Iterable[Link],
        rules: Iterable[RuleSpec],
        power_caps_w: Mapping[str, float] = MappingProxyType({}),
    ) -> "RouteTable":
        """Resolve names into routes. Raises ValueError naming what does not fit."""
        by_name = _named("backend", backends)
        roads = _named("link", links)
        if any(backend.region == edge and not _joins(roads, edge, edge) for backend in by_name.values()):
            if LOCAL_LINK in roads:
                raise ValueError(f"link {LOCAL_LINK!r}: this name is taken by the road from the edge to itself")
            roads[LOCAL_LINK] = Link(name=LOCAL_LINK, origin=edge, edge=edge, rtt_s=0.0)
        caps = {region: cap_w for region, cap_w in sorted(power_caps_w.items()) if cap_w > 0}
        resolved = tuple(_resolve(spec, edge, by_name, roads, capped=bool(caps)) for spec in rules)
        by_model: dict[str, tuple[Rule, ...]] = {}
        for rule in resolved:
            by_model[rule.model] = (*by_model.get(rule.model, ()), rule)
        by_region: dict[str, tuple[str, ...]] = {}
        for backend in by_name.values():
            by_region[backend.region] = (*by_region.get(backend.region, ()), backend.name)
        return cls(
            edge=edge,
            rules=resolved,
            backends=MappingProxyType(by_name),
            links=MappingProxyType(roads),
            power_caps_w=MappingProxyType(caps),
            version=_version(edge, by_name, roads, resolved, caps),
            _by_model=by_model,
            _by_region=MappingProxyType(by_region),
        )

    def models(self) -> tuple[str, ...]:
        """Public names of the models that some rule serves, in the order of the rules."""
        return tuple(self._by_model)

    def knows(self, model: str) -> bool:
        return model in self._by_model

    def match(self, model: str, destination: str) -> Rule | None:
        """The first rule for this model and destination ("": unknown)."""
        for rule in self._by_model.get(model, ()):
            if rule.serves(destination):
                return rule
        return None

    def backends_in(self, region: str) -> tuple[str, ...]:
        return self._by_region.get(region, ())


def _named(what: str, parts: Iterable[Part]) -> dict[str, Part]:
    named: dict[str, Part] = {}
    for part in sorted(parts, key=lambda part: part.name):
        if part.name in named:
            raise ValueError(f"{what} {part.name!r} is there twice")
        named[part.name] = part
    return named


def _joins(links: Mapping[str, Link], origin: str, edge: str) -> tuple[Link, ...]:
    return tuple(link for link in links.values() if link.origin == origin and link.edge == edge)


def _resolve(
    spec: RuleSpec, edge: str, backends: Mapping[str, Backend], links: Mapping[str, Link], *, capped: bool
) -> Rule:
    where = f"rule for model {spec.model!r}"
    chosen = {name: _lookup(name, backends, where) for name in spec.backends}
    for name, backend in chosen.items():
        if spec.model not in backend.models:
            raise ValueError(f"{where}: backend {name!r} does not serve it")
    for region in spec.regions:
        here = {b.name: b for b in backends.values() if b.region == region and spec.model in b.models}
        if not here:
            raise ValueError(f"{where}: no backend in region {region!r} serves it")
        chosen |= here
    routes: list[Route] = []
    for backend in chosen.values():
        roads = _joins(links, backend.region, edge)
        if not roads:
            raise ValueError(f"{where}: backend {backend.name!r}: no link from {backend.region!r} to {edge!r}")
        routes += (Route(backend, link, capped) for link in roads)
    if not routes:
        raise ValueError(f"{where}: neither backends nor regions")
    return Rule(
        model=spec.model,
        destinations=spec.destinations,
        objective=spec.objective,
        ttft_slo_s=spec.ttft_slo_s,
        queue_slo_share=spec.queue_slo_share,
        deny_origins=spec.deny_origins,
        routes=tuple(sorted(routes, key=lambda route: route.name)),
        first_content_s=spec.first_content_s,
        gap_s=spec.gap_s,
        stream_s=spec.stream_s,
        hedge_after_s=spec.hedge_after_s,
    )


def _lookup(name: str, backends: Mapping[str, Backend], where: str) -> Backend:
    if name not in backends:
        raise ValueError(f"{where}: no backend is called {name!r}")
    return backends[name]


def _version(
    edge: str,
    backends: Mapping[str, Backend],
    links: Mapping[str, Link],
    rules: tuple[Rule, ...],
    power_caps_w: Mapping[str, float],
) -> str:
    """Of the content, in which only the order of the rules has a meaning. A new credential is not a new table."""
    content = {
        "edge": edge,
        "backends": [replace(backend, api_key="") for backend in backends.values()],
        "links": links,
        "rules": [
            {f.name: getattr(rule, f.name) for f in fields(rule) if f.init}
            | {"destinations": frozenset(rule.destinations), "routes": [route.name for route in rule.routes]}
            for rule in rules
        ],
        "power_caps_w": power_caps_w,
    }
    return version_of(content)
