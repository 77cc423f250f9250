"""What a byte over a link costs. A GB is 1e9 bytes, both directions, HTTP heads and bodies.

Routing needs the *marginal* price, what one more byte costs now, and that depends on how the line is billed:

    flat     a leased line is sunk: the next byte is free
    per_gb   the list price
    p95      billed by the 95th percentile of five-minute rates: free below the planned level. A book holds no live
             rates, so a p95 line is free here; the plan of the hour may price its bytes above that level.
"""

from dataclasses import dataclass

from pricing.units import exact

# A backend at the edge needs no line. Its link has this name and costs nothing, unless a book prices it.
LOCAL_LINK = "local"

BILLINGS = ("flat", "per_gb", "p95")


@dataclass(frozen=True, slots=True)
class TransitPrice:
    link: str
    billing: str  # flat | per_gb | p95
    currency: str = ""  # empty: the gateway's
    price_per_gb: float = 0.0
    price_per_month: float = 0.0
    price_per_mbps_month: float = 0.0
    planned_mbps: float = 0.0

    def __post_init__(self) -> None:
        if self.billing not in BILLINGS:
            raise ValueError(f'link {self.link}: billing "{self.billing}" is not one of {", ".join(BILLINGS)}')
        for name in ("price_per_gb", "price_per_month", "price_per_mbps_month", "planned_mbps"):
            if exact(getattr(self, name)) < 0:
                raise ValueError(f"link {self.link}: {name} is negative")

    def marginal_per_gb(self) -> float:
        return self.price_per_gb if self.billing == "per_gb" else 0.0
