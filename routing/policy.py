"""Named objectives, as data for `decide`.

An objective says two things: what a second of the customer's time is worth in the quote (`value_of_second`), and by
which figures the feasible routes are ordered (`rank`, least first). Everything else, and every constraint, is the
same for all.

    cheapest              time is free among the routes inside the rule's TTFT objective; if none is inside, the fastest
                          to the first token
    balanced              the tenant's value of a second
    fastest               TTFT decides, then money
    value                 the rule's own value of a second

The baselines below them are yardsticks for comparison and can be configured nowhere; they obey the same constraints.
"""

import math
from dataclasses import dataclass
from typing import Final

from pricing.quote import Quote

# Seconds a reader does not notice between two tokens: 20 a second is faster than anybody reads. The same for every
# backend and rule, so that it moves no comparison between backends that are both fast enough.
ITL_TARGET_S: Final = 0.05

OBJECTIVES: Final = ("cheapest", "balanced", "fastest", "value")
BASELINES: Final = ("nearest", "round_robin", "least_outstanding", "cheapest_energy")


@dataclass(frozen=True, slots=True)
class Objective:
    kind: str = "balanced"
    value_per_second: float = 0.0  # of kind "value"

    def __post_init__(self) -> None:
        if self.kind not in OBJECTIVES and self.kind not in BASELINES:
            raise ValueError(f"objective {self.kind!r} is none of {', '.join(OBJECTIVES + BASELINES)}")

    def value_of_second(self, tenant_value_per_second: float) -> float:
        if self.kind == "balanced" or self.kind == "fastest":
            return tenant_value_per_second
        return self.value_per_second if self.kind == "value" else 0.0


BALANCED: Final = Objective("balanced")
NEAREST: Final = Objective("nearest")  # the shortest road
ROUND_ROBIN: Final = Objective("round_robin")  # whoever had the fewest requests so far
LEAST_OUTSTANDING: Final = Objective("least_outstanding")  # the smallest share of its slots in use
CHEAPEST_ENERGY: Final = Objective("cheapest_energy")  # the bill of the site alone: power, or tokens bought


def rank(
    kind: str, cost: Quote, ttft_s: float, ttft_slo_s: float | None, rtt_s: float, leases: int, share: float
) -> tuple[float, float]:
    """What to compare feasible routes by, least first. Further ties: the smaller share of slots, then the name."""
    if kind == "balanced" or kind == "value":
        return cost.total, 0.0
    if kind == "cheapest":
        # Late routes come after all that are in time; a late one has an infinite first figure.
        return (cost.total, 0.0) if ttft_slo_s is None or ttft_s <= ttft_slo_s else (math.inf, ttft_s)
    if kind == "fastest":
        return ttft_s, cost.total
    if kind == "nearest":
        return rtt_s, 0.0
    if kind == "round_robin":
        return float(leases), 0.0
    if kind == "least_outstanding":
        return share, 0.0
    return cost.energy + cost.tokens, 0.0
