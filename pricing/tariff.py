"""Tokens sold and tokens bought: what we charge, and what others charge us.

A Tariff is what a tenant pays per million tokens, in integers from the start, because it is copied into every ledger
row. It has a date from which it is valid; a schedule keeps the old ones, so that a new price is announced before it
applies and never touches what was settled under an older one.

A TokenPrice is what a backend that sells us tokens asks for, in its own currency, with hours in which it costs more or
less (a multiplier on all of it).
"""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from pricing.timetable import Span, Timetable, Window
from pricing.units import exact, nano


@dataclass(frozen=True, slots=True)
class Tariff:
    input_nano_per_mtok: int = 0
    cached_input_nano_per_mtok: int = 0
    output_nano_per_mtok: int = 0
    valid_from: float = -math.inf

    @classmethod
    def per_mtok(
        cls, *, input: float, output: float, cached_input: float | None = None, valid_from: float = -math.inf
    ) -> "Tariff":
        """From prices as they are written in a configuration; cached input costs what input does if it has no price."""
        cached = input if cached_input is None else cached_input
        return cls(nano(input), nano(cached), nano(output), valid_from)

    def columns(self) -> dict[str, int]:
        """As ledger columns."""
        return {
            "tariff_input_nano_per_mtok": self.input_nano_per_mtok,
            "tariff_cached_nano_per_mtok": self.cached_input_nano_per_mtok,
            "tariff_output_nano_per_mtok": self.output_nano_per_mtok,
        }


FREE = Tariff()


@dataclass(frozen=True, slots=True)
class TariffSchedule:
    """Tariffs in order of their validity. Before the first of them nothing is charged."""

    versions: tuple[Tariff, ...] = (FREE,)

    def __post_init__(self) -> None:
        versions = tuple(sorted(self.versions, key=lambda tariff: tariff.valid_from))
        dates = [tariff.valid_from for tariff in versions]
        if any(math.isnan(date) for date in dates):
            raise ValueError("valid_from is not a number")
        if len(set(dates)) < len(dates):
            raise ValueError("two tariffs are valid from the same moment")
        object.__setattr__(self, "versions", versions)

    def at(self, t: float) -> Tariff:
        index = self._index(t)
        return self.versions[index] if index >= 0 else FREE

    def span(self, t: float) -> tuple[float, float]:
        """[since, until) of the tariff in force at t."""
        index = self._index(t)
        since = self.versions[index].valid_from if index >= 0 else -math.inf
        until = self.versions[index + 1].valid_from if index + 1 < len(self.versions) else math.inf
        return since, until

    def _index(self, t: float) -> int:
        return bisect_right(self.versions, t, key=lambda tariff: tariff.valid_from) - 1


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """Prices per million tokens, and the hours in which all of them are multiplied."""

    input: float
    cached_input: float
    cache_write: float
    output: float
    currency: str = ""  # empty: the gateway's
    timezone: str = "UTC"
    periods: tuple[tuple[str, str, float], ...] = ()  # hours, days, multiplier; strings as in pricing.timetable
    _timetable: Timetable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        periods = tuple(sorted(self.periods))  # the order has no meaning: no two may match the same hour
        object.__setattr__(self, "periods", periods)
        for name in ("input", "cached_input", "cache_write", "output"):
            if exact(getattr(self, name)) < 0:
                raise ValueError(f"token price: {name} is negative")
        if any(exact(multiplier) < 0 for _, _, multiplier in periods):
            raise ValueError("token price: a multiplier is negative")
        windows = tuple(Window(hours, multiplier, days) for hours, days, multiplier in periods)
        object.__setattr__(self, "_timetable", Timetable(self.timezone, 1.0, windows))

    @classmethod
    def per_mtok(
        cls,
        *,
        input: float,
        output: float,
        cached_input: float | None = None,
        cache_write: float | None = None,
        currency: str = "",
        timezone: str = "UTC",
        periods: Iterable[tuple[str, str, float]] = (),
    ) -> "TokenPrice":
        """From prices as they are written in a configuration; cached input and cache writes cost what input does if
        they have no price."""
        cached = input if cached_input is None else cached_input
        written = input if cache_write is None else cache_write
        return cls(input, cached, written, output, currency, timezone, tuple(periods))

    def at(self, t: float) -> Span:
        """The multiplier at t and how long it holds."""
        return self._timetable.at(t)
