"""Fair shares of a backend's slots: who may still be sent there while it fills up.

The gateway queues nothing: what is sent beyond a backend's slots waits in the backend's own queue, first come first
served, and there one tenant's flood is everybody's wait. So fairness is a question of admission, asked per backend (a
request has as many answers as routes, and is refused only if all of them say no).

    need    slots a tenant holds on average over ten seconds, as many times more as it asks more often than it gets
    share   the max-min fair part of the slots: whoever needs less than an equal part has what it needs, and the
            others have equal parts of the rest
    usual   an average and two standard deviations of it: arrivals are random, and a count's variance is about its mean

A tenant within its share is never refused a request if it has none, nor three times what it usually holds. Beyond that
there are only free slots, and not the last ones. A tenant within its share leaves what those who need less than it
holds usually hold; one beyond it leaves what all within their shares usually hold (together, since bursts of many do
not coincide, and at least one slot), and to every smaller one beyond its share what makes them equal, up to a burst. So
whoever holds more than a share has borrowed it, and gets no more until the others have theirs. Slots can be borrowed,
the queue cannot, except by a tenant that is alone.

Nothing is taken away: what is held beyond a share comes back as its answers end. A tenant beyond its share may have to
wait for that, but not for ever: one that got nothing for a minute is let in once. Needs and shares are worked out at a
sweep, a few times a second, and move as slowly as needs do; who holds what is exact at every moment. A decision costs
nothing until a backend is nearly full, and then one pass over the tenants that use it.

Several workers fill the same slots. Each knows exactly how full a backend is, and of every tenant how many requests the
others have; on which backends is not told. So these are taken to be where the tenant's requests of this worker are, and
those of a tenant that has none here, where the others' load is (`spread`).
"""

from collections.abc import Iterator, Mapping
from math import ceil, exp, inf, sqrt
from types import MappingProxyType
from typing import Final

MEAN_S: Final = 10.0  # memory of needs: some generations of short answers, and one of long ones
ACTIVE_S: Final = 60.0  # so long after its last request a tenant still has a slot kept free: people pause
BURST: Final = 2.0  # standard deviations: all but a fortieth of the moments
OWN_BURSTS: Final = 3  # times the usual that a tenant within its share may hold, queue included

NOBODY: Final[Mapping[str, float]] = MappingProxyType({})


class Holding:
    """One tenant on one backend."""

    __slots__ = ("admitted", "elsewhere", "held", "mean", "need", "refused", "settled", "starved", "sweeps", "used_at")

    def __init__(self, now: float) -> None:
        self.held = 0  # requests in flight
        self.elsewhere = 0.0  # the same of other workers, as far as can be told
        self.mean = 0.0  # of both
        self.settled = 0.0  # the same, but a newcomer's grows from nothing
        self.need = 0.0
        self.admitted = 0.0  # requests, fading
        self.refused = 0.0  # the same
        self.sweeps = 0
        self.starved = False
        self.used_at = now

    @property
    def total(self) -> float:
        return self.held + self.elsewhere

    def observe(self, now: float, fading: float, slots: int) -> None:
        """`fading`: what is left of the past since this was last done."""
        self.sweeps += 1
        total = self.total
        if total:
            self.used_at = now
        self.settled = total + (self.settled - total) * fading
        self.mean += (total - self.mean) * max(1.0 - fading, 1.0 / self.sweeps)
        self.need = self.mean * (1.0 + self.refused / max(self.admitted, 1e-9))
        if self.need > slots:
            # More than all there is means nothing more, and would be remembered for longer.
            self.refused *= slots / self.need
            self.need = float(slots)
        self.admitted *= fading
        self.refused *= fading


