"""Lines billed by their 95th percentile, fed with what a router knows of their rows.

A row flows evenly from its start to its end. While it runs its bytes and its time are what was expected of it; when it
ends, what it really was takes the place of that in the bins.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from pricing.percentile import BilledBins
from routing.burstable import BurstableLine
from routing.candidate import Candidate
from routing.estimate import Mean
from routing.simulator.staging import LINE_RESERVE, link_name
from routing.simulator.world import MONTH_S, P95, Link, World


class Flowing(NamedTuple):
    bytes_per_s: float
    since_s: float


class Meter:
    """One line: the production class, and what is in flight over it."""

    __slots__ = ("_bytes_per_s", "_flowing", "_hold", "_line", "_now", "_price_per_month", "_world", "links")

    def __init__(self, world: World, link: Link) -> None:
        self._world = world
        self._price_per_month = link.usd_per_mbps_month
        self._line = BurstableLine(
            *self._period(0.0),
            planned_mbps=0.0,
            capacity_mbps=link.capacity_mbps * (1 - LINE_RESERVE),
            slots=world.sites[link.site].slots,
        )
        self._flowing: dict[int, Flowing] = {}
        self._bytes_per_s = 0.0
        self._hold = Mean(0.0)
        self._now = 0.0
        self.links: Final = tuple(link_name(link.name, region) for region in link.rtt_s)

    @property
    def line(self) -> BurstableLine:
        return self._line

    def _period(self, now: float) -> tuple[BilledBins, float]:
        scenario = self._world.scenario
        period_s = scenario.billing_period_s
        since = now // period_s * period_s
        bins = BilledBins(since, min(since + period_s, scenario.duration_s), scenario.bin_s)
        return bins, self._price_per_month * period_s / MONTH_S

    def advance(self, now: float) -> None:
        """What flows, flows on."""
        bins = self._line.bins
        if now >= bins.until and bins.until < self._world.scenario.duration_s:
            bins.flow(self._bytes_per_s * (bins.until - self._now), self._now, bins.until)
            self._now = bins.until
            self._line.begin(*self._period(now))
            bins = self._line.bins
        if now > self._now:
            bins.flow(self._bytes_per_s * (now - self._now), self._now, now)
            self._now = now

    def started(self, row: int, best: Candidate, now: float) -> None:
        self.advance(now)
        size_bytes = best.line_bytes
        flowing = Flowing(size_bytes / max(best.service_s, 1e-3), now)
        self._flowing[row] = flowing
        self._set(self._bytes_per_s + flowing.bytes_per_s)

    def ended(self, row: int, size_bytes: float, hold_s: float, now: float) -> None:
        """Of all the row stands for."""
        self.advance(now)
        flowing = self._flowing.pop(row)
        bins = self._line.bins
        bins.flow(size_bytes - flowing.bytes_per_s * hold_s, flowing.since_s, now)
        self._hold.observe(hold_s)
        self._line.hold_s = self._hold.value
        self._set(self._bytes_per_s - flowing.bytes_per_s if self._flowing else 0.0)

    def _set(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._line.rate_mbps = 8e-6 * bytes_per_s


def meters(world: World) -> Mapping[str, Meter]:
    return {link.name: Meter(world, link) for link in world.links.values() if link.billing == P95}
