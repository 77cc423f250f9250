"""Candidate: one route as a decision saw it, with its price term by term.

In the making it is an `Entry`, a plain tuple: one is made for every route of every request, a Candidate only for the
best two, and a Quote when somebody looks at it.
"""

from typing import NamedTuple, TypeAlias

from pricing.quote import Quote, Rates, quote
from routing.table import Route

# Fresh tokens, tokens expected in the cache, bytes down, price of a byte, price of a second in a slot.
Amounts: TypeAlias = tuple[float, float, float, float, float]

# Ordered by its first four fields; then route, rates, delay, TTFT, what of it is known, amounts.
Entry: TypeAlias = tuple[float, float, float, str, Route, Rates, float, float, float, Amounts]


class Candidate(NamedTuple):
    """One route as the decision saw it. The first four fields are the order: the least tuple wins."""

    first: float
    second: float
    share: float  # of the backend's slots in use
    name: str
    route: Route
    ttft_s: float  # predicted
    known_s: float  # of it the link and the queue; the rest is the backend's own
    service_s: float  # how long a slot would be held
    rates: Rates
    output_tokens: float
    bytes_up: float
    delay_s: float
    value_per_second: float
    amounts: Amounts
    excluded: str = ""  # the constraint that rules it out; "" if feasible. Set by `explain` only

    @property
    def line_bytes(self) -> float:
        """Expected over the link, both ways."""
        return self.bytes_up + self.amounts[2]

    @property
    def quote(self) -> Quote:
        """What it would cost, term by term."""
        fresh_tokens, hit_tokens, bytes_down, per_byte, slot_price = self.amounts
        return quote(
            self.rates,
            fresh_tokens=fresh_tokens,
            hit_tokens=hit_tokens,
            output_tokens=self.output_tokens,
            bytes_up=self.bytes_up,
            bytes_down=bytes_down,
            per_byte=per_byte,
            service_s=self.service_s,
            slot_price_per_s=slot_price,
            delay_s=self.delay_s,
            value_per_second=self.value_per_second,
        )
