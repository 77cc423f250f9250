"""Prices of room in the replay: slots, and lines with a capacity.

The classes are those of production; here they are fed by what the router sees. A plan is made when an hour begins, from
a forecast of it, and the correction follows every few minutes, when prices become public and when an outage is noticed.
Load is counted in rows: each stands for many requests, one after another in one slot, so rates are times `thin`.
"""

from collections.abc import Iterable
from typing import Final

from pricing.book import PriceBook
from pricing.units import GB
from routing.demand import Demand
from routing.forecast import Forecast, KindKey, Sums
from routing.link import LinkState
from routing.occupancy import SlotPrice, constant
from routing.plan import MBIT_PER_BYTE, Problem, Solve, Surroundings, plan, pose
from routing.shadow import ShadowPrices
from routing.simulator.policies import CORRECTION, PLAN
from routing.simulator.staging import Fleet, link_name
from routing.simulator.world import HOUR_S, World

FOLLOW_S: Final = 300.0  # of virtual time; a row holds its slot about three times as long
ROWS_MIN: Final = 50  # before there is a rate


class Room:
    def __init__(self, world: World, fleet: Fleet, made_by: frozenset[str], solve: Solve | None) -> None:
        self._world = world
        self._fleet = fleet
        self._plans = PLAN in made_by
        self._corrects = CORRECTION in made_by
        self._solve = solve
        self._forecast = Forecast()
        self._shadow = ShadowPrices()
        self._book: PriceBook | None = None
        self._rows = 0
        self._follow_at = 0.0
        self._lasting: dict[str, float] = {}
        self._around = Surroundings(
            fleet.tables,
            (),
            {name: site.itl_s for name, site in world.sites.items()},
            {link_name(line, region): line for line in world.links for region in world.regions},
            world.framing.bytes_per_output_token,
            self._lasting,
        )
        # Lines with a capacity, as edges see them.
        self._capped = {
            name: [*line.by_region.values()]
            for name, line in fleet.lines.items()
            if world.links[name].capacity_mbps > 0
        }
        # Of a byte: what the line takes for it, and what its place is worth to others on top.
        self._listed = {
            link_name(name, region): link.per_gb(region) / GB
            for name, link in world.links.items()
            for region in link.rtt_s
        }
        self._more: dict[str, float] = {}
        self._capacity_mbps = {
            line: fleet.tables[region].links[link_name(line, region)].capacity_mbps
            for line in self._capped
            for region in fleet.lines[line].by_region
        }
        self.slot_prices: dict[str, SlotPrice] = {}
        self.link_prices: dict[str, float] = {}

    def hour(self, book: PriceBook, now: float) -> None:
        self._book, self._follow_at = book, now
        if self._plans and self._solve is not None and self._rows >= ROWS_MIN:
            problem = self._problem(now, now + HOUR_S / 2)
            planned = plan(problem, self._solve)
            if planned is not None:
                self._shadow.anchor(problem, planned)
                if not self._corrects:
                    self._hold(problem)

    def published(self, book: PriceBook, now: float) -> None:
        self._book, self._follow_at = book, now

    def noticed(self, now: float) -> None:
        self._follow_at = now

    def arrived(self, region: str, demand: Demand, now: float) -> None:
        if not (self._plans or self._corrects):
            return
        self._rows += 1
        self._forecast.observe(KindKey.of(region, demand), Sums.of(demand), self._world.scenario.start + now)
        if self._corrects and now >= self._follow_at and self._rows >= ROWS_MIN:
            self._shadow.follow(self._problem(now, now))
            self.slot_prices.clear()
            self.slot_prices.update(self._shadow.by_site)
            for line in self._capped:
                self.line_changed(line)
            self._follow_at = now + FOLLOW_S

    def line_changed(self, line: str) -> None:
        """Its load did. What a byte costs is what the line takes for it, and what its place is worth to others."""
        price = self._shadow.by_line.get(line)
        if price is None or not self._corrects:
            return
        links = self._capped[line]
        self._set(links, price.at(sum(link.mbps for link in links) / self._capacity_mbps[line]))

    def quoted(self, links: Iterable[str], price: float, lasting: float) -> None:
        """What a byte costs now on a line whose billing has a state, and what to plan with."""
        for link in links:
            self._lasting[link] = lasting
            self._listed[link] = price
            self.link_prices[link] = price + self._more.get(link, 0.0)

    def _set(self, links: Iterable[LinkState], more: float) -> None:
        for link in links:
            name = link.name
            if more > 0.0 or name in self._lasting:
                self._more[name] = more
                self.link_prices[name] = self._listed[name] + more
            elif self._more.pop(name, 0.0):
                del self.link_prices[name]

    def _problem(self, now: float, at: float) -> Problem:
        """Of the moment, or of an hour, at the prices known for it."""
        assert self._book is not None
        start, thin = self._world.scenario.start, self._world.scenario.thin
        expected = self._forecast.at_hour(start + at, start + now)
        rows = [each._replace(rate_per_s=each.rate_per_s * thin) for each in expected]
        out = [name for name, link in self._fleet.links.items() if not link.up]
        return pose(rows, self._book.at(start + now), self._around._replace(out=out))

    def _hold(self, problem: Problem) -> None:
        """A plan's own prices, whatever the load."""
        duals = self._shadow.planned(problem)
        self.slot_prices.clear()
        self.slot_prices.update(zip(problem.sites, map(constant, duals.slots), strict=True))
        for line, per_mbit in zip(problem.lines, duals.lines, strict=True):
            self._set(self._capped[line], per_mbit * MBIT_PER_BYTE)
