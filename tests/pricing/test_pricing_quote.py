from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.export import Usage, settle
from pricing.quote import Rates, quote, total
from pricing.unit_prices import UnitPrices
from pricing.units import NANO

prices = st.integers(0, 10**11)
unit_prices = st.builds(
    UnitPrices,
    energy_nano_per_kwh=st.integers(-(10**10), 10**11),
    pue_milli=st.integers(1000, 3000),
    carbon_g_per_kwh=st.integers(0, 1500),
    prefill_mj_per_token=st.integers(0, 10_000),
    decode_mj_per_token=st.integers(0, 100_000),
    link_nano_per_gb=prices,
    input_nano_per_mtok=prices,
    cached_nano_per_mtok=prices,
    output_nano_per_mtok=prices,
)
tokens = st.integers(0, 2_000_000)
sizes = st.integers(0, 10**10)


@given(unit_prices, tokens, tokens, tokens, sizes, sizes)
def test_a_quote_on_exact_quantities_is_what_is_settled(
    units: UnitPrices, fresh: int, hit: int, output: int, up: int, down: int
) -> None:
    rates = Rates.of(units)
    offer = quote(
        rates,
        fresh_tokens=fresh,
        hit_tokens=hit,
        output_tokens=output,
        bytes_up=up,
        bytes_down=down,
        per_byte=rates.per_byte,
        service_s=0.0,
        slot_price_per_s=0.0,
        delay_s=0.0,
        value_per_second=0.0,
    )
    costs = settle(units, Usage(fresh + hit, hit, 0, output), up, down)
    half = Fraction(1, 2)
    for quoted, settled in (
        (offer.energy, costs.cost_energy_nano),
        (offer.tokens, costs.cost_tokens_nano),
        (offer.link, costs.cost_link_nano),
    ):
        # Half a nano is the settlement's rounding, the rest what floats are worth.
        assert abs(Fraction(quoted) * NANO - settled) <= half + abs(settled) * Fraction(1, 10**12)


@given(
    unit_prices,
    st.booleans(),
    st.lists(st.floats(0, 1e6), min_size=7, max_size=7),
    st.sampled_from([0.0, 1e-6, 0.01]),
    st.floats(0, 1e-3),
)
def test_the_total_that_routes_are_compared_by_is_the_sum_of_the_terms_to_the_last_bit(
    units: UnitPrices, bought: bool, amounts: list[float], slot_price: float, value: float
) -> None:
    if not bought:
        units = replace(units, input_nano_per_mtok=0, cached_nano_per_mtok=0, output_nano_per_mtok=0)
    rates = Rates.of(units)
    fresh, hit, output, up, down, service_s, delay_s = amounts
    offer = quote(
        rates,
        fresh_tokens=fresh,
        hit_tokens=hit,
        output_tokens=output,
        bytes_up=up,
        bytes_down=down,
        per_byte=rates.per_byte,
        service_s=service_s,
        slot_price_per_s=slot_price,
        delay_s=delay_s,
        value_per_second=value,
    )
    alone = total(rates.flat(), fresh, hit, output, up, down, rates.per_byte, service_s, slot_price, delay_s, value)
    assert alone == offer.total
    assert alone == offer.energy + offer.tokens + offer.link + offer.capacity + offer.time


def test_a_quote_is_the_sum_of_its_five_terms() -> None:
    rates = Rates(1.0, 10.0, 100.0, 1000.0, 10_000.0, 0.5)
    offer = quote(
        rates,
        fresh_tokens=2,
        hit_tokens=3,
        output_tokens=4,
        bytes_up=10,
        bytes_down=20,
        per_byte=0.5,
        service_s=5.0,
        slot_price_per_s=7.0,
        delay_s=0.5,
        value_per_second=8.0,
    )
    assert offer == (42.0, 43_200.0, 15.0, 35.0, 4.0, 43_296.0)


@pytest.mark.parametrize(
    "field",
    ["fresh_tokens", "hit_tokens", "output_tokens", "bytes_up", "bytes_down", "per_byte", "service_s", "delay_s"],
)
def test_more_of_anything_costs_more(field: str) -> None:
    rates = Rates.of(UnitPrices("", 10**8, 1200, 0, 250, 1100, 10**8, 10**9, 10**8, 10**9, 10**9))
    amounts = {
        "fresh_tokens": 100.0,
        "hit_tokens": 100.0,
        "output_tokens": 100.0,
        "bytes_up": 100.0,
        "bytes_down": 100.0,
        "per_byte": 1e-9,
        "service_s": 1.0,
        "slot_price_per_s": 1e-6,
        "delay_s": 1.0,
        "value_per_second": 1e-5,
    }
    assert quote(rates, **{**amounts, field: amounts[field] * 2}).total > quote(rates, **amounts).total
