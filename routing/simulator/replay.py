"""The requests in order of time through the production decide().

What happens is simulated with everything known (`service`, `outages`); what decides sees only what a router may:

    the scenario, without its faults; prices once released; outages once detected, or once a row of its own failed;
    which of its rows are waiting or running, and from the end of each its output length, its TTFT and how long it held
    its slot. Not the output length of the row it decides, not later rows, not when a running row will end.

What steers beyond the prices that are quoted is one object (`steering`), told of all this as it becomes known.

Events at one moment come in this order: rows end (or fail), rows that waited start, news arrives, an hour begins, then
rows are decided by request id. A row sent into an outage that nobody knows of fails a little later, costs nothing but
that time, and is decided again.
Every decision is yielded as it falls, so the last one of a row is its assignment. Equal arguments give equal
decisions.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias

from routing.backend import Lease
from routing.decide import Decision, decide, explain
from routing.demand import Demand
from routing.estimate import LengthEstimate
from routing.plan import Solve
from routing.retry import may_retry
from routing.simulator.costs import LATE_MAX_S
from routing.simulator.market import PublicPrices, Release
from routing.simulator.outages import Notice, Outages
from routing.simulator.policies import MONEY, Policy
from routing.simulator.service import Served, Service
from routing.simulator.staging import MODEL, Fleet, route_tables
from routing.simulator.steering import Asked, Ended, Sent, Steering
from routing.simulator.world import HOUR_S, SITE_DOWN, Assignment, Fault, Request, TokenSale, World, ZonePrices

# The order of events at one moment.
ENDS: Final = 0
STARTS: Final = 1
NEWS: Final = 2
HOUR: Final = 3
DECIDES: Final = 4

SENT_DECIMALS: Final = 6  # assignments are written so; a time means what is written


MakesSteering: TypeAlias = Callable[[World, Fleet, Policy, Solve | None], Steering]


def replay(
    world: World,
    prices: Mapping[str, ZonePrices],
    requests: Iterable[Request],
    policy: Policy = MONEY,
    *,
    rng: Random,
    solve: Solve | None = None,
    steering: MakesSteering = Steering,
) -> Iterator[Assignment]:
    """Decisions in the order they fall. `requests` in order of (arrival, id); they are read as virtual time passes.

    `solve` makes hourly plans; without it shadow prices come from the online correction alone.
    """
    return _Replay(world, prices, policy, rng, solve, steering).run(requests)


@dataclass(frozen=True, slots=True)
class _Attempt:
    request: Request
    number: int  # from 1
    lease: Lease
    sent: Sent


@dataclass(frozen=True, slots=True)
class _Running:
    attempt: _Attempt
    served: Served


@dataclass(frozen=True, slots=True)
class _Starting:
    attempt: _Attempt


@dataclass(frozen=True, slots=True)
class _Failing:
    attempt: _Attempt
    fault: Fault


@dataclass(frozen=True, slots=True)
class _Retry:
    request: Request
    attempts: int


@dataclass(frozen=True, slots=True)
class _Hour:
    """It begins."""


_Event: TypeAlias = _Running | _Starting | _Failing | _Retry | _Hour | Release | Notice


class _Replay:
    def __init__(
        self,
        world: World,
        prices: Mapping[str, ZonePrices],
        policy: Policy,
        rng: Random,
        solve: Solve | None,
        steering: MakesSteering,
    ) -> None:
        self._world = world
        self._policy = policy
        self._rng = rng
        self._tables = route_tables(world, policy.objective)
        self._fleet = Fleet(world, self._tables)
        self._steering = steering(world, self._fleet, policy, solve)
        self._services = {name: Service(site, world.scenario.thin) for name, site in world.sites.items()}
        self._sellers = frozenset(name for name, site in world.sites.items() if isinstance(site.supply, TokenSale))
        self._lengths = LengthEstimate()
        self._public = PublicPrices(world, prices)
        self._outages = Outages(world, self._fleet)
        news: list[Release | Notice] = [*self._public.pending, *self._outages.notices()]
        self._events: list[tuple[float, int, int, _Event]] = [
            (event.at_s, NEWS, number, event) for number, event in enumerate(news)
        ]
        heapq.heapify(self._events)
        self._push(0.0, HOUR, 0, _Hour())

    def run(self, requests: Iterable[Request]) -> Iterator[Assignment]:
        for request in requests:
            yield from self._until((request.arrival_s, DECIDES, request.request_id))
            yield self._decide(request, request.arrival_s, 1)
        while self._events:
            yield from self._next()

    def _until(self, moment: tuple[float, int, int]) -> Iterator[Assignment]:
        while self._events and self._events[0][:3] < moment:
            yield from self._next()

    def _next(self) -> Iterator[Assignment]:
        now, _, _, event = heapq.heappop(self._events)
        match event:
            case _Running():
                self._end(event, now)
            case _Starting():
                self._steering.started(event.attempt.sent, now)
            case _Failing():
                yield from self._fail(event, now)
            case _Retry():
                yield self._decide(event.request, now, event.attempts + 1)
            case Release():
                self._public.release(event)
                self._steering.published(self._public.book, now)
            case Notice(down=True):
                self._learn(event.fault, now)
            case Notice():
                self._outages.forget(event.fault, now)
                self._steering.noticed(event.fault, False, now)
            case _Hour():
                self._steering.hour(self._public.book, now)
                if now + HOUR_S < self._world.scenario.duration_s:
                    self._push(now + HOUR_S, HOUR, 0, event)

    # A row from its decision to its end.

    def _decide(self, request: Request, now: float, number: int) -> Assignment:
        asked = Asked(request.request_id, request.region, self._demand(request), request.prefix_blocks)
        if number == 1:
            self._steering.arrived(asked, now)
        decision = self._choose(request, asked, now)
        if decision.route is None or decision.best is None:
            return Assignment(request.request_id, "", "", now)
        line = self._fleet.line_of(decision.route.link.name)
        sent = Sent(asked, line.site, line.name, decision.best, now)
        attempt = _Attempt(request, number, self._fleet.lease(decision, now), sent)
        self._steering.sent(sent, now)
        fault = self._outages.stopping(line.name, now)
        if fault is not None:
            failed_s = round(now + self._world.publication.fault_fail_s, SENT_DECIMALS)
            self._push(failed_s, ENDS, request.request_id, _Failing(attempt, fault))
        else:
            served = self._services[line.site].serve(request, now)
            self._push(served.end_s, ENDS, request.request_id, _Running(attempt, served))
            if served.start_s > now:
                self._push(served.start_s, STARTS, request.request_id, _Starting(attempt))
            else:
                self._steering.started(sent, now)
        return Assignment(request.request_id, line.site, line.name, now)

    def _choose(self, request: Request, asked: Asked, now: float) -> Decision:
        at = self._world.scenario.start + request.arrival_s  # whenever it is sent, its prices are those of its arrival
        prices = self._public.book.at(at)
        table = self._tables[request.region]
        warm = self._steering.warm(asked, now)
        tiers = self._tiers()
        choose = explain if self._steering.samples() else decide
        for excluded in tiers:
            decision = choose(
                table,
                self._fleet.states,
                asked.demand,
                prices,
                now,
                at,
                self._rng,
                excluded=excluded,
                bytes_per_token=self._world.framing.bytes_per_output_token,
                links=self._fleet.links,
                slot_prices=self._steering.slot_prices,
                link_prices=self._steering.link_prices,
                warm=warm,
            )
            if decision.route is not None:
                break
        self._steering.decided(decision, now)
        return decision

    def _tiers(self) -> list[frozenset[str]]:
        """Sites to leave out in a first look, in a second, and so on; the last look leaves out none."""
        policy = self._policy
        tiers = [frozenset[str]()]
        if policy.free_slot_first:
            sites = self._world.sites
            busy = frozenset(name for name, state in self._fleet.states.items() if state.load >= sites[name].slots)
            tiers.insert(0, busy)
        if policy.sellers_last:
            tiers.insert(0, tiers[0] | self._sellers)
        return tiers

    def _demand(self, request: Request) -> Demand:
        world, tenant = self._world, self._world.tenants[request.tenant]
        return Demand(
            model=MODEL,
            tenant=tenant.name,
            input_tokens=request.prompt_tokens,
            output_tokens=self._lengths.predict(tenant.name, MODEL, request.prompt_tokens, None),
            request_bytes=round(world.framing.size_bytes(request.prompt_tokens, 0)),
            destination=world.regions[request.region].country,
            deny_origins=tenant.deny,
            value_per_second=tenant.usd_per_s,
        )

    def _end(self, running: _Running, now: float) -> None:
        """The row is whole: only now its length and times are known."""
        attempt, served = running.attempt, running.served
        request, best, sent_s = attempt.request, attempt.sent.best, attempt.sent.sent_s
        backend, link = best.route.backend, best.route.link
        self._fleet.release(attempt.lease, link.name)
        state = self._fleet.states[backend.name]
        thin = self._world.scenario.thin
        fresh_tokens = request.prompt_tokens - served.hit_tokens
        wait_s = (served.start_s - sent_s) / thin
        ttft_s = wait_s + link.rtt_s + fresh_tokens / backend.prefill_tokens_per_s
        state.answered(ttft_s, fresh_tokens, now, best.known_s, sent_s)
        stream_s = (request.output_tokens - 1) * backend.itl_s
        state.streamed(stream_s, request.output_tokens, sent_s, now)
        state.succeeded(now, served.hold_s / thin)
        self._lengths.observe(request.tenant, MODEL, request.prompt_tokens, request.output_tokens)
        ended = Ended(served.start_s, served.hold_s, served.hit_tokens, request.output_tokens)
        self._steering.ended(attempt.sent, ended, now)

    def _fail(self, failing: _Failing, now: float) -> Iterator[Assignment]:
        attempt, fault = failing.attempt, failing.fault
        request = attempt.request
        self._fleet.release(attempt.lease, attempt.sent.best.route.link.name)
        self._learn(fault, now)
        self._steering.failed(attempt.sent, now)
        if fault.kind == SITE_DOWN:  # a cut link is not the site's fault
            self._fleet.states[fault.target].failed(now, "connect")
        elapsed_s = now - request.arrival_s
        if may_retry("connect", attempt.number, elapsed_s) and elapsed_s <= LATE_MAX_S:
            self._push(now, DECIDES, request.request_id, _Retry(request, attempt.number))
        else:
            yield Assignment(request.request_id, "", "", now)

    def _learn(self, fault: Fault, now: float) -> None:
        self._outages.learn(fault, now)
        self._steering.noticed(fault, True, now)

    def _push(self, at_s: float, order: int, key: int, event: _Event) -> None:
        heapq.heappush(self._events, (at_s, order, key, event))
