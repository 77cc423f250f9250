"""Token-factory figures: what each site (the backends of one region) makes of its power, from sums by the hour.

Tokens are delivered ones, energy is that of the ledger (configured joules per token). The spread is tariff - energy -
tokens bought - link, without what failed attempts cost. Everything is an integer until the last division, which is
rounded half-even once.

The saving is an estimate: what the same tokens and bytes would have cost at the nearest site that has the model (least
round trip to the edge), less what they did cost. Costs are linear in tokens and bytes, so that an hour's sums at an
hour's prices give what its rows would; the nearest site's prices are those that the configuration gives for that hour.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from gateway.ledger.segment import Record
from pricing.export import Usage, settle
from pricing.unit_prices import UnitPrices
from pricing.units import MTOK, divide_half_even

BY = ("origin_region", "origin_backend", "model")  # what to sum by, per hour, for `site_figures`
# Model and epoch seconds to the nearest backend that has it, and its unit prices; None: not known.
Nearest = Callable[[str, float], tuple[str, UnitPrices] | None]

_PERIOD_CHARS = {"hour": None, "day": 10, "month": 7, "year": 4}  # of an hour's name
_UWH_PER_KWH = 10**9
_UWH_PER_MWH = 10**12
_W_PER_MW = 10**6

SUMMED = (
    *("requests", "delivered_tokens", "energy_uwh", "revenue_nano", "cost_energy_nano", "cost_tokens_nano"),
    *("cost_link_nano", "spread_nano", "hours", "negative_hours"),
)
ESTIMATED = ("nearest_cost_nano", "saving_nano")
DIVIDED = ("tokens_per_kwh", "income_nano_per_mwh", "income_nano_per_mw", "spread_nano_per_mtok")
COLUMNS = ("origin_region", "currency", *SUMMED, *ESTIMATED, "available_w", *DIVIDED)


def site_figures(
    hours: Iterable[Record], period: str | None, available_w: Mapping[str, float], nearest: Nearest, currency: str
) -> list[Record]:
    """Figures by site and period, from `Reader.sums(BY, "hour")`. `currency`: that of the nearest site's prices."""
    found: dict[tuple[str, str, str], Record] = {}
    for (hour, region, unit), rows in _by_site_and_hour(hours).items():
        key = (hour[: _PERIOD_CHARS[period]] if period else "", region, unit)
        site = found.setdefault(key, _nothing(key, period, available_w.get(region, 0.0)))
        _add_hour(site, rows, hour, nearest if unit == currency else _unknown)
    return [_divided(site) for site in found.values()]


def total_of(sites: Sequence[Record]) -> Record:
    """All sites of one currency together, per available MW only if all of them say how much they have."""
    total: Record = {"currency": sites[0]["currency"]}
    total |= {name: sum(site[name] for site in sites) for name in SUMMED}
    for name in ESTIMATED:
        known = [site[name] for site in sites if site["delivered_tokens"]]
        total[name] = None if None in known or not known else sum(known)
    by_region = {site["origin_region"]: site["available_w"] for site in sites}
    total["available_w"] = None if None in by_region.values() else sum(by_region.values())
    return _divided(total)


def _by_site_and_hour(hours: Iterable[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """What no backend served belongs to no site."""
    found: dict[tuple[str, str, str], list[Record]] = {}
    for row in hours:
        if row["origin_region"] is not None:
            found.setdefault((row["period"], row["origin_region"], row["currency"] or ""), []).append(row)
    return found


def _nothing(key: tuple[str, str, str], period: str | None, available_w: float) -> Record:
    label, region, unit = key
    named: Record = {"period": label} if period else {}
    named |= {"origin_region": region, "currency": unit or None}
    return named | dict.fromkeys((*SUMMED, *ESTIMATED), 0) | {"available_w": round(available_w) or None}


def _add_hour(site: Record, rows: Sequence[Record], hour: str, nearest: Nearest) -> None:
    spread = 0
    for row in rows:
        for name in SUMMED:
            site[name] += row.get(name, 0)
        costs = row["cost_energy_nano"] + row["cost_tokens_nano"] + row["cost_link_nano"]
        spread += row["revenue_nano"] - costs
        elsewhere = _nearest_cost(nearest(row["model"] or "", datetime.fromisoformat(hour).timestamp()), row, costs)
        if elsewhere is None or site["saving_nano"] is None:
            site["nearest_cost_nano"] = site["saving_nano"] = None
        else:
            site["nearest_cost_nano"] += elsewhere
            site["saving_nano"] += elsewhere - costs
    site["spread_nano"] += spread
    site["hours"] += 1
    site["negative_hours"] += spread < 0


def _nearest_cost(nearest: tuple[str, UnitPrices] | None, row: Record, costs: int) -> int | None:
    if nearest is None:
        return None
    backend, units = nearest
    if row["origin_backend"] == backend:
        return costs
    usage = Usage(row["input_tokens"], row["cached_input_tokens"], row["cache_write_tokens"], row["output_tokens"])
    return settle(units, usage, row["bytes_to_backend"], row["bytes_from_backend"]).total_nano


def _divided(site: Record) -> Record:
    tokens, energy, watts = site["delivered_tokens"], site["energy_uwh"], site["available_w"]
    return site | {
        "tokens_per_kwh": _ratio(tokens * _UWH_PER_KWH, energy),
        "income_nano_per_mwh": _ratio(site["revenue_nano"] * _UWH_PER_MWH, energy),
        "income_nano_per_mw": _ratio(site["revenue_nano"] * _W_PER_MW, watts),
        "spread_nano_per_mtok": _ratio(site["spread_nano"] * MTOK, tokens),
    }


def _ratio(numerator: int, denominator: int | None) -> int | None:
    return divide_half_even(numerator, denominator) if denominator else None


def _unknown(model: str, at: float) -> tuple[str, UnitPrices] | None:
    return None
