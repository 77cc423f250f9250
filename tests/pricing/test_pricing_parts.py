"""The parts of a price book: what each refuses, and what it makes of a configuration's numbers."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from pricing.book import EnergyUse, Source
from pricing.energy import PriceCurve
from pricing.region import Power, Region
from pricing.tariff import Tariff, TariffSchedule, TokenPrice
from pricing.transit import TransitPrice


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"currency": ""}, "currency is missing"),
        ({"fx": {"CNY": 0.139}}, "no exchange rate for EUR"),
        ({"fx": {"CNY": 0.139, "EUR": 0.0}}, "fx EUR: 0.0 is not a positive number"),
        ({"fx": {"CNY": 0.139, "EUR": math.nan}}, "fx EUR: nan is not a positive number"),
        ({"fx": {"CNY": 0.139, "EUR": 1.08, "USD": 2.0}}, "one USD is one USD"),
        ({"tariffs": {}}, 'region guizhou: no tariff "guizhou"'),
        ({"regions": {}}, 'backend gz-1: no region "guizhou"'),
        ({"sources": {"x": Source("eu-edge", EnergyUse(1, 1))}}, "backend x: region eu-edge has no price of power"),
        (
            {"regions": {"norway": Region("norway", "NO", power=Power(feed="no3"))}},
            'region norway: feed "no3" has no prices, and neither',
        ),
    ],
)
def test_a_book_that_refers_to_something_missing_is_refused_by_name(
    world: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        world.book(**changes)


def test_a_batch_in_another_currency_is_refused(world: Any) -> None:
    batch = PriceCurve.build([(world.noon, 1.0)], currency="CNY")
    with pytest.raises(ValueError, match="feed no2: prices are in CNY, not in EUR"):
        world.book().with_curve("no2", batch)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Power(), "exactly one of"),
        (lambda: Power(tariff="a", price_per_mwh=1.0), "exactly one of"),
        (lambda: Power(tariff="a", feed="b"), "exclude each other"),
        (lambda: Power(tariff="a", fallback="b"), "only a feed has a fallback"),
        (lambda: Power(feed="a", fallback="b", price_per_mwh=1.0), "one source behind it"),
        (lambda: Power(price_per_mwh=math.nan), "not a finite number"),
        (lambda: Power(feed="a", adder_per_mwh=math.inf), "not a finite number"),
        (lambda: Region("x", "DE", pue_milli=999), "a PUE below 1"),
        (lambda: Region("x", "DE", carbon_g_per_kwh=-1), "is negative"),
        (lambda: Source("x"), "energy per token or a price per token"),
        (lambda: EnergyUse(-1, 0), "energy per token is negative"),
        (lambda: TransitPrice("x", "per_mb"), 'billing "per_mb" is not one of flat, per_gb, p95'),
        (lambda: TransitPrice("x", "per_gb", price_per_gb=-0.1), "price_per_gb is negative"),
        (lambda: TokenPrice(1.0, 0.1, 1.0, -2.0), "output is negative"),
        (lambda: TokenPrice(1.0, 0.1, 1.0, 2.0, periods=(("00-08", "", -0.5),)), "multiplier is negative"),
        (
            lambda: TokenPrice(1.0, 0.1, 1.0, 2.0, periods=(("00-08", "", 0.5), ("07-09", "", 2.0))),
            "two periods match hour 07",
        ),
    ],
)
def test_a_part_that_cannot_be_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_joules_of_a_configuration_become_whole_millijoules() -> None:
    assert EnergyUse.of_joules(prefill=0.25, decode=1.1) == EnergyUse(250, 1100)


def test_tokens_without_prices_of_their_own_for_the_cache_cost_what_input_does() -> None:
    assert TokenPrice.per_mtok(input=2.0, output=8.0) == TokenPrice(2.0, 2.0, 2.0, 8.0)
    assert Tariff.per_mtok(input=0.3, output=1.2).cached_input_nano_per_mtok == 300_000_000


def test_a_tariff_applies_from_its_date_and_keeps_the_ones_before() -> None:
    first, second = Tariff(1, 1, 1, valid_from=100.0), Tariff(2, 2, 2, valid_from=200.0)
    schedule = TariffSchedule((second, first))
    moments = (99.9, 100.0, math.nextafter(200.0, 0), 200.0, 1e12)
    assert [schedule.at(t) for t in moments] == [Tariff(), first, first, second, second]
    assert [schedule.span(t) for t in (0.0, 150.0, 250.0)] == [(-math.inf, 100.0), (100.0, 200.0), (200.0, math.inf)]


@pytest.mark.parametrize("dates", [(1.0, 1.0), (math.nan, 1.0)])
def test_two_tariffs_need_two_dates(dates: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="valid"):
        TariffSchedule(tuple(Tariff(valid_from=date) for date in dates))
