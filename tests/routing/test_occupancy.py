"""The price of a slot by load: what one more request costs those that come later."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.occupancy import FREE, SlotPrice, constant, slot_price

WORTH = 3e-6


def converged(slots: int, queue_max: int, wants: list[tuple[float, float, float]], service_s: float = 0.0) -> SlotPrice:
    price = FREE
    for _ in range(20):
        price = slot_price(slots, queue_max, wants, service_s, price)
    return price


def blocking(slots: int, erlangs: float) -> float:
    """Erlang's formula, by its recursion."""
    blocked = 1.0
    for number in range(1, slots + 1):
        blocked = erlangs * blocked / (number + erlangs * blocked)
    return blocked


@pytest.mark.parametrize("erlangs", [14.0, 20.0, 30.0])
def test_one_kind_at_a_site_without_a_queue_is_displaced_as_erlang_says(erlangs):
    """If all are taken, lambda(n) = worth x B(slots) / B(n); the spread of a kind takes a little off."""
    slots = 20
    price = converged(slots, 0, [(erlangs, WORTH, 0.0)])
    full = blocking(slots, erlangs)
    for load in range(16, slots):
        assert price.at(load) == pytest.approx(WORTH * full / blocking(load, erlangs), rel=0.35)


def test_a_slot_of_an_idle_site_is_free():
    assert slot_price(50, 50, [(5.0, WORTH, 0.0)]) == FREE
    assert slot_price(50, 50, []) == FREE


@given(
    st.integers(1, 80),
    st.integers(0, 80),
    st.lists(st.tuples(st.floats(0.01, 300.0), st.floats(1e-9, 1e-4), st.floats(0.0, 1e-4)), max_size=8),
    st.floats(0.0, 60.0),
)
def test_a_price_never_falls_with_the_load_and_is_never_more_than_anybody_would_pay(slots, queue_max, wants, service_s):
    price = converged(slots, queue_max, wants, service_s)
    assert list(price.by_load) == sorted(price.by_load)
    assert price.by_load[0] >= 0.0
    assert price.by_load[-1] <= max((want[1] for want in wants), default=0.0)
    assert price.first + len(price.by_load) <= slots + queue_max or price == FREE


def test_the_more_is_wanted_the_dearer_a_slot_is():
    few, many = (converged(50, 50, [(erlangs, WORTH, 0.0)]).at(45) for erlangs in (40.0, 60.0))
    assert 0.0 < few < many


def test_a_price_follows_the_load_from_nearly_nothing_to_what_a_slot_is_worth():
    price = converged(50, 0, [(45.0, WORTH, 0.0)])
    assert price.at(25) < 0.2 * WORTH
    assert price.at(49) > 0.3 * WORTH


def test_below_its_first_load_a_price_is_nothing_and_beyond_its_last_it_stays():
    price = SlotPrice(3, (1.0, 2.0))
    assert [price.at(load) for load in (0, 2, 3, 4, 5, 100)] == [0.0, 0.0, 1.0, 2.0, 2.0, 2.0]
    assert constant(4.0).at(7) == 4.0


def test_the_largest_site_is_as_quick_to_price_as_a_large_one():
    price = slot_price(10_000, 10_000, [(12_000.0, WORTH, 0.0)])
    assert len(price.by_load) <= 256
    assert price.at(10_000) > 0.0
