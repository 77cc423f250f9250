"""The sections of the page that come from the control plane: prices, routes, decisions, tenants, notices.

A view is text and geometry, ready to be placed: templates format nothing and calculate nothing.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from gateway.admin import figures
from gateway.admin.drawing import Spark, spark
from gateway.admin.fleet import BackendNow, Fleet
from gateway.admin.outlook import SIDE_S, Outlook
from gateway.admin.plane import ControlPlane
from gateway.admin.status import link_per_gb, price_zone, priced_links
from gateway.config import BackendSettings
from gateway.shipping.shipper import Condition
from pricing.book import PriceSlice
from pricing.energy import PricePoint
from pricing.transit import LOCAL_LINK
from routing.estimate import BYTES_PER_OUTPUT_TOKEN

# Words of a label that belong into a notice at the top of the page, in their stems.
_UNREAL = re.compile("simulat|replay|assum|estimat|declared", re.IGNORECASE)
_BILLING = {"flat": "flat", "per_gb": "per GB", "p95": "95th percentile"}
# Of the last decisions, as many as a person reads.
DECISIONS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know before reading the figures. `kind` is info or alert."""

    kind: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class PriceView:
    region: str
    country: str
    label: str
    price: str
    quality: str
    source: str
    change: str  # when the price changes; empty if never
    after: str  # the price from then on
    direction: str  # up | down | same, of that change
    low: str
    high: str
    spark: Spark | None


@dataclass(frozen=True, slots=True)
class RouteCost:
    """What a million output tokens costs over a route at the prices of now."""

    backend: str
    link: str
    energy: str
    bought: str
    link_cost: str
    total: str
    width: float  # of its bar, in percent of the dearest one
    made_width: float  # of it, energy or tokens bought


@dataclass(frozen=True, slots=True)
class LinkView:
    name: str
    origin: str
    edge: str
    rtt: str
    billing: str
    per_gb: str
    transit: str


@dataclass(frozen=True, slots=True)
class BackendView:
    name: str
    region: str
    label: str
    share: str
    share_width: float
    in_flight: int
    slots: int
    load_width: float
    health: str  # ok | part | out
    health_text: str
    ttft: str
    itl: str
    tokens_per_event: str
    slot_per_hour: str


@dataclass(frozen=True, slots=True)
class DecisionView:
    at: str
    tenant: str
    model: str
    destination: str
    route: str
    region: str
    parts: tuple[str, ...]  # energy, tokens, link, capacity, time
    total: str
    second: str
    second_total: str


@dataclass(frozen=True, slots=True)
class TenantView:
    name: str
    streams: int
    used: str
    budget: str
    share: str
    share_width: float
    ends: str


@dataclass(frozen=True, slots=True)
class FeedView:
    name: str
    age: str
    problem: str


@dataclass(frozen=True, slots=True)
class SinkView:
    name: str
    kind: str
    health: str  # ok | part | out
    state: str
    problem: str
    shipped: str
    waits: str  # rows and bytes that the store lacks; empty if none


def notices(plane: ControlPlane, fleet: Fleet, at: float, tz: ZoneInfo) -> Iterator[Notice]:
    """Alerts first, then what is not real about this gateway."""
    if fleet.ledger_reasons:
        text = "New requests are refused, because no token is served unrecorded. " + "; ".join(fleet.ledger_reasons)
        yield Notice("alert", "The ledger cannot be written.", text)
    if not fleet.workers:
        yield Notice("alert", "No worker answers.", "Live figures are missing below; the log of the gateway says why.")
    elif not plane.ready:
        yield Notice("alert", "Not ready.", "The gateway takes no new traffic: it is starting or draining.")
    clock = plane.price_time.clock
    if clock is not None:
        pace = "" if clock.speed == 1 else f" and runs {clock.speed:g} times as fast as time"
        when = f"{figures.date_and_hour(at, tz)} {tz.key}"
        yield Notice("info", "Prices are replayed.", f"The price clock shows {when}{pace}.")
    unreal = _unreal(plane)
    if unreal:
        yield Notice("info", "Simulated, replayed or assumed:", f"{unreal}. Their labels below say what.")


def _unreal(plane: ControlPlane) -> str:
    """Regions and backends whose labels say that something about them is not as it would be in service."""
    settings = plane.settings
    regions = [region.name for region in settings.regions.values() if _UNREAL.search(region.label)]
    backends = [backend.name for backend in settings.backends if _UNREAL.search(backend.label)]
    parts = [("regions", regions), ("backends", backends)]
    return "; ".join(f"{kind} {', '.join(names)}" for kind, names in parts if names)


