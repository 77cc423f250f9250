"""What a byte costs now on a line that is billed by its 95th percentile (pricing.percentile).

Below a level the line is free, and so is the rest of a bin that is burnt already. One more byte above it would raise
the bill of the whole period; that is nearly always dearer than any other road, so the level works as a soft cap.

    level      raised while a Mbps of the period costs less than it saves: the newsvendor's choice. What it saves is
               known from a sample of decisions: each that would take the line if it were free is wanted traffic, and is
               worth what its best road without this line costs more. One week of hours is remembered; an hour to come
               is taken to be like the same hour a week ago.
    free bins  a twentieth of the bins of the period. They go where they save most: a bin is burnt when what it saves
               at the rate of the last quarter of an hour is more than the worst bin that the remaining ones are
               expected to be needed for.

Traffic that is sent in a burnt bin and outlives it burns the next one as well, so a bin that was not meant to be burnt
is free only for what will be over with it; and a few free bins are kept for what is still flowing at the end.

A line starts without a level of its own: a day has to be seen before a period can be judged. Until then it is what the
operator plans (`planned_mbps`), which is a floor ever after.
"""

import math
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from pricing.percentile import BilledBins
from routing.constraint import LINK_CAPACITY
from routing.decide import Decision
from routing.estimate import Mean

HOUR_S: Final = 3600.0
WEEK_H: Final = 168
DAY_H: Final = 24
RECENT_S: Final = 900.0  # three bins: long enough to be no noise, short enough to be now
GRADES: Final = 20  # of what a byte saves, half a power of two each
GRADE_OF_UNIT: Final = 6
SLOT_GAIN: Final = 1 / 1024
LEVELS: Final = 20  # steps of a level that are compared
KEEP_BURNING: Final = 0.8  # of what makes it worth to begin: stopping and starting again wastes what still flows
TAIL_HOLDS: Final = 3.0  # means after which hardly any request is still running


class Wanted(NamedTuple):
    """Traffic that would take the line if it were free."""

    size_bytes: float
    saving: float  # against its best road without this line
    service_s: float  # in a slot


NOTHING: Final = Wanted(0.0, 0.0, 0.0)


class Worth:
    """Traffic of a while, sorted by what a byte of it saves: the dearest bytes are the first a line is good for."""

    __slots__ = ("_savings", "_sizes", "_unit")

    def __init__(self, unit: float) -> None:
        """`unit`: money per byte, about what a line costs that is always full."""
        self._unit = unit
        self._sizes = [0.0] * GRADES
        self._savings = [0.0] * GRADES

    def add(self, wanted: Wanted, weight: float) -> None:
        if wanted.size_bytes <= 0.0:
            return
        grade = GRADE_OF_UNIT + math.floor(2 * math.log2(max(wanted.saving / wanted.size_bytes / self._unit, 1e-9)))
        grade = min(max(grade, 0), GRADES - 1)
        self._sizes[grade] += wanted.size_bytes * weight
        self._savings[grade] += wanted.saving * weight

    def fade(self, factor: float) -> None:
        self._sizes = [size * factor for size in self._sizes]
        self._savings = [saving * factor for saving in self._savings]

    def total_bytes(self) -> float:
        return math.fsum(self._sizes)

    def dearest(self, room_bytes: float) -> tuple[float, float]:
        """Of the bytes that save most, as many as there is room for: how many, and what they save."""
        used = saving = 0.0
        for grade in range(GRADES - 1, -1, -1):
            size = self._sizes[grade]
            if used + size > room_bytes:
                return room_bytes, saving + (room_bytes - used) / size * self._savings[grade]
            used += size
            saving += self._savings[grade]
        return used, saving


class Plan(NamedTuple):
    level_mbps: float
    threshold: float  # what a bin must save to be burnt


