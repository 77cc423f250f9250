"""Nothing a router could not know changes a decision.

The smoke requests are replayed in a troubled world; a moment is drawn, everything that is not known by then is
changed, and the decisions up to it must be the same: every later row, the output length of every row that has not
ended, every price that is not published, every outage that is not detected and every end that is not. What is known
when is worked out here from the rules and from what the first replay saw, not by the code under test.
"""

from dataclasses import replace
from functools import cache
from itertools import takewhile
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.simulator.costs import Placed, Violations, place, stops
from routing.simulator.policies import POLICIES
from routing.simulator.replay import replay
from routing.simulator.world import FEED_DEAD, Assignment, Fault, Market, Request, World, ZonePrices
from tests.simulator.stage import decided, inputs, last_of, troubled, world

HOUR_S = 3600


@cache
def first_world() -> World:
    return world("smoke", troubled)


@cache
def first_decisions(policy: str) -> list[Assignment]:
    return decided(first_world(), POLICIES[policy])


@cache
def first_rows(policy: str) -> list[Placed]:
    return list(place(first_world(), inputs("smoke").requests, last_of(first_decisions(policy)).values(), Violations()))


def published_s(place: World, market: Market, utc_hour: int) -> float:
    """When the price of an hour becomes known, in seconds after the start."""
    publication, start = place.publication, place.scenario.start
    if market.publish == "day_ahead":
        at_s = (utc_hour // 24 - 1) * 24 * HOUR_S + publication.day_ahead_utc_hour * HOUR_S - start
    else:
        at_s = utc_hour * HOUR_S + publication.real_time_lag_s - start
    for fault in sorted(place.faults, key=lambda fault: fault.from_s):
        if fault.kind == FEED_DEAD and fault.target in (market.zone, "*") and fault.in_force(at_s):
            at_s = fault.to_s
    return at_s


def known_s(place: World, fault: Fault, decisions: list[Assignment]) -> float:
    """When the router learns of a fault: monitoring, or the first row that was sent into it and came back."""
    if fault.kind == FEED_DEAD:
        return fault.from_s
    known = fault.from_s + place.publication.fault_detect_s
    for decision in decisions:
        assert decision.sent_s is not None
        if decision.link and fault.in_force(decision.sent_s) and stops(fault, place.links[decision.link]):
            known = min(known, round(decision.sent_s + place.publication.fault_fail_s, 6))
    return known


def end_known_s(place: World, fault: Fault) -> float:
    return fault.to_s + (0.0 if fault.kind == FEED_DEAD else place.publication.fault_detect_s)


def other_prices(place: World, t: float, rng: Random) -> dict[str, ZonePrices]:
    changed = dict(inputs("smoke").prices)
    for site in place.sites.values():
        if isinstance(site.supply, Market):
            zone = changed[site.supply.zone]
            hours = range(zone.first_utc_hour, zone.end_utc_hour)
            per_mwh = tuple(
                zone.at(hour) if published_s(place, site.supply, hour) <= t else rng.uniform(-100.0, 2000.0)
                for hour in hours
            )
            changed[site.supply.zone] = ZonePrices(zone.first_utc_hour, per_mwh)
    return changed


def other_faults(place: World, decisions: list[Assignment], t: float, rng: Random) -> tuple[Fault, ...]:
    faults = []
    for fault in place.faults:
        if known_s(place, fault, decisions) > t:
            if rng.random() < 0.5:
                start_s = t + rng.uniform(1.0, 3000.0)
                faults.append(replace(fault, from_s=start_s, to_s=start_s + rng.uniform(0.0, 3000.0)))
        elif end_known_s(place, fault) > t:
            faults.append(replace(fault, to_s=t + rng.uniform(1.0, 5000.0)))
        else:
            faults.append(fault)
    return tuple(faults)


def other_lengths(place: World, rows: list[Placed], t: float, rng: Random) -> list[Request]:
    """Rows that have not ended at t get another length, one with which they have not either."""
    unfinished = {row.request.request_id: row for row in rows if row.served.end_s > t}
    changed = []
    for request in inputs("smoke").requests:
        if request.request_id in unfinished and request.arrival_s <= t:
            row = unfinished[request.request_id]
            ran_s = max(t - row.served.start_s, 0.0) / place.scenario.thin
            least = (ran_s - request.prompt_tokens / row.site.prefill_tokens_per_s) / row.site.itl_s
            changed.append(request._replace(output_tokens=max(int(least) + 1, 1) + rng.randint(0, 600)))
        else:
            changed.append(request)
    return changed


def other_rows_after(place: World, requests: list[Request], t: float, rng: Random) -> list[Request]:
    """Later rows are others, and fewer."""
    return [
        request
        if request.arrival_s <= t
        else request._replace(
            region=rng.choice(list(place.regions)),
            tenant=rng.choice(list(place.tenants)),
            prompt_tokens=rng.randint(1, 8000),
            output_tokens=rng.randint(1, 900),
        )
        for request in requests
        if request.arrival_s <= t or rng.random() < 0.8
    ]


# Anywhere, and where something becomes known or just not yet.
MOMENTS = st.one_of(
    st.floats(100.0, 21_000.0),
    st.sampled_from([fault.from_s for fault in first_world().faults]).flatmap(
        lambda start_s: st.sampled_from([0.0, 5.0, 20.0, 35.0, 39.9, 40.0, 41.0]).map(lambda later_s: start_s + later_s)
    ),
    st.integers(1, 5).flatmap(lambda hour: st.sampled_from([0, 299, 300, 301]).map(lambda s: float(hour * HOUR_S + s))),
)


@pytest.mark.parametrize("policy", ["money", "myopic", "nearest"])
@settings(max_examples=25, deadline=None)
@given(t=MOMENTS, seed=st.integers(0, 2**32))
def test_what_is_not_known_changes_no_decision(policy, t, seed):
    before, decisions, rng = first_world(), first_decisions(policy), Random(seed)
    after = replace(before, faults=other_faults(before, decisions, t, rng))
    requests = other_rows_after(before, other_lengths(before, first_rows(policy), t, rng), t, rng)
    again = replay(after, other_prices(before, t, rng), requests, POLICIES[policy], rng=Random(0))

    def up_to_t(decision: Assignment) -> bool:
        return decision.sent_s is not None and decision.sent_s <= t

    assert list(takewhile(up_to_t, again)) == list(takewhile(up_to_t, decisions))


def test_what_is_changed_matters_later():
    """Otherwise the property above would hold for a router that looks at nothing."""
    t, same, rng = 5000.0, inputs("smoke"), Random(1)
    before, decisions = first_world(), first_decisions("money")
    lengths = other_lengths(before, first_rows("money"), t, rng)
    faults = other_faults(before, decisions, t, rng)
    assert list(replay(before, same.prices, lengths, rng=Random(0))) != decisions
    assert list(replay(before, other_prices(before, t, rng), same.requests, rng=Random(0))) != decisions
    assert list(replay(replace(before, faults=faults), same.prices, same.requests, rng=Random(0))) != decisions


def test_rows_do_run_into_outages_in_the_troubled_world():
    decisions = first_decisions("money")
    assert len(decisions) - len(last_of(decisions)) >= 10
