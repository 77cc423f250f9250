"""Units, and the one rounding rule.

Money that is written down is a whole number of *nano*: 1e-9 of a currency unit. Energy is counted in millijoules, a GB
is 1e9 bytes, token prices are per million tokens (Mtok).

Nothing is rounded on the way. Prices arrive as floats (that is what TOML, CSV and JSON hold) and are taken as the
decimal number their `repr` shows, so that 0.1 is one tenth; from there on all arithmetic is exact until one single
half-even rounding to an integer. Half-even (banker's) rounding has no bias over many rows and treats both signs alike,
which matters because electricity prices are negative at times.
"""

from decimal import Decimal
from fractions import Fraction

NANO = 10**9
MTOK = 10**6
GB = 10**9
MILLI = 1000
KWH_PER_MWH = 1000
MJ_PER_KWH = 3_600_000_000  # millijoules, not megajoules


def divide_half_even(numerator: int, denominator: int) -> int:
    """The whole number nearest to numerator/denominator; of two equally near ones, the even one."""
    if denominator <= 0:
        raise ValueError(f"denominator must be positive, not {denominator}")
    quotient, remainder = divmod(numerator, denominator)  # floor division: the remainder is never negative
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2 == 1):
        return quotient + 1
    return quotient


def exact(amount: Fraction | Decimal | float | int | str) -> Fraction:
    """The number an amount is written as, without binary or context rounding. Not finite is a ValueError."""
    if isinstance(amount, Fraction | int):
        return Fraction(amount)
    # float() first: a subclass of float may have a repr that is not a number.
    decimal = Decimal(repr(float(amount))) if isinstance(amount, float) else Decimal(amount)
    if not decimal.is_finite():
        raise ValueError(f"{amount} is not a finite number")
    return Fraction(decimal)


def nano(amount: Fraction | Decimal | float | int | str) -> int:
    """An amount of currency as integer nano-units, rounded half-even once."""
    return scaled(amount, NANO)


def scaled(amount: Fraction | Decimal | float | int | str, factor: int) -> int:
    """amount x factor, rounded half-even once."""
    value = exact(amount) * factor
    return divide_half_even(value.numerator, value.denominator)
