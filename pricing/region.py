"""A region: one electricity price and one jurisdiction.

What a region pays for power comes from one source, and behind a market feed stands a second one:

    tariff                  a time-of-use tariff, by name
    feed [-> fallback]      a market's price curve; when it has no price, the tariff named by `fallback`
    feed [-> price_per_mwh] the same with a fixed price behind it
    price_per_mwh           a fixed price

`adder_per_mwh` (grid fees, taxes, supplier's margin) is in the currency of the first source and is added to that source
only: what stands behind a feed is an all-in price. `currency` belongs to `price_per_mwh`; tariffs and curves have their
own. A feed with nothing behind it falls back to the mean of the last day it published.
"""

from dataclasses import dataclass

from pricing.units import exact


@dataclass(frozen=True, slots=True)
class Power:
    tariff: str = ""
    feed: str = ""
    price_per_mwh: float | None = None
    currency: str = ""  # empty: the gateway's
    adder_per_mwh: float = 0.0
    fallback: str = ""

    def __post_init__(self) -> None:
        exact(self.adder_per_mwh)
        if self.price_per_mwh is not None:
            exact(self.price_per_mwh)
        if self.feed:
            if self.tariff:
                raise ValueError("power: tariff and feed exclude each other (a feed's fallback is a tariff)")
            if self.fallback and self.price_per_mwh is not None:
                raise ValueError("power: a feed has one source behind it, a fallback tariff or price_per_mwh")
        elif self.fallback:
            raise ValueError("power: only a feed has a fallback")
        elif bool(self.tariff) == (self.price_per_mwh is not None):
            raise ValueError("power: exactly one of tariff, feed and price_per_mwh")


@dataclass(frozen=True, slots=True)
class Region:
    name: str
    country: str
    pue_milli: int = 1000  # facility power over IT power, times 1000
    carbon_g_per_kwh: int = 0
    power: Power | None = None  # None: nothing here is paid by the kWh

    def __post_init__(self) -> None:
        if self.pue_milli < 1000:
            raise ValueError(f"region {self.name}: a PUE below 1 is not possible: pue_milli = {self.pue_milli}")
        if self.carbon_g_per_kwh < 0:
            raise ValueError(f"region {self.name}: carbon_g_per_kwh = {self.carbon_g_per_kwh} is negative")
