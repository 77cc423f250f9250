"""What may never happen, whatever it would save."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.policy import OBJECTIVES, Objective
from routing.table import RuleSpec
from tests.routing.world import MODEL, NOW, World, backend, demand

COUNTRIES = ("CN", "US", "DE", "SG", "NO")
country = st.sampled_from(COUNTRIES)


@given(data=st.data())
@settings(max_examples=120)
def test_residency_is_never_violated(data: st.DataObject) -> None:
    names = [f"b{i}" for i in range(data.draw(st.integers(1, 6)))]
    sites = [backend(name, data.draw(country)) for name in names]
    transit = {name: tuple(data.draw(st.lists(country, max_size=2))) for name in names}
    rule_deny = data.draw(st.frozensets(country, max_size=2))
    world = World(
        sites,
        {name: data.draw(st.floats(-50, 500)) for name in names},
        transit=transit,
        deny_origins=rule_deny,
        objective=Objective(data.draw(st.sampled_from(OBJECTIVES))),
    )
    for name in names:  # trouble elsewhere is no excuse
        world.load(name, data.draw(st.sampled_from([0, 3, 20])))
        if data.draw(st.booleans()):
            world.eject(name)
    wanted = demand(
        deny_origins=data.draw(st.frozensets(country, max_size=3)), destination=data.draw(st.sampled_from(["DE", ""]))
    )
    tried = data.draw(st.sets(st.sampled_from(names)))
    route = world.decide(wanted, excluded=tried, rng=Random(data.draw(st.integers(0, 9)))).route
    if route is not None:
        denied = wanted.deny_origins | rule_deny
        assert route.backend.country not in denied
        assert denied.isdisjoint(route.link.transit)
        assert wanted.destination or not denied
        assert route.backend.name not in tried


def test_a_transit_country_is_denied_like_an_origin() -> None:
    world = World([backend("a", "NO"), backend("b", "NO")], {"a": 1.0, "b": 99.0}, transit={"a": ("SG",)})
    assert world.chosen() == "a"
    assert world.chosen(demand(deny_origins=frozenset({"SG"}))) == "b"


def test_a_rule_and_a_tenant_deny_together() -> None:
    world = World([backend("a", "CN"), backend("b", "US")], deny_origins=frozenset({"CN"}))
    assert world.chosen() == "b"
    assert world.chosen(demand(deny_origins=frozenset({"US"}))) == "residency"


def test_an_unknown_destination_under_a_residency_rule_is_denied() -> None:
    world = World([backend("a")])
    assert world.chosen(demand(destination="")) == "a"
    assert world.chosen(demand(destination="", deny_origins=frozenset({"CN"}))) == "destination_unknown"


def test_an_unknown_model_is_not_a_forbidden_one() -> None:
    world = World([backend("a")], destinations=("DE", "FR"))
    assert world.chosen(demand(model="other")) == "unknown_model"
    assert world.chosen(demand(destination="US")) == "no_rule"
    assert world.chosen(demand(destination="")) == "no_rule"
    assert world.chosen(demand(destination="FR")) == "a"


def test_the_first_matching_rule_decides() -> None:
    rules = [RuleSpec(MODEL, backends=("b",), destinations=("DE",)), RuleSpec(MODEL, backends=("a",))]
    world = World([backend("a"), backend("b")], {"a": 1.0, "b": 99.0}, rules=rules)
    assert world.chosen(demand(destination="DE")) == "b"
    assert world.chosen(demand(destination="US")) == "a"
    assert world.chosen(demand(destination="")) == "a"


def test_a_prompt_goes_only_where_it_fits_with_its_answer() -> None:
    world = World([backend("small", context_tokens=4096), backend("large")], {"small": 1.0, "large": 99.0})
    assert world.chosen(demand(input_tokens=4096)) == "small"
    assert world.chosen(demand(input_tokens=4096, max_tokens=1)) == "large"
    assert world.chosen(demand(input_tokens=200_000)) == "context_length"


def test_a_backend_is_asked_only_in_its_own_dialect() -> None:
    world = World([backend("a"), backend("b", dialects=("openai", "anthropic"))], {"a": 1.0, "b": 99.0})
    assert world.chosen(demand(dialect="anthropic")) == "b"
    assert world.chosen(demand(dialect="responses")) == "dialect"


def test_full_means_slots_and_queue() -> None:
    world = World([backend("a", slots=2, queue_max=1)])
    world.load("a", 2)
    assert world.chosen() == "a"
    world.load("a", 1)
    assert world.chosen() == "saturated"


def test_full_counts_what_other_workers_have_in_flight() -> None:
    world = World([backend("a", slots=2, queue_max=0)])
    world.load("a", 1)
    world.states["a"].inflight_elsewhere = 1
    assert world.chosen() == "saturated"


def test_full_moves_traffic_to_the_next() -> None:
    world = World([backend("a", slots=1, queue_max=0), backend("b")], {"a": 1.0, "b": 99.0})
    world.load("a", 1)
    assert world.chosen() == "b"


def test_a_link_that_is_down_carries_nothing() -> None:
    world = World([backend("a"), backend("b")], {"a": 1.0, "b": 99.0})
    world.links["to-a"].up = False
    assert world.chosen() == "b"
    world.links["to-b"].up = False
    assert world.chosen() == "unavailable"


def test_a_backend_already_tried_is_not_tried_again() -> None:
    world = World([backend("a"), backend("b")], {"a": 1.0, "b": 99.0})
    assert world.chosen(excluded={"a"}) == "b"
    assert world.chosen(excluded={"a", "b"}) == "unavailable"


def test_a_line_takes_no_more_than_its_capacity() -> None:
    world = World([backend("a", slots=100), backend("b", slots=100)], {"a": 1.0, "b": 99.0}, capacity_mbps={"a": 1.0})
    taken = []
    for _ in range(12):
        decision = world.decide()
        assert decision.route is not None
        taken.append(decision.route.backend.name)
        decision.lease(world.states, NOW, world.links)
    # 74,000 bytes in 4.1 s are 0.144 Mbps
    assert taken == ["a"] * 6 + ["b"] * 6
    assert world.links["to-a"].mbps <= 1.0


def test_an_idle_line_takes_even_a_body_beyond_its_capacity() -> None:
    world = World([backend("a")], capacity_mbps={"a": 0.01})
    assert world.chosen() == "a"
    world.decide().lease(world.states, NOW, world.links)
    assert world.chosen() == "saturated"


def test_a_line_counts_what_other_workers_send() -> None:
    world = World([backend("a")], capacity_mbps={"a": 1.0})
    world.links["to-a"].mbps_elsewhere = 0.9
    assert world.chosen() == "saturated"


@pytest.mark.parametrize("on_region", [False, True])
def test_a_power_cap_bounds_what_requests_may_draw(on_region: bool) -> None:
    # (250 mJ x 1,000 + 1,100 mJ x 200) in 4.1 s are 114.6 W
    site = backend("a", slots=100, power_cap_w=0.0 if on_region else 400.0)
    world = World(
        [site, backend("b", slots=100)], {"a": 1.0, "b": 99.0}, power_caps_w={"region-a": 400.0} if on_region else {}
    )
    taken = []
    for _ in range(5):
        decision = world.decide()
        assert decision.route is not None
        taken.append(decision.route.backend.name)
        decision.lease(world.states, NOW)
    assert taken == ["a", "a", "a", "b", "b"]


def test_a_region_cap_covers_all_backends_of_the_region() -> None:
    sites = [backend("a", region="r"), backend("b", region="r")]
    world = World(sites, power_caps_w={"r": 200.0})
    world.decide().lease(world.states, NOW)
    world.states["b"].power_w_elsewhere = 50.0
    assert world.chosen() == "saturated"


def test_a_refusal_names_what_could_still_change() -> None:
    world = World([backend("far", "CN"), backend("busy"), backend("small", context_tokens=10)])
    wanted = demand(deny_origins=frozenset({"CN"}))
    world.load("busy", 20)
    assert world.chosen(wanted) == "saturated"
    assert world.chosen(wanted, excluded={"busy"}) == "unavailable"
    alone = World([backend("far", "CN"), backend("small", context_tokens=10)])
    assert alone.chosen(wanted) == "context_length"


def test_a_refusal_has_no_place_to_lease() -> None:
    world = World([backend("a")])
    with pytest.raises(ValueError, match="unknown_model"):
        world.decide(demand(model="other")).lease(world.states, NOW)
