"""Plans, the correction between them, and what both are made from."""

import pytest

from routing.forecast import HOUR_S, Forecast, KindKey, Sums, Tally
from routing.plan import LOADS, Duals, Expected, Kind, Problem, Surroundings, Way, plan, pose
from routing.shadow import LinePrice, ShadowPrices
from tests.routing.world import EDGE, HOUR, World, backend, demand

REFUSAL = 1e-3


def two_sites(rate_per_s: float, slots: float = 50.0) -> Problem:
    """A cheap site with few slots, a dear one with many; a request holds a slot for 10 s: 5 a second fill the first."""
    ways = (Way(0, -1, 1e-5, 10.0, 0.01), Way(1, -1, 3e-5, 10.0, 0.01))
    return Problem(("cheap", "dear"), (slots, 1000.0), (), (), (Kind(rate_per_s, 0.0, ways),), REFUSAL)


def followed(problem: Problem, times: int = 10) -> ShadowPrices:
    prices = ShadowPrices()
    for _ in range(times):
        prices.follow(problem)
    return prices


def test_a_plan_is_solved_at_every_load():
    asked: list[float] = []

    def solve(problem: Problem) -> Duals:
        asked.append(problem.kinds[0].rate_per_s)
        return Duals((len(asked) * 1.0, 0.0), ())

    planned = plan(two_sites(2.0), solve)
    assert asked == [pytest.approx(2.0 * load) for load in LOADS]
    assert planned is not None
    assert [each.slots[0] for each in planned] == [1.0, 2.0, 3.0]


def test_a_plan_of_which_a_part_cannot_be_solved_is_none():
    assert plan(two_sites(2.0), lambda problem: None) is None


def test_a_slot_costs_nothing_where_there_is_room_for_all():
    prices = followed(two_sites(2.0))
    assert prices.by_site["cheap"].at(20) == 0.0
    assert prices.by_site["dear"].at(500) == 0.0


def test_where_more_is_wanted_than_there_is_room_a_slot_costs_what_it_saves():
    """Whoever gets no cheap slot pays 2e-5 more for 10 seconds of another."""
    prices = followed(two_sites(8.0))
    assert prices.planned(two_sites(8.0)).slots[0] == pytest.approx(2e-6, rel=0.15)
    assert 0.0 < prices.by_site["cheap"].at(25) < prices.by_site["cheap"].at(49) < 2.3e-6
    assert prices.by_site["cheap"].at(49) > 1e-6
    assert prices.planned(two_sites(8.0)).slots[1] == 0.0


def test_prices_fall_again_when_less_is_wanted():
    prices = followed(two_sites(8.0))
    for _ in range(10):
        prices.follow(two_sites(2.0))
    assert prices.by_site["cheap"].at(20) == 0.0


def test_a_plan_is_where_the_correction_begins():
    prices, problem = ShadowPrices(), two_sites(8.0)
    prices.anchor(problem, [Duals((2e-6, 0.0), ())] * len(LOADS))
    assert prices.planned(problem).slots == (pytest.approx(2e-6), 0.0)


def test_a_full_line_costs_what_it_saves_for_each_byte_and_only_as_it_fills():
    """Over the free line or over one that takes 1e-5 a request more, of 1 Mbit; it has room for 30 a second of 60."""
    ways = (Way(0, 0, 1e-5, 10.0, 1.0), Way(0, -1, 2e-5, 10.0, 1.0))
    problem = Problem(("site",), (2000.0,), ("line",), (30.0,), (Kind(60.0, 0.0, ways),), REFUSAL)
    prices = followed(problem)
    assert prices.by_line["line"].at(1.0) == pytest.approx(1e-5 * 8e-6, rel=0.15)
    assert prices.by_line["line"].at(0.2) < 0.5 * prices.by_line["line"].at(1.0)


def test_room_that_a_kind_cannot_do_without_has_a_price_though_there_is_no_other():
    problem = Problem(("only",), (50.0,), (), (), (Kind(8.0, 0.0, (Way(0, -1, 1e-5, 10.0, 0.0),)),), REFUSAL)
    assert followed(problem, 30).by_site["only"].at(49) > 0.0


