from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.units import NANO, divide_half_even, exact, nano, scaled

integers = st.integers(-(10**30), 10**30)
divisors = st.integers(1, 10**15)


@given(integers, divisors)
def test_division_rounds_like_the_exact_fraction(numerator: int, denominator: int) -> None:
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@given(st.integers(-(10**12), 10**12), divisors)
def test_an_exact_half_goes_to_the_even_neighbour_on_both_sides_of_zero(below: int, half: int) -> None:
    result = divide_half_even((2 * below + 1) * half, 2 * half)
    assert result % 2 == 0
    assert result in (below, below + 1)


@given(integers, divisors)
def test_rounding_treats_both_signs_alike(numerator: int, denominator: int) -> None:
    assert divide_half_even(-numerator, denominator) == -divide_half_even(numerator, denominator)


@pytest.mark.parametrize("denominator", [0, -1])
def test_a_denominator_that_is_not_positive_is_refused(denominator: int) -> None:
    with pytest.raises(ValueError, match="denominator"):
        divide_half_even(1, denominator)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (0.1, 100_000_000),
        (0.3, 300_000_000),
        (1, NANO),
        ("0.0000000005", 0),
        ("0.0000000015", 2),
        ("-0.0000000015", -2),
        (Decimal("2.5e-9"), 2),
        (1e-9, 1),
        (-52.25, -52_250_000_000),
    ],
)
def test_an_amount_is_the_decimal_number_it_is_written_as(amount: float | str | Decimal, expected: int) -> None:
    assert nano(amount) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_the_number_its_repr_shows(amount: float) -> None:
    assert exact(amount) == Fraction(repr(amount))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12))
def test_the_decimal_context_has_no_say(amount: Decimal) -> None:
    with localcontext() as context:
        context.prec = 3
        assert nano(amount) == round(Fraction(amount) * NANO)


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), -float("inf"), "NaN", Decimal("Infinity")])
def test_what_is_not_finite_is_not_an_amount(amount: float | str | Decimal) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        exact(amount)


def test_scaling_rounds_once_at_the_end() -> None:
    assert scaled(Fraction(1, 3), 10) == 3
    assert scaled(0.0005, 1000) == 0
    assert scaled(0.0015, 1000) == 2
