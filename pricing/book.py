"""The price book: everything that has a price, in one immutable, versioned snapshot.

A book answers for any moment with a PriceSlice, the prices in force there and the span in which none of them changes.
A slice answers with UnitPrices (integers, after exchange) for a backend over a link, and with the Rates derived from
them. Both are remembered, so a decision costs dictionary look-ups.

A new curve or configuration makes a new book. A request keeps the slice it was decided on, and a settled row keeps the
integers: a price that arrives late changes what comes after it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from pricing.energy import PriceCurve, PricePoint, TimeOfUse
from pricing.quote import Rates
from pricing.region import Power, Region
from pricing.tariff import FREE, Tariff, TariffSchedule, TokenPrice
from pricing.timetable import Span
from pricing.transit import LOCAL_LINK, TransitPrice
from pricing.unit_prices import UnitPrices
from pricing.units import KWH_PER_MWH, NANO, exact, scaled
from pricing.version import version_of

__all__ = ["EnergyUse", "PriceBook", "PriceSlice", "Source", "UnitPrices"]


@dataclass(frozen=True, slots=True)
class EnergyUse:
    """Marginal energy of one more token, at the plug and before PUE, in millijoules."""

    prefill_mj_per_token: int
    decode_mj_per_token: int

    def __post_init__(self) -> None:
        if self.prefill_mj_per_token < 0 or self.decode_mj_per_token < 0:
            raise ValueError("energy per token is negative")

    @classmethod
    def of_joules(cls, *, prefill: float, decode: float) -> "EnergyUse":
        return cls(scaled(prefill, 1000), scaled(decode, 1000))


@dataclass(frozen=True, slots=True)
class Source:
    """How one backend comes by its tokens: it makes them from electricity, or sells them to us."""

    region: str
    energy: EnergyUse | None = None
    tokens: TokenPrice | None = None

    def __post_init__(self) -> None:
        if self.energy is None and self.tokens is None:
            raise ValueError("a source needs energy per token or a price per token")


class _Energy(NamedTuple):
    """Price of a MWh in the gateway's currency, exact."""

    price: Fraction
    since: float
    until: float
    quality: str
    zone: str


class _Entry(NamedTuple):
    """The moment a book came into force, and the prices it replaced."""

    at: float
    before: "PriceSlice"


