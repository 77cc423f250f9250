"""Choosing: money, objectives, ties, price changes."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.book import PriceBook
from pricing.transit import TransitPrice
from routing.decide import decide, explain
from routing.link import Link
from routing.occupancy import constant
from routing.policy import BASELINES, CHEAPEST_ENERGY, LEAST_OUTSTANDING, NEAREST, ROUND_ROBIN, Objective
from routing.table import RouteTable, RuleSpec
from tests.routing.world import EDGE, HOUR, NOW, World, backend, demand

CHEAPEST = Objective("cheapest")
FASTEST = Objective("fastest")

price = st.floats(-200, 3000)


@given(
    power=st.lists(price, min_size=2, max_size=6),
    gb=st.lists(st.floats(0, 0.5), min_size=6, max_size=6),
    cut=st.floats(0.01, 500),
    which=st.integers(0, 5),
    kind=st.sampled_from(["cheapest", "balanced", "value"]),
)
@settings(max_examples=60)
def test_all_else_equal_cheaper_never_ranks_lower(
    power: list[float], gb: list[float], cut: float, which: int, kind: str
) -> None:
    names = [f"b{i}" for i in range(len(power))]
    which %= len(power)

    def rank_of(prices: list[float]) -> int:
        world = World(
            [backend(name) for name in names],
            dict(zip(names, prices, strict=True)),
            per_gb=dict(zip(names, gb, strict=False)),
            objective=Objective(kind),
        )
        seen = explain(world.table, world.states, demand(), world.prices(), NOW, 0.0, Random(1))
        return [candidate.route.backend.name for candidate in seen.candidates].index(names[which])

    cheaper = [value - cut if i == which else value for i, value in enumerate(power)]
    assert rank_of(cheaper) <= rank_of(power)


def test_the_cheapest_power_wins_when_roads_are_equal() -> None:
    world = World([backend("a"), backend("b"), backend("c")], {"a": 80.0, "b": 20.0, "c": 60.0})
    decision = world.decide()
    assert decision.route is not None and decision.route.name == "b/to-b"
    assert decision.runner_up is not None and decision.runner_up.route.name == "c/to-c"


def test_a_negative_price_is_a_price() -> None:
    assert World([backend("a"), backend("b")], {"a": 1.0, "b": -60.0}).chosen() == "b"


def test_a_link_ten_times_as_dear_moves_the_route() -> None:
    sites = [backend("a"), backend("b")]
    power = {"a": 40.0, "b": 70.0}
    assert World(sites, power, per_gb={"a": 0.02, "b": 0.02}).chosen() == "a"
    assert World(sites, power, per_gb={"a": 0.20, "b": 0.02}).chosen() == "b"


def test_bytes_a_backend_is_known_to_send_count_as_link_cost() -> None:
    world = World([backend("a"), backend("b")], {"a": 40.0, "b": 70.0}, per_gb={"a": 0.1, "b": 0.1})
    assert world.chosen() == "a"
    world.states["a"].bytes_out.observe(("openai", True), 3500 * 1000, 1000)
    assert world.chosen() == "b"
    assert world.chosen(demand(stream=False)) == "a"  # learned of streams, which is not what this one is


def test_bought_tokens_compete_with_made_ones() -> None:
    sites = [backend("own"), backend("seller")]
    assert World(sites, {"own": 50.0}, tokens={"seller": 0.6}).chosen() == "own"
    assert World(sites, {"own": 9000.0}, tokens={"seller": 0.6}).chosen() == "seller"


def test_a_price_crossing_moves_the_route_at_the_exact_second() -> None:
    world = World(
        [backend("a"), backend("b")], {"a": [(0, 40.0), (1, 90.0), (2, 90.0)], "b": [(0, 60.0), (1, 60.0), (2, 60.0)]}
    )
    assert world.chosen(at=HOUR - 1e-3) == "a"
    assert world.chosen(at=HOUR) == "b"


def crossing(load: int) -> World:
    world = World(
        [backend("a", slots=64), backend("b", slots=64)], {"a": [(0, 40.0), (1, 90.0)], "b": [(0, 60.0), (1, 60.0)]}
    )
    world.load("b", load)
    return world


@pytest.mark.parametrize("seconds", [0.0, 6.0, 30.0, 54.0])
def test_a_price_change_moves_a_share_that_grows_over_a_minute(seconds: float) -> None:
    world, rng = crossing(load=9), Random(7)
    moved = [world.chosen(at=HOUR + seconds, rng=rng) for _ in range(600)].count("b")
    assert moved / 600 == pytest.approx(seconds / 60, abs=0.06)


def test_after_the_minute_all_have_moved() -> None:
    world, rng = crossing(load=9), Random(7)
    assert {world.chosen(at=HOUR + 60.0, rng=rng) for _ in range(50)} == {"b"}


def test_up_to_eight_in_flight_the_cheapest_wins_directly() -> None:
    world, rng = crossing(load=8), Random(7)
    assert {world.chosen(at=HOUR, rng=rng) for _ in range(50)} == {"b"}


def test_the_ramp_counts_what_other_workers_have_in_flight() -> None:
    world = crossing(load=4)
    world.states["b"].inflight_elsewhere = 5
    decision = world.decide(at=HOUR)
    assert decision.route is not None and decision.route.backend.name == "a"
    assert decision.special == "ramp"
    assert decision.runner_up is not None and decision.runner_up.route.backend.name == "b"


def test_the_ramp_does_not_hold_traffic_at_a_site_that_fails() -> None:
    world = crossing(load=9)
    world.eject("a")
    assert world.chosen(at=HOUR) == "b"


def test_the_ramp_compares_only_routes_that_can_serve() -> None:
    hours = {"a": (40.0, 90.0), "b": (60.0, 50.0), "c": (70.0, 70.0)}
    power = {name: [(0.0, prices[0]), (1.0, prices[1])] for name, prices in hours.items()}
    world = World([backend(name, slots=64) for name in hours], power)
    world.load("b", 9)
    assert world.chosen(at=HOUR) == "a"
    world.eject("a")  # the winner before: without it b has won all the time
    decision = world.decide(at=HOUR)
    assert decision.route is not None and decision.route.backend.name == "b"
    assert decision.special == ""


def test_a_price_change_that_changes_no_winner_ramps_nothing() -> None:
    world = World([backend("a", slots=64), backend("b")], {"a": [(0, 40.0), (1, 45.0)], "b": [(0, 60.0), (1, 60.0)]})
    world.load("a", 20)
    assert world.decide(at=HOUR).special == ""


def test_waiting_for_a_slot_is_paid_in_the_tenants_time() -> None:
    world = World([backend("a", slots=2, queue_max=20), backend("b")], {"a": 40.0, "b": 60.0})
    world.load("a", 3)
    assert world.chosen(demand(value_per_second=0.0)) == "a"
    assert world.chosen(demand(value_per_second=1e-4)) == "b"


def test_the_wait_is_a_place_in_the_queue_over_the_slots() -> None:
    world = World([backend("a", slots=4, queue_max=20)], {"a": 40.0})
    empty = world.decide().best
    world.load("a", 9)
    busy = world.decide().best
    assert empty is not None and busy is not None
    assert empty.ttft_s == pytest.approx(0.05 + 1000 / 10_000)
    assert busy.ttft_s - empty.ttft_s == pytest.approx(6 / 4 * busy.service_s)
    world.states["a"].service.observe(30.0)
    known = world.decide().best
    assert known is not None and known.ttft_s - empty.ttft_s == pytest.approx(6 / 4 * 30.0)


def test_gaps_a_reader_notices_are_paid_too() -> None:
    sites = [backend("slow", itl_s=0.2), backend("quick", itl_s=0.04)]
    world = World(sites, {"slow": 40.0, "quick": 60.0})
    assert world.chosen(demand(value_per_second=0.0)) == "slow"
    assert world.chosen(demand(value_per_second=1e-5)) == "quick"


def test_gaps_below_the_target_are_worth_nothing() -> None:
    world = World([backend("a", itl_s=0.045), backend("b", itl_s=0.01)], {"a": 50.0, "b": 50.1})
    assert world.chosen(demand(value_per_second=1e-3)) == "a"


def test_balanced_uses_the_tenants_value_of_time() -> None:
    world = World([backend("far"), backend("near")], {"far": 40.0, "near": 80.0}, rtt_s={"far": 0.4, "near": 0.01})
    assert world.chosen(demand(value_per_second=1e-6)) == "far"
    assert world.chosen(demand(value_per_second=1e-3)) == "near"


def test_a_rules_own_value_of_time_beats_the_tenants() -> None:
    world = World(
        [backend("far"), backend("near")],
        {"far": 40.0, "near": 80.0},
        rtt_s={"far": 0.4, "near": 0.01},
        objective=Objective("value", value_per_second=1e-3),
    )
    assert world.chosen(demand(value_per_second=0.0)) == "near"


def test_cheapest_pays_nothing_for_time_inside_the_objective() -> None:
    world = World(
        [backend("far"), backend("near")],
        {"far": 40.0, "near": 80.0},
        rtt_s={"far": 0.4, "near": 0.01},
        objective=CHEAPEST,
        ttft_slo_s=0.6,
    )
    assert world.chosen(demand(value_per_second=1.0)) == "far"


def test_cheapest_leaves_out_routes_that_would_be_late() -> None:
    sites = [backend("far"), backend("near"), backend("nearest")]
    rtt_s = {"far": 0.7, "near": 0.3, "nearest": 0.01}
    power = {"far": 10.0, "near": 40.0, "nearest": 80.0}
    assert World(sites, power, rtt_s=rtt_s, objective=CHEAPEST, ttft_slo_s=0.6).chosen() == "near"
    assert World(sites, power, rtt_s=rtt_s, objective=CHEAPEST, ttft_slo_s=0.05).chosen() == "nearest"


def test_fastest_looks_at_money_only_between_equals() -> None:
    sites = [backend("a"), backend("b"), backend("c")]
    world = World(sites, {"a": 10.0, "b": 90.0, "c": 80.0}, rtt_s={"a": 0.2, "b": 0.1, "c": 0.1}, objective=FASTEST)
    assert world.chosen() == "c"


def test_a_slot_price_is_charged_for_the_time_a_slot_is_held() -> None:
    world = World([backend("a"), backend("b")], {"a": 40.0, "b": 60.0})
    assert world.chosen(slot_prices={}) == "a"
    decision = world.decide(slot_prices={"a": constant(1e-3)})
    assert decision.route is not None and decision.route.backend.name == "b"
    assert decision.runner_up is not None
    assert decision.runner_up.quote.capacity == pytest.approx(1e-3 * decision.runner_up.service_s)


def test_ties_go_to_the_smaller_share_of_slots_and_then_to_the_name() -> None:
    world = World([backend("b", slots=10), backend("a", slots=10), backend("c", slots=40)])
    assert world.chosen() == "a"
    for name, load in (("a", 4), ("b", 4), ("c", 8)):
        world.load(name, load)
    assert world.chosen() == "c"


@given(st.lists(st.tuples(price, st.integers(0, 25), st.floats(0, 0.4)), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=40)
def test_equal_arguments_give_equal_decisions(sites: list[tuple[float, int, float]], seed: int) -> None:
    def one() -> object:
        names = [f"b{i}" for i in range(len(sites))]
        world = World(
            [backend(name) for name in names],
            {name: site[0] for name, site in zip(names, sites, strict=True)},
            rtt_s={name: site[2] for name, site in zip(names, sites, strict=True)},
        )
        for name, site in zip(names, sites, strict=True):
            world.load(name, min(site[1], 20))
        return world.decide(rng=Random(seed))

    assert one() == one()


@given(
    st.lists(st.tuples(price, st.integers(0, 20), st.booleans()), min_size=1, max_size=6),
    st.sampled_from(["cheapest", "balanced", "fastest", *BASELINES]),
    st.integers(0, 99),
)
@settings(max_examples=60)
def test_explain_tells_of_the_decision_that_is_taken(
    sites: list[tuple[float, int, bool]], kind: str, seed: int
) -> None:
    names = [f"b{i}" for i in range(len(sites))]
    power = {name: [(0.0, 50.0), (1.0, site[0])] for name, site in zip(names, sites, strict=True)}
    world = World([backend(name) for name in names], power, objective=Objective(kind), ttft_slo_s=0.4)
    for name, (_, load, ejected) in zip(names, sites, strict=True):
        world.load(name, load)
        if ejected:
            world.eject(name)
    arguments = (world.table, world.states, demand(), world.prices(HOUR + 20), NOW, HOUR + 20)
    taken = decide(*arguments, Random(seed))
    told = explain(*arguments, Random(seed))
    assert told._replace(candidates=()) == taken
    assert len(told.candidates) == len(sites)
    if taken.route is not None and not taken.special:
        assert taken.best == next(candidate for candidate in told.candidates if not candidate.excluded)


def test_explain_prices_the_excluded_too_and_says_why() -> None:
    world = World([backend("a"), backend("b"), backend("c", "CN")], {"a": 10.0, "b": 90.0, "c": 5.0})
    world.load("a", 20)
    told = explain(
        world.table, world.states, demand(deny_origins=frozenset({"CN"})), world.prices(), NOW, 0.0, Random(1)
    )
    assert [(c.route.backend.name, c.excluded) for c in told.candidates] == [
        ("c", "residency"),
        ("b", ""),
        ("a", "full"),
    ]
    assert all(candidate.quote.energy > 0 for candidate in told.candidates)


def test_a_decision_names_the_versions_it_was_made_from() -> None:
    world = World([backend("a")])
    decision = world.decide()
    assert decision.price_version == world.book.version
    assert decision.route_version == world.table.version
    assert decision.output_tokens == 200.0
    refused = world.decide(demand(model="other"))
    assert (refused.price_version, refused.route_version) == (world.book.version, world.table.version)


def test_the_quote_of_the_winner_adds_up() -> None:
    world = World([backend("a")], per_gb={"a": 0.1})
    best = world.decide(slot_prices={"a": constant(1e-6)}).best
    assert best is not None
    parts = best.quote
    assert min(parts.energy, parts.link, parts.capacity, parts.time) > 0
    assert parts.total == pytest.approx(parts.energy + parts.tokens + parts.link + parts.capacity + parts.time)
    assert parts.link == pytest.approx((4000 + 350 * 200) * 0.1 / 1e9)


def test_a_measured_rtt_replaces_the_configured_one() -> None:
    world = World([backend("a"), backend("b")], rtt_s={"a": 0.05, "b": 0.06}, objective=FASTEST)
    assert world.chosen() == "a"
    world.links["to-a"].observe_rtt(0.2)
    assert world.chosen() == "b"
    assert world.chosen(links=None) == "a"


def test_two_links_of_a_backend_are_two_routes() -> None:
    site = backend("a")
    world = World([site])
    roads = [Link("dear", site.region, EDGE, 0.05), Link("cheap", site.region, EDGE, 0.06)]
    table = RouteTable.build(EDGE, [site], roads, [RuleSpec("qwen3", backends=("a",))])
    old = world.book
    book = PriceBook(
        old.currency,
        regions=old.regions,
        sources=old.sources,
        transit={
            "dear": TransitPrice("dear", "per_gb", price_per_gb=0.5),
            "cheap": TransitPrice("cheap", "per_gb", price_per_gb=0.01),
        },
    )
    taken = decide(table, world.states, demand(), book.at(0.0), NOW, 0.0, Random(1))
    assert taken.route is not None and taken.route.name == "a/cheap"
    again = decide(table, world.states, demand(), book.at(0.0), NOW, 0.0, Random(1), excluded=("a/cheap",))
    assert again.route is not None and again.route.name == "a/dear"


def test_baselines_choose_by_their_one_figure() -> None:
    sites = [backend("near"), backend("idle", slots=100), backend("green")]
    power, rtt_s = {"near": 90.0, "idle": 95.0, "green": 1.0}, {"near": 0.01, "idle": 0.1, "green": 0.3}

    def world(objective: Objective) -> World:
        made = World(sites, power, rtt_s=rtt_s, objective=objective)
        for name in ("near", "idle", "green"):
            made.load(name, 5)
        return made

    assert world(NEAREST).chosen(demand(value_per_second=1.0)) == "near"
    assert world(LEAST_OUTSTANDING).chosen() == "idle"
    assert world(CHEAPEST_ENERGY).chosen(demand(value_per_second=1.0)) == "green"


def test_round_robin_takes_turns() -> None:
    world = World([backend("a"), backend("b"), backend("c")], objective=ROUND_ROBIN)
    turns = []
    for _ in range(6):
        turns.append(world.chosen())
        with world.states[turns[-1]].lease(NOW):
            pass
    assert turns == ["a", "b", "c", "a", "b", "c"]


def test_a_misspelt_objective_is_refused() -> None:
    with pytest.raises(ValueError, match="cheepest"):
        Objective("cheepest")
