"""The replay: it obeys the rules, is the same every time, and its prices are the judge's."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from pricing.quote import quote
from routing.occupancy import constant
from routing.plan import Solve
from routing.policy import BALANCED
from routing.simulator.costs import Outcome, Placed, Violations, settle
from routing.simulator.costs import place as rows_of
from routing.simulator.market import PublicPrices
from routing.simulator.policies import MONEY, POLICIES, Policy
from routing.simulator.replay import replay
from routing.simulator.staging import Fleet, link_name, route_tables
from routing.simulator.steering import Steering
from routing.simulator.world import Assignment, Request, TokenSale, World
from tests.simulator.stage import Document, decided, document, fault, inputs, last_of, part, troubled, world


def judged(place: World, decisions: list[Assignment]) -> Outcome:
    return settle(place, inputs("smoke").prices, inputs("smoke").requests, last_of(decisions).values())


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_breaks_a_rule(policy):
    place = inputs("smoke").world
    outcome = judged(place, decided(place, POLICIES[policy]))
    assert outcome.violations == Violations()
    assert outcome.rejected == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_breaks_a_rule_when_much_goes_wrong(policy):
    place = world("smoke", troubled)
    assert judged(place, decided(place, POLICIES[policy])).violations == Violations()


def test_money_costs_less_than_any_baseline_and_more_than_the_bound():
    place = inputs("smoke").world
    totals = {name: judged(place, decided(place, policy)).total_usd for name, policy in POLICIES.items()}
    assert min(totals, key=lambda name: totals[name]) == "money"
    assert place.yardsticks.bound_usd is not None
    assert totals["money"] > place.yardsticks.bound_usd


def test_the_nearest_baseline_serves_where_the_published_one_does():
    place = inputs("smoke").world
    outcome = judged(place, decided(place, POLICIES["nearest"]))
    published = document("smoke")["published"]
    assert outcome.energy_usd == pytest.approx(published["smoke_nearest_energy_usd"], rel=1e-9)
    assert outcome.ttft_mean_s * 1000 == pytest.approx(published["smoke_nearest_ttft_mean_ms"], rel=1e-9)


def test_the_nearest_baseline_buys_tokens_only_where_no_own_site_is_free():
    """From Hong Kong the seller is nearer than Texas."""

    def one_slot_each(content: Document) -> None:
        for name in ("gz", "sg", "tx", "de"):
            part(content, "sites", name)["slots"] = 1

    rows = [row._replace(region="hk") for row in rows_at(100.0, 101.0, 102.0, 103.0, 104.0)]
    decisions = decided(world("smoke", one_slot_each), POLICIES["nearest"], rows)
    assert [decision.site for decision in decisions] == ["gz", "sg", "tx", "de", "api"]


def test_baselines_wait_for_nothing_while_a_slot_is_free_somewhere():
    place = inputs("smoke").world
    waits = {name: judged(place, decided(place, policy)).wait_mean_s for name, policy in POLICIES.items()}
    weighed = [waits.pop(name) for name, policy in POLICIES.items() if not policy.free_slot_first]
    assert max(weighed) > 0.0
    assert set(waits.values()) == {0.0}


def test_equal_arguments_give_equal_decisions():
    place = world("smoke", troubled)
    assert decided(place, seed=3) == decided(place, seed=3)


def test_decisions_fall_in_the_order_of_time():
    times = [decision.sent_s for decision in decided(world("smoke", troubled))]
    assert times == sorted(times)


def test_requests_are_read_as_time_passes():
    """Whoever feeds the replay need not know the future either."""
    smoke = inputs("smoke")
    read: list[int] = []

    def source() -> Iterator[Request]:
        for request in smoke.requests:
            read.append(request.request_id)
            yield request

    for decision in replay(smoke.world, smoke.prices, source(), rng=Random(0)):
        assert read[-1] == decision.request_id


# Outages


def test_a_row_sent_into_an_unknown_outage_goes_elsewhere_a_little_later():
    place = world("smoke", troubled)
    decisions = decided(place)
    by_row: dict[int, list[Assignment]] = {}
    for decision in decisions:
        by_row.setdefault(decision.request_id, []).append(decision)
    retried = [rows for rows in by_row.values() if len(rows) > 1]
    assert retried
    for first, *others in retried:
        for number, again in enumerate(others, 1):
            assert again.sent_s == pytest.approx(first.sent_s + 30.0 * number)
            assert again.link != first.link


def test_nobody_is_sent_to_a_site_that_is_known_to_be_down():
    """Known 5 s after it began, and believed for 5 s after it ended."""
    place = inputs("smoke").world
    sent = [decision.sent_s for decision in decided(place) if decision.site == "tx"]
    assert not [at_s for at_s in sent if 7205.0 <= at_s < 9005.0]
    assert [at_s for at_s in sent if at_s < 7200.0]
    assert [at_s for at_s in sent if 9005.0 <= at_s < 9100.0]


def test_one_failure_is_enough_to_know_and_the_end_is_known_late():
    """The site is down from 7,200 to 9,000 s; monitoring takes 1,000 s."""

    def slowly_noticed(content: Document) -> None:
        content["publication"]["fault_detect_s"] = 1000.0

    sent = [decision.sent_s for decision in decided(world("smoke", slowly_noticed)) if decision.site == "tx"]
    first_failure_s = min(at_s for at_s in sent if at_s >= 7200.0) + 1.0
    assert not [at_s for at_s in sent if first_failure_s <= at_s < 10_000.0]
    assert [at_s for at_s in sent if 10_000.0 <= at_s < 10_100.0]


def rows_at(*arrivals_s: float) -> list[Request]:
    """Rows for whom tx is the best site by far."""
    return [Request(number, at_s, "us", "consumer", 900, 100) for number, at_s in enumerate(arrivals_s)]


def test_news_of_a_moment_comes_before_the_rows_of_that_moment():
    blind, informed = (decided(inputs("smoke").world, requests=rows_at(at_s))[0] for at_s in (7204.9, 7205.0))
    assert blind.site == "tx"
    assert informed.site != "tx"


def test_a_row_that_ends_leaves_its_slot_to_one_that_arrives_then():
    def one_slot(content: Document) -> None:
        part(content, "sites", "tx")["slots"] = 1

    place = world("smoke", one_slot)
    (first,) = rows_at(100.0)
    end_s = place_of(place, [first]).served.end_s
    for arrival_s, there in ((end_s - 0.001, False), (end_s, True)):
        second = first._replace(request_id=1, arrival_s=arrival_s)
        decisions = decided(place, POLICIES["nearest"], [first, second])
        assert (decisions[1].site == "tx") is there


def place_of(place: World, requests: list[Request]) -> Placed:
    """The last row, served."""
    decisions = decided(place, POLICIES["nearest"], requests)
    return list(rows_of(place, requests, decisions, Violations()))[-1]


def test_a_site_that_failed_often_is_back_when_it_is_known_to_be_back():
    """Five failures in a row eject it; what monitoring sees counts as good probes, and a slow start of 10 s follows."""
    failing = [7200.0 + 0.1 * number for number in range(8)]
    decisions = decided(inputs("smoke").world, requests=rows_at(*failing, 9020.0, 9021.0, 9022.0))
    assert [decision.site for decision in decisions[:8]] == ["tx"] * 8
    assert "tx" not in {decision.site for decision in decisions[8:16]}
    assert [decision.site for decision in decisions[16:]] == ["tx"] * 3


def test_a_cut_link_is_not_the_fault_of_its_site():
    def cut(content: Document) -> None:
        content["faults"] = [fault("link_cut", "tx-p95", 7200.0, 9000.0)]

    failing = [7200.0 + 0.1 * number for number in range(8)]
    decisions = decided(world("smoke", cut), POLICIES["myopic"], rows_at(*failing))
    assert [decision.link for decision in decisions] == ["tx-p95"] * 8 + ["tx-ip"] * 8


def test_a_cut_link_leaves_its_site_to_the_other_link():
    def cut(content: Document) -> None:
        content["faults"] = [fault("link_cut", "tx-p95", 3000.0, 20_000.0)]

    used = Counter(decision.link for decision in decided(world("smoke", cut)) if decision.sent_s > 3100.0)
    assert used["tx-ip"] > 100
    assert used["tx-p95"] < 100  # only after the cut


def test_rows_are_rejected_where_nothing_is_allowed():
    def forbid(content: Document) -> None:
        part(content, "tenants", "bank")["deny"] = ["US", "DE", "SG", "CN"]

    place = world("smoke", forbid)
    rejected = {number for number, decision in last_of(decided(place)).items() if not decision.site}
    bank = {request.request_id for request in inputs("smoke").requests if request.tenant == "bank"}
    assert rejected == bank


# Room


def test_a_line_of_many_edges_is_held_under_its_cap():
    """With a cap that binds: without it the same line carries more."""

    def narrow(content: Document) -> None:
        part(content, "links", "tx-p95")["capacity_mbps"] = 2.0
        content["faults"] = []

    place = world("smoke", narrow)
    for policy in ("money", "myopic"):
        assert judged(place, decided(place, POLICIES[policy])).violations == Violations()
    links = {**place.links, "tx-p95": replace(place.links["tx-p95"], capacity_mbps=0.0)}
    uncapped = decided(replace(place, links=links), POLICIES["myopic"])
    assert judged(place, uncapped).violations.link_over_capacity_bins > 0


def test_a_share_of_each_line_is_kept_back():
    """Decisions see expected rates, caps are tested on what flowed."""
    table = route_tables(inputs("smoke").world, BALANCED)["us"]
    assert table.links[link_name("tx-p95", "us")].capacity_mbps == pytest.approx(6.5 * 0.93)


class DearTexas(Steering):
    """A slot in Texas is worth a fortune."""

    def __init__(self, world: World, fleet: Fleet, policy: Policy, solve: Solve | None) -> None:
        super().__init__(world, fleet, replace(policy, shadow_prices=frozenset()), solve)
        self.slot_prices = {"tx": constant(1.0)}


def test_a_price_for_slots_moves_traffic_away():
    smoke = inputs("smoke")
    dear = replay(smoke.world, smoke.prices, smoke.requests, rng=Random(0), steering=DearTexas)
    assert not [decision for decision in dear if decision.site == "tx" and decision.link]


# Learning


def test_lengths_are_learned_from_rows_that_ended():
    """A seller of output at nothing per prompt is cheapest for short answers only."""

    def short_is_cheap(content: Document) -> None:
        part(content, "sites", "api")["tokens"] |= {"usd_per_mtok_input": 0.0, "usd_per_mtok_output": 0.2}

    place = world("smoke", short_is_cheap)
    few = [request._replace(output_tokens=5) for request in inputs("smoke").requests]
    many = [request._replace(output_tokens=400) for request in inputs("smoke").requests]
    bought = [Counter(decision.site for decision in decided(place, MONEY, requests))["api"] for requests in (few, many)]
    assert bought[0] > 2 * bought[1]


# Prices


@pytest.mark.parametrize("link", inputs("smoke").world.links)
@pytest.mark.parametrize("arrival_s", [4000.0, 8000.0, 16_000.0])
def test_the_router_prices_a_known_row_as_the_judge_does(link, arrival_s):
    smoke = inputs("smoke")
    place = replace(smoke.world, faults=())
    road, request = place.links[link], Request(0, arrival_s, "hk", "consumer", 3000, 300)
    public = PublicPrices(place, smoke.prices)
    for release in public.pending:
        if release.at_s <= arrival_s:
            public.release(release)
    rates = public.book.at(place.scenario.start + arrival_s).rates(road.site, link_name(link, "hk"))
    expected = quote(
        rates,
        fresh_tokens=3000,
        hit_tokens=0,
        output_tokens=300,
        bytes_up=place.framing.size_bytes(3000, 0),
        bytes_down=300 * place.framing.bytes_per_output_token,
        per_byte=rates.per_byte,
        service_s=0,
        slot_price_per_s=0,
        delay_s=0,
        value_per_second=0,
    )
    outcome = settle(place, smoke.prices, [request], [Assignment(0, road.site, link, None)])
    thin = place.scenario.thin
    assert thin * expected.energy == pytest.approx(outcome.energy_usd, rel=1e-6)
    assert thin * expected.tokens == pytest.approx(outcome.tokens_usd, rel=1e-6)
    assert thin * expected.link == pytest.approx(outcome.link_gb_usd, rel=1e-6)
    assert (outcome.tokens_usd > 0) == isinstance(place.sites[road.site].supply, TokenSale)
