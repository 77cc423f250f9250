"""A scenario's TOML document, already parsed, into a World. What does not fit is a ValueError with its place.

Keys that say nothing to the simulator (notes, published splits of costs) are left alone; kinds, billings and names it
does not know are errors, because ignoring one would be a wrong total.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from routing.simulator.world import (
    DAY_AHEAD,
    FEED_DEAD,
    FLAT,
    HOUR_S,
    LINK_CUT,
    P95,
    PER_GB,
    REAL_TIME,
    SITE_DOWN,
    ClientRegion,
    Fault,
    Framing,
    Link,
    Market,
    PowerTariff,
    Publication,
    Scenario,
    Site,
    Tenant,
    TokenSale,
    World,
    Yardsticks,
)


class Part:
    """One table of the document, which knows where it stands."""

    def __init__(self, content: object, where: str) -> None:
        if not isinstance(content, Mapping):
            raise ValueError(f"{where}: not a table")
        self._content: Mapping[str, Any] = content
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def fail(self, key: str, problem: str) -> ValueError:
        return ValueError(f"{self.where}.{key}: {problem}" if self.where else f"{key}: {problem}")

    def value(self, key: str) -> Any:
        if key not in self._content:
            raise self.fail(key, "missing")
        return self._content[key]

    def text(self, key: str, among: tuple[str, ...] = ()) -> str:
        value = self.value(key)
        if not isinstance(value, str):
            raise self.fail(key, f"{value!r} is not text")
        if among and value not in among:
            raise self.fail(key, f"{value!r} is none of {', '.join(among)}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.value(key) if default is None else self._content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"{value!r} is not a number")
        return float(value)

    def positive(self, key: str) -> float:
        value = self.number(key)
        if value <= 0:
            raise self.fail(key, f"{value:g} is not above zero")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if not value.is_integer() or value < 0:
            raise self.fail(key, f"{value:g} is not a whole number")
        return int(value)

    def numbers(self, key: str) -> dict[str, float]:
        """A table of numbers."""
        table = self.part(key)
        return {name: table.number(name) for name in table._content}

    def sequence(self, key: str, default: tuple[object, ...] | None = None) -> tuple[Any, ...]:
        value = self.value(key) if default is None else self._content.get(key, default)
        if not isinstance(value, list | tuple):
            raise self.fail(key, "not a list")
        return tuple(value)

    def part(self, key: str) -> "Part":
        return Part(self.value(key), f"{self.where}.{key}" if self.where else key)

    def parts(self, key: str, default: tuple[object, ...] | None = None) -> Iterator["Part"]:
        for number, content in enumerate(self.sequence(key, default)):
            yield Part(content, f"{key}[{number}]")


def world_of(document: Mapping[str, object]) -> World:
    """The world a document describes. Raises ValueError."""
    whole = Part(document, "")
    fx = whole.numbers("fx")
    regions = _named(_region(part) for part in whole.parts("regions"))
    sites = _named(_site(part, fx) for part in whole.parts("sites"))
    links = _named(_link(part, sites, regions) for part in whole.parts("links"))
    return World(
        scenario=_scenario(whole.part("scenario")),
        framing=_framing(whole.part("framing")),
        publication=_publication(whole.part("publication")),
        fx=MappingProxyType(fx),
        regions=regions,
        tenants=_named(_tenant(part) for part in whole.parts("tenants")),
        sites=sites,
        links=links,
        faults=tuple(_fault(part, sites, links) for part in whole.parts("faults", ())),
        yardsticks=_yardsticks(whole.part("published")) if "published" in whole else Yardsticks(),
    )


def _named(parts: Iterator[Any]) -> Mapping[str, Any]:
    named: dict[str, Any] = {}
    for part in parts:
        if part.name in named:
            raise ValueError(f"{type(part).__name__.lower()} {part.name!r} is there twice")
        named[part.name] = part
    return MappingProxyType(named)


def _scenario(part: Part) -> Scenario:
    text = part.text("start_utc")
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        raise part.fail("start_utc", f"{text!r} is not a time") from None
    epoch = (start if start.tzinfo else start.replace(tzinfo=UTC)).timestamp()
    if epoch % HOUR_S:
        raise part.fail("start_utc", f"{text!r} is not a full hour")
    return Scenario(
        name=part.text("name"),
        start=int(epoch),
        duration_s=part.positive("duration_s"),
        report_from_s=part.number("report_from_s"),
        report_to_s=part.number("report_to_s"),
        bin_s=part.positive("bin_s"),
        billing_period_s=part.positive("billing_period_s"),
        thin=part.positive("thin"),
        reject_usd=part.number("reject_usd"),
    )


def _framing(part: Part) -> Framing:
    return Framing(
        part.number("bytes_per_request"), part.number("bytes_per_prompt_token"), part.number("bytes_per_output_token")
    )


def _publication(part: Part) -> Publication:
    return Publication(
        day_ahead_utc_hour=part.number("day_ahead_utc_hour"),
        real_time_lag_s=part.number("real_time_lag_s"),
        fault_detect_s=part.number("fault_detect_s"),
        fault_fail_s=part.positive("fault_fail_s"),
    )


def _region(part: Part) -> ClientRegion:
    return ClientRegion(part.text("id"), part.text("country"))


def _tenant(part: Part) -> Tenant:
    deny = frozenset(str(country) for country in part.sequence("deny", ()))
    return Tenant(part.text("id"), part.number("usd_per_s"), part.number("ttft_slo_s"), deny)


def _site(part: Part, fx: Mapping[str, float]) -> Site:
    supply = _supply(part)
    currency = "USD" if isinstance(supply, TokenSale) else supply.currency
    if currency not in fx:
        raise part.fail("currency", f"no exchange rate for {currency} under fx")
    makes = not isinstance(supply, TokenSale)
    slots = part.whole("slots")
    if slots < 1:
        raise part.fail("slots", "at least 1")
    return Site(
        name=part.text("id"),
        country=part.text("country"),
        slots=slots,
        prefill_tokens_per_s=part.positive("prefill_tok_per_s"),
        itl_s=part.number("itl_s"),
        supply=supply,
        pue=part.number("pue") if makes else 1.0,
        prefill_j_per_token=part.number("j_prefill") if makes else 0.0,
        decode_j_per_token=part.number("j_decode") if makes else 0.0,
        cache_blocks=part.whole("cache_blocks", 0),
    )


def _supply(part: Part) -> Market | PowerTariff | TokenSale:
    kinds = [key for key in ("zone", "tariff", "tokens") if key in part]
    if len(kinds) != 1:
        raise part.fail("zone", f"exactly one of zone, tariff and tokens, not {', '.join(kinds) or 'none'}")
    if kinds == ["zone"]:
        publish = part.text("publish", (DAY_AHEAD, REAL_TIME))
        return Market(part.text("zone"), part.text("currency"), part.number("adder_per_kwh", 0.0), publish)
    if kinds == ["tariff"]:
        tariff = part.part("tariff")
        hourly = tuple(float(multiplier) for multiplier in tariff.sequence("hourly_multiplier"))
        if len(hourly) != 24:
            raise tariff.fail("hourly_multiplier", f"{len(hourly)} hours instead of 24")
        return PowerTariff(part.text("currency"), tariff.number("price_per_kwh"), tariff.number("utc_offset_h"), hourly)
    tokens = part.part("tokens")
    return TokenSale(
        usd_per_mtok_input=tokens.number("usd_per_mtok_input"),
        usd_per_mtok_cached=tokens.number("usd_per_mtok_cached"),
        usd_per_mtok_output=tokens.number("usd_per_mtok_output"),
        peak_multiplier=tokens.number("peak_multiplier", 1.0),
        peak_utc_hours=tuple(sorted({int(hour) for hour in tokens.sequence("peak_utc_hours", ())})),
    )


def _link(part: Part, sites: Mapping[str, Site], regions: Mapping[str, ClientRegion]) -> Link:
    site = part.text("site")
    if site not in sites:
        raise part.fail("site", f"no site is called {site!r}")
    rtt_s = {region: rtt_ms / 1000 for region, rtt_ms in part.numbers("rtt_ms").items()}
    for region in rtt_s:
        if region not in regions:
            raise part.fail("rtt_ms", f"no region is called {region!r}")
    billing = part.text("billing", (PER_GB, P95, FLAT))
    usd_per_gb: Mapping[str, float] | float = 0.0
    if billing == PER_GB:
        by_region = isinstance(part.value("usd_per_gb"), Mapping)
        usd_per_gb = part.numbers("usd_per_gb") if by_region else part.number("usd_per_gb")
        if not isinstance(usd_per_gb, float):
            missing = sorted(rtt_s.keys() - usd_per_gb.keys())
            if missing:
                raise part.fail("usd_per_gb", f"no price for {', '.join(missing)}")
    return Link(
        name=part.text("id"),
        site=site,
        rtt_s=MappingProxyType(rtt_s),
        billing=billing,
        transit=tuple(str(country) for country in part.sequence("transit", ())),
        capacity_mbps=part.number("capacity_mbps", 0.0),
        usd_per_gb=usd_per_gb,
        usd_per_mbps_month=part.number("usd_per_mbps_month") if billing == P95 else 0.0,
        usd_per_month=part.number("usd_per_month") if billing == FLAT else 0.0,
    )


def _fault(part: Part, sites: Mapping[str, Site], links: Mapping[str, Link]) -> Fault:
    kind, target = part.text("kind", (SITE_DOWN, LINK_CUT, FEED_DEAD)), part.text("target")
    if (kind == SITE_DOWN and target not in sites) or (kind == LINK_CUT and target not in links):
        raise part.fail("target", f"nothing is called {target!r}")
    return Fault(kind, target, part.number("from_s"), part.number("to_s"))


def _yardsticks(part: Part) -> Yardsticks:
    def given(key: str) -> float | None:
        return part.number(key) if key in part else None

    return Yardsticks(given("bound_usd"), given("nearest_usd"), given("nearest_slo_miss_pct"))