@dataclass(frozen=True, eq=False)
class PriceBook:
    currency: str
    fx: Mapping[str, float] = field(default_factory=dict)  # gateway currency per unit of another
    regions: Mapping[str, Region] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)  # by backend
    transit: Mapping[str, TransitPrice] = field(default_factory=dict)  # by link
    tariffs: Mapping[str, TimeOfUse] = field(default_factory=dict)  # power tariffs, by name
    curves: Mapping[str, PriceCurve] = field(default_factory=dict)  # by feed
    charges: Mapping[str, TariffSchedule] = field(default_factory=dict)  # by tenant
    entry: _Entry | None = field(default=None, repr=False)  # set by following(); no content
    _current: "list[PriceSlice]" = field(default_factory=list, init=False, repr=False)  # the slice asked for last

    def __post_init__(self) -> None:
        for name in _CONTENT:
            object.__setattr__(self, name, dict(getattr(self, name)))  # nobody else can change these
        problem = next(_problems(self), None)
        if problem:
            raise ValueError(problem)

    @cached_property
    def version(self) -> str:
        return version_of({"currency": self.currency, **{name: getattr(self, name) for name in _CONTENT}})

    def with_curve(self, feed: str, curve: PriceCurve) -> "PriceBook":
        """This book with a new batch of prices; ValueError if it is in another currency than the batch it replaces."""
        known = self.curves.get(feed)
        if known and known.currency != curve.currency:
            raise ValueError(f"feed {feed}: prices are in {curve.currency}, not in {known.currency}")
        return replace(self, curves={**self.curves, feed: curve}, entry=None)

    def following(self, old: "PriceBook", at: float) -> "PriceBook":
        """This book, knowing that it replaced `old` at moment `at`.

        Prices that arrive after their hour began change at `at`, not at the hour: the slice then starts there and its
        `previous` is what was in force until then. If nothing in force changes, the last change before stays the last.
        One old book is kept, not a chain. A book with backends, links or a currency the old one did not have starts
        anew: there is nothing to compare it with.
        """
        known = self.sources.keys() <= old.sources.keys() and self.transit.keys() <= old.transit.keys()
        if not known or self.currency != old.currency:
            return replace(self, entry=None)
        before = replace(old, entry=None).before(at)
        unchanged = before.same_prices(self._slice(at))
        return replace(self, entry=old.entry if unchanged else _Entry(at, before))

    def at(self, t: float) -> "PriceSlice":
        """The prices in force at t; the same object for as long as nothing in it changes."""
        if self._current and self._current[0].since <= t < self._current[0].until:
            return self._current[0]
        found = self._slice(t, self.entry)
        self._current[:] = [found]
        return found

    def before(self, t: float) -> "PriceSlice":
        """The prices of this book just before t."""
        return self._slice(math.nextafter(t, -math.inf))

    def exchange(self, currency: str) -> Fraction:
        """Gateway currency per unit of `currency`; an empty one is the gateway's own."""
        return Fraction(1) if currency in ("", self.currency) else exact(self.fx[currency])

    def _slice(self, t: float, entry: _Entry | None = None) -> "PriceSlice":
        energies = {
            name: self._energy(region.power, t) for name, region in self.regions.items() if region.power is not None
        }
        multipliers = {name: source.tokens.at(t) for name, source in self.sources.items() if source.tokens is not None}
        spans = [(energy.since, energy.until) for energy in energies.values()]
        spans += [(span.since, span.until) for span in multipliers.values()]
        spans += [schedule.span(t) for schedule in self.charges.values()]
        since = max((span[0] for span in spans), default=-math.inf)
        until = min((span[1] for span in spans), default=math.inf)
        before = None
        if entry and t < entry.at:
            until = min(until, entry.at)
        elif entry and since <= entry.at:
            since, before = entry.at, entry.before
        charges = {tenant: schedule.at(t) for tenant, schedule in self.charges.items()}
        return PriceSlice(self, since, until, energies, multipliers, charges, before)

    def _energy(self, power: Power, t: float) -> _Energy:
        if power.feed:
            return self._market(power, t)
        if power.tariff:
            return self._tariff(power.tariff, t, "live", power.adder_per_mwh)
        return self._constant(power.price_per_mwh or 0.0, power.currency, "live", power.adder_per_mwh)

    def _constant(self, price_per_mwh: float, currency: str, quality: str, adder: float, zone: str = "") -> _Energy:
        price = (exact(price_per_mwh) + exact(adder)) * self.exchange(currency)
        return _Energy(price, -math.inf, math.inf, quality, zone)

    def _tariff(self, name: str, t: float, quality: str, adder: float) -> _Energy:
        tariff = self.tariffs[name]
        point = tariff.at(t)
        energy = self._constant(point.price_per_mwh, tariff.currency, quality, adder, name)
        return energy._replace(since=point.since, until=point.until)

    def _market(self, power: Power, t: float) -> _Energy:
        """A feed's price, mixed with what stands behind it as trust falls, and replaced by it in the end."""
        curve = self.curves.get(power.feed)
        if curve is None:
            return self._behind(power, t)
        point = curve.at(t)
        if point is None:
            behind = self._behind(power, t)
            silence = curve.silence(t)
            return behind._replace(since=max(behind.since, silence.since), until=min(behind.until, silence.until))
        market = self._constant(point.price_per_mwh, curve.currency, point.quality, power.adder_per_mwh, power.feed)
        if point.trust == 1:
            return market._replace(since=point.since, until=point.until)
        behind = self._behind(power, t)
        trust = exact(point.trust)
        return market._replace(
            price=trust * market.price + (1 - trust) * behind.price,
            since=max(point.since, behind.since),
            until=min(point.until, behind.until),
        )

    def _behind(self, power: Power, t: float) -> _Energy:
        if power.fallback:
            return self._tariff(power.fallback, t, "fallback", 0.0)
        if power.price_per_mwh is not None:
            return self._constant(power.price_per_mwh, power.currency, "fallback", 0.0)
        curve = self.curves[power.feed]
        mean = curve.mean_of_last_day()
        return self._constant(mean, curve.currency, "fallback", power.adder_per_mwh, power.feed)


_CONTENT = ("fx", "regions", "sources", "transit", "tariffs", "curves", "charges")


def _problems(book: PriceBook) -> Iterator[str]:
    """What in a book refers to something that is not there."""
    if not book.currency:
        yield "the gateway's currency is missing"
    for currency, rate in book.fx.items():
        if not 0 < rate < math.inf:
            yield f"fx {currency}: {rate} is not a positive number"
        if currency == book.currency and rate != 1:
            yield f"fx {currency}: one {currency} is one {currency}, not {rate}"
    for name, region in book.regions.items():
        power = region.power
        if power is None:
            continue
        for tariff in (power.tariff, power.fallback):
            if tariff and tariff not in book.tariffs:
                yield f'region {name}: no tariff "{tariff}"'
        if power.feed and power.feed not in book.curves and not power.fallback and power.price_per_mwh is None:
            yield f'region {name}: feed "{power.feed}" has no prices, and neither fallback nor price_per_mwh behind it'
    for name, source in book.sources.items():
        if source.region not in book.regions:
            yield f'backend {name}: no region "{source.region}"'
        elif source.energy and book.regions[source.region].power is None:
            yield f"backend {name}: region {source.region} has no price of power"
    for where, currency in _currencies(book):
        if currency not in ("", book.currency) and currency not in book.fx:
            yield f"{where}: no exchange rate for {currency}"


