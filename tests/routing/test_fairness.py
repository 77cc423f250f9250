"""Fair shares in virtual time: one tenant's flood is not everybody's wait."""

from random import Random
from statistics import mean

import pytest

from routing.backend import Lease
from routing.constraint import FAIR_SHARE, SATURATED
from routing.fairness import spread
from routing.policy import Objective
from tests.routing.crowd import Ask, Crowd, Fate, steady
from tests.routing.world import NOW, World, backend, demand

RISE_S_MAX = 0.04  # of the quiet tenant's 95th percentile


def flood(
    *,
    fair: bool = True,
    loud: bool = True,
    slots: int = 50,
    quiet_per_s: float = 20.0,
    service_s: float = 1.0,
    requests: int = 2000,
) -> dict[str, Fate]:
    """Many requests of a quiet tenant, while a third one holds 80 % of the slots and a loud one sends 20 times what an
    equal part of them could serve."""
    until_s, rng = requests / quiet_per_s, Random(1)
    asks = list(steady("quiet", quiet_per_s, 0.2, until_s, rng))
    asks += [Ask(0.0, "patient", 1e6) for _ in range(slots * 8 // 10)]
    if loud:
        asks += steady("loud", 20 * slots / 3 / service_s, service_s, until_s, rng, start_s=10.0)
    return Crowd(World([backend("a", slots=slots, queue_max=slots)]), fair=fair).run(asks, until_s)


@pytest.mark.parametrize(
    "case",
    [
        {"service_s": 0.2, "requests": 600},
        {"service_s": 1.0},
        {"service_s": 5.0},
        {"slots": 20, "quiet_per_s": 5.0, "requests": 500},
    ],
    ids=str,
)
def test_a_quiet_tenant_hardly_notices_a_loud_one(case: dict[str, int]) -> None:
    before = flood(loud=False, **case)["quiet"]
    during = flood(**case)
    quiet, loud = during["quiet"], during["loud"]
    assert quiet.percentile(0.95) - before.percentile(0.95) <= RISE_S_MAX
    assert len(quiet.refused) <= 0.015 * len(quiet.ttft_s)
    assert loud.ttft_s and {reason for _, reason in loud.refused} == {FAIR_SHARE}


def test_without_fair_shares_it_notices() -> None:
    before, during = flood(fair=False, loud=False, requests=600)["quiet"], flood(fair=False, requests=600)["quiet"]
    assert during.percentile(0.95) - before.percentile(0.95) > RISE_S_MAX
    assert {reason for _, reason in during.refused} == {SATURATED}


def test_a_tenant_that_is_alone_has_slots_and_queue() -> None:
    crowd = Crowd(World([backend("a", slots=10, queue_max=10)]))
    fates = crowd.run(steady("alone", 100.0, 1.0, 20.0, Random(1)), 20.0)
    assert {reason for _, reason in fates["alone"].refused} == {SATURATED}
    assert max(held["alone"] for held in crowd.held) == 20


def test_slots_that_nobody_else_needs_are_lent() -> None:
    """The loud one may have all but what the quiet one usually holds."""
    crowd = Crowd(World([backend("a", slots=50, queue_max=50)]))
    rng = Random(1)
    crowd.run([*steady("quiet", 10.0, 0.2, 60.0, rng), *steady("loud", 150.0, 1.0, 60.0, rng)], 60.0)
    assert mean(held["loud"] for held in crowd.held[80:]) > 42


def test_tenants_that_want_more_than_there_is_get_equal_parts_of_what_the_smaller_ones_leave() -> None:
    crowd = Crowd(World([backend("a", slots=60, queue_max=60)]))
    rng = Random(3)
    asks = [*steady("small", 10.0, 1.0, 120.0, rng), *steady("one", 80.0, 1.0, 120.0, rng)]
    asks += steady("other", 200.0, 1.0, 120.0, rng, start_s=20.0)
    fates = crowd.run(asks, 120.0)
    settled = crowd.held[240:]
    held = {tenant: mean(each[tenant] for each in settled) for tenant in ("small", "one", "other")}
    assert held["small"] == pytest.approx(10, rel=0.15)
    assert held["one"] == pytest.approx(held["other"], rel=0.15)
    assert sum(held.values()) > 0.85 * 60
    assert len(fates["small"].refused) < 0.02 * len(fates["small"].ttft_s)


def test_shares_come_to_rest() -> None:
    """Two equal tenants stay equal: neither is far from its part for as long as the memory of needs."""
    crowd = Crowd(World([backend("a", slots=40, queue_max=40)]))
    rng = Random(4)
    crowd.run([*steady("one", 100.0, 2.0, 120.0, rng), *steady("other", 100.0, 2.0, 120.0, rng)], 120.0)
    parts = [each["one"] / max(each["one"] + each["other"], 1) for each in crowd.held[160:]]
    spans = [mean(parts[start : start + 40]) for start in range(0, len(parts) - 40, 40)]
    assert all(0.4 < part < 0.6 for part in spans), spans


def test_who_holds_more_than_its_share_gets_no_more_until_the_newcomer_has_its_own() -> None:
    crowd = Crowd(World([backend("a", slots=40, queue_max=40)]))
    rng = Random(5)
    asks = [*steady("first", 200.0, 4.0, 90.0, rng), *steady("second", 20.0, 1.0, 90.0, rng, start_s=30.0)]
    fates = crowd.run(asks, 90.0)
    assert mean(each["second"] for each in crowd.held[200:]) > 15  # of the 20 that it asks for
    assert fates["second"].percentile(0.5, since_s=50.0) < 0.5


def test_many_tenants_that_seldom_ask_do_not_keep_a_backend_empty() -> None:
    crowd = Crowd(World([backend("a", slots=50, queue_max=50)]))
    rng = Random(6)
    asks = [ask for number in range(200) for ask in steady(f"t{number}", 0.05, 1.0, 90.0, rng)]
    fates = crowd.run([*asks, *steady("loud", 100.0, 1.0, 90.0, rng)], 90.0)
    # Together the small ones hold ten, and sixteen or seventeen are theirs.
    assert mean(each["loud"] for each in crowd.held[160:]) > 28
    assert not any(fate.refused for tenant, fate in fates.items() if tenant != "loud")


def test_a_tenant_beyond_its_share_is_slow_and_not_shut_out() -> None:
    """A patient one holds all slots but one, a quiet one comes and goes in it; the loud one still gets a turn."""
    rng = Random(7)
    asks = [Ask(0.0, "patient", 1e6) for _ in range(9)] + list(steady("quiet", 2.0, 0.2, 300.0, rng))
    asks += steady("loud", 50.0, 0.5, 300.0, rng, start_s=10.0)
    fates = Crowd(World([backend("a", slots=10, queue_max=10)])).run(asks, 300.0)
    served = sorted(at for at, _ in fates["loud"].ttft_s)
    assert max(later - at for at, later in zip(served, [*served[1:], 300.0], strict=True)) < 63


def test_a_backend_closed_to_one_tenant_leaves_it_the_others() -> None:
    sites = [backend("cheap", slots=20, queue_max=20), backend("dear", slots=20, queue_max=20)]
    crowd = Crowd(World(sites, {"cheap": 10.0, "dear": 90.0}, objective=Objective("cheapest")))
    rng = Random(8)
    fates = crowd.run(
        [*steady("quiet", 20.0, 0.2, 60.0, rng), *steady("loud", 20.0, 1.0, 60.0, rng, start_s=10.0)], 60.0
    )
    assert fates["quiet"].sites["cheap"] >= 0.995 * len(fates["quiet"].ttft_s)
    assert fates["quiet"].percentile(0.95) <= 0.2 + RISE_S_MAX
    assert min(fates["loud"].sites.values()) > 200
    assert not fates["loud"].refused


def test_what_is_forgotten_is_free_again() -> None:
    world = World([backend("a", slots=4, queue_max=0)])
    state = world.states["a"]
    for tenant in ("acme", "other"):
        state.lease(NOW, tenant=tenant).release()
    taken = [state.lease(NOW, tenant="acme") for _ in range(3)]
    for second in range(30):
        state.holdings.sweep(NOW + second)
    assert world.chosen(demand(tenant="acme"), NOW + 30) == "fair_share"
    assert world.chosen(demand(tenant="other"), NOW + 30) == "a"
    state.holdings.sweep(NOW + 61)
    assert world.chosen(demand(tenant="acme"), NOW + 61) == "a"
    assert [tenant for tenant, _ in state.holdings] == ["acme"]
    assert [lease.release() for lease in taken] and state.inflight == 0


def test_leases_without_a_tenant_count_against_nobody() -> None:
    world = World([backend("a", slots=4, queue_max=4)])
    world.load("a", 7)
    world.states["a"].holdings.sweep(NOW)
    assert list(world.states["a"].holdings) == []
    assert world.chosen() == "a"


def beyond_its_share(refused: int) -> World:
    """Four slots: three are held by a tenant that was refused so often, one by another within its share."""
    world = World([backend("a", slots=4, queue_max=4)])
    state = world.states["a"]
    for tenant in ("acme", "acme", "acme", "other"):
        state.lease(NOW, tenant=tenant)
    state.holdings.sweep(NOW)
    for _ in range(refused):
        state.holdings.refuse("acme")
    state.holdings.sweep(NOW + 0.25)
    return world


def swept(world: World, until_s: float) -> World:
    """So much time passes, a second at a time."""
    for second in range(1, int(until_s) + 1):
        world.states["a"].holdings.sweep(NOW + second)
    return world


def test_one_that_got_nothing_for_a_minute_is_let_in_once() -> None:
    world = beyond_its_share(refused=3)
    state = world.states["a"]
    for _, holding in list(state.holdings)[:1]:
        holding.held = 0
    state.inflight = 4
    turns: list[Lease] = []
    for second in range(1, 200):
        state.holdings.sweep(NOW + second)
        for lease in turns:
            lease.release()
        for _ in range(5):
            if world.chosen(demand(tenant="acme"), NOW + second) == "a":
                turns.append(state.lease(NOW + second, tenant="acme"))
            else:
                state.holdings.refuse("acme")
    assert 3 <= len(turns) <= 5


def test_a_flood_is_forgotten_soon_after_its_end() -> None:
    """However great it was: more than all there is means nothing more."""
    few, many = beyond_its_share(refused=12), beyond_its_share(refused=100_000)
    for world in (few, many):
        next(iter(world.states["a"].holdings))[1].held = 0
        swept(world, 20)
        assert next(iter(world.states["a"].holdings))[1].need < 1


def test_what_was_refused_long_ago_makes_no_need() -> None:
    world = swept(beyond_its_share(refused=3), 5)
    acme = next(iter(world.states["a"].holdings))[1]
    assert acme.need > 4 * 0.9
    for second in range(6, 60):
        world.states["a"].lease(NOW + second, tenant="acme").release()
        world.states["a"].holdings.sweep(NOW + second)
    assert acme.need == pytest.approx(3, rel=0.05)


def test_requests_in_other_workers_are_where_the_tenant_is_or_where_the_load_is() -> None:
    world = World([backend("a"), backend("b"), backend("c")])
    holdings = {name: state.holdings for name, state in world.states.items()}
    for name in ("a", "a", "a", "b"):
        world.states[name].lease(NOW, tenant="acme")
    parts = spread(holdings, {"a": 0, "b": 10, "c": 30}, {"acme": 8, "stranger": 4})
    assert parts == {"a": {"acme": 6.0}, "b": {"acme": 2.0, "stranger": 1.0}, "c": {"stranger": 3.0}}
    assert spread(holdings, {"a": 0, "b": 0, "c": 0}, {"stranger": 4}) == {"a": {}, "b": {}, "c": {}}


def test_a_quiet_tenant_of_another_worker_is_made_room_for() -> None:
    world = World([backend("a", slots=10, queue_max=10)])
    state = world.states["a"]
    for _ in range(8):
        state.lease(NOW, tenant="loud")
    for second in range(30):
        state.holdings.sweep(NOW + second, {"quiet": 1.0})
        state.holdings.refuse("loud")
        state.holdings.refuse("loud")
    state.inflight_elsewhere = 1
    assert world.chosen(demand(tenant="loud"), NOW + 30) == "fair_share"
    assert world.chosen(demand(tenant="quiet"), NOW + 30) == "a"
