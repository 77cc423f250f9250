"""What makes a decision quick must not make it another one.

`decide` asks the constraints only where something may be wrong and prices only what may win; `explain` asks and prices
everything. Random trouble of every kind has to leave them of one opinion.
"""

import pickle
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.book import PriceBook
from pricing.transit import TransitPrice
from routing.backend import Backend, BackendState
from routing.decide import decide, explain
from routing.demand import Demand
from routing.estimate import BytesPerToken
from routing.health import Health, HealthLimits
from routing.occupancy import constant
from routing.policy import BASELINES, OBJECTIVES, Objective
from tests.routing.world import HOUR, NOW, World, backend, demand

COUNTRIES = ("NO", "DE", "CN")
KINDS = (*OBJECTIVES, *BASELINES)
HAPPENINGS = ("load", "elsewhere", "eject", "return", "busy", "slow", "bytes", "cut", "line", "shared", "timed")

Choice = TypeVar("Choice")


class Chance(Random):
    """Everything random about a case, from one seed: drawn one by one, its hundred parts would take seconds."""

    def often(self, usual: Choice, *others: Choice) -> Choice:
        """Mostly nothing is the matter."""
        return self.choice([usual, usual, *others])


def site(chance: Chance, number: int) -> Backend:
    return backend(
        f"b{number}",
        chance.choice(COUNTRIES),
        region=chance.often(f"region-{number}", "region-0"),
        slots=chance.often(10, 1),
        queue_max=chance.often(10, 0),
        itl_s=chance.often(0.02, 0.08),
        context_tokens=chance.often(131072, 1100),
        dialects=chance.often(("openai",), ("anthropic",), ("openai", "anthropic")),
        power_cap_w=chance.often(0.0, 120.0),
    )


def price(chance: Chance) -> float | list[tuple[float, float]]:
    prices: list[float | list[tuple[float, float]]] = [50.0, chance.uniform(-100, 300)]
    return chance.choice([*prices, [(0.0, 50.0), (1.0, chance.uniform(-100, 300))]])


def made(chance: Chance) -> World:
    sites = [site(chance, number) for number in range(chance.randint(1, 6))]
    names = [each.name for each in sites]
    return World(
        sites,
        {name: price(chance) for name in names},
        per_gb={name: chance.often(0.0, 0.2) for name in names},
        tokens={name: 0.4 for name in names if chance.often(False, True)},
        rtt_s={name: chance.often(0.05, 0.3) for name in names},
        transit={name: chance.often((), ("CN",)) for name in names},
        capacity_mbps={name: chance.often(0.0, 0.3) for name in names},
        power_caps_w=chance.often({}, {"region-0": 200.0}),
        objective=Objective(chance.choice(KINDS), 1e-5),
        ttft_slo_s=chance.often(None, 0.2),
        queue_slo_share=chance.choice([0.0, 1.0]),
        deny_origins=chance.often(frozenset(), frozenset({"CN"})),
    )


def disturb(chance: Chance, world: World, state: BackendState) -> None:
    """One thing that happens to a site in its life."""
    link = world.links[f"to-{state.name}"]
    match chance.choice(HAPPENINGS):
        case "load":
            world.load(state.name, chance.randint(1, 12))
        case "elsewhere":
            state.inflight_elsewhere, state.power_w_elsewhere = chance.randint(0, 12), 60.0
        case "eject":
            world.eject(state.name, NOW - 1, chance.choice(["status", "credentials"]))
        case "return":
            world.eject(state.name, NOW - 1)
            state.health.probe_ok(NOW - 1)
            state.health.probe_ok(NOW - 1)
        case "busy":
            state.health.saturated(NOW - 1, 3.0)
        case "slow":
            state.answered(chance.uniform(0, 3), 500, NOW - 1)
        case "bytes":
            state.bytes_out.observe(("openai", True), chance.randint(1, 9000), 10)
        case "cut":
            link.up = not link.up
        case "line":
            link.mbps_elsewhere = 0.25
        case "shared":
            for tenant in ("acme", "other", "third"):
                for _ in range(chance.randint(0, 6)):
                    state.lease(NOW, tenant=tenant)
            state.holdings.sweep(NOW)
        case "timed":
            state.succeeded(NOW, chance.uniform(0, 3))


def asked(chance: Chance) -> Demand:
    return demand(
        input_tokens=chance.often(1000, 1200),
        max_tokens=chance.often(None, 200),
        destination=chance.often("DE", ""),
        deny_origins=chance.often(frozenset(), frozenset({"DE"})),
        dialect=chance.often("openai", "anthropic"),
        stream=chance.often(True, False),
        value_per_second=chance.often(2e-5, 0.0),
    )


