"""Tenants at backends with slots, in virtual time, around the real `decide`.

A backend runs so many requests at once and lets the others wait in its own queue, first come first served; that is all
it does. Who is sent there is decided by the code under test, whose shares are swept as often as the gateway does.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from math import inf
from random import Random

from routing.backend import BackendState, Lease
from routing.constraint import FAIR_SHARE
from tests.routing.world import NOW, World, demand

SWEEP_S = 0.25
FIRST_S = 0.2  # from a slot to the first token


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: when, whose, and how long it holds a slot."""

    at: float
    tenant: str
    service_s: float


@dataclass
class Fate:
    """What became of a tenant's requests."""

    ttft_s: list[tuple[float, float]] = field(default_factory=list)  # (when asked, how long it took)
    refused: list[tuple[float, str]] = field(default_factory=list)
    sites: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def percentile(self, share: float, since_s: float = 0.0) -> float:
        """Of the time to the first token; for what was refused it never came."""
        found = sorted(ttft_s for at, ttft_s in [*self.ttft_s, *((at, inf) for at, _ in self.refused)] if at >= since_s)
        return found[min(len(found) - 1, int(len(found) * share))]


def steady(
    tenant: str, per_s: float, service_s: float, until_s: float, rng: Random, start_s: float = 0.0
) -> Iterator[Ask]:
    """Requests that come at random, so many a second."""
    at = start_s
    while (at := at + rng.expovariate(per_s)) < until_s:
        yield Ask(at, tenant, service_s)


@dataclass
class _Site:
    state: BackendState
    slots: int
    running: int = 0
    waiting: deque[tuple[Ask, Lease]] = field(default_factory=deque)


class Crowd:
    """The backends of a world with their queues, and what the tenants hold there over time."""

    def __init__(self, world: World, *, fair: bool = True) -> None:
        self._world = world
        self._fair = fair
        self._sites = {name: _Site(world.states[name], site.slots) for name, site in world.table.backends.items()}
        self._fates: dict[str, Fate] = defaultdict(Fate)
        self._events: list[tuple[float, int, str, _Site | None, Ask | None, Lease | None]] = []
        self._numbers = count()
        self.held: list[dict[str, int]] = []  # by tenant, at every sweep

    def run(self, asks: Iterable[Ask], until_s: float) -> dict[str, Fate]:
        """Let them come, and time pass."""
        for ask in asks:
            self._plan(ask.at, "ask", None, ask, None)
        for number in range(int(until_s / SWEEP_S)):
            self._plan(number * SWEEP_S, "sweep", None, None, None)
        while self._events and self._events[0][0] < until_s:
            at, _, what, site, ask, lease = heapq.heappop(self._events)
            if what == "sweep":
                self._sweep(at)
            elif what == "ask" and ask is not None:
                self._ask(at, ask)
            elif site is not None and ask is not None and lease is not None:
                lease.release()
                site.state.succeeded(NOW + at, ask.service_s)
                site.running -= 1
                self._start(at, site)
        return self._fates

    def _plan(self, at: float, what: str, site: _Site | None, ask: Ask | None, lease: Lease | None) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), what, site, ask, lease))

    def _sweep(self, at: float) -> None:
        held: dict[str, int] = defaultdict(int)
        for site in self._sites.values():
            site.state.holdings.sweep(NOW + at)
            for tenant, holding in site.state.holdings:
                held[tenant] += holding.held
        self.held.append(held)

    def _ask(self, at: float, ask: Ask) -> None:
        world, fate = self._world, self._fates[ask.tenant]
        decision = world.decide(demand(tenant=ask.tenant, output_tokens=1.0), NOW + at)
        if decision.route is None:
            fate.refused.append((ask.at, decision.refusal))
            if decision.refusal == FAIR_SHARE:
                for site in self._sites.values():
                    site.state.holdings.refuse(ask.tenant)
            return
        lease = decision.lease(world.states, NOW + at, world.links, tenant=ask.tenant if self._fair else "")
        site = self._sites[decision.route.backend.name]
        fate.sites[decision.route.backend.name] += 1
        site.waiting.append((ask, lease))
        self._start(at, site)

    def _start(self, at: float, site: _Site) -> None:
        while site.waiting and site.running < site.slots:
            ask, lease = site.waiting.popleft()
            site.running += 1
            self._fates[ask.tenant].ttft_s.append((ask.at, at - ask.at + FIRST_S))
            self._plan(at + ask.service_s, "end", site, ask, lease)
