"""From settings to the tables of the pure packages: which routes there are, and what everything costs."""

from collections.abc import Mapping

from gateway.config.settings import (
    BackendSettings,
    FeedSettings,
    LinkSettings,
    PowerSettings,
    PowerTariffSettings,
    Settings,
    TenantSettings,
    TokenPriceSettings,
)
from pricing.book import EnergyUse, PriceBook, Source
from pricing.energy import Period, PriceCurve, TimeOfUse
from pricing.feeds import PriceFeed
from pricing.feeds.csv import CsvFeed
from pricing.region import Power, Region
from pricing.tariff import Tariff, TariffSchedule, TokenPrice
from pricing.transit import TransitPrice
from routing.backend import Backend
from routing.link import Link
from routing.policy import Objective
from routing.table import RouteTable, RuleSpec

FEED_BYTES_MAX = 16 * 1024 * 1024  # of a price file, or of an answer: a year of five-minute prices is about 5 MB


def route_table(settings: Settings) -> RouteTable:
    """Who can answer what, over which road."""
    return RouteTable.build(
        settings.gateway.edge,
        [_backend(backend, settings) for backend in settings.backends],
        [_link(link) for link in settings.links],
        [
            RuleSpec(
                model=rule.model,
                backends=rule.backends,
                regions=rule.regions,
                destinations=rule.destinations,
                objective=Objective(rule.objective.kind, rule.objective.value_per_second),
                ttft_slo_s=rule.ttft_slo_s,
                queue_slo_share=settings.limits.queue_slo_share,
                deny_origins=rule.deny_origins,
                first_content_s=rule.first_content_s,
                gap_s=rule.gap_s,
                stream_s=rule.stream_s,
                hedge_after_s=rule.hedge_after_s,
            )
            for rule in settings.rules
        ],
        {region.name: region.power_cap_w for region in settings.regions.values()},
    )


def price_book(settings: Settings, curves: Mapping[str, PriceCurve]) -> PriceBook:
    """What everything costs, with the market curves at hand.

    Raises:
        ValueError: a region's power is priced by a feed without a curve, and nothing stands behind it.
    """
    return PriceBook(
        currency=settings.gateway.currency,
        fx=settings.fx,
        regions={
            region.name: Region(
                name=region.name,
                country=region.country,
                pue_milli=region.pue_milli,
                carbon_g_per_kwh=region.carbon_g_per_kwh,
                power=_power(region.power, settings) if region.power is not None else None,
            )
            for region in settings.regions.values()
        },
        sources={backend.name: _source(backend) for backend in settings.backends},
        transit={link.name: _transit(link) for link in settings.links},
        tariffs={tariff.name: time_of_use(tariff) for tariff in settings.tariffs.values()},
        curves=curves,
        charges={tenant.name: _charge(tenant) for tenant in settings.tenants},
    )


def time_of_use(tariff: PowerTariffSettings) -> TimeOfUse:
    """A power tariff. Raises ValueError for periods that cannot be read or match the same hour."""
    return TimeOfUse(
        name=tariff.name,
        currency=tariff.currency,
        timezone=tariff.timezone,
        price_per_mwh=tariff.price_per_mwh,
        periods=tuple(
            Period(period.hours, period.price_per_mwh, period.days, period.months, period.holidays)
            for period in tariff.periods
        ),
        holidays=tariff.holidays,
    )


def token_price(tokens: TokenPriceSettings) -> TokenPrice:
    """The price of bought tokens. Raises ValueError for periods that cannot be read or match the same hour."""
    return TokenPrice(
        input=tokens.input,
        output=tokens.output,
        cached_input=tokens.cached_input,
        cache_write=tokens.cache_write,
        currency=tokens.currency,
        timezone=tokens.timezone,
        periods=tuple((period.hours, period.days, period.multiplier) for period in tokens.periods),
    )


def price_feed(feed: FeedSettings) -> PriceFeed:
    """The feed of a kind. A new kind is a file in `pricing/feeds` and a line here."""
    match feed.kind:
        case "csv":
            return CsvFeed(str(feed.path) if feed.path is not None else feed.url)
    raise ValueError(f"no feed of kind {feed.kind!r}")


def feed_curve(feed: FeedSettings, body: bytes, fetched_at: float) -> PriceCurve:
    """What a feed answered, as a curve. Raises ValueError naming what is wrong: a bad batch is refused whole."""
    return PriceCurve.build(
        price_feed(feed).parse(body),
        currency=feed.currency,
        resolution_s=feed.resolution_s,
        stale_after_s=feed.stale_after_s,
        zone=feed.name,
        fetched_at=fetched_at,
    )


def read_curves(settings: Settings, fetched_at: float) -> dict[str, PriceCurve]:
    """The curves of all feeds that are files. Raises OSError or ValueError for one that cannot be read."""
    return {
        feed.name: feed_curve(feed, feed.path.read_bytes(), fetched_at)
        for feed in settings.feeds.values()
        if feed.path is not None
    }


def _backend(backend: BackendSettings, settings: Settings) -> Backend:
    return Backend(
        name=backend.name,
        region=backend.region,
        country=settings.regions[backend.region].country,
        url=backend.url,
        models=backend.models,
        slots=backend.slots,
        queue_max=backend.queue_max,
        prefill_tokens_per_s=backend.prefill_tokens_per_s,
        itl_s=backend.itl_s,
        context_tokens=backend.context_tokens,
        dialects=backend.dialects,
        usage=backend.usage,
        tokens_per_event_max=backend.tokens_per_event_max,
        power_cap_w=backend.power_cap_w,
        auth=backend.auth_header if backend.auth == "header" else backend.auth,
        api_key=backend.api_key,
        ca_file=str(backend.ca_file) if backend.ca_file is not None else "",
    )


def _link(link: LinkSettings) -> Link:
    return Link(
        name=link.name,
        origin=link.origin,
        edge=link.edge,
        rtt_s=link.rtt_s,
        transit=link.transit,
        capacity_mbps=link.capacity_mbps,
    )


def _power(power: PowerSettings, settings: Settings) -> Power:
    return Power(
        tariff=power.tariff,
        feed=power.feed,
        price_per_mwh=power.price_per_mwh,
        currency=power.currency if power.price_per_mwh is not None else "",
        adder_per_mwh=power.adder_per_mwh,
        fallback=settings.feeds[power.feed].fallback if power.feed else "",
    )


def _source(backend: BackendSettings) -> Source:
    energy, tokens = backend.energy, backend.tokens
    return Source(
        region=backend.region,
        energy=EnergyUse(energy.prefill_mj_per_token, energy.decode_mj_per_token) if energy is not None else None,
        tokens=token_price(tokens) if tokens is not None else None,
    )


def _transit(link: LinkSettings) -> TransitPrice:
    return TransitPrice(
        link=link.name,
        billing=link.billing,
        currency=link.currency,
        price_per_gb=link.price_per_gb,
        price_per_month=link.price_per_month,
        price_per_mbps_month=link.price_per_mbps_month,
        planned_mbps=link.planned_mbps,
    )


def _charge(tenant: TenantSettings) -> TariffSchedule:
    charge = tenant.charge
    tariff = Tariff(charge.input_nano_per_mtok, charge.cached_input_nano_per_mtok, charge.output_nano_per_mtok)
    return TariffSchedule((tariff,))
