"""What a MWh costs over time: market curves and time-of-use tariffs.

Both answer `at(t)` with a PricePoint: a price and the UTC span it is constant in, so that a caller knows how long the
answer holds. Prices are in the source's own currency; conversion is the book's business.

A curve is the last good batch of a market feed. It is believed less the longer its feed has been silent:

    live      within an interval of the batch, and after it, holding its price, until `stale_after_s` after the
              interval began (whichever is longer: a price published for an hour is firm for that hour)
    stale     for 24 h more. The price is that of the same time of day when it was last published, since prices follow
              the day: holding a spike of 18:00 until noon would be wrong. `trust` falls in steps of 8 h and is the
              share this price still has; the rest is what stands behind the feed.
    no price  after that, and before the first interval.

A hole in a batch is a silence like the one after it, until the next interval begins.

Age counts from the interval and not from `fetched_at`: a day-ahead price fetched yesterday is firm, and fetching an old
batch once more does not make it new. Moments are arguments, so replaying old prices is not a special case.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import NamedTuple

from pricing.timetable import DAY_S, Timetable, Window
from pricing.units import exact

# Technical limits of a market price per MWh. The widest public ones are Australia's floor of -1,000 AUD and, with room
# above it, its cap near 20,000 AUD; Europe's day-ahead auction is bounded by -500 and +4,000 to 5,000 EUR, intraday by
# +-9,999. Beyond these a number is a wrong unit or a broken feed, not a price.
PRICE_MIN_PER_MWH = -1_000.0
PRICE_MAX_PER_MWH = 30_000.0
# Units of currency that make about one USD or EUR, to the order of magnitude, where that is not 1 to 10.
CURRENCY_SCALE = {"JPY": 100, "INR": 100, "TWD": 10, "THB": 10, "PHP": 10, "KRW": 1_000, "IDR": 10_000, "VND": 10_000}

STALE_STEP_S = 8 * 3600
STALE_TRUST = (0.75, 0.5, 0.25)


@dataclass(frozen=True, slots=True)
class PricePoint:
    price_per_mwh: float
    since: float
    until: float
    quality: str = "live"  # live | stale | fallback
    trust: float = 1.0  # below 1 only when stale


class Interval(NamedTuple):
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class PriceCurve:
    """Interval i is [starts[i], starts[i] + resolution_s), cut short where the next one starts earlier."""

    currency: str
    starts: tuple[float, ...]
    prices: tuple[float, ...]
    resolution_s: float
    stale_after_s: float
    zone: str = ""  # the market's own name of the price zone, for people
    fetched_at: float = field(default=0.0, compare=False)  # no part of the content: it changes no price

    @classmethod
    def build(
        cls,
        points: Iterable[tuple[float, float]],
        *,
        currency: str,
        resolution_s: float = 3600.0,
        stale_after_s: float = 10_800.0,
        zone: str = "",
        fetched_at: float = 0.0,
    ) -> "PriceCurve":
        """A curve from (start, price) pairs, or ValueError naming the first offence: a bad batch is refused whole."""
        if not 0 < resolution_s < math.inf or not 0 <= stale_after_s < math.inf:
            raise ValueError("resolution_s must be positive, stale_after_s not negative, both finite")
        batch = [(float(start), float(price)) for start, price in points]
        if not batch:
            raise ValueError("no prices")
        scale = CURRENCY_SCALE.get(currency, 1)
        least, most = PRICE_MIN_PER_MWH * scale, PRICE_MAX_PER_MWH * scale
        previous = -math.inf
        for number, (start, price) in enumerate(batch, 1):
            if not math.isfinite(start):
                raise ValueError(f"price {number}: the start {start} is not finite")
            where = f"price {number} ({_utc(start)})"
            if not math.isfinite(price):
                raise ValueError(f"{where}: {price} is not finite")
            if not least <= price <= most:
                raise ValueError(f"{where}: {price} {currency} per MWh is outside {least:.0f} to {most:.0f}")
            if start == previous:
                raise ValueError(f"{where}: duplicate start")
            if start < previous:
                raise ValueError(f"{where}: starts before the price above it")
            previous = start
        starts, prices = zip(*batch, strict=True)
        return cls(currency, starts, prices, float(resolution_s), float(stale_after_s), zone, fetched_at)

    def at(self, t: float) -> PricePoint | None:
        """The price at t; None where the curve has none that may still be used."""
        index = bisect_right(self.starts, t) - 1
        if index < 0:
            return None
        until = min(self._stale_from(index), self._next_start(index))
        if t < until:
            return PricePoint(self.prices[index], self.starts[index], until)
        return self._stale(t, index)

    def silence(self, t: float) -> Interval:
        """The span around t in which at() is None."""
        index = bisect_right(self.starts, t) - 1
        since = self._stale_from(index) + STALE_STEP_S * len(STALE_TRUST) if index >= 0 else -math.inf
        return Interval(since, self._next_start(index))

    def mean_of_last_day(self) -> float:
        """The last resort for a feed with nothing behind it."""
        first = bisect_right(self.starts, self.starts[-1] - DAY_S)
        last_day = self.prices[first:]
        return math.fsum(last_day) / len(last_day)

    def _next_start(self, index: int) -> float:
        return self.starts[index + 1] if index + 1 < len(self.starts) else math.inf

    def _end(self, index: int) -> float:
        return min(self.starts[index] + self.resolution_s, self._next_start(index))

    def _stale_from(self, index: int) -> float:
        return self.starts[index] + max(self.resolution_s, self.stale_after_s)

    def _stale(self, t: float, index: int) -> PricePoint | None:
        """The price at the same time of day on the last day that has one, for as long as both it and the trust last."""
        stale_from = self._stale_from(index)
        step = int((t - stale_from) // STALE_STEP_S)
        if step >= len(STALE_TRUST):
            return None
        since = stale_from + step * STALE_STEP_S
        until = min(since + STALE_STEP_S, self._next_start(index))
        # Whole days back into the last day before the silence: [silent_from - 1 day, silent_from).
        silent_from = self._end(index)
        back_s = (math.floor((t - silent_from) / DAY_S) + 1) * DAY_S
        since, until = max(since, silent_from - DAY_S + back_s), min(until, silent_from + back_s)
        twin = bisect_right(self.starts, t - back_s) - 1
        if twin >= 0 and t - back_s < self._end(twin):
            price, begin, end = self.prices[twin], self.starts[twin], self._end(twin)
        else:  # that moment has no price either: keep the last one
            price = self.prices[index]
            begin, end = self._end(twin) if twin >= 0 else -math.inf, self._next_start(twin)
        since, until = max(since, begin + back_s), min(until, end + back_s)
        return PricePoint(price, since, until, "stale", STALE_TRUST[step])


@dataclass(frozen=True, slots=True)
class Period:
    """Local hours with a price of their own; pricing.timetable says what the strings mean."""

    hours: str
    price_per_mwh: float
    days: str = ""
    months: str = ""
    holidays: bool | None = None


@dataclass(frozen=True, slots=True)
class TimeOfUse:
    """A power tariff: one price, and others in periods of the local day, week and year.

    The order of periods has no meaning (no two may match the same hour), so they are kept sorted: equal tariffs are
    equal content.
    """

    name: str
    currency: str
    timezone: str
    price_per_mwh: float
    periods: tuple[Period, ...] = ()
    holidays: frozenset[date] = frozenset()
    _timetable: Timetable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        periods = tuple(sorted(self.periods, key=repr))
        object.__setattr__(self, "periods", periods)
        windows = tuple(Window(p.hours, p.price_per_mwh, p.days, p.months, p.holidays) for p in periods)
        try:
            for price in (self.price_per_mwh, *(period.price_per_mwh for period in periods)):
                exact(price)
            timetable = Timetable(self.timezone, self.price_per_mwh, windows, self.holidays)
        except ValueError as error:
            raise ValueError(f"tariff {self.name}: {error}") from None
        object.__setattr__(self, "_timetable", timetable)

    @classmethod
    def build(
        cls,
        name: str,
        *,
        currency: str,
        timezone: str,
        price_per_mwh: float,
        periods: Iterable[Period] = (),
        holidays: Iterable[date | str] = (),
    ) -> "TimeOfUse":
        """A tariff from plain parts; holidays may be ISO dates. ValueError names the tariff and the mistake."""
        try:
            days = frozenset(day if isinstance(day, date) else date.fromisoformat(day) for day in holidays)
        except ValueError as error:
            raise ValueError(f"tariff {name}: holidays: {error}") from None
        return cls(name, currency, timezone, price_per_mwh, tuple(periods), days)

    def at(self, t: float) -> PricePoint:
        return PricePoint(*self._timetable.at(t))


def _utc(t: float) -> str:
    try:
        return datetime.fromtimestamp(t, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # outside the calendar
        return repr(t)
