"""What a request would cost on a route: the only cost formula in the house.

A quote is for choosing, so it is in floats and on predicted quantities; export.settle() is for writing down, in
integers and on counted ones. Both start from the same UnitPrices, and on exact quantities they agree to within the
rounding.

    energy, tokens, link   money, as settled later
    capacity               what the slot is worth to others while it is held
    time                   what the customer's wait is worth
"""

from typing import NamedTuple

from pricing.unit_prices import UnitPrices
from pricing.units import GB, MILLI, MJ_PER_KWH, MTOK, NANO


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


class Quote(NamedTuple):
    """In the gateway's currency. `total` is what routes are compared by."""

    energy: float
    tokens: float
    link: float
    capacity: float
    time: float
    total: float


def quote(
    rates: Rates,
    *,
    fresh_tokens: float,
    hit_tokens: float,
    output_tokens: float,
    bytes_up: float,
    bytes_down: float,
    service_s: float,
    slot_price_per_s: float,
    delay_s: float,
    value_per_second: float,
) -> Quote:
    """fresh_tokens: input without the predicted prefix hit; delay_s: TTFT and the sum of what gaps exceed their target.

    Predicted cache writes are priced as input: what a backend will write is known only when it says so.
    """
    energy = rates.per_fresh_token_energy * fresh_tokens + rates.per_output_token_energy * output_tokens
    tokens = (
        rates.per_input_token * fresh_tokens
        + rates.per_cached_token * hit_tokens
        + rates.per_output_token * output_tokens
    )
    link = rates.per_byte * (bytes_up + bytes_down)
    capacity = slot_price_per_s * service_s
    time = value_per_second * delay_s
    return Quote(energy, tokens, link, capacity, time, energy + tokens + link + capacity + time)