@given(st.integers(0, 2**32))
@settings(max_examples=150)
def test_whatever_is_wrong_decide_agrees_with_explain_which_asks_everything(seed: int) -> None:
    chance = Chance(seed)
    world = made(chance)
    for state in world.states.values():
        for _ in range(chance.randint(0, 3)):
            disturb(chance, world, state)
    at = chance.choice([0.0, HOUR, HOUR + 30.0, HOUR + 60.0])
    for now in (NOW, NOW + 2.0, NOW + 9.0, NOW + 31.0):
        arguments = (world.table, world.states, asked(chance), world.prices(at), now, at)
        tried = chance.often((), ("b0",), ("b1/to-b1",))
        slot_prices = chance.often(None, {}, {"b0": constant(1e-4)})
        links = chance.often(world.links, None)
        taken, told = (
            choose(*arguments, Random(seed), excluded=tried, slot_prices=slot_prices, links=links)
            for choose in (decide, explain)
        )
        assert told._replace(candidates=()) == taken
        for candidate in told.candidates:
            if world.table.rules[0].objective.kind in ("balanced", "value"):
                assert candidate.first == candidate.quote.total
        feasible = [candidate for candidate in told.candidates if not candidate.excluded]
        assert taken.route is not None or not feasible
        if taken.route is not None and not taken.special:
            assert taken.best == feasible[0]
            assert taken.runner_up == (feasible[1] if len(feasible) > 1 else None)


EVENTS = ("succeeded", "failed", "credentials", "saturated", "probe_ok", "probe_failed", "tried")


def undergo(health: Health, event: str, now: float) -> None:
    if event == "credentials":
        health.failed(now, "credentials")
    else:
        getattr(health, event)(now)


@given(
    st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 40)), max_size=25),
    st.floats(0, 400),
    st.sampled_from([0.0, 10.0]),
)
def test_past_clear_after_a_site_is_not_barred_and_has_its_full_weight(
    events: list[tuple[str, float]], later: float, slow_start_s: float
) -> None:
    health, now = Health(HealthLimits(eject_failures=2, slow_start_s=slow_start_s)), NOW
    for event, pause in events:
        now += pause
        undergo(health, event, now)
    for moment in (now, now + later, health.clear_after, health.clear_after + 1e-9):
        if moment > health.clear_after:
            assert health.available(moment)
            assert health.weight(moment) == 1.0


def test_a_site_is_clear_again_once_its_slow_start_is_over() -> None:
    health = Health()
    assert health.clear_after < NOW
    health.failed(NOW, "credentials")
    assert health.clear_after == float("inf")
    health.probe_ok(NOW + 5)
    health.probe_ok(NOW + 10)
    assert health.clear_after == NOW + 20
    health.saturated(NOW + 11, 60.0)
    assert health.clear_after == NOW + 71


def test_prices_are_those_of_the_slice_asked_with_and_of_no_other() -> None:
    power = {"a": [(0.0, 40.0), (1.0, 90.0), (2.0, 40.0)], "b": [(0.0, 60.0), (1.0, 60.0), (2.0, 60.0)]}
    world = World([backend("a"), backend("b")], power)
    dear = TransitPrice("to-a", "per_gb", "USD", price_per_gb=5.0)
    old = world.book
    other = PriceBook(
        old.currency,
        regions=old.regions,
        sources=old.sources,
        transit={**old.transit, "to-a": dear},
        curves=old.curves,
    )
    slices = [old.at(0.0), old.at(HOUR), other.at(0.0), old.at(2 * HOUR), other.at(HOUR), old.at(0.0)]
    names = []
    for prices in slices * 2:
        taken = decide(world.table, world.states, demand(), prices, NOW, -1.0, Random(1))
        assert taken.route is not None and taken.best is not None
        names.append(taken.route.backend.name)
        rates = prices.rates(taken.route.backend.name, taken.route.link.name)
        assert taken.best.quote.link == pytest.approx(rates.per_byte * (4000 + 350 * 200))
    assert names == ["a", "b", "b", "a", "b", "a"] * 2


def test_deciding_leaves_a_table_as_it_was() -> None:
    world, again = World([backend("a"), backend("b")]), World([backend("a"), backend("b")])
    before = repr(world.table)
    world.decide()
    assert world.table == again.table
    assert repr(world.table) == before


def test_a_ratio_is_forgotten_with_its_key() -> None:
    ratios = BytesPerToken(keys_max=2)
    for number in range(100):
        ratios.observe(number, 10, 2)
    assert [ratios.predict(key, 1.0) for key in (97, 98, 99)] == [1.0, 5.0, 5.0]
    assert len(pickle.dumps(ratios)) < 1000
