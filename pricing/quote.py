"""What a request would cost on a route: the only cost formula in the house.

A quote is for choosing, so it is in floats and on predicted quantities; export.settle() is for writing down, in
integers and on counted ones. Both start from the same UnitPrices, and on exact quantities they agree to within the
rounding.

    energy, tokens, link   money, as settled later
    capacity               what the slot is worth to others while it is held
    time                   what the customer's wait is worth

The formula stands here twice, one above the other: `total` for whoever compares many routes and looks at the sum
alone, and `quote` for whoever wants to see its terms. They add up to the last bit, and a test says so.
"""

from typing import NamedTuple, TypeAlias

from pricing.unit_prices import UnitPrices
from pricing.units import GB, MILLI, MJ_PER_KWH, MTOK, NANO

# What `total` reads of Rates: energy per fresh token, per output token; and the three prices of tokens bought, None
# where none are.
FlatRates: TypeAlias = tuple[float, float, tuple[float, float, float] | None]


class Rates(NamedTuple):
    """Unit prices as floats in currency units per single token and byte. `energy` ones include PUE."""

    per_fresh_token_energy: float
    per_output_token_energy: float
    per_input_token: float
    per_cached_token: float
    per_output_token: float
    per_byte: float

    @classmethod
    def of(cls, units: UnitPrices) -> "Rates":
        per_mj = units.energy_nano_per_kwh * units.pue_milli / (MILLI * MJ_PER_KWH * NANO)
        per_mtok = 1 / (MTOK * NANO)
        return cls(
            per_fresh_token_energy=units.prefill_mj_per_token * per_mj,
            per_output_token_energy=units.decode_mj_per_token * per_mj,
            per_input_token=units.input_nano_per_mtok * per_mtok,
            per_cached_token=units.cached_nano_per_mtok * per_mtok,
            per_output_token=units.output_nano_per_mtok * per_mtok,
            per_byte=units.link_nano_per_gb / (GB * NANO),
        )

    def flat(self) -> FlatRates:
        bought = (self.per_input_token, self.per_cached_token, self.per_output_token)
        return (
            self.per_fresh_token_energy,
            self.per_output_token_energy,
            bought if any(bought) else None,
        )


class Quote(NamedTuple):
    """In the gateway's currency. `total` is what routes are compared by."""

    energy: float
    tokens: float
    link: float
    capacity: float
    time: float
    total: float


def total(
    rates: FlatRates,
    fresh_tokens: float,
    hit_tokens: float,
    output_tokens: float,
    bytes_up: float,
    bytes_down: float,
    per_byte: float,
    service_s: float,
    slot_price_per_s: float,
    delay_s: float,
    value_per_second: float,
) -> float:
    """The total of a quote of the same arguments, without the quote.

    The terms in the order of a Quote; the two that are mostly nothing are left out when they are, which changes no sum.
    """
    per_fresh, per_output, bought = rates
    money = per_fresh * fresh_tokens + per_output * output_tokens
    if bought is not None:
        per_input, per_cached, per_bought = bought
        money += per_input * fresh_tokens + per_cached * hit_tokens + per_bought * output_tokens
    money += per_byte * (bytes_up + bytes_down)
    if slot_price_per_s:
        money += slot_price_per_s * service_s
    return money + value_per_second * delay_s


def quote(
    rates: Rates,
    *,
    fresh_tokens: float,
    hit_tokens: float,
    output_tokens: float,
    bytes_up: float,
    bytes_down: float,
    per_byte: float,
    service_s: float,
    slot_price_per_s: float,
    delay_s: float,
    value_per_second: float,
) -> Quote:
    """fresh_tokens: input without the predicted prefix hit; per_byte: the marginal price of the link now, which is not
    the book's where its billing has a state; delay_s: TTFT and the sum of what gaps exceed their target.

    Predicted cache writes are priced as input: what a backend will write is known only when it says so.
    """
    energy = rates.per_fresh_token_energy * fresh_tokens + rates.per_output_token_energy * output_tokens
    tokens = (
        rates.per_input_token * fresh_tokens
        + rates.per_cached_token * hit_tokens
        + rates.per_output_token * output_tokens
    )
    link = per_byte * (bytes_up + bytes_down)
    capacity = slot_price_per_s * service_s
    time = value_per_second * delay_s
    money = total(
        rates.flat(),
        fresh_tokens,
        hit_tokens,
        output_tokens,
        bytes_up,
        bytes_down,
        per_byte,
        service_s,
        slot_price_per_s,
        delay_s,
        value_per_second,
    )
    return Quote(energy, tokens, link, capacity, time, money)
