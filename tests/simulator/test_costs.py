"""The judge: published totals, and each rule where it bites."""

from dataclasses import asdict

import pytest

from gateway.rehearsal import read_assignments
from routing.simulator.bills import LinkBins
from routing.simulator.costs import Outcome, Violations, settle
from routing.simulator.world import Assignment, Request, World
from tests.simulator.stage import DATA, Document, document, fault, inputs, part, world

PUBLISHED = {
    "smoke": ("smoke_nearest_", DATA / "smoke_nearest_assignments.csv.gz"),
    "check": ("check_", DATA / "check_assignments.csv"),
}
COSTS = ("total", "energy", "tokens", "link_gb", "link_p95", "latency", "reject")


def figures(outcome: Outcome) -> dict[str, float]:
    costs = {f"{name}_usd": getattr(outcome, f"{name}_usd") for name in COSTS}
    return costs | {
        "ttft_mean_ms": outcome.ttft_mean_s * 1000,
        "wait_mean_ms": outcome.wait_mean_s * 1000,
        "slo_miss_pct": outcome.slo_miss_pct,
        "hit_pct": outcome.hit_pct,
        "requests": outcome.requests,
        "rejected": outcome.rejected,
        "violations": outcome.violations.total,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_costs_are_reproduced_to_a_millionth(name):
    prefix, path = PUBLISHED[name]
    given = inputs(name)
    outcome = settle(given.world, given.prices, given.requests, read_assignments(path))
    published = {
        key.removeprefix(prefix): value
        for key, value in document(name)["published"].items()
        if key.startswith(prefix) and not isinstance(value, dict)
    }
    assert len(published) >= 10
    assert {key: figures(outcome)[key] for key in published} == pytest.approx(published, rel=1e-6)


def test_published_violations_are_found():
    given = inputs("check")
    outcome = settle(given.world, given.prices, given.requests, read_assignments(PUBLISHED["check"][1]))
    published = document("check")["published"]["check_violations"]
    assert asdict(outcome.violations) == {**published, "malformed": 0}


def test_the_order_of_lines_changes_nothing():
    given = inputs("check")
    lines = read_assignments(PUBLISHED["check"][1])
    backwards = settle(given.world, given.prices, given.requests, reversed(lines))
    assert backwards == settle(given.world, given.prices, given.requests, lines)


# One or few rows on the world of `smoke`; a row stands for 110 requests.

THIN = 110.0


def request(number: int = 0, **changes: object) -> Request:
    return Request(number, 100.0, "us", "consumer", 900, 100)._replace(**changes)  # type: ignore[arg-type]


def outcome_of(requests: list[Request], lines: list[Assignment], place: World | None = None) -> Outcome:
    return settle(place or inputs("smoke").world, inputs("smoke").prices, requests, lines)


def violations_of(requests: list[Request], lines: list[Assignment], place: World | None = None) -> dict[str, int]:
    found = asdict(outcome_of(requests, lines, place).violations)
    return {name: count for name, count in found.items() if count}


GOOD = Assignment(0, "tx", "tx-ip", None)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [GOOD, GOOD],
        [GOOD._replace(link="de-ip")],
        [GOOD._replace(link="nowhere")],
        [GOOD._replace(site="")],
        [GOOD._replace(link="")],
    ],
    ids=["missing", "repeated", "another site", "unknown link", "no site", "no link"],
)
def test_a_malformed_line_counts_and_its_row_is_costed_as_rejected(lines):
    outcome = outcome_of([request()], lines)
    assert (outcome.violations.malformed, outcome.rejected, outcome.slo_misses) == (1, 1, 1)
    assert outcome.total_usd == pytest.approx(THIN * 0.01)


def test_an_unknown_id_is_malformed_and_costs_nothing():
    with_it = outcome_of([request()], [GOOD, GOOD._replace(request_id=7)])
    without = outcome_of([request()], [GOOD])
    assert (with_it.violations.malformed, without.violations.malformed) == (1, 0)
    assert with_it.total_usd == without.total_usd


def test_a_rejection_costs_what_it_costs_and_nothing_else():
    outcome = outcome_of([request()], [Assignment(0, "", "", None)])
    assert outcome.total_usd == outcome.reject_usd == pytest.approx(THIN * 0.01)
    assert outcome.violations == Violations()


@pytest.mark.parametrize("link", ["tx-ip", "gz-ip"])
def test_a_country_that_a_tenant_denies_may_not_serve(link):
    line = Assignment(0, link[:2], link, None)
    assert violations_of([request(tenant="bank")], [line]) == {"residency": 1}


def test_a_country_that_a_tenant_denies_may_not_carry():
    def deny_transit(content: Document) -> None:
        part(content, "tenants", "gov")["deny"] = ["HK"]

    assert violations_of(
        [request(tenant="gov")], [Assignment(0, "gz", "gz-ip", None)], world("smoke", deny_transit)
    ) == {"residency": 1}


def test_the_clients_own_country_is_never_tested():
    assert violations_of([request(tenant="bank", region="us")], [Assignment(0, "de", "de-ip", None)]) == {}


def test_a_link_without_a_path_to_the_region_serves_nobody_there():
    def cut_off(content: Document) -> None:
        del part(content, "links", "tx-ip")["rtt_ms"]["us"]

    outcome = outcome_of([request()], [GOOD], world("smoke", cut_off))
    assert (outcome.violations.residency, outcome.rejected) == (1, 1)