class BurstableLine:
    """One line. Times are those of the price clock; money is the gateway's."""

    __slots__ = (
        "_burning",
        "_hour",
        "_hours",
        "_recent",
        "_recent_at",
        "_seen_h",
        "_slot_mbps",
        "_so_far",
        "_unit",
        "bins",
        "capacity_mbps",
        "hold_s",
        "plan",
        "planned_mbps",
        "price_per_mbps",
        "rate_mbps",
        "slots",
    )

    def __init__(
        self, bins: BilledBins, price_per_mbps: float, *, planned_mbps: float, capacity_mbps: float, slots: int
    ) -> None:
        """`price_per_mbps`: of the whole period. `capacity_mbps`: what the line can carry, 0 if nobody knows. `slots`:
        of all backends behind it."""
        self.bins = bins
        self.price_per_mbps = price_per_mbps
        self.planned_mbps = planned_mbps
        self.capacity_mbps = capacity_mbps
        self.slots = slots
        self._slot_mbps = Mean(0.0, SLOT_GAIN)  # of a request while it has its slot
        self.rate_mbps = 0.0  # what flows now
        self.hold_s = 0.0  # how long a request flows
        # What a byte costs on a line that is always full.
        self._unit = max(price_per_mbps * 8e-6 / (bins.until - bins.since), 1e-15)
        self.plan = Plan(planned_mbps, math.inf)
        self._hours: list[Worth | None] = [None] * WEEK_H  # the last week, by hour of the week
        self._hour = -1  # since the epoch
        self._seen_h = 0
        self._so_far = Worth(self._unit)
        self._recent = Worth(self._unit)
        self._recent_at = bins.since
        self._burning = False

    def begin(self, bins: BilledBins, price_per_mbps: float) -> None:
        """A new billing period. What is known of the traffic stays."""
        self.bins = bins
        self.price_per_mbps = price_per_mbps
        self._burning = False

    def wanted(self, wanted: Wanted, weight: float, at: float) -> None:
        """A sampled decision, and how many it stands for."""
        if wanted.service_s > 0.0:
            self._slot_mbps.observe(8e-6 * wanted.size_bytes / wanted.service_s)
        self._so_far.add(wanted, weight)
        self._recent.fade(math.exp(-max(at - self._recent_at, 0.0) / RECENT_S))
        self._recent.add(wanted, weight)
        self._recent_at = at

    def hour(self, at: float) -> None:
        """An hour is over. Called once an hour, at its end or later; remembers it and plans the rest of the period."""
        hour = math.floor(at / HOUR_S)
        if self._hour >= 0 and hour > self._hour:
            self._hours[self._hour % WEEK_H] = self._so_far
            self._seen_h += 1
            self._so_far = Worth(self._unit)
        self._hour = hour
        if self._seen_h >= DAY_H:
            self.plan = self._planned(at)

    def price(self, at: float) -> float:
        """Money for one more byte now."""
        level_mbps = self.plan.level_mbps
        bins = self.bins
        left_s = bins.ends_at(at) - at
        in_bin_mbps = bins.rate_mbps(at)
        self._burning = self._worth_burning(at)
        if self._burning:
            return 0.0
        if in_bin_mbps > level_mbps and level_mbps > 0.0 and self.hold_s < left_s:
            return 0.0
        expected_mbps = in_bin_mbps + self.rate_mbps * left_s / bins.bin_s
        if max(expected_mbps, self.rate_mbps) + self._slot_mbps.value <= level_mbps:
            return 0.0
        return self._closed()

    @property
    def lasting_price(self) -> float:
        """Of a byte on a line that is always full: none costs less in the long run."""
        return self._unit

    def _closed(self) -> float:
        """What one more byte above the level adds to the bill."""
        return self.price_per_mbps * 8e-6 / max(self.hold_s, self.bins.bin_s)

    def free_left(self) -> int:
        return self.bins.free - self.bins.above(self.plan.level_mbps)

    @property
    def burning(self) -> bool:
        return self._burning

    def _worth_burning(self, at: float) -> bool:
        threshold, level_mbps = self.plan.threshold, self.plan.level_mbps
        if threshold == math.inf:
            return False
        bin_s = self.bins.bin_s
        wanted_bytes, saving = self._recent.dearest(_room(self._most_mbps(), RECENT_S))
        beyond = 1 - _found_room(level_mbps, wanted_bytes, RECENT_S)
        saves = saving * beyond * bin_s / RECENT_S * math.exp(-max(at - self._recent_at, 0.0) / RECENT_S)
        if saves <= threshold * (KEEP_BURNING if self._burning else 1.0):
            return False
        return self.free_left() > math.ceil(TAIL_HOLDS * self.hold_s / bin_s)

    def _most_mbps(self) -> float:
        """What the slots behind the line can put on it, and the line can carry."""
        most_mbps = self.slots * self._slot_mbps.value
        return min(most_mbps, self.capacity_mbps) if self.capacity_mbps > 0.0 else most_mbps

    def _planned(self, at: float) -> Plan:
        """The level that is worth its price in what is left of the period, and what a free bin is worth then."""
        hours = self._to_come(at)
        floor = max(self.planned_mbps, self.bins.settled_mbps())
        wanted_mbps = max((8e-6 * worth.total_bytes() / HOUR_S for worth, _ in hours), default=0.0)
        top = max(min(wanted_mbps, self._most_mbps()), floor)
        levels = [floor + (top - floor) * step / LEVELS for step in range(LEVELS + 1)]
        per_bin = HOUR_S / self.bins.bin_s
        most_bytes = _room(self._most_mbps(), HOUR_S)
        wanted = [(*worth.dearest(most_bytes), share) for worth, share in hours]
        best: tuple[float, float, float] | None = None
        for level_mbps in levels:
            below = 0.0
            excess = []
            for wanted_bytes, saving, share in wanted:
                part = _found_room(level_mbps, wanted_bytes, HOUR_S)
                below += saving * part * share
                excess.append((saving * (1 - part) / per_bin, share * per_bin))
            burnt, threshold = _burnt(excess, self.bins.free - self.bins.above(level_mbps))
            gain = below + burnt - self.price_per_mbps * (level_mbps - floor)
            if best is None or gain > best[0]:
                best = gain, level_mbps, threshold
        assert best is not None
        _, level_mbps, threshold = best
        return Plan(level_mbps, threshold)

    def _to_come(self, at: float) -> list[tuple[Worth, float]]:
        """The hours left in the period, as they were a week ago, each with the share of it that is left."""
        hour, end = at / HOUR_S, self.bins.until / HOUR_S
        found = []
        while hour < end:
            following = min(math.floor(hour) + 1.0, end)
            found.append((self._like(math.floor(hour)), following - hour))
            hour = following
        return found

    def _like(self, hour: int) -> Worth:
        """The last known hour of the same time of the week, else of the day."""
        for back in range(0, WEEK_H, DAY_H):
            known = self._hours[(hour - back) % WEEK_H]
            if known is not None:
                return known
        return Worth(self._unit)


