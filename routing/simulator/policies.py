"""Policies to replay, as data: an objective of routing.policy, and how a baseline takes its places.

`money` is the production formula with the tenants' own value of time and everything on. `myopic` is the same formula at
prices that somebody quotes: what has a memory is not in it. Of the two that make a price of room,
`plan_alone` holds an hour's and `correction_alone` has no planner. The other baselines weigh no wait, so on their own
they would queue at one site while others idle; they take a free slot where there is one. Nearest also leaves sellers of
tokens for last, as the published yardstick of that name does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from routing.policy import BALANCED, CHEAPEST_ENERGY, LEAST_OUTSTANDING, NEAREST, ROUND_ROBIN, Objective


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    objective: Objective
    free_slot_first: bool = False  # wait only where no site has a free slot
    sellers_last: bool = False  # buy tokens only where no own site has a free slot
    steers: bool = False  # by what lines billed by their load cost at the margin, and by what is warm
    shadow_prices: frozenset[str] = frozenset()  # what makes those of room: the hourly plan, the online correction


PLAN: Final = "plan"
CORRECTION: Final = "correction"

MONEY: Final = Policy("money", BALANCED, steers=True, shadow_prices=frozenset({PLAN, CORRECTION}))
POLICIES: Final[Mapping[str, Policy]] = MappingProxyType(
    {
        policy.name: policy
        for policy in (
            MONEY,
            Policy("myopic", BALANCED),
            Policy("plan_alone", BALANCED, steers=True, shadow_prices=frozenset({PLAN})),
            Policy("correction_alone", BALANCED, steers=True, shadow_prices=frozenset({CORRECTION})),
            Policy("nearest", NEAREST, free_slot_first=True, sellers_last=True),
            Policy("round_robin", ROUND_ROBIN, free_slot_first=True),
            Policy("least_outstanding", LEAST_OUTSTANDING, free_slot_first=True),
            Policy("cheapest_energy", CHEAPEST_ENERGY, free_slot_first=True),
        )
    }
)