@pytest.mark.parametrize(
    ("arrival_s", "sent_s", "found"),
    [
        (7000.0, 6999.0, {"sent_before_arrival": 1}),
        (7000.0, 7001.0, {"late_sent": 1}),
        (7200.0, 7200.0, {"dead_route": 1}),
        (8999.0, 8999.0, {"dead_route": 1}),
        (9000.0, 9000.0, {}),
        (7204.9, 7263.0, {"dead_route": 1}),
        (7205.0, 7265.0, {"late_sent": 1, "dead_route": 1}),
    ],
    ids=["early", "late", "at its start", "in it", "at its end", "late but nobody knew", "everybody knew"],
)
def test_when_a_row_may_be_sent(arrival_s, sent_s, found):
    """The site is down from 7,200 to 9,000 s, which is known after 5 s."""
    assert violations_of([request(arrival_s=arrival_s)], [GOOD._replace(sent_s=sent_s)]) == found


def test_a_retry_within_a_minute_of_an_unknown_outage_is_no_violation():
    line = Assignment(0, "de", "de-ip", 7204.0)
    assert violations_of([request(arrival_s=7203.0)], [line]) == {}
    assert violations_of([request(arrival_s=7203.0)], [line._replace(sent_s=7264.0)]) == {"late_sent": 1}


def test_a_cut_link_is_dead_and_its_neighbour_is_not():
    def cut(content: Document) -> None:
        content["faults"] = [fault("link_cut", "tx-ip", 50.0, 150.0)]

    place = world("smoke", cut)
    assert violations_of([request()], [GOOD], place) == {"dead_route": 1}
    assert violations_of([request()], [GOOD._replace(link="tx-p95")], place) == {}


def test_rows_wait_for_a_slot_and_each_of_their_requests_for_its_share():
    def one_slot(content: Document) -> None:
        part(content, "sites", "tx")["slots"] = 1

    rows = [request(0), request(1, arrival_s=101.0)]
    outcome = outcome_of(rows, [GOOD, GOOD._replace(request_id=1)], world("smoke", one_slot))
    service_s = 900 / 9000 + 100 * 0.026
    assert outcome.wait_mean_s == pytest.approx((THIN * service_s - 1.0) / THIN / 2)
    assert outcome.ttft_mean_s == pytest.approx(outcome.wait_mean_s + 0.036 + 0.1)


def test_the_price_is_that_of_the_arrival_whenever_a_row_is_sent():
    at_once = outcome_of([request(arrival_s=3599.0)], [GOOD])
    later = outcome_of([request(arrival_s=3599.0)], [GOOD._replace(sent_s=3700.0)])
    next_hour = outcome_of([request(arrival_s=3700.0)], [GOOD])
    assert later.energy_usd == at_once.energy_usd != next_hour.energy_usd


def test_rows_outside_the_report_cost_nothing_and_still_take_room():
    given = inputs("check")
    early, counted = request(0, arrival_s=3599.0, output_tokens=4000), request(1, arrival_s=3600.0)
    lines = [Assignment(number, "tx", "tx-p95", None) for number in (0, 1)]
    beside = [request(2, arrival_s=3599.5, output_tokens=4000)]
    both = settle(given.world, given.prices, [early, counted], lines)
    crowded = settle(given.world, given.prices, [early, counted, *beside], [*lines, lines[0]._replace(request_id=2)])
    assert both.requests == crowded.requests == 1
    assert both.wait_mean_s == 0.0 < crowded.wait_mean_s
    assert both.energy_usd == crowded.energy_usd


# What flows over a line: `smoke` has 72 bins in its one billing period, so the three highest are free.


def line(name: str = "tx-p95") -> LinkBins:
    place = inputs("smoke").world
    return LinkBins(place, place.links[name])


def test_bytes_flow_evenly_over_the_bins_of_a_row():
    bins = line()
    bins.flow(4000.0, start_s=150.0, hold_s=600.0)
    bytes_in = [rate * 300 * 1e6 / 8 for rate in bins.rates_mbps(0.0, 1200.0)]
    assert bytes_in == pytest.approx([1000.0, 2000.0, 1000.0, 0.0])


def test_bytes_after_the_end_are_in_no_bin():
    bins = line()
    bins.flow(4000.0, start_s=21_500.0, hold_s=400.0)
    assert sum(bins.rates_mbps(0.0, 1e9)) * 300 * 1e6 / 8 == pytest.approx(1000.0)


def test_three_busy_bins_of_a_period_are_free_and_the_fourth_sets_the_bill():
    bins = line()
    for number, megabytes in enumerate((90.0, 80.0, 70.0)):
        bins.flow(megabytes * 1e6, start_s=number * 3000.0, hold_s=300.0)
    assert bins.p95_usd() == 0.0
    bins.flow(37.5e6, start_s=15_000.0, hold_s=300.0)  # 1 Mbps
    assert bins.p95_usd() == pytest.approx(14.78 * 21_600 / (30 * 86_400))


def test_a_line_billed_otherwise_has_no_p95_bill():
    bins = line("tx-ip")
    bins.flow(1e12, start_s=0.0, hold_s=21_600.0)
    assert bins.p95_usd() == 0.0


def test_a_bin_at_its_cap_is_fine_and_above_it_counts():
    bins = line()  # 6.5 Mbps
    bins.flow(6.5e6 / 8 * 600, start_s=300.0, hold_s=600.0)
    assert bins.bins_over_capacity() == 0
    bins.flow(1000.0, start_s=300.0, hold_s=300.0)
    assert bins.bins_over_capacity() == 1
