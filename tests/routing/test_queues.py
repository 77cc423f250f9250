"""A queue that would break the rule's TTFT objective is not joined; where nothing is known of it, it is."""

import pytest

from routing.policy import Objective
from tests.routing.world import NOW, World, backend, demand

SLO_S = 2.0
SERVICE_S = 4.0


def timed(world: World, service_s: float = SERVICE_S, ttft_s: float = 0.5) -> World:
    """Every backend has answered often enough to be known."""
    for state in world.states.values():
        for second in range(20):
            state.succeeded(NOW - 40 + second, service_s)
            state.answered(ttft_s, 0.0, NOW - 40 + second)
    return world


def busy(requests: int, **rule: object) -> World:
    """One backend with ten slots and forty places in its queue, and so many requests on it."""
    options = {"ttft_slo_s": SLO_S, "queue_slo_share": 1.0, "rtt_s": {"a": 0.0}, **rule}
    world = timed(World([backend("a", queue_max=40)], **options))  # type: ignore[arg-type]
    world.load("a", requests)
    return world


def test_a_queue_is_joined_for_as_long_as_the_first_token_comes_in_time() -> None:
    # Each place further back is 0.4 s; the prompt takes 0.1 s and the backend 0.5 s of the two seconds.
    assert busy(12).chosen() == "a"
    assert busy(13).chosen() == "ttft_slo"
    assert busy(13, queue_slo_share=1.2).chosen() == "a"
    assert busy(12).chosen(demand(input_tokens=4000)) == "ttft_slo"


def test_all_queues_are_joined_where_there_is_no_objective_or_shedding_is_off() -> None:
    assert busy(49, ttft_slo_s=None).chosen() == "a"
    assert busy(49, queue_slo_share=0.0).chosen() == "a"
    assert busy(50, queue_slo_share=0.0).chosen() == "saturated"


@pytest.mark.parametrize("kind", ["cheapest", "balanced", "fastest"])
def test_an_objective_is_one_for_whatever_the_rule_optimises(kind: str) -> None:
    assert busy(9, objective=Objective(kind)).chosen() == "a"
    assert busy(30, objective=Objective(kind)).chosen() == "ttft_slo"


def test_a_slow_backend_that_has_a_free_slot_serves() -> None:
    world = timed(World([backend("a")], ttft_slo_s=0.1, queue_slo_share=1.0), service_s=60.0, ttft_s=30.0)
    world.load("a", 9)
    assert world.chosen() == "a"


def test_a_backend_too_slow_by_itself_may_still_queue_for_half_of_the_objective() -> None:
    world = timed(World([backend("a")], ttft_slo_s=SLO_S, queue_slo_share=1.0), ttft_s=30.0)
    world.load("a", 11)
    assert world.chosen() == "a"
    world.load("a", 1)
    assert world.chosen() == "ttft_slo"


def test_nothing_is_shed_before_an_answer_was_timed() -> None:
    world = World([backend("a", itl_s=10.0)], ttft_slo_s=SLO_S, queue_slo_share=1.0)
    world.load("a", 19)
    assert world.chosen() == "a"


def test_failures_do_not_make_a_queue_longer() -> None:
    world = busy(12)
    world.states["a"].failed(NOW)
    assert world.chosen() == "a"


def test_another_route_with_room_is_taken_first() -> None:
    sites = [backend("cheap", queue_max=40), backend("dear")]
    world = timed(World(sites, {"cheap": 1.0, "dear": 500.0}, ttft_slo_s=SLO_S, queue_slo_share=1.0))
    world.load("cheap", 30)
    assert world.chosen() == "dear"
    world.load("dear", 20)
    assert world.chosen() == "ttft_slo"
