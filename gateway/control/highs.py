"""The solver of hourly plans: HiGHS, through scipy, which is an extra (`planner`) and may be absent.

As a program it reads problems as JSON from its input, an hour each, and writes the shadow prices of each to its output:
null for an hour that could not be solved. The supervisor runs it so, where it can be stopped.
"""

import json
import os
import sys
from importlib.util import find_spec
from typing import Any

from routing.plan import Duals, Kind, Problem, Way, plan

MONEY_SCALE = 1e6  # costs of single requests are far below the solver's tolerances


def available() -> bool:
    return find_spec("scipy") is not None


def solve(problem: Problem) -> Duals | None:
    """The shadow prices of one hour at one load; None if HiGHS finds no optimum."""
    # Imported where it is used: half a second and 40 MB, in the child that plans and nowhere else.
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    sites, rooms = len(problem.sites), len(problem.sites) + len(problem.lines)
    costs: list[float] = []
    taken: tuple[list[float], list[int], list[int]] = ([], [], [])
    of_kind: tuple[list[float], list[int], list[int]] = ([], [], [])

    def entry(matrix: tuple[list[float], list[int], list[int]], row: int, value: float) -> None:
        matrix[0].append(value)
        matrix[1].append(row)
        matrix[2].append(len(costs) - 1)

    for number, kind in enumerate(problem.kinds):
        # The unknowns are shares of a kind, so that the program is about as large in every number.
        for way in kind.ways:
            costs.append(MONEY_SCALE * kind.rate_per_s * way.cost)
            entry(of_kind, number, 1.0)
            entry(taken, way.site, kind.rate_per_s * way.service_s)
            if way.line >= 0:
                entry(taken, sites + way.line, kind.rate_per_s * way.mbit)
        costs.append(MONEY_SCALE * kind.rate_per_s * problem.refusal)
        entry(of_kind, number, 1.0)
    if not costs:
        return Duals((0.0,) * sites, (0.0,) * len(problem.lines))
    found = linprog(
        costs,
        A_ub=csr_array((taken[0], (taken[1], taken[2])), shape=(rooms, len(costs))),
        b_ub=[*problem.slots, *problem.mbps],
        A_eq=csr_array((of_kind[0], (of_kind[1], of_kind[2])), shape=(len(problem.kinds), len(costs))),
        b_eq=[1.0] * len(problem.kinds),
        method="highs",
    )
    if found.status != 0:
        return None
    duals = [max(-float(each), 0.0) / MONEY_SCALE for each in found.ineqlin.marginals]
    return Duals(tuple(duals[:sites]), tuple(duals[sites:]))


def problem_of(fields: list[Any]) -> Problem:
    """From what JSON makes of one: tuples become lists."""
    sites, slots, lines, mbps, kinds, refusal = fields
    return Problem(
        tuple(sites),
        tuple(slots),
        tuple(lines),
        tuple(mbps),
        tuple(Kind(rate, value, tuple(Way(*way) for way in ways)) for rate, value, ways in kinds),
        refusal,
    )


if __name__ == "__main__":
    os.nice(10)  # requests come first
    planned = [plan(problem_of(fields), solve) for fields in json.load(sys.stdin)]
    json.dump(planned, sys.stdout)
