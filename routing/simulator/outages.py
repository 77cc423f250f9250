"""Faults of sites and links, and what the router knows of them.

A fault is in force for a while; the router counts the site or link as well until `fault_detect_s` after its start and
as down until as long after its end. In between its start and its detection a row sent there fails, and from then on
the fault is known too. Known faults become what production would make of them: a link that is down, and for a site all
links that lead to it; when the fault is known to be over, good probes.
"""

from collections.abc import Iterator
from typing import NamedTuple

from routing.health import HealthLimits
from routing.simulator.costs import stops
from routing.simulator.staging import Fleet
from routing.simulator.world import FEED_DEAD, SITE_DOWN, Fault, World


class Notice(NamedTuple):
    """What monitoring tells, and when."""

    at_s: float
    fault: Fault
    down: bool


class Outages:
    def __init__(self, world: World, fleet: Fleet) -> None:
        self._detect_s = world.publication.fault_detect_s
        self._faults = [fault for fault in world.faults if fault.kind != FEED_DEAD and fault.to_s > fault.from_s]
        self._links = world.links
        self._fleet = fleet
        self._known: set[Fault] = set()

    def notices(self) -> Iterator[Notice]:
        for fault in self._faults:
            yield Notice(fault.from_s + self._detect_s, fault, True)
            yield Notice(fault.to_s + self._detect_s, fault, False)

    def stopping(self, link: str, at_s: float) -> Fault | None:
        """The truth: what makes a row fail that is sent over the link now. A cut hides the site behind it."""
        found = [fault for fault in self._faults if fault.in_force(at_s) and stops(fault, self._links[link])]
        return min(found, key=lambda fault: fault.kind == SITE_DOWN, default=None)

    def learn(self, fault: Fault, now: float) -> None:
        """A row failed of it, or monitoring saw it."""
        if now < fault.to_s + self._detect_s:
            self._known.add(fault)
            self._apply()

    def forget(self, fault: Fault, now: float) -> None:
        """Monitoring saw it end."""
        self._known.discard(fault)
        self._apply()
        if fault.kind == SITE_DOWN and fault.target in self._fleet.states:
            state = self._fleet.states[fault.target]
            for _ in range(HealthLimits().probes_good):
                state.health.probe_ok(now)

    def _apply(self) -> None:
        for name, line in self._fleet.lines.items():
            line.set_up(not any(stops(fault, self._links[name]) for fault in self._known))
