"""What a list of assignments costs: every cost, latency and violation, exactly, from the files alone.

This is the judge's side of the simulator. It trusts nothing the router says about its choices, only which route each
row took and when it was sent. Of one row, in USD, all times `thin`:

    energy   u(hour) x PUE x joules of (prompt - hit) and output tokens      own sites; u with FX, adder and sign
    tokens   m(hour) x prices per million of fresh, cached and output tokens sites that sell tokens
    link     bytes x price per GB                                            lines billed so; p95 lines: `bills`
    latency  value of a second x TTFT
    reject   instead of all others, for a row that no site served

    TTFT     (sent - arrival) + (start - sent) / thin + RTT + (prompt - hit) / prefill rate

Prices, day and hour are those of the arrival. Only reported rows enter the totals; all take slots, caches and links.
A violation makes a result invalid but not uncountable: such a row is served and costed as written where that has a
meaning, and as rejected where it has none (unknown route, no path to the region, no or more than one line).
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final, NamedTuple

from routing.simulator.bills import LinkBins
from routing.simulator.service import Served, Service
from routing.simulator.world import (
    FEED_DEAD,
    LINK_CUT,
    MONTH_S,
    SITE_DOWN,
    Assignment,
    Fault,
    Link,
    Market,
    Request,
    Site,
    TokenSale,
    World,
    ZonePrices,
)

J_PER_KWH: Final = 3.6e6
LATE_TOLERANCE_S: Final = 1e-6
LATE_MAX_S: Final = 60.0  # after its arrival a row may be sent again, in an outage nobody knew of


@dataclass(slots=True)
class Violations:
    """How often a rule was broken; any one makes a result invalid."""

    residency: int = 0
    dead_route: int = 0
    sent_before_arrival: int = 0
    late_sent: int = 0
    malformed: int = 0
    link_over_capacity_bins: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, item.name) for item in fields(self))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of the reported part. Money in USD."""

    requests: int
    rejected: int
    energy_usd: float
    tokens_usd: float
    link_gb_usd: float
    link_p95_usd: float
    latency_usd: float
    reject_usd: float
    flat_usd: float  # sunk: shown, no part of the total
    ttft_mean_s: float  # of served rows, as the wait
    wait_mean_s: float
    slo_misses: int  # late or rejected
    prompt_tokens: int  # of all rows
    hit_tokens: int
    served_by: Mapping[str, int]  # rows by site
    violations: Violations = field(default_factory=Violations)

    @property
    def total_usd(self) -> float:
        parts = (self.energy_usd, self.tokens_usd, self.link_gb_usd, self.link_p95_usd, self.latency_usd)
        return math.fsum((*parts, self.reject_usd))

    @property
    def slo_miss_pct(self) -> float:
        return 100 * self.slo_misses / self.requests if self.requests else 0.0

    @property
    def hit_pct(self) -> float:
        return 100 * self.hit_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


class Placed(NamedTuple):
    """A row with its route and what became of it there."""

    request: Request
    site: Site
    link: Link
    sent_s: float
    served: Served


class RowCost(NamedTuple):
    energy: float
    tokens: float
    link: float
    latency: float
    ttft_s: float


def settle(
    world: World, prices: Mapping[str, ZonePrices], requests: Sequence[Request], assignments: Iterable[Assignment]
) -> Outcome:
    """The costs of assignments, which may come in any order."""
    violations = Violations()
    placed = list(place(world, requests, assignments, violations))
    bins = {name: LinkBins(world, link) for name, link in world.links.items()}
    thin = world.scenario.thin
    for row in placed:
        size_bytes = world.framing.size_bytes(row.request.prompt_tokens, row.request.output_tokens)
        bins[row.link.name].flow(thin * size_bytes, row.served.start_s, row.served.hold_s)
    violations.link_over_capacity_bins = sum(link.bins_over_capacity() for link in bins.values())
    reported = [row for row in placed if world.scenario.reports(row.request.arrival_s)]
    unit_prices = {
        (name, hour): _unit_price(world, prices, world.sites[name], hour)
        for name, hour in {_priced_by(world, row) for row in reported}
    }
    costs = [_row_cost(world, unit_prices[_priced_by(world, row)], row) for row in reported]
    asked = [request for request in requests if world.scenario.reports(request.arrival_s)]
    rejected = len(asked) - len(reported)
    late = sum(
        cost.ttft_s > world.tenants[row.request.tenant].ttft_slo_s for row, cost in zip(reported, costs, strict=True)
    )
    waits = [(row.served.start_s - row.sent_s) / thin for row in reported]
    return Outcome(
        requests=len(asked),
        rejected=rejected,
        energy_usd=math.fsum(cost.energy for cost in costs),
        tokens_usd=math.fsum(cost.tokens for cost in costs),
        link_gb_usd=math.fsum(cost.link for cost in costs),
        link_p95_usd=math.fsum(link.p95_usd() for link in bins.values()),
        latency_usd=math.fsum(cost.latency for cost in costs),
        reject_usd=rejected * thin * world.scenario.reject_usd,
        flat_usd=_flat_usd(world),
        ttft_mean_s=_mean([cost.ttft_s for cost in costs]),
        wait_mean_s=_mean(waits),
        slo_misses=late + rejected,
        prompt_tokens=sum(request.prompt_tokens for request in asked),
        hit_tokens=sum(row.served.hit_tokens for row in reported),
        served_by=dict(sorted(Counter(row.site.name for row in reported).items())),
        violations=violations,
    )


