"""What a configuration says, as frozen values: the form in which the rest of the gateway knows it.

Units are turned into those the code uses (seconds, millijoules, thousandths, integer nano money) where the file is
read; names say which. Credentials never show in a `repr`. Nothing here refers to the pure packages: `build` turns
settings into their tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from gateway.config.limits import LedgerSettings, Limits

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 asks the system for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect. A name other than localhost counts as reachable."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate chain and key of the public port, both PEM."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """`[gateway]`."""

    edge: str  # region this gateway stands in
    data_dir: Path
    listen: Address = Address("127.0.0.1", 8080)
    workers: int = 1  # 0: one per core
    currency: str = "USD"
    trusted_proxies: tuple[Network, ...] = ()
    admin_listen: Address = Address("127.0.0.1", 8081)
    admin_token: str = field(default="", repr=False)  # value of the variable that admin_token_env names
    tls: Tls | None = None
    country_db: Path | None = None  # None: the database that ships
    destination_header: str = ""  # lower case; "": none is believed


@dataclass(frozen=True, slots=True)
class PowerSettings:
    """Where a region's price of power comes from: exactly one of tariff, feed and price_per_mwh."""

    tariff: str = ""
    feed: str = ""
    price_per_mwh: float | None = None
    currency: str = ""  # of price_per_mwh and of adder_per_mwh beside it
    adder_per_mwh: float = 0.0  # grid fees, taxes and margin on top, in the currency of the price


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """`[regions.NAME]`."""

    name: str
    country: str
    power: PowerSettings | None = None
    pue_milli: int = 1000
    carbon_g_per_kwh: int = 0
    power_cap_w: float = 0.0  # 0: none
    label: str = ""


@dataclass(frozen=True, slots=True)
class PeriodSettings:
    """Hours of a power tariff with a price of their own; empty strings and None do not narrow."""

    hours: str
    price_per_mwh: float
    days: str = ""
    months: str = ""
    holidays: bool | None = None


@dataclass(frozen=True, slots=True)
class PowerTariffSettings:
    """`[tariffs.NAME]`: a time-of-use price of power."""

    name: str
    currency: str
    price_per_mwh: float
    timezone: str = "UTC"
    periods: tuple[PeriodSettings, ...] = ()
    holidays: frozenset[date] = frozenset()


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """`[feeds.NAME]`: prices that change and are fetched. Either path or url is set."""

    name: str
    kind: str
    currency: str
    path: Path | None = None
    url: str = ""
    resolution_s: float = 3600.0
    refresh_s: float = 300.0
    stale_after_s: float = 10_800.0  # after the start of the last priced interval, if that is longer than the interval
    fallback: str = ""  # power tariff used when no price of the feed covers the hour; "": none


@dataclass(frozen=True, slots=True)
class EnergySettings:
    """`joules_per_token`, in millijoules."""

    prefill_mj_per_token: int
    decode_mj_per_token: int


@dataclass(frozen=True, slots=True)
class MultiplierSettings:
    """Hours in which bought tokens cost the list price times a factor."""

    hours: str
    multiplier: float
    days: str = ""


