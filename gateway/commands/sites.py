"""`tokenport report --sites`: what each site makes of its power. How figures are made: `gateway.ledger.sites`."""

from collections.abc import Sequence
from decimal import Decimal

from gateway.clock import wall
from gateway.commands.output import print_rows
from gateway.commands.selection import Selection
from gateway.commands.table import Row, decimals_for
from gateway.config import BackendSettings, Settings
from gateway.config.build import price_book, read_curves
from gateway.ledger.reading import Reader
from gateway.ledger.segment import Record
from gateway.ledger.sites import BY, COLUMNS, Nearest, site_figures, total_of
from pricing.transit import LOCAL_LINK
from pricing.unit_prices import UnitPrices

ESTIMATED = "saving: estimated, the same tokens and bytes at the nearest site, at the prices configured for that hour"


def print_sites(settings: Settings, asked: Selection, period: str | None, form: str) -> bool:
    """Whether there was anything."""
    gateway = settings.gateway
    with Reader(gateway.data_dir) as reader:
        hours = reader.sums(BY, "hour", asked.tz.key, asked.start, asked.end, asked.where)
    sites = site_figures(hours, period, _available_w(settings), nearest_prices(settings), gateway.currency)
    sites.sort(key=lambda site: (site.get("period", ""), site["origin_region"], site["currency"] or ""))
    if form != "table":
        print_rows(sites, [*(["period"] if period else []), *COLUMNS], form)
    elif sites:
        _print_for_people(sites, period)
    return bool(sites)


def nearest_prices(settings: Settings) -> Nearest:
    """What the nearest site charges for a model at a time, as configured. Unknown where a feed is no file, and where a
    rehearsal's price clock showed another time."""
    try:
        book = price_book(settings, read_curves(settings, wall()))
    except (OSError, ValueError):
        book = None
    routes = {model: _nearest_route(settings, model) for model in {rule.model for rule in settings.rules}}

    def prices(model: str, at: float) -> tuple[str, UnitPrices] | None:
        route = routes.get(model)
        if book is None or route is None or settings.price_clock is not None:
            return None
        return route[0], book.at(at).units(*route)

    return prices


def _nearest_route(settings: Settings, model: str) -> tuple[str, str] | None:
    """Backend and link with the least round trip, of those that have the model; the cheaper name first where equal."""
    edge = settings.gateway.edge
    roads = [(link.rtt_s, link.name, link.origin) for link in settings.links if link.edge == edge]
    if all(origin != edge for _, _, origin in roads):
        roads.append((0.0, LOCAL_LINK, edge))
    ways = [
        (rtt_s, backend.name, link)
        for backend in settings.backends
        if model in backend.models
        for rtt_s, link, origin in roads
        if origin == backend.region
    ]
    return min(ways)[1:] if ways else None


def _available_w(settings: Settings) -> dict[str, float]:
    """The power cap of a region, or of all of its backends, if each has one."""
    found: dict[str, float] = {}
    for name, region in settings.regions.items():
        backends: Sequence[BackendSettings] = [each for each in settings.backends if each.region == name]
        caps = [backend.power_cap_w for backend in backends]
        found[name] = region.power_cap_w or (sum(caps) if caps and all(caps) else 0.0)
    return found


def _print_for_people(sites: Sequence[Record], period: str | None) -> None:
    currencies = sorted({site["currency"] or "" for site in sites})
    totals = [total_of([site for site in sites if (site["currency"] or "") == unit]) for unit in currencies]
    amounts = ("income_nano_per_mwh", "income_nano_per_mw", "spread_nano_per_mtok", "saving_nano")
    everything = [*sites, *totals]
    places = {
        name: decimals_for([Decimal(site[name]).scaleb(-9) for site in everything if site[name] is not None])
        for name in amounts
    }
    unit = f" {currencies[0]}" if len(currencies) == 1 else ""
    titles = {
        "tokens_per_kwh": "tokens per kWh",
        "income_nano_per_mwh": f"income{unit} per MWh",
        "income_nano_per_mw": f"income{unit} per MW",
        "spread_nano_per_mtok": f"spread{unit} per Mtok",
        "saving_nano": f"saving{unit} (est.)",
    }

    def shown(site: Record) -> Row:
        row: dict[str, object] = {
            **{name: site.get(name) for name in ("period", "currency")},
            "site": site.get("origin_region"),
            "tokens": site["delivered_tokens"],
            "energy kWh": round(Decimal(site["energy_uwh"]).scaleb(-9), 3) if site["energy_uwh"] else None,
            titles["tokens_per_kwh"]: site["tokens_per_kwh"],
            "hours below 0, %": round(Decimal(100 * site["negative_hours"]) / site["hours"], 1),
        }
        for name in amounts:
            value = site[name]
            row[titles[name]] = None if value is None else round(Decimal(value).scaleb(-9), places[name])
        return row

    first = "period" if period else "site"
    columns = [*(["period"] if period else []), "site", *([] if unit else ["currency"]), "tokens", "energy kWh"]
    figures = ("tokens_per_kwh", "income_nano_per_mwh", "income_nano_per_mw", "spread_nano_per_mtok")
    columns += [*(titles[name] for name in figures), "hours below 0, %", titles["saving_nano"]]
    sums = [{**shown(total), "period": "", "site": "", first: "total"} for total in totals]
    print_rows(list(map(shown, sites)), columns, "table", totals=sums if len(sites) > 1 else ())
    print(ESTIMATED)