def place(
    world: World, requests: Sequence[Request], assignments: Iterable[Assignment], violations: Violations
) -> Iterator[Placed]:
    """Every row that a site serves, in the order of service; what is wrong with the others is counted."""
    sent: list[tuple[float, int, Request, Link]] = []
    for request, assignment in _lines(requests, assignments, violations):
        link = world.links.get(assignment.link)
        if not assignment.site and not assignment.link:
            continue
        if link is None or link.site != assignment.site:
            violations.malformed += 1
            continue
        sent_s = request.arrival_s if assignment.sent_s is None else assignment.sent_s
        _examine(world, request, link, sent_s, violations)
        if request.region in link.rtt_s:
            sent.append((sent_s, request.request_id, request, link))
    services = {name: Service(site, world.scenario.thin) for name, site in world.sites.items()}
    for sent_s, _, request, link in sorted(sent, key=lambda row: row[:2]):
        site = world.sites[link.site]
        yield Placed(request, site, link, sent_s, services[site.name].serve(request, sent_s))


def _lines(
    requests: Sequence[Request], assignments: Iterable[Assignment], violations: Violations
) -> list[tuple[Request, Assignment]]:
    """Requests with their one line."""
    by_id = {request.request_id: request for request in requests}
    lines: dict[int, Assignment] = {}
    repeated = set()
    for assignment in assignments:
        if assignment.request_id not in by_id:
            violations.malformed += 1
        elif assignment.request_id in lines:
            violations.malformed += 1
            repeated.add(assignment.request_id)
        else:
            lines[assignment.request_id] = assignment
    violations.malformed += len(by_id) - len(lines)
    return [(by_id[number], line) for number, line in lines.items() if number not in repeated]


def _examine(world: World, request: Request, link: Link, sent_s: float, violations: Violations) -> None:
    deny = world.tenants[request.tenant].deny
    countries = {world.sites[link.site].country, *link.transit}
    if not deny.isdisjoint(countries) or request.region not in link.rtt_s:
        violations.residency += 1
    if any(stops(fault, link) and fault.in_force(sent_s) for fault in world.faults):
        violations.dead_route += 1
    if sent_s < request.arrival_s:
        violations.sent_before_arrival += 1
    elif sent_s > request.arrival_s + LATE_TOLERANCE_S and not _excused(world, request.arrival_s, sent_s):
        violations.late_sent += 1


def stops(fault: Fault, link: Link) -> bool:
    """Whether nothing can be sent over the link while the fault is in force."""
    return (fault.kind == SITE_DOWN and fault.target == link.site) or (
        fault.kind == LINK_CUT and fault.target == link.name
    )


def _excused(world: World, arrival_s: float, sent_s: float) -> bool:
    """A row may be sent late if it arrived in an outage that nobody could know of yet."""
    blind_s = world.publication.fault_detect_s
    return sent_s <= arrival_s + LATE_MAX_S and any(
        fault.kind != FEED_DEAD and fault.from_s <= arrival_s < fault.from_s + blind_s for fault in world.faults
    )


def _priced_by(world: World, row: Placed) -> tuple[str, int]:
    return row.site.name, world.scenario.utc_hour(row.request.arrival_s)


def _unit_price(world: World, prices: Mapping[str, ZonePrices], site: Site, utc_hour: int) -> float:
    """USD per kWh, or by how much a seller's prices are multiplied."""
    supply = site.supply
    if isinstance(supply, TokenSale):
        return supply.multiplier(utc_hour)
    if isinstance(supply, Market):
        per_kwh = prices[supply.zone].at(utc_hour) / 1000 + supply.adder_per_kwh
        return world.fx[supply.currency] * per_kwh
    return world.fx[supply.currency] * supply.per_kwh(utc_hour)


def _row_cost(world: World, unit: float, row: Placed) -> RowCost:
    request, site, served, thin = row.request, row.site, row.served, world.scenario.thin
    fresh, hit, output = request.prompt_tokens - served.hit_tokens, served.hit_tokens, request.output_tokens
    energy = tokens = 0.0
    if isinstance(site.supply, TokenSale):
        sale = site.supply
        per_million = (
            sale.usd_per_mtok_input * fresh + sale.usd_per_mtok_cached * hit + sale.usd_per_mtok_output * output
        )
        tokens = thin * unit * per_million / 1e6
    else:
        energy_j = site.prefill_j_per_token * fresh + site.decode_j_per_token * output
        energy = thin * unit * site.pue * energy_j / J_PER_KWH
    size_bytes = world.framing.size_bytes(request.prompt_tokens, output)
    link = thin * size_bytes * row.link.per_gb(request.region) / 1e9
    ttft_s = (
        (row.sent_s - request.arrival_s)
        + (served.start_s - row.sent_s) / thin
        + row.link.rtt_s[request.region]
        + fresh / site.prefill_tokens_per_s
    )
    latency = thin * world.tenants[request.tenant].usd_per_s * ttft_s
    return RowCost(energy, tokens, link, latency, ttft_s)


def _flat_usd(world: World) -> float:
    scenario = world.scenario
    months = (scenario.report_to_s - scenario.report_from_s) / MONTH_S
    return months * math.fsum(link.usd_per_month for link in world.links.values())


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