@dataclass(frozen=True, slots=True)
class TokenPriceSettings:
    """`price_per_mtok` of a backend that sells us tokens, per million."""

    input: float
    cached_input: float
    cache_write: float
    output: float
    currency: str
    timezone: str = "UTC"
    periods: tuple[MultiplierSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """`[[backends]]`. Exactly one of energy and tokens is set."""

    name: str
    region: str
    url: str
    models: Mapping[str, str]  # public name -> the backend's own
    slots: int
    queue_max: int
    energy: EnergySettings | None = None
    tokens: TokenPriceSettings | None = None
    api_key: str = field(default="", repr=False)  # value of the variable that api_key_env names
    auth: str = "bearer"  # bearer | x-api-key | none | header
    auth_header: str = ""  # lower case; only with auth = header
    prefill_tokens_per_s: float = 5000.0
    itl_s: float = 0.030
    dialects: tuple[str, ...] = ("openai",)
    context_tokens: int = 131_072
    usage: str = "final"  # final | continuous | none
    tokens_per_event_max: int = 4
    ca_file: Path | None = None
    power_cap_w: float = 0.0  # 0: none
    label: str = ""

    def credential(self) -> tuple[str, str] | None:
        """The header field that authenticates us at this backend, or None where no credential is sent."""
        if not self.api_key or self.auth == "none":
            return None
        if self.auth == "bearer":
            return "authorization", f"Bearer {self.api_key}"
        return (self.auth_header if self.auth == "header" else "x-api-key"), self.api_key


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """`[[links]]`: a road from a region (origin) to the edge. Which price applies depends on billing."""

    name: str
    origin: str
    edge: str
    rtt_s: float
    billing: str  # flat | per_gb | p95
    currency: str
    price_per_month: float = 0.0
    price_per_gb: float = 0.0
    price_per_mbps_month: float = 0.0
    planned_mbps: float = 0.0
    transit: tuple[str, ...] = ()  # countries passed
    capacity_mbps: float = 0.0  # 0: not stated


@dataclass(frozen=True, slots=True)
class ObjectiveSettings:
    """What a rule optimises; value_per_second only with kind = value."""

    kind: str = "balanced"  # cheapest | balanced | fastest | value
    value_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """`[[routes]]`. Either backends or regions is not empty."""

    model: str
    destinations: tuple[str, ...] = ("*",)
    backends: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    objective: ObjectiveSettings = ObjectiveSettings()
    ttft_slo_s: float | None = None
    deny_origins: frozenset[str] = frozenset()
    first_content_s: float | None = None  # None: the one of [limits]
    gap_s: float | None = None
    stream_s: float | None = None
    hedge_after_s: float = 0.0  # 0: never


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """Tokens (input and billed output) per calendar period, in UTC."""

    tokens: int
    period: str  # day | month | year


@dataclass(frozen=True, slots=True)
class RateSettings:
    """`limits` of a tenant, team or user; 0: none."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    streams: int = 0


@dataclass(frozen=True, slots=True)
class ChargeSettings:
    """`tariff_per_mtok`: what a tenant is charged, in nano units of the gateway's currency."""

    input_nano_per_mtok: int = 0
    cached_input_nano_per_mtok: int = 0
    output_nano_per_mtok: int = 0


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """`[[tenants]]`."""

    name: str
    key_hashes: tuple[str, ...] = ()  # 64 lower-case hex digits each: SHA-256 of a key's bytes
    charge: ChargeSettings = ChargeSettings()
    budget: BudgetSettings | None = None
    limits: RateSettings = RateSettings()
    country: str = ""  # declared destination; "": the address decides
    value_per_second: float = 0.0
    deny_origins: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TeamSettings:
    """`[[teams]]`. Names are unique in the file."""

    tenant: str
    name: str
    limits: RateSettings = RateSettings()
    budget: BudgetSettings | None = None


@dataclass(frozen=True, slots=True)
class UserSettings:
    """`[[users]]`. Names are unique in their team."""

    team: str
    name: str
    limits: RateSettings = RateSettings()
    budget: BudgetSettings | None = None


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """`[[sinks]]`: a store that committed rows are shipped to."""

    name: str
    kind: str  # postgres | nats | clickhouse
    url: str = field(repr=False)  # with the password in it
    table: str = "exports"  # postgres, clickhouse
    stream: str = "tokenport"  # nats
    subject: str = "tokenport.exports"  # nats: in front of gateway and log
    batch_rows: int = 1000
    ca_file: Path | None = None  # nats, clickhouse

    @property
    def place(self) -> str:
        """Where rows go, for people."""
        return f"stream {self.stream}" if self.kind == "nats" else f"table {self.table}"


@dataclass(frozen=True, slots=True)
class PriceClock:
    """`[price_clock]`: prices of another time, replayed for a rehearsal. Every page says so while it is set."""

    start_at: float  # UTC epoch seconds that the clock shows when the gateway starts
    speed: float = 1.0  # seconds of prices per second

    def at(self, elapsed_s: float) -> float:
        """What the clock shows after so many seconds of running."""
        return self.start_at + elapsed_s * self.speed


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration that passed every check."""

    gateway: GatewaySettings
    directory: Path  # of the configuration file: relative paths started here
    source: Path | None = None  # the file itself; None for a text
    limits: Limits = field(default_factory=Limits)
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    fx: Mapping[str, float] = field(default_factory=dict)  # gateway currency per unit, its own (1.0) included
    regions: Mapping[str, RegionSettings] = field(default_factory=dict)
    tariffs: Mapping[str, PowerTariffSettings] = field(default_factory=dict)
    feeds: Mapping[str, FeedSettings] = field(default_factory=dict)
    backends: tuple[BackendSettings, ...] = ()
    links: tuple[LinkSettings, ...] = ()
    rules: tuple[RuleSettings, ...] = ()  # in the order of the file: the first match wins
    tenants: tuple[TenantSettings, ...] = ()
    teams: tuple[TeamSettings, ...] = ()
    users: tuple[UserSettings, ...] = ()
    sinks: tuple[SinkSettings, ...] = ()
    price_clock: PriceClock | None = None  # None: the wall clock
    notes: tuple[str, ...] = ()  # legal, but probably not meant; one line each, for `check` to show