def price_views(plane: ControlPlane, outlook: Outlook, at: float, tz: ZoneInfo) -> list[PriceView]:
    """Regions with a price of power, in the order of the configuration."""
    book = plane.prices.book
    prices = book.at(at)
    curves = outlook.around(book, at)
    views = []
    for region in plane.settings.regions.values():
        point = prices.power(region.name)
        if point is None:
            continue
        drawing = spark(curves[region.name], at - SIDE_S, at, at + SIDE_S)
        after = outlook.power(region.name, point.until) if math.isfinite(point.until) else None
        views.append(
            PriceView(
                region=region.name,
                country=region.country,
                label=region.label,
                price=figures.fixed(point.price_per_mwh),
                quality=point.quality,
                source=price_zone(book, region.name, point.quality) or "fixed price",
                change=_change(point, at, tz),
                after=figures.fixed(after.price_per_mwh) if after is not None else "",
                direction=_direction(point, after),
                low=figures.fixed(drawing.low) if drawing else "",
                high=figures.fixed(drawing.high) if drawing else "",
                spark=drawing,
            )
        )
    return views


def _change(point: PricePoint, at: float, tz: ZoneInfo) -> str:
    if not math.isfinite(point.until):
        return ""
    return (figures.hour if point.until - at < SIDE_S else figures.day_and_hour)(point.until, tz)


def _direction(point: PricePoint, after: PricePoint | None) -> str:
    if after is None or after.price_per_mwh == point.price_per_mwh:
        return "same"
    return "up" if after.price_per_mwh > point.price_per_mwh else "down"


def route_costs(plane: ControlPlane, prices: PriceSlice) -> list[RouteCost]:
    """The routes there are, the cheapest first. Bytes per token are the value before any was measured."""
    found = []
    for backend in plane.settings.backends:
        for link in _links_of(plane, backend):
            rates = prices.rates(backend.name, link)
            energy = rates.per_output_token_energy * 1e6
            bought = rates.per_output_token * 1e6
            road = rates.per_byte * BYTES_PER_OUTPUT_TOKEN * 1e6
            found.append((energy + bought + road, energy, bought, road, backend, link))
    found.sort(key=lambda route: (route[0], route[4].name, route[5]))
    # Negative energy has no width; the figure beside the bar says it.
    dearest = max((max(0.0, energy) + bought + road for _, energy, bought, road, _, _ in found), default=0.0) or 1.0
    return [
        RouteCost(
            backend=backend.name,
            link=link,
            energy=figures.fixed(energy, 4) if backend.energy is not None else "",
            bought=figures.fixed(bought, 4) if backend.tokens is not None else "",
            link_cost=figures.fixed(road, 4),
            total=figures.fixed(total, 4),
            width=round((max(0.0, energy) + bought + road) / dearest * 100, 2),
            made_width=round((max(0.0, energy) + bought) / dearest * 100, 2),
        )
        for total, energy, bought, road, backend, link in found
    ]


def _links_of(plane: ControlPlane, backend: BackendSettings) -> list[str]:
    """The links from a backend to here that have a price."""
    book, edge = plane.prices.book, plane.settings.gateway.edge
    if backend.name not in book.sources:
        return []  # a reload is reading feeds: the settings are ahead of the prices
    links = [link.name for link in priced_links(plane) if (link.origin, link.edge) == (backend.region, edge)]
    return links or ([LOCAL_LINK] if backend.region == edge else [])


def link_views(plane: ControlPlane) -> list[LinkView]:
    return [
        LinkView(
            name=link.name,
            origin=link.origin,
            edge=link.edge,
            rtt=figures.milliseconds(link.rtt_s * 1000),
            billing=_BILLING[link.billing],
            per_gb=figures.fixed(link_per_gb(plane.prices.book, link.name), 4),
            transit=", ".join(link.transit),
        )
        for link in priced_links(plane)
    ]


