"""Health of sites: how one goes, how it comes back, and that it gets nothing in between."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.health import CREDENTIALS, Health, HealthLimits
from tests.routing.world import NOW, World, backend, demand


def ejected(now: float = 0.0, cause: str = "status") -> Health:
    health = Health()
    while health.ejected_at is None:
        health.failed(now, cause)
    return health


def test_five_failures_in_a_row_eject_and_four_do_not() -> None:
    health = Health()
    for now in (0.0, 100.0, 200.0, 300.0):
        health.failed(now)
    assert health.available(300.0)
    health.failed(400.0)
    assert not health.available(400.0)


def test_a_success_ends_the_row() -> None:
    health = Health()
    for now in range(0, 400, 20):
        health.failed(now)
        if now % 80 == 60:
            health.succeeded(now)
    assert health.available(400.0)


def outcomes(failures: int, successes: int, spacing_s: float) -> Health:
    """Failures and successes evenly mixed, a failure last."""
    health, total = Health(), failures + successes
    for number in range(total):
        if (number + 1) * failures // total > number * failures // total:
            health.failed(number * spacing_s)
        else:
            health.succeeded(number * spacing_s)
    return health


def test_more_than_half_of_twenty_in_ten_seconds_eject() -> None:
    assert outcomes(12, 8, 0.1).ejected_at is not None
    assert outcomes(10, 10, 0.1).ejected_at is None


def test_fewer_than_twenty_outcomes_say_nothing_about_a_share() -> None:
    assert outcomes(12, 3, 0.1).ejected_at is None


def test_outcomes_of_more_than_ten_seconds_ago_do_not_count() -> None:
    assert outcomes(12, 8, 1.0).ejected_at is None


def test_refused_credentials_eject_at_once() -> None:
    health = Health()
    health.failed(5.0, CREDENTIALS)
    assert not health.available(5.0)


def test_probes_are_due_every_five_seconds_while_ejected_only() -> None:
    health = ejected(100.0)
    assert not health.probe_due(104.9)
    assert health.probe_due(105.0)
    health.probe_failed(105.3)
    assert not health.probe_due(110.0)
    assert health.probe_due(110.3)
    assert not Health().probe_due(1000.0)


def test_two_good_probes_in_a_row_end_an_ejection() -> None:
    health = ejected(0.0)
    health.probe_ok(5.0)
    health.probe_failed(10.0)
    health.probe_ok(15.0)
    assert not health.available(15.0)
    health.probe_ok(20.0)
    assert health.available(20.0)


def test_failing_probes_keep_a_site_out_however_long_it_takes() -> None:
    health = ejected(0.0)
    for now in range(5, 1000, 5):
        health.probe_failed(now)
        assert not health.available(now + 4.9)


def test_a_failing_probe_never_ejects() -> None:
    health = Health()
    for now in range(100):
        health.probe_failed(now)
    assert health.available(100.0)


def test_a_site_nobody_probes_returns_after_thirty_seconds_times_its_ejections() -> None:
    health, now = Health(), 0.0
    for number in range(1, 13):
        while health.ejected_at is None or health.available(now):
            health.failed(now)
        hold_s = min(30.0 * number, 300.0)
        assert not health.available(now + hold_s - 0.1)
        assert health.available(now + hold_s)
        now += hold_s


def test_half_open_lets_one_request_try() -> None:
    health = ejected(0.0)
    assert health.available(30.0)
    health.tried(30.0)
    assert not health.available(30.1)
    health.succeeded(31.0)
    assert health.available(31.0)
    assert health.ejected_at is None


def test_a_trial_that_tells_nothing_makes_room_for_another() -> None:
    health = ejected(0.0)
    health.tried(30.0)  # its client left
    assert not health.available(59.0)
    assert health.available(60.0)


def test_one_failure_of_a_half_open_site_ejects_it_again() -> None:
    health = ejected(0.0)
    health.tried(30.0)
    health.failed(30.5)
    assert not health.available(90.4)
    assert health.available(90.5)


def test_ejections_are_forgotten_after_five_good_minutes() -> None:
    health = ejected(0.0)
    health.succeeded(30.0)
    health.failed(400.0, CREDENTIALS)
    assert health.ejections == 1
    health.succeeded(430.0)
    health.failed(500.0, CREDENTIALS)
    assert health.ejections == 2


def test_streams_older_than_the_ejection_do_not_end_it() -> None:
    health = ejected(0.0)
    health.succeeded(1.0)
    assert not health.available(1.0)


def test_a_returned_site_gets_its_share_slowly() -> None:
    health = ejected(0.0)
    assert Health().weight(0.0) == 1.0
    health.probe_ok(5.0)
    health.probe_ok(10.0)
    assert health.weight(10.0) == pytest.approx(0.1)
    assert health.weight(15.0) == pytest.approx(0.55)
    assert health.weight(20.0) == 1.0


def test_saturation_cools_off_without_blame() -> None:
    health = Health()
    for _ in range(20):
        health.saturated(0.0, 7.0)
    assert health.ejected_at is None
    assert not health.available(6.9)
    assert health.available(7.0)
    health.saturated(10.0)
    assert not health.available(10.9)
    assert health.available(11.0)


def test_a_busy_site_cannot_ask_for_a_day_off() -> None:
    health = Health()
    health.saturated(0.0, 86_400.0)
    assert health.available(300.0)


def test_limits_are_settings() -> None:
    health = Health(HealthLimits(eject_failures=2, eject_s=3.0))
    health.failed(0.0)
    health.failed(0.0)
    assert not health.available(2.9)
    assert health.available(3.0)


def test_reading_health_changes_nothing() -> None:
    health = ejected(0.0)
    for now in (500.0, 30.0, 1.0):
        health.available(now)
        health.weight(now)
        health.probe_due(now)
    assert not health.available(29.0)


@given(
    st.lists(st.tuples(st.floats(1, 200), st.booleans(), st.integers(0, 20)), min_size=1, max_size=6),
    st.integers(0, 50),
)
@settings(max_examples=80)
def test_an_ejected_site_is_never_chosen_while_another_can_serve(
    sites: list[tuple[float, bool, int]], seed: int
) -> None:
    names = [f"b{i}" for i in range(len(sites))]
    world = World([backend(name) for name in names], {n: s[0] for n, s in zip(names, sites, strict=True)})
    for name, (_, out, load) in zip(names, sites, strict=True):
        world.load(name, load)
        if out:
            world.eject(name)
    can_serve = [n for n, (_, out, load) in zip(names, sites, strict=True) if not out and load < 20]
    chosen = world.chosen(rng=Random(seed))
    if can_serve:
        assert chosen in can_serve
    elif any(load < 20 for _, _, load in sites):
        assert chosen in names  # the last site stays
    else:
        assert chosen in ("saturated", "unavailable")


def test_when_all_are_out_the_one_ejected_longest_ago_serves() -> None:
    world = World([backend("a"), backend("b"), backend("c")], {"a": 1.0, "b": 2.0, "c": 3.0})
    world.eject("b", NOW - 9)
    world.eject("a", NOW - 5)
    world.eject("c", NOW - 1)
    decision = world.decide()
    assert decision.route is not None and decision.route.backend.name == "b"
    assert decision.special == "last_site"
    assert world.chosen(excluded={"b"}) == "a"


def test_the_last_site_never_serves_when_it_refuses_our_credentials() -> None:
    world = World([backend("a"), backend("b")])
    world.eject("a", NOW - 9, CREDENTIALS)
    world.eject("b", NOW - 1)
    assert world.chosen() == "b"
    world.states["b"].health.failed(NOW, CREDENTIALS)
    assert world.chosen() == "unavailable"


def test_the_last_site_keeps_to_its_other_limits() -> None:
    world = World([backend("a", "CN"), backend("b")])
    world.eject("a")
    world.eject("b")
    world.load("b", 20)
    assert world.chosen(demand(deny_origins=frozenset({"CN"}))) == "unavailable"
    world.states["b"].inflight -= 1
    assert world.chosen(demand(deny_origins=frozenset({"CN"}))) == "b"


def test_a_cooling_site_gets_nothing_and_is_called_busy() -> None:
    world = World([backend("a"), backend("b")], {"a": 1.0, "b": 99.0})
    world.states["a"].health.saturated(NOW, 5.0)
    assert world.chosen() == "b"
    world.states["b"].health.saturated(NOW, 5.0)
    assert world.chosen() == "saturated"
    assert world.chosen(now=NOW + 5.0) == "a"


def test_slow_start_gives_a_returned_site_a_growing_share() -> None:
    world, rng = World([backend("a"), backend("b")], {"a": 1.0, "b": 99.0}), Random(5)
    world.eject("a", NOW)
    world.states["a"].health.probe_ok(NOW)
    world.states["a"].health.probe_ok(NOW)
    for age_s, share in ((0.0, 0.1), (5.0, 0.55), (10.0, 1.0)):
        taken = [world.chosen(now=NOW + age_s, rng=rng) for _ in range(400)].count("a")
        assert taken / 400 == pytest.approx(share, abs=0.08)


def test_slow_start_is_no_reason_to_refuse() -> None:
    world, rng = World([backend("a")]), Random(5)
    world.eject("a", NOW)
    world.states["a"].health.probe_ok(NOW)
    world.states["a"].health.probe_ok(NOW)
    assert {world.chosen(rng=rng) for _ in range(50)} == {"a"}


def test_a_leased_trial_keeps_others_from_a_half_open_site() -> None:
    world = World([backend("a"), backend("b")], {"a": 1.0, "b": 99.0})
    world.eject("a", NOW)
    back = NOW + 30.0
    assert world.chosen(now=back) == "a"
    world.decide(now=back).lease(world.states, back)
    assert world.chosen(now=back) == "b"
    world.states["a"].succeeded(back + 1.0, 1.0)
    assert world.states["a"].health.available(back + 1.0)


def test_more_failures_than_retries_can_hide_take_the_share_away_and_it_grows_back() -> None:
    health = outcomes(8, 12, 0.1)
    assert health.ejected_at is None
    failed_at = 1.9
    assert health.weight(failed_at) == 0.0
    assert 0.0 < health.weight(failed_at + 5.0) < 0.1
    assert health.weight(failed_at + 10.0) == pytest.approx((10 / 15) ** 3)
    assert health.weight(failed_at + 15.1) == 1.0


def test_a_few_failures_among_many_answers_are_no_reason_to_doubt() -> None:
    assert outcomes(3, 17, 0.1).weight(1.9) == 1.0
    assert outcomes(2, 3, 0.1).weight(0.4) == 1.0


def test_while_a_site_is_doubted_one_failure_doubts_it_again() -> None:
    health = outcomes(8, 12, 0.1)
    health.failed(14.0)
    assert health.weight(14.0) == 0.0
    health.failed(40.0)
    assert health.weight(40.0) == 1.0


def test_a_site_that_fails_whole_is_ejected_at_its_fifth_failure_and_not_spared_by_doubt() -> None:
    health = Health()
    for number in range(4):
        health.failed(float(number))
        assert health.weight(float(number)) == 1.0
    health.failed(4.0)
    assert health.barred(4.0) == "ejected"
