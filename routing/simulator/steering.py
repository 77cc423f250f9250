"""What steers decisions beyond prices that are quoted: the shadow prices, and what is warm.

One object for a replay. It is told what a router may know, in the order in which that becomes known, and gives the
arguments of decide() that have a memory:

    slot_prices   by backend: money per second in a slot, by load (`room`)
    link_prices   by link as an edge sees it: money per byte at the margin, for links whose billing has a state
    warm          by backend: tokens of a prompt that are expected to be in its cache

Told of a row is its demand, its place and, when it ends, what it took; its output length is in nothing that is told
before. The parts that learn are those of production: here they are only fed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from pricing.book import PriceBook
from routing.burstable import savings
from routing.candidate import Candidate
from routing.decide import Decision
from routing.demand import Demand
from routing.occupancy import SlotPrice
from routing.plan import Solve
from routing.simulator.lines import meters
from routing.simulator.policies import Policy
from routing.simulator.room import Room
from routing.simulator.staging import Fleet
from routing.simulator.world import Fault, World
from routing.warmth import BLOCK_TOKENS, Warmth, expected_hits

SAMPLED_ONE_IN: Final = 4  # decisions that are explained, to learn what lines are wanted for

NOTHING: Final[Mapping[str, float]] = MappingProxyType({})


class Asked(NamedTuple):
    """A row that is to be decided."""

    request_id: int
    region: str
    demand: Demand
    prefix_blocks: tuple[int, ...]


class Sent(NamedTuple):
    """A row on its way."""

    asked: Asked
    site: str
    line: str
    best: Candidate  # as it was chosen
    sent_s: float


class Ended(NamedTuple):
    """What a row took, known when it is whole."""

    start_s: float
    hold_s: float
    hit_tokens: int
    output_tokens: int


class Steering:
    """Of a policy: what it does not steer by stays empty. Times are seconds after the start of the scenario."""

    def __init__(self, world: World, fleet: Fleet, policy: Policy, solve: Solve | None) -> None:
        self._world = world
        self._meters = meters(world) if policy.steers else {}
        self._lines = list(self._meters.values())
        self._leading: dict[int, int] = {}  # by running row: blocks that were in the cache when it started
        self._rows = 0
        sites = world.sites.values() if policy.steers else ()
        self._caches = {site.name: Warmth(site.cache_blocks) for site in sites if site.cache_blocks}
        self._room = Room(world, fleet, policy.shadow_prices, solve)
        self.slot_prices: Mapping[str, SlotPrice] = self._room.slot_prices
        self.link_prices: Mapping[str, float] = self._room.link_prices

    def samples(self) -> bool:
        """Whether the next decision is to be explained."""
        self._rows += 1
        return bool(self._lines) and self._rows % SAMPLED_ONE_IN == 0

    def decided(self, decision: Decision, now: float) -> None:
        """A row's first decision; with all candidates if it was a sample."""
        if decision.candidates:
            weight = SAMPLED_ONE_IN * self._world.scenario.thin
            lasting = {link: meter.line.lasting_price for meter in self._lines for link in meter.links}
            for meter in self._lines:
                meter.line.wanted(savings(decision, meter.links, lasting), weight, now)

    def warm(self, asked: Asked, now: float) -> Mapping[str, float]:
        """Tokens expected in the caches of the sites."""
        blocks = asked.prefix_blocks
        if not self._caches or not blocks:
            return NOTHING
        return expected_hits(self._caches, blocks, BLOCK_TOKENS, asked.demand.input_tokens)

    def hour(self, book: PriceBook, now: float) -> None:
        """An hour begins; the first one with the replay."""
        for meter in self._lines:
            meter.advance(now)
            meter.line.hour(now)
            self._room.quoted(meter.links, meter.line.price(now), meter.line.lasting_price)
        self._room.hour(book, now)

    def published(self, book: PriceBook, now: float) -> None:
        """Prices became public."""
        self._room.published(book, now)

    def noticed(self, fault: Fault, down: bool, now: float) -> None:
        """Monitoring, or a row that failed, tells of an outage; or of its end."""
        self._room.noticed(now)

    def arrived(self, asked: Asked, now: float) -> None:
        """A row is about to be decided for the first time."""
        for meter in self._lines:
            meter.advance(now)
            self._room.quoted(meter.links, meter.line.price(now), meter.line.lasting_price)
        self._room.arrived(asked.region, asked.demand, now)

    def sent(self, sent: Sent, now: float) -> None:
        """It was decided."""
        self._room.line_changed(sent.line)

    def failed(self, sent: Sent, now: float) -> None:
        """It ran into an outage."""
        self._room.line_changed(sent.line)

    def started(self, sent: Sent, now: float) -> None:
        """It got its slot."""
        cache = self._caches.get(sent.site)
        if cache is not None:
            blocks = sent.asked.prefix_blocks
            self._leading[sent.asked.request_id] = cache.leading(blocks)
            cache.touch(blocks)
        meter = self._meters.get(sent.line)
        if meter is not None:
            meter.started(sent.asked.request_id, sent.best, now)

    def ended(self, sent: Sent, ended: Ended, now: float) -> None:
        """It is whole."""
        leading = self._leading.pop(sent.asked.request_id, 0)
        if leading:
            expected_tokens = min(BLOCK_TOKENS * leading, sent.asked.demand.input_tokens - 1)
            self._caches[sent.site].reported(ended.hit_tokens, expected_tokens)
        meter = self._meters.get(sent.line)
        if meter is not None:
            world = self._world
            size_bytes = world.framing.size_bytes(sent.asked.demand.input_tokens, ended.output_tokens)
            meter.ended(sent.asked.request_id, world.scenario.thin * size_bytes, ended.hold_s, now)
        self._room.line_changed(sent.line)