def test_a_line_price_is_read_by_share_of_its_capacity():
    price = LinePrice((0.0, 1.0, 2.0, 3.0))
    assert [price.at(share) for share in (-0.1, 0.0, 0.3, 0.99, 1.0, 1.7)] == [0.0, 0.0, 1.0, 3.0, 3.0, 3.0]


# What problems are made of


def wanted(rate_per_s: float = 4.0) -> Expected:
    return Expected(EDGE, demand(input_tokens=1000, output_tokens=200.0), rate_per_s)


def test_a_problem_has_the_ways_that_decisions_have():
    world = World([backend("a", slots=40), backend("b", slots=20)])
    problem = pose([wanted()], world.prices(HOUR), Surroundings({EDGE: world.table}))
    assert dict(zip(problem.sites, problem.slots, strict=True)) == {"a": 40.0, "b": 20.0}
    assert {problem.sites[way.site] for way in problem.kinds[0].ways} == {"a", "b"}
    assert problem.refusal == pytest.approx(10 * max(way.cost for way in problem.kinds[0].ways))


def test_what_is_out_is_no_way():
    world = World([backend("a"), backend("b")])
    problem = pose([wanted()], world.prices(HOUR), Surroundings({EDGE: world.table}, out={"a"}))
    assert [problem.sites[way.site] for way in problem.kinds[0].ways] == ["b"]


def test_a_power_cap_bounds_the_slots():
    """A slot in use draws some hundred watts at most here, so a cap of one lets one be used."""
    world = World([backend("a", slots=40, power_cap_w=1.0), backend("b", slots=40)])
    free = World([backend("a", slots=40), backend("b", slots=40)])
    capped, uncapped = (pose([wanted()], each.prices(HOUR), Surroundings({EDGE: each.table})) for each in (world, free))
    assert (capped.slots[0], uncapped.slots[0]) == (1.0, 40.0)
    assert capped.slots[1] == 40.0


# Forecasts


KEY = KindKey("eu", "m", "DE", frozenset(), 1e-5)


def arrivals(forecast: Forecast, from_s: float, to_s: float, per_hour: float, key: KindKey = KEY) -> None:
    step = HOUR_S / per_hour
    at = from_s
    while at < to_s:
        forecast.observe(key, Sums(1.0, 100.0, 50.0, 900.0), at)
        at += step


def rate(expected: list[Expected]) -> float:
    return sum(each.rate_per_s for each in expected) * HOUR_S


def test_nothing_is_expected_before_anything_came():
    assert Forecast().expected(0.0) == []


def test_before_there_is_history_the_recent_rate_stands_for_all_hours():
    forecast = Forecast()
    arrivals(forecast, 0.0, 2 * HOUR_S, 120.0)
    assert rate(forecast.expected(2 * HOUR_S)) == pytest.approx(120.0, rel=0.05)
    assert rate(forecast.at_hour(9 * HOUR_S, 2 * HOUR_S)) == pytest.approx(120.0, rel=0.05)


def test_an_hour_is_expected_to_differ_from_this_one_as_it_did_yesterday():
    forecast = Forecast()
    for hour in range(24):
        arrivals(forecast, hour * HOUR_S, (hour + 1) * HOUR_S, 120.0 if hour < 12 else 240.0)
    now = 34 * HOUR_S
    arrivals(forecast, 24 * HOUR_S, now, 60.0)
    assert rate(forecast.at_hour(34.5 * HOUR_S, now)) == pytest.approx(60.0, rel=0.15)
    assert rate(forecast.at_hour(38.5 * HOUR_S, now)) == pytest.approx(120.0, rel=0.15)


def test_kinds_keep_apart_what_decides_where_requests_may_go():
    tally = Tally()
    tally.add("eu", demand(destination="DE"))
    tally.add("eu", demand(destination="DE"))
    tally.add("eu", demand(destination="DE", deny_origins=frozenset({"CN"})))
    taken = tally.take()
    assert sorted(sums.requests for sums in taken.values()) == [1.0, 2.0]
    assert tally.take() == {}


def test_a_tally_is_bounded_however_many_kinds_there_are():
    tally = Tally()
    for number in range(1000):
        tally.add("eu", demand(value_per_second=number * 1e-6))
    assert len(tally.take()) <= 256