def _currencies(book: PriceBook) -> Iterator[tuple[str, str]]:
    yield from ((f"region {name}", region.power.currency) for name, region in book.regions.items() if region.power)
    yield from ((f"backend {name}", source.tokens.currency) for name, source in book.sources.items() if source.tokens)
    yield from ((f"link {name}", price.currency) for name, price in book.transit.items())
    yield from ((f"tariff {name}", tariff.currency) for name, tariff in book.tariffs.items())
    yield from ((f"feed {name}", curve.currency) for name, curve in book.curves.items())


class PriceSlice:
    """The prices of a book in [since, until), where none of them changes."""

    __slots__ = ("_book", "_charges", "_energies", "_multipliers", "_previous", "_rates", "_units", "since", "until")

    def __init__(
        self,
        book: PriceBook,
        since: float,
        until: float,
        energies: Mapping[str, _Energy],
        multipliers: Mapping[str, Span],
        charges: Mapping[str, Tariff],
        previous: "PriceSlice | None" = None,
    ) -> None:
        self.since = since
        self.until = until
        self._book = book
        self._energies = energies
        self._multipliers = multipliers
        self._charges = charges
        self._previous = previous
        self._units: dict[tuple[str, str], UnitPrices] = {}
        self._rates: dict[tuple[str, str], Rates] = {}

    @property
    def version(self) -> str:
        return self._book.version

    @property
    def previous(self) -> "PriceSlice | None":
        """The slice in force just before `since`; None where nothing was different before."""
        if self._previous is None and self.since > -math.inf:
            self._previous = self._book.before(self.since)
        return self._previous

    def units(self, backend: str, link: str) -> UnitPrices:
        """Unit prices of a backend over a link; KeyError for an unknown one."""
        units = self._units.get((backend, link))
        if units is None:
            units = self._units[backend, link] = self._unit_prices(backend, link)
        return units

    def rates(self, backend: str, link: str) -> Rates:
        """The same prices for deciding."""
        rates = self._rates.get((backend, link))
        if rates is None:
            rates = self._rates[backend, link] = Rates.of(self.units(backend, link))
        return rates

    def charge(self, tenant: str) -> Tariff:
        """What the tenant pays; nothing for one without a tariff."""
        return self._charges.get(tenant, FREE)

    def power(self, region: str) -> PricePoint | None:
        """What a MWh costs in the region, in the gateway's currency, for people; None where power has no price."""
        energy = self._energies.get(region)
        if energy is None:
            return None
        return PricePoint(float(energy.price), energy.since, energy.until, energy.quality)

    def same_prices(self, other: "PriceSlice") -> bool:
        """No route costs anything else under the other slice. What tenants are charged takes no part in it."""
        return self._costs() == other._costs()

    def _costs(self) -> tuple[object, ...]:
        book = self._book
        energies = {region: energy.price for region, energy in self._energies.items()}
        multipliers = {backend: span.value for backend, span in self._multipliers.items()}
        return energies, multipliers, book.regions, book.sources, book.transit, book.fx

    def _unit_prices(self, backend: str, link: str) -> UnitPrices:
        book = self._book
        source = book.sources[backend]
        units = UnitPrices(link_nano_per_gb=self._link_nano_per_gb(link))
        if source.energy:
            region, energy = book.regions[source.region], self._energies[source.region]
            units = replace(
                units,
                zone=energy.zone,
                energy_nano_per_kwh=scaled(energy.price / KWH_PER_MWH, NANO),
                pue_milli=region.pue_milli,
                carbon_g_per_kwh=region.carbon_g_per_kwh,
                prefill_mj_per_token=source.energy.prefill_mj_per_token,
                decode_mj_per_token=source.energy.decode_mj_per_token,
            )
        if source.tokens:
            tokens = source.tokens
            factor = exact(self._multipliers[backend].value) * book.exchange(tokens.currency)
            units = replace(
                units,
                input_nano_per_mtok=scaled(exact(tokens.input) * factor, NANO),
                cached_nano_per_mtok=scaled(exact(tokens.cached_input) * factor, NANO),
                cache_write_nano_per_mtok=scaled(exact(tokens.cache_write) * factor, NANO),
                output_nano_per_mtok=scaled(exact(tokens.output) * factor, NANO),
            )
        return units

    def _link_nano_per_gb(self, link: str) -> int:
        book = self._book
        price = book.transit.get(link)
        if price is None:
            if link == LOCAL_LINK:
                return 0
            raise KeyError(link)
        return scaled(exact(price.marginal_per_gb()) * book.exchange(price.currency), NANO)