def backend_views(plane: ControlPlane, fleet: Fleet) -> list[BackendView]:
    """Backends with their share of the last decisions, the most chosen first."""
    labels = {backend.name: _label(plane, backend) for backend in plane.settings.backends}
    chosen = Counter(decision["backend"] for decision in fleet.decisions)
    total = chosen.total()
    ordered = sorted(fleet.backends, key=lambda backend: (-chosen[backend.name], backend.name))
    views = []
    for backend in ordered:
        share = chosen[backend.name] / total if total else 0.0
        health, text = _health(backend)
        views.append(
            BackendView(
                name=backend.name,
                region=backend.region,
                label=labels.get(backend.name, ""),
                share=figures.percent(share) if total else "",
                share_width=round(share * 100, 2),
                in_flight=backend.in_flight,
                slots=backend.slots,
                load_width=round(min(1.0, backend.in_flight / max(1, backend.slots)) * 100, 2),
                health=health,
                health_text=text,
                ttft=figures.milliseconds(backend.ttft_ms) if backend.ttft_ms else "",
                itl=figures.milliseconds(backend.itl_ms),
                tokens_per_event=f"{backend.tokens_per_event:.2f}",
                slot_per_hour=f"{backend.slot_per_hour:.4f}" if backend.slot_per_hour else "",
            )
        )
    return views


def _label(plane: ControlPlane, backend: BackendSettings) -> str:
    """What the operator says of a backend; of its region too where that has no line among the prices."""
    region = plane.settings.regions[backend.region]
    return "; ".join(label for label in ("" if region.power else region.label, backend.label) if label)


def _health(backend: BackendNow) -> tuple[str, str]:
    why = ", ".join(backend.barred).replace("_", " ")
    if backend.available_in == backend.workers:
        return "ok", "in service"
    if backend.available_in == 0:
        return "out", why or "out of service"
    away = backend.workers - backend.available_in
    return "part", f"{why or 'out'} in {away} of {backend.workers} workers"


def decision_views(plane: ControlPlane, fleet: Fleet, tz: ZoneInfo) -> list[DecisionView]:
    """The latest decisions; money in millionths of the currency, because one request costs little."""
    return [
        DecisionView(
            at=figures.second(decision["at"], tz),
            tenant=decision["tenant"],
            model=decision["model"],
            destination=decision["destination"] or "unknown",
            route=f"{decision['backend']} / {decision['link']}",
            region=decision["region"],
            parts=tuple(_millionths(decision[part]) for part in ("energy", "tokens", "link_cost", "capacity", "time")),
            total=_millionths(decision["total"]),
            second=decision["second"],
            second_total="" if decision["second_total"] is None else _millionths(decision["second_total"]),
        )
        for decision in fleet.decisions[:DECISIONS_SHOWN]
    ]


def _millionths(amount: float) -> str:
    return figures.fixed(amount * 1e6)


def tenant_views(fleet: Fleet, tz: ZoneInfo) -> list[TenantView]:
    views = []
    for tenant in fleet.tenants:
        budget = tenant.budget
        share = min(1.0, (budget.used + budget.reserved) / max(1, budget.tokens)) if budget else 0.0
        views.append(
            TenantView(
                name=tenant.name,
                streams=tenant.streams,
                used=figures.whole(budget.used) if budget else "",
                budget=f"{figures.whole(budget.tokens)} a {budget.period}" if budget else "",
                share=figures.percent(share) if budget else "",
                share_width=round(share * 100, 2),
                ends=figures.date_and_hour(budget.ends, tz) if budget and budget.ends else "",
            )
        )
    return views


def feed_views(plane: ControlPlane, wall_s: float) -> list[FeedView]:
    return [
        FeedView(
            name=name,
            age="never" if state.fetched_at is None else f"{figures.span(max(0.0, wall_s - state.fetched_at))} ago",
            problem=state.problem,
        )
        for name, state in plane.prices.feeds.items()
    ]


def sink_views(plane: ControlPlane, wall_s: float, tz: ZoneInfo) -> list[SinkView]:
    """The stores that rows are shipped to."""
    return [
        SinkView(
            name=sink.name,
            kind=sink.kind,
            health={True: "part" if sink.lag_rows else "ok", False: "out", None: "part"}[sink.reachable],
            state=_sink_state(sink, wall_s, tz),
            problem=sink.problem,
            shipped=figures.whole(sink.rows),
            waits=f"{_rows(sink.lag_rows)}, {figures.short(sink.lag_bytes)}B" if sink.lag_rows else "",
        )
        for sink in plane.shipping.conditions()
    ]


def _sink_state(sink: Condition, wall_s: float, tz: ZoneInfo) -> str:
    if sink.reachable is None:
        return "connecting"
    if not sink.reachable:
        return f"takes nothing since {figures.date_and_hour(sink.since, tz)}"
    behind = f"{_rows(sink.lag_rows)}, {figures.span(sink.lag_s(wall_s))} behind"
    return behind if sink.lag_rows else "up to date"


def _rows(count: int) -> str:
    return f"{figures.whole(count)} row" if count == 1 else f"{figures.whole(count)} rows"
