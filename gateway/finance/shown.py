"""Figures of a statement as people read them. Exact until they are text: integers scaled by Decimal, never floats.

Figures that are read together have the same decimals, those of the largest.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from gateway.admin import figures

UNKNOWN = "unknown"
SPREAD = "spread_nano"

# What one unit of a figure is, as a power of ten of what people read, and the unit's name; the rest are counts.
_NANO = -9
_SCALED = {
    "energy_uwh": (-9, "kWh"),
    "carbon_mg": (-6, "kg CO₂"),
    "cost_energy_nano": (_NANO, ""),
    "cost_tokens_nano": (_NANO, ""),
    "cost_link_nano": (_NANO, ""),
    "cost_waste_nano": (_NANO, ""),
    "cost_nano": (_NANO, ""),
    "revenue_nano": (_NANO, ""),
    SPREAD: (_NANO, ""),
}
# The two tables of a statement, and what heads their columns.
TOKENS = (
    *("requests", "input_tokens", "cached_input_tokens", "output_tokens"),
    *("delivered_tokens", "billed_output_tokens", "exported_tokens"),
)
MONEY = (
    *("energy_uwh", "carbon_mg", "cost_energy_nano", "cost_tokens_nano", "cost_link_nano", "cost_waste_nano"),
    *("cost_nano", "revenue_nano", SPREAD),
)
HEADS = {
    "origin_country": "from",
    "destination_country": "to",
    "count_source": "source",
    "count_flag": "flag",
    "input_tokens": "input",
    "cached_input_tokens": "cached",
    "output_tokens": "output",
    "delivered_tokens": "delivered",
    "billed_output_tokens": "billed",
    "exported_tokens": "exported",
    "energy_uwh": "kWh",
    "carbon_mg": "kg CO₂",
    "cost_energy_nano": "energy",
    "cost_tokens_nano": "bought",
    "cost_link_nano": "links",
    "cost_waste_nano": "failed",
    "cost_nano": "cost",
    "revenue_nano": "revenue",
    SPREAD: "spread",
}
# The same in full.
WORDS = {
    "requests": "requests",
    "input_tokens": "input tokens",
    "cached_input_tokens": "of these cached",
    "cache_write_tokens": "of these written to a cache",
    "output_tokens": "output tokens, generated",
    "reasoning_tokens": "of these reasoning",
    "delivered_tokens": "delivered tokens",
    "exported_tokens": "of these exported",
    "billed_output_tokens": "billed output tokens",
    "energy_uwh": "energy",
    "carbon_mg": "carbon",
    "cost_energy_nano": "cost of energy",
    "cost_tokens_nano": "cost of tokens bought",
    "cost_link_nano": "cost of links",
    "cost_waste_nano": "cost of failed attempts",
    "cost_nano": "cost",
    "revenue_nano": "revenue",
    SPREAD: "spread: revenue less cost",
}


def figure_of(row: Mapping[str, object], name: str) -> int:
    if name == SPREAD:
        return figure_of(row, "revenue_nano") - figure_of(row, "cost_nano")
    value = row[name]
    assert isinstance(value, int)
    return value


def text_of(value: int, name: str, beside: int = 0) -> str:
    """A figure in the unit people read. `beside`: the largest of its column."""
    if name not in _SCALED:
        return figures.whole(value)
    power, _ = _SCALED[name]
    text = figures.decimal(Decimal(value).scaleb(power), _decimals(max(abs(value), beside), power))
    return text if any(digit in "123456789" for digit in text) else text.removeprefix(figures.MINUS)


def _decimals(largest: int, power: int) -> int:
    """So many that a ten-thousandth of the largest is to be seen, and nine where that is little."""
    amount = Decimal(largest).scaleb(power)
    return 2 if amount >= 1000 else 4 if amount >= 1 else 6 if amount >= Decimal("0.01") else 9


def moment(text: str) -> str:
    """RFC 3339, without a fraction of nothing."""
    return text.replace(".000000Z", "Z")


def printable(text: str) -> str:
    """What a file or a row says must not steer a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)


def unit_of(name: str, currency: str | None) -> str:
    """Empty for a count."""
    if name not in _SCALED:
        return ""
    return _SCALED[name][1] or (currency or UNKNOWN)


def largest(rows: Sequence[Mapping[str, object]], names: Iterable[str]) -> dict[str, int]:
    """Of each column, by its size. Amounts of money are one column here: parts are to be added up by eye."""
    found = {name: max((abs(figure_of(row, name)) for row in rows), default=0) for name in names}
    money = [name for name in found if name.endswith("_nano")]
    return {**found, **dict.fromkeys(money, max((found[name] for name in money), default=0))}
