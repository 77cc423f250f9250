"""Traffic in virtual time: requests arrive, the real `decide` places them, scripted sites answer, the states learn.

What happens to a request here is what the data plane does with it: a lease in the tick of the decision, TTFT at the
first content event, pace and health at the end, another route after a failure, probes of sites that are out. Sites can
be made slow or faulty and well again; nothing else about them is told to anybody.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random

from routing.demand import Demand
from tests.routing.world import World, demand

TTFT_S = 0.2
ITL_S = 0.02
OUTPUT_TOKENS = 100
FAILURE_S = 0.005  # a failure is quick
NOISE = 0.1  # of a time, one standard deviation
PROBE_S = 0.02
WAITS_MAX = 60  # a request that waits is looked at every second


@dataclass
class Site:
    """How a backend behaves now."""

    slower: float = 1.0
    failing: float = 0.0  # share of its requests


@dataclass
class Traffic:
    """Seeded requests at a rate, over the sites of a world."""

    world: World
    rate_per_s: float
    rng: Random
    wanted: Demand = field(default_factory=lambda: demand(input_tokens=1000, output_tokens=float(OUTPUT_TOKENS)))
    now: float = 1000.0
    sites: dict[str, Site] = field(default_factory=dict)
    placed: list[tuple[float, str]] = field(default_factory=list)  # when, and where its first attempt went

    def __post_init__(self) -> None:
        self.sites = {name: Site() for name in self.world.states}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._probing: set[str] = set()
        self._at(self.now, self._arrive)
        self._at(self.now, self._probe)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._due[0][0] <= until:
            self.now, _, act = heapq.heappop(self._due)
            act()
        self.now = until

    def behave(self, name: str, *, slower: float = 1.0, failing: float = 0.0) -> None:
        """From now on this site is so much slower, or fails so many of its requests; without either it is well."""
        self.sites[name] = Site(slower, failing)

    def shares(self, name: str, window_s: float, since: float) -> list[float]:
        """The site's share of the requests of each whole window since then."""
        found = []
        while since + window_s <= self.now:
            names = [where for when, where in self.placed if since <= when < since + window_s]
            found.append(names.count(name) / max(len(names), 1))
            since += window_s
        return found

    # ---- what happens

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._numbers), act))

    def _arrive(self) -> None:
        self._at(self.now + self.rng.expovariate(self.rate_per_s), self._arrive)
        self._attempt(())

    def _attempt(self, tried: tuple[str, ...]) -> None:
        world = self.world
        decision = world.decide(self.wanted, self.now, rng=self.rng, excluded=frozenset(tried))
        if decision.route is None or decision.best is None:
            assert tried, decision.refusal
            return
        name, known_s = decision.route.backend.name, decision.best.known_s
        if not tried:
            self.placed.append((self.now, name))
        state, site, lease = world.states[name], self.sites[name], decision.lease(world.states, self.now, world.links)
        if self.rng.random() < site.failing:

            def fail() -> None:
                state.failed(self.now, "status")
                lease.release()
                if len(tried) < 2:
                    self._attempt((*tried, name))

            self._at(self.now + FAILURE_S, fail)
            return
        own_s = TTFT_S * site.slower * self._noise()
        prefill_s = self.wanted.input_tokens / decision.route.backend.prefill_tokens_per_s
        stream_s = (OUTPUT_TOKENS - 1) * ITL_S * site.slower * self._noise()
        sent_at, fresh = self.now, self.wanted.input_tokens
        ttft_s = known_s + own_s + prefill_s

        def first() -> None:
            state.answered(ttft_s, fresh, self.now, known_s)

        def late() -> None:
            state.overdue(self.now - sent_at, fresh, self.now, known_s)

        def end() -> None:
            lease.release()
            state.succeeded(self.now, self.now - sent_at - known_s)
            state.streamed(stream_s, OUTPUT_TOKENS, sent_at, self.now)

        for wait_s in range(1, min(int(ttft_s), WAITS_MAX) + 1):
            self._at(self.now + wait_s, late)
        self._at(self.now + ttft_s, first)
        self._at(self.now + ttft_s + stream_s, end)

    def _noise(self) -> float:
        return max(0.5, self.rng.gauss(1.0, NOISE))

    def _probe(self) -> None:
        self._at(self.now + 1.0, self._probe)
        for name, state in self.world.states.items():
            if name not in self._probing and state.health.probe_due(self.now):
                self._probing.add(name)
                self._at(self.now + PROBE_S, partial(self._probed, name))

    def _probed(self, name: str) -> None:
        self._probing.discard(name)
        self.world.states[name].health.probe_ok(self.now)
