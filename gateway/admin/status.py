"""`/status`: what the gateway is doing and at which prices, as JSON for `top`, scripts and the page.

Times are RFC 3339 in UTC, durations carry their unit in the name, money is in the gateway's currency. Price times
(`since`, `until`, `price_clock.now`) are read from the price clock, which is another clock than the wall's while prices
are replayed.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gateway.admin.fleet import BackendNow, Fleet, TenantNow, merge
from gateway.admin.plane import ControlPlane
from gateway.clock import timestamp, wall
from gateway.config.settings import LinkSettings
from gateway.shipping.shipper import Condition
from pricing.book import PriceBook, PriceSlice

try:
    VERSION = version("tokenport")
except PackageNotFoundError:
    VERSION = "unknown"  # run from sources that were never installed

Json = dict[str, Any]


async def status(plane: ControlPlane) -> Json:
    """Everything at this moment."""
    fleet = merge(await plane.ask_workers("status"))
    return describe(plane, fleet, wall())


def describe(plane: ControlPlane, fleet: Fleet, wall_s: float) -> Json:
    """The same from what the workers said."""
    settings, price_time = plane.settings, plane.price_time
    at = price_time.at(wall_s)
    book = plane.prices.book
    prices = book.at(at)
    return {
        "version": VERSION,
        "edge": settings.gateway.edge,
        "currency": settings.gateway.currency,
        "now": timestamp(wall_s),
        "started_at": timestamp(plane.started_at),
        "uptime_s": round(max(0.0, wall_s - plane.started_at), 3),
        "ready": plane.ready,
        "price_clock": {
            "replayed": price_time.replayed,
            "now": timestamp(at),
            "speed": price_time.clock.speed if price_time.clock is not None else 1.0,
        },
        "versions": {"routes": list(fleet.route_versions), "prices": list(fleet.price_versions)},
        "requests_in_flight": fleet.in_flight,
        "connections": fleet.connections,
        "ledger": {
            "writable": not fleet.ledger_reasons,
            "problems": list(fleet.ledger_reasons),
            "sealed": _sealed(plane),
        },
        "workers": [
            {
                "log": worker.log,
                "pid": worker.pid,
                "connections": worker.connections,
                "in_flight": worker.in_flight,
                "draining": worker.draining,
            }
            for worker in fleet.workers
        ],
        "regions": list(_regions(plane, prices)),
        "backends": [_backend(backend, plane) for backend in fleet.backends],
        "links": list(_links(plane)),
        "feeds": list(_feeds(plane, wall_s)),
        "sinks": [_sink(sink, wall_s) for sink in plane.shipping.conditions()],
        "planner": _planner(plane, wall_s),
        "tenants": [_tenant(tenant) for tenant in fleet.tenants],
        "decisions": [{**decision, "at": timestamp(decision["at"])} for decision in fleet.decisions],
    }


def _sealed(plane: ControlPlane) -> Json:
    seals = plane.seals.now
    last = seals.last_sealed_at
    return {
        "segments": seals.segments,
        "bytes": seals.sealed_bytes,
        "last_sealed_at": timestamp(last) if last is not None else None,
        "damaged": [found._asdict() for found in seals.damaged],
        "problem": seals.problem,
    }


def price_zone(book: PriceBook, region: str, quality: str) -> str:
    """The feed or power tariff that a region's price comes from; empty for a fixed price and for none."""
    power = book.regions[region].power
    if power is None:
        return ""
    if power.feed and quality == "fallback":
        return power.fallback
    return power.feed or power.tariff


def priced_links(plane: ControlPlane) -> list[LinkSettings]:
    """The links of the configuration; without new ones whose prices are not in force while a reload reads its feeds."""
    return [link for link in plane.settings.links if link.name in plane.prices.book.transit]


def link_per_gb(book: PriceBook, link: str) -> float:
    """What one more GB costs over a link, in the gateway's currency."""
    price = book.transit[link]
    return price.marginal_per_gb() * float(book.exchange(price.currency))


def _regions(plane: ControlPlane, prices: PriceSlice) -> Iterator[Json]:
    for region in plane.settings.regions.values():
        point = prices.power(region.name)
        yield {
            "name": region.name,
            "country": region.country,
            "label": region.label,
            "price_per_mwh": point.price_per_mwh if point else None,
            "quality": point.quality if point else "",
            "zone": price_zone(plane.prices.book, region.name, point.quality) if point else "",
            "since": _moment(point.since) if point else None,
            "until": _moment(point.until) if point else None,
        }


def _moment(t: float) -> str | None:
    """A bound of a price; None for one that holds for ever."""
    return timestamp(t) if math.isfinite(t) else None


def _backend(backend: BackendNow, plane: ControlPlane) -> Json:
    labels = {each.name: each.label for each in plane.settings.backends}
    return {
        "name": backend.name,
        "region": backend.region,
        "label": labels.get(backend.name, ""),
        "in_flight": backend.in_flight,
        "slots": backend.slots,
        "queue_max": backend.queue_max,
        "slot_per_hour": backend.slot_per_hour,
        "available": backend.available,
        "available_in": backend.available_in,
        "workers": backend.workers,
        "barred": list(backend.barred),
        "ttft_ms": round(backend.ttft_ms, 3),
        "itl_ms": round(backend.itl_ms, 3),
        "tokens_per_event": round(backend.tokens_per_event, 4),
    }


def _links(plane: ControlPlane) -> Iterator[Json]:
    for link in priced_links(plane):
        yield {
            "name": link.name,
            "from": link.origin,
            "to": link.edge,
            "rtt_ms": round(link.rtt_s * 1000, 3),
            "billing": link.billing,
            "marginal_per_gb": link_per_gb(plane.prices.book, link.name),
            "transit": list(link.transit),
        }


def _feeds(plane: ControlPlane, wall_s: float) -> Iterator[Json]:
    for name, state in plane.prices.feeds.items():
        fetched_at = state.fetched_at
        yield {
            "name": name,
            "fetched_at": timestamp(fetched_at) if fetched_at is not None else None,
            "age_s": round(wall_s - fetched_at, 3) if fetched_at is not None else None,
            "problem": state.problem,
        }


def _sink(sink: Condition, wall_s: float) -> Json:
    return {
        "name": sink.name,
        "kind": sink.kind,
        "reachable": sink.reachable,
        "since": timestamp(sink.since) if sink.reachable is not None else None,
        "problem": sink.problem,
        "rows": sink.rows,
        "skipped_lines": sink.skipped,
        "failures": sink.failures,
        "lag_rows": sink.lag_rows,
        "lag_bytes": sink.lag_bytes,
        "lag_s": round(sink.lag_s(wall_s), 3),
    }


def _planner(plane: ControlPlane, wall_s: float) -> Json:
    planner = plane.planner
    return {
        "problem": planner.problem,
        "planned_at": timestamp(planner.planned_at) if planner.planned_at is not None else None,
        "followed_at": timestamp(planner.followed_at) if planner.followed_at is not None else None,
        "hours": [{**hour, "since": timestamp(hour["since"])} for hour in planner.outlook(wall_s)],
    }


def _tenant(tenant: TenantNow) -> Json:
    """As the workers tell it, with the budget's end as a time."""
    told = asdict(tenant)
    if tenant.budget is not None:
        told["budget"]["ends"] = timestamp(tenant.budget.ends) if tenant.budget.ends else None
    return told
