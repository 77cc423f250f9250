"""The simulated world as frozen values: what one scenario says, and what was asked of it.

A world is fully determined by a scenario, a list of requests and hourly prices; nothing in it is random. Times are
seconds after `Scenario.start`, all money is USD (FX is in `World.fx`), units are in the names.

    row        one line of the request list. It stands for `thin` like requests of the full stream, served one after
               another in one slot: `thin` times the cost, the bytes and the time in a slot, but real load and shape
    region     where clients and their edge are
    site       where tokens are made from electricity, or sold to us; `slots` rows at once, first come first served
    link       the road from a site to all regions it reaches; several may lead to one site
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

HOUR_S: Final = 3600
DAY_S: Final = 86_400
MONTH_S: Final = 30 * DAY_S  # of monthly prices

DAY_AHEAD: Final = "day_ahead"
REAL_TIME: Final = "real_time"

PER_GB: Final = "per_gb"
P95: Final = "p95"
FLAT: Final = "flat"

SITE_DOWN: Final = "site_down"
LINK_CUT: Final = "link_cut"
FEED_DEAD: Final = "feed_dead"
ALL_FEEDS: Final = "*"


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    start: int  # epoch seconds, a full hour
    duration_s: float
    report_from_s: float  # rows that arrive in [from, to) enter the totals; the others only take room
    report_to_s: float
    bin_s: float
    billing_period_s: float
    thin: float
    reject_usd: float

    def reports(self, t: float) -> bool:
        return self.report_from_s <= t < self.report_to_s

    def utc_hour(self, t: float) -> int:
        """Hours since the epoch: prices, weekday and hour of day are those of a row's arrival."""
        return self.start // HOUR_S + int(t // HOUR_S)


@dataclass(frozen=True, slots=True)
class Framing:
    """Bytes of one request, both directions together."""

    bytes_per_request: float
    bytes_per_prompt_token: float
    bytes_per_output_token: float

    def size_bytes(self, prompt_tokens: float, output_tokens: float) -> float:
        return (
            self.bytes_per_request
            + self.bytes_per_prompt_token * prompt_tokens
            + self.bytes_per_output_token * output_tokens
        )


@dataclass(frozen=True, slots=True)
class Publication:
    """When things become known."""

    day_ahead_utc_hour: float  # of the day before
    real_time_lag_s: float  # after the start of the hour
    fault_detect_s: float
    fault_fail_s: float  # what a row loses that is sent into an outage nobody knows of


@dataclass(frozen=True, slots=True)
class ClientRegion:
    name: str
    country: str


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    usd_per_s: float  # value of a second of TTFT
    ttft_slo_s: float
    deny: frozenset[str]  # countries that must neither serve nor carry


@dataclass(frozen=True, slots=True)
class Market:
    """Power bought at the price of a zone."""

    zone: str
    currency: str
    adder_per_kwh: float
    publish: str  # day_ahead | real_time


@dataclass(frozen=True, slots=True)
class PowerTariff:
    """Power bought at a price of the local hour."""

    currency: str
    price_per_kwh: float
    utc_offset_h: float
    hourly_multiplier: tuple[float, ...]

    def per_kwh(self, utc_hour: int) -> float:
        """In its own currency; any hour since the epoch, or of the day."""
        return self.price_per_kwh * self.hourly_multiplier[int((utc_hour + self.utc_offset_h) // 1) % 24]


@dataclass(frozen=True, slots=True)
class TokenSale:
    """A site that sells tokens; all three prices are multiplied in its peak hours, Monday to Friday."""

    usd_per_mtok_input: float
    usd_per_mtok_cached: float
    usd_per_mtok_output: float
    peak_multiplier: float
    peak_utc_hours: tuple[int, ...]

    def multiplier(self, utc_hour: int) -> float:
        day, hour = divmod(utc_hour, 24)
        weekday = (day + 3) % 7  # 1970-01-01 was a Thursday
        return self.peak_multiplier if weekday < 5 and hour in self.peak_utc_hours else 1.0


@dataclass(frozen=True, slots=True)
class Site:
    name: str
    country: str
    slots: int
    prefill_tokens_per_s: float
    itl_s: float
    supply: Market | PowerTariff | TokenSale
    pue: float = 1.0
    prefill_j_per_token: float = 0.0
    decode_j_per_token: float = 0.0
    cache_blocks: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    name: str
    site: str
    rtt_s: Mapping[str, float]  # by client region; absent: no path
    billing: str  # per_gb | p95 | flat
    transit: tuple[str, ...] = ()  # countries passed
    capacity_mbps: float = 0.0  # 0: none; for all regions together
    usd_per_gb: Mapping[str, float] | float = 0.0  # by client region if it differs
    usd_per_mbps_month: float = 0.0
    usd_per_month: float = 0.0

    def per_gb(self, region: str) -> float:
        """USD for a GB to or from a region; p95 and flat lines have no price per GB."""
        if self.billing != PER_GB:
            return 0.0
        return self.usd_per_gb if isinstance(self.usd_per_gb, float) else self.usd_per_gb[region]


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str  # site_down | link_cut | feed_dead
    target: str  # site, link, zone or "*"
    from_s: float
    to_s: float

    def in_force(self, t: float) -> bool:
        return self.from_s <= t < self.to_s


@dataclass(frozen=True, slots=True)
class Yardsticks:
    """Published totals to compare with; None where there is none."""

    bound_usd: float | None = None  # a clairvoyant lower bound
    nearest_usd: float | None = None
    nearest_slo_miss_pct: float | None = None


@dataclass(frozen=True, slots=True)
class World:
    scenario: Scenario
    framing: Framing
    publication: Publication
    fx: Mapping[str, float]  # USD per unit
    regions: Mapping[str, ClientRegion]
    tenants: Mapping[str, Tenant]
    sites: Mapping[str, Site]
    links: Mapping[str, Link]
    faults: tuple[Fault, ...] = ()
    yardsticks: Yardsticks = Yardsticks()

    @property
    def zones(self) -> tuple[str, ...]:
        """Price zones that some site buys in."""
        return tuple(sorted({site.supply.zone for site in self.sites.values() if isinstance(site.supply, Market)}))


@dataclass(frozen=True, slots=True)
class ZonePrices:
    """Hour by hour without a hole, in the zone's currency per MWh."""

    first_utc_hour: int  # since the epoch
    per_mwh: tuple[float, ...]

    @property
    def end_utc_hour(self) -> int:
        return self.first_utc_hour + len(self.per_mwh)

    def at(self, utc_hour: int) -> float:
        if not self.first_utc_hour <= utc_hour < self.end_utc_hour:
            raise ValueError(f"no price for the hour {utc_hour * HOUR_S} s after 1970")
        return self.per_mwh[utc_hour - self.first_utc_hour]


class Request(NamedTuple):
    """A row."""

    request_id: int
    arrival_s: float
    region: str
    tenant: str
    prompt_tokens: int
    output_tokens: int
    prefix_blocks: tuple[int, ...] = ()  # ids of 512-token blocks


class Assignment(NamedTuple):
    """Which route a row took. Without site and link: rejected."""

    request_id: int
    site: str
    link: str
    sent_s: float | None  # of the final attempt; None: at arrival
