"""A site that turns slow or faulty loses its share of the traffic, gets it back when it is well, and nothing swings."""

from itertools import pairwise
from random import Random

import pytest

from routing.policy import Objective
from tests.routing.traffic import Traffic
from tests.routing.world import World, backend

FAIR = 0.25
WINDOW_S = 10.0
SICK_S = 60.0


def four(objective: str, **power: float) -> World:
    """Four equal sites, at equal prices unless told otherwise."""
    sites = [backend(name, slots=256, queue_max=64) for name in ("a", "b", "c", "d")]
    return World(sites, power, objective=Objective(objective))


def changes(shares: list[float]) -> int:
    """How often a share crossed half of what is fair."""
    sides = [share >= FAIR / 2 for share in shares]
    return sum(before != after for before, after in pairwise(sides))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sickness", [{"slower": 5.0}, {"failing": 0.5}], ids=["slow", "failing"])
@pytest.mark.parametrize("objective", ["balanced", "fastest", "cheapest"])
def test_a_sick_site_loses_its_share_and_gets_it_back(objective: str, sickness: dict[str, float], seed: int) -> None:
    traffic = Traffic(four(objective), 20.0, Random(seed))
    traffic.run(60.0)
    well = traffic.shares("b", WINDOW_S, traffic.now - 30.0)
    traffic.behave("b", **sickness)
    traffic.run(SICK_S)
    sick = traffic.shares("b", WINDOW_S, traffic.now - SICK_S)
    traffic.behave("b")
    traffic.run(90.0)
    healed = traffic.shares("b", WINDOW_S, traffic.now - 90.0)
    assert min(well) >= FAIR / 2
    assert max(sick[1:]) < 0.05, sick
    assert min(healed[2:]) >= FAIR / 2, healed
    assert changes([*well, *sick, *healed]) == 2


@pytest.mark.parametrize("objective", ["balanced", "fastest", "cheapest"])
def test_equal_sites_share_equally_and_steadily(objective: str) -> None:
    traffic = Traffic(four(objective), 20.0, Random(1))
    traffic.run(90.0)
    for name in ("a", "b", "c", "d"):
        shares = traffic.shares(name, WINDOW_S, traffic.now - 60.0)
        assert min(shares) > 0.15 and max(shares) < 0.35, (name, shares)


def test_a_site_that_was_slow_for_an_hour_gets_its_share_back_as_soon() -> None:
    traffic = Traffic(four("balanced"), 5.0, Random(3))
    traffic.run(60.0)
    traffic.behave("b", slower=5.0)
    traffic.run(3600.0)
    traffic.behave("b")
    traffic.run(60.0)
    [settled] = traffic.shares("b", 30.0, traffic.now - 30.0)
    assert settled >= FAIR / 2


def test_a_site_that_hangs_loses_its_share_before_its_requests_are_given_up() -> None:
    traffic = Traffic(four("balanced"), 20.0, Random(2))
    traffic.run(60.0)
    traffic.behave("b", slower=1000.0)
    traffic.run(20.0)
    assert traffic.shares("b", 10.0, traffic.now - 10.0)[0] < 0.05


def test_what_the_price_decides_a_slow_site_keeps() -> None:
    traffic = Traffic(four("cheapest", b=10.0), 5.0, Random(4))
    traffic.behave("b", slower=5.0)
    traffic.run(60.0)
    assert traffic.shares("b", 60.0, traffic.now - 60.0) == [1.0]


def test_a_site_that_is_too_dear_is_not_tried_to_learn_how_fast_it_is() -> None:
    traffic = Traffic(four("balanced", b=9000.0), 20.0, Random(5))
    traffic.world.states["b"].answered(0.2, 1000, traffic.now - 20.0)
    traffic.run(60.0)
    assert traffic.shares("b", 60.0, traffic.now - 60.0) == [0.0]


def test_failures_that_retries_make_good_cost_no_share() -> None:
    traffic = Traffic(four("cheapest"), 20.0, Random(6))
    for name in ("a", "b", "c", "d"):
        traffic.behave(name, failing=0.02)
    traffic.run(120.0)
    assert min(traffic.shares("b", WINDOW_S, traffic.now - 100.0)) >= FAIR / 2


def test_where_all_fail_alike_the_traffic_is_still_placed() -> None:
    traffic = Traffic(four("balanced"), 20.0, Random(7))
    for name in ("a", "b", "c", "d"):
        traffic.behave(name, failing=0.3)
    traffic.run(60.0)
    assert len(traffic.placed) > 1000
