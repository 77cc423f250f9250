"""What a row of the ledger charges, part by part: the tokens sold to a tenant, or what serving them cost us.

A ledger row has one amount, rounded once; its parts must add up to exactly that. So parts are rounded cumulatively: a
part is what the rounded sum grows by when it is added, and the last one takes the amount to what the row says. A part
is then at most one nano unit from its own exact product.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from pricing.units import MTOK, divide_half_even

TOKENS = "Tokens"


class Service(NamedTuple):
    name: str
    category: str
    subcategory: str


INFERENCE = Service("LLM Inference", "AI and Machine Learning", "Generative AI")
ELECTRICITY = Service("Electricity", "Other", "Other (Other)")
TRANSIT = Service("Cross-Border Data Transfer", "Networking", "Network Connectivity")
BOUGHT = Service("LLM Inference Bought", "AI and Machine Learning", "Generative AI")
WASTE = Service("Attempts Without An Answer", "AI and Machine Learning", "Other (AI and Machine Learning)")


class Meter(NamedTuple):
    """What is measured, in which unit, and in how many of it a price is stated."""

    service: Service
    name: str
    unit: str = TOKENS
    pricing_unit: str = "1000000 Tokens"
    unit_exponent: int = 0  # quantities are integers of 10 ** -unit_exponent units
    pricing_exponent: int = 6  # and of 10 ** -pricing_exponent pricing units


SOLD = tuple(Meter(INFERENCE, name) for name in ("Input Tokens", "Cached Input Tokens", "Output Tokens"))
BOUGHT_METERS = tuple(
    Meter(BOUGHT, name) for name in ("Input Tokens", "Cached Input Tokens", "Cache Write Tokens", "Output Tokens")
)
POWER = Meter(ELECTRICITY, "Energy", "kWh", "kWh", 9, 9)  # the ledger counts micro-watt-hours
BYTES = Meter(TRANSIT, "Bytes Both Ways", "GB", "GB", 9, 9)
FAILED = Meter(WASTE, "Attempts Without An Answer", "", "", 0, 0)  # an amount without a quantity


class Part(NamedTuple):
    meter: Meter
    quantity: int
    price_nano: int  # per pricing unit
    amount_nano: int


Row = Mapping[str, object]
View = Callable[[Row], Iterator[Part]]


def billed(row: Row) -> Iterator[Part]:
    """What the tenant is charged: parts of revenue_nano."""
    cached = _amount(row, "cached_input_tokens")
    answered = row["ttft_ms"] is not None  # no answer, no charge for the question
    quantities = (
        _amount(row, "input_tokens") - cached if answered else 0,
        cached if answered else 0,
        _amount(row, "billed_output_tokens"),
    )
    prices = tuple(_amount(row, f"tariff_{name}_nano_per_mtok") for name in ("input", "cached", "output"))
    yield from _allotted(SOLD, quantities, prices, _amount(row, "revenue_nano"))


def incurred(row: Row) -> Iterator[Part]:
    """What serving cost us: parts of cost_nano."""
    energy = Part(
        POWER, _amount(row, "energy_uwh"), _amount(row, "unit_energy_nano_per_kwh"), _amount(row, "cost_energy_nano")
    )
    size = _amount(row, "bytes_to_backend") + _amount(row, "bytes_from_backend")
    link = Part(BYTES, size, _amount(row, "unit_link_nano_per_gb"), _amount(row, "cost_link_nano"))
    yield from (part for part in (energy, link) if part.price_nano or part.amount_nano)
    cached, written = _amount(row, "cached_input_tokens"), _amount(row, "cache_write_tokens")
    fresh = _amount(row, "input_tokens") - cached - written
    names = ("input", "cached", "cache_write", "output")
    prices = tuple(_amount(row, f"unit_{name}_nano_per_mtok") for name in names)
    if any(prices) or _amount(row, "cost_tokens_nano"):
        quantities = (fresh, cached, written, _amount(row, "output_tokens"))
        yield from _allotted(BOUGHT_METERS, quantities, prices, _amount(row, "cost_tokens_nano"))
    waste = _amount(row, "cost_waste_nano")
    if waste:
        yield Part(FAILED, 0, 0, waste)


def _allotted(
    meters: tuple[Meter, ...], quantities: tuple[int, ...], prices: tuple[int, ...], total_nano: int
) -> Iterator[Part]:
    exact = before = 0
    for number, (meter, quantity, price) in enumerate(zip(meters, quantities, prices, strict=True), 1):
        exact += quantity * price
        rounded = divide_half_even(exact, MTOK) if number < len(meters) else total_nano
        if quantity or rounded != before:
            yield Part(meter, quantity, price, rounded - before)
        before = rounded


def _amount(row: Row, name: str) -> int:
    value = row[name]
    return value if isinstance(value, int) else 0  # unknown: of a row that is older than its column