def _room(mbps: float, span_s: float) -> float:
    """Bytes."""
    return mbps * span_s * 1e6 / 8


def _found_room(level_mbps: float, wanted_bytes: float, span_s: float) -> float:
    """The part of traffic that is below a level. Whoever comes first has the room."""
    return min(_room(level_mbps, span_s) / wanted_bytes, 1.0) if wanted_bytes > 0.0 else 1.0


def _burnt(excess: list[tuple[float, float]], free: float) -> tuple[float, float]:
    """What free bins save on the best of the bins to come, and what the worst of them saves."""
    burnt, threshold = 0.0, 0.0
    for saves, bins in sorted(excess, reverse=True):
        taken = min(bins, max(free, 0.0))
        burnt += saves * taken
        free -= taken
        if taken < bins:
            return burnt, saves
    return burnt, threshold


def savings(decision: Decision, line: Collection[str], lasting: Mapping[str, float]) -> Wanted:
    """What one explained decision would save by taking a line if that were free; `line` are the names of its links.

    The other lines of this kind take part at what their bytes cost at least in the long run (`lasting`, by link):
    what is free today because its level was paid for another time is no reason to do without this line. Counted are
    routes that are ordered by their money: what is chosen for its speed takes a line at any price. A line that is
    full is wanted as well. What the slots behind the line are worth is left out, because it is no price of theirs as
    long as the line is what is scarce; `BurstableLine` knows how much they can put on it.
    """
    if decision.rule is None:
        return NOTHING
    within_s = decision.rule.money_decides_within_s
    feasible = [
        (candidate, candidate.quote)
        for candidate in decision.candidates
        if candidate.excluded in ("", LINK_CAPACITY) and candidate.ttft_s <= within_s
    ]
    behind = {candidate.route.backend.name for candidate, _ in feasible if candidate.route.link_name in line}
    on_line = elsewhere = math.inf
    line_bytes = service_s = 0.0
    for candidate, offer in feasible:
        money = offer.total - offer.capacity if candidate.route.backend.name in behind else offer.total
        if candidate.route.link_name not in line:
            if not candidate.excluded:
                least = lasting.get(candidate.route.link_name, 0.0) * candidate.line_bytes
                elsewhere = min(elsewhere, money + max(least - offer.link, 0.0))
        elif money - offer.link < on_line:
            on_line, service_s = money - offer.link, candidate.service_s
            line_bytes = candidate.line_bytes
    if on_line >= elsewhere or elsewhere == math.inf:
        return NOTHING
    return Wanted(line_bytes, elsewhere - on_line, service_s)
