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

# Seconds a reader does not notice between two tokens: 20 a second is faster than anybody reads. The same for every
# backend and rule, so that it moves no comparison between backends that are both fast enough.
ITL_TARGET_S: Final = 0.05

OBJECTIVES: Final = ("cheapest", "balanced", "fastest", "value")
FASTEST: Final = "fastest"
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


def money_decides_within_s(kind: str, ttft_slo_s: float | None) -> float:
    """The TTFT up to which routes are ordered by their total and nothing else; minus infinity where they never are."""
    if kind == "balanced" or kind == "value":
        return math.inf
    if kind == "cheapest":
        return math.inf if ttft_slo_s is None else ttft_slo_s
    return -math.inf


def rank(
    kind: str, total: float, bill: float, ttft_s: float, rtt_s: float, leases: int, share: float
) -> tuple[float, float]:
    """What to compare a feasible route by where its total alone does not decide; least first.

    Where it does, this is (total, 0). Further ties: the smaller share of slots, then the name. `bill`: the part of the
    total that the site is paid for, power or tokens; needed where it decides only.
    """
    if kind == "cheapest":
        return math.inf, ttft_s  # late: after all that are in time
    if kind == "fastest":
        return ttft_s, total
    if kind == "nearest":
        return rtt_s, 0.0
    if kind == "round_robin":
        return float(leases), 0.0
    if kind == "least_outstanding":
        return share, 0.0
    return bill, 0.0