class Holdings:
    """All tenants on one backend. Asking writes nothing."""

    __slots__ = ("_by_tenant", "_swept_at", "reserve", "share", "slots")

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.share = float(slots)
        self.reserve = 0  # free slots from which down somebody may be refused
        self._by_tenant: dict[str, Holding] = {}
        self._swept_at = -inf

    def __iter__(self) -> Iterator[tuple[str, Holding]]:
        """Tenants and what they have here."""
        return iter(self._by_tenant.items())

    def take(self, tenant: str, now: float) -> Holding:
        """A request of this tenant begins; its end is `held -= 1`."""
        holding = self._by_tenant.get(tenant)
        if holding is None:
            holding = self._by_tenant[tenant] = Holding(now)
            # Until the next sweep knows better, all make room for it alike.
            count = len(self._by_tenant)
            self.share *= max(count - 1, 1) / count
        holding.held += 1
        holding.admitted += 1.0
        holding.starved = False
        holding.used_at = now
        return holding

    def traffic(self, tenant: str) -> float:
        """How much a tenant lately did here, in this worker."""
        holding = self._by_tenant.get(tenant)
        return 0.0 if holding is None else holding.held + holding.admitted

    def refuse(self, tenant: str) -> None:
        """A request was turned away: its tenant needs more than it holds."""
        holding = self._by_tenant.get(tenant)
        if holding is not None:
            holding.refused += 1.0

    def closed(self, tenant: str, load: int) -> bool:
        """Whether one more request of this tenant would take what others have a right to."""
        if load + self.reserve < self.slots or len(self._by_tenant) < 2:
            return False
        mine = self._by_tenant.get(tenant)
        if mine is None:
            return False
        within = self._within(mine)
        if mine.starved or (within and mine.total + 1 <= min(OWN_BURSTS * _usual(mine.settled), max(self.share, 1.0))):
            return False
        return self._spoken_for(mine, within, load) + 1 > self.slots

    def sweep(self, now: float, elsewhere: Mapping[str, float] = NOBODY) -> None:
        """Observe who holds what, here and in other workers, let the past fade, and share anew."""
        for holding in self._by_tenant.values():
            holding.elsewhere = 0.0
        for tenant, count in elsewhere.items():
            self._by_tenant.setdefault(tenant, Holding(now)).elsewhere = count
        fading = exp(min(self._swept_at - now, 0.0) / MEAN_S)
        self._swept_at = now
        for tenant, holding in list(self._by_tenant.items()):
            holding.observe(now, fading, self.slots)
            if now - holding.used_at > ACTIVE_S:
                holding.starved = holding.refused > 0.5
                if not holding.starved:
                    del self._by_tenant[tenant]
        holdings = self._by_tenant.values()
        self.share = _level(sorted(holding.need for holding in holdings), self.slots)
        self.reserve = 0
        if len(holdings) > 1:
            within = sum(holding.need for holding in holdings if self._within(holding))
            over = sum(1 for holding in holdings if not self._within(holding))
            # They hold their mean by and large; twice their bursts are missing when they hold least.
            self.reserve = over + 1 + ceil(2 * BURST * sqrt(within))

    def forget(self) -> None:
        """Fair shares were switched off: nobody has any."""
        self._by_tenant.clear()
        self.share, self.reserve = float(self.slots), 0

    def _within(self, holding: Holding) -> bool:
        return holding.need <= max(self.share, 1.0)

    def _spoken_for(self, mine: Holding, within: bool, load: int) -> float:
        """Slots in use, and those that this tenant has to leave to the others.

        What the tenants hold that it makes room for is what is left of the load: that changes fast, and of other
        workers only the sum is known at once.
        """
        guests = 0
        held, need, smaller = mine.total, 0.0, 0.0
        burst = BURST * sqrt(max(self.share, 1.0))
        for other in self._by_tenant.values():
            if other is mine:
                continue
            if not self._within(other):
                held += other.total
                if other.total <= mine.total:
                    smaller += min(mine.total + 1 - other.total, burst)
            elif within and other.need > mine.total:
                held += other.total
            else:
                guests += 1
                need += other.need
        spoken_for = max(load, held + _usual(need)) if guests else load
        return spoken_for if within else spoken_for + smaller


def spread(
    holdings: Mapping[str, Holdings], loads: Mapping[str, int], elsewhere: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """By backend and tenant: where the requests probably are that tenants have in other workers.

    `loads` are those of the other workers by backend, `elsewhere` their requests by tenant.
    """
    parts: dict[str, dict[str, float]] = {name: {} for name in holdings}
    for tenant, count in elsewhere.items():
        known: Mapping[str, float] = {name: each.traffic(tenant) for name, each in holdings.items()}
        if sum(known.values()) < 0.5:
            known = loads
        total = sum(known.values())
        for name in holdings:
            if known[name]:
                parts[name][tenant] = count * known[name] / total
    return parts


def _usual(need: float) -> float:
    return max(need + BURST * sqrt(need), 1.0)


def _level(needs: list[float], slots: int) -> float:
    """The max-min fair part of `slots`, given all needs in ascending order; the greatest may have all that is left."""
    sharers, met = len(needs), 0.0
    for need in needs[:-1]:
        if need * sharers >= slots - met:
            break
        met += need
        sharers -= 1
    left = slots - (_usual(met) if sharers < len(needs) else 0.0)
    return max(left, 0.0) / max(sharers, 1)
