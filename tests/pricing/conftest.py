"""A small world that prices everything the package can price."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from pricing.book import EnergyUse, PriceBook, Source
from pricing.energy import Period, PriceCurve, TimeOfUse
from pricing.region import Power, Region
from pricing.tariff import Tariff, TariffSchedule, TokenPrice
from pricing.transit import TransitPrice

HOUR = 3600.0


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@dataclass(frozen=True)
class World:
    """What tests need of this file, since test directories are no packages."""

    noon: float  # start of the market curve, which has a price for each of 48 hours
    utc: Callable[[str], float]
    parts: Callable[..., dict[str, Any]]

    def book(self, **changes: Any) -> PriceBook:
        return PriceBook(**self.parts(**changes))


NOON = utc("2026-03-27T12:00")


def curve(prices: list[float] | None = None, start: float = NOON, **settings: Any) -> PriceCurve:
    batch = [40.0 + hour for hour in range(48)] if prices is None else prices
    points = [(start + hour * HOUR, price) for hour, price in enumerate(batch)]
    return PriceCurve.build(points, currency="EUR", **settings)


def content() -> dict[str, Any]:
    return {
        "currency": "USD",
        "fx": {"CNY": 0.139, "EUR": 1.08},
        "regions": {
            "guizhou": Region("guizhou", "CN", 1200, 404, Power(tariff="guizhou")),
            "norway": Region("norway", "NO", 1100, 30, Power(feed="no2", fallback="grid", adder_per_mwh=15.0)),
            "iceland": Region("iceland", "IS", 1000, 0, Power(price_per_mwh=52.0, currency="EUR")),
            "eu-edge": Region("eu-edge", "DE"),
        },
        "sources": {
            "gz-1": Source("guizhou", EnergyUse(250, 1100)),
            "no-1": Source("norway", EnergyUse(300, 1300)),
            "is-1": Source("iceland", EnergyUse(300, 1300)),
            "shop": Source(
                "eu-edge", tokens=TokenPrice(2.0, 0.2, 2.5, 8.0, "CNY", "Asia/Shanghai", (("00-08", "", 0.5),))
            ),
        },
        "transit": {
            "iepl": TransitPrice("iepl", "per_gb", "USD", price_per_gb=0.12),
            "leased": TransitPrice("leased", "flat", "EUR", price_per_month=9000.0),
            "burst": TransitPrice("burst", "p95", "EUR", price_per_mbps_month=4.0, planned_mbps=200.0),
        },
        "tariffs": {
            "guizhou": TimeOfUse.build(
                "guizhou",
                currency="CNY",
                timezone="Asia/Shanghai",
                price_per_mwh=400.0,
                periods=[Period(hours="00-08", price_per_mwh=260.0)],
                holidays=["2026-10-01"],
            ),
            "grid": TimeOfUse.build("grid", currency="EUR", timezone="Europe/Oslo", price_per_mwh=90.0),
        },
        "curves": {"no2": curve()},
        "charges": {"acme": TariffSchedule((Tariff.per_mtok(input=0.30, cached_input=0.03, output=1.20),))},
    }


CONTENT = content()


def parts(**changes: Any) -> dict[str, Any]:
    """Arguments of a PriceBook, copied, so that a test may change what it was handed."""
    return {**{name: dict(part) if isinstance(part, dict) else part for name, part in CONTENT.items()}, **changes}


@pytest.fixture(scope="session")
def world() -> World:
    return World(NOON, utc, parts)


@pytest.fixture(scope="session")
def make_curve() -> Callable[..., PriceCurve]:
    return curve
