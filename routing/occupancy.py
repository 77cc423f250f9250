"""What a slot costs the others at each number of requests in a site: lambda as a function of its load.

One site is a birth-death chain: n requests are there, min(n, slots) of them served, each leaves after a mean time of 1.
Requests that would come here are offered in kinds i of e_i erlangs, worth w_i per slot-second more here than at their
next best place. One is taken at n if it is worth more than the slot's price and its own wait:

    taken at n         w_i > lambda(n) + v_i x wait(n) / service_s
    b(n), r(n)         arrivals taken and what they are worth, per unit of time
    lambda(n)          what one more request at n costs in the long run: it displaces others until it has left

lambda(n) is the difference of the relative values of n and n + 1 (Howard), as separable shadow prices in circuit
switching are (Ott and Krishnan, Key, Kelly). With pi the stationary distribution and r the mean worth under it,

    lambda(n) = sum over k <= n of pi(k) (r(k) - r) / (b(n) pi(n))
              = sum over k >  n of pi(k) (r - r(k)) / (d(n+1) pi(n+1))

of which the first is exact below the middle of pi and the second above it. What is taken depends on lambda, so it is a
policy iteration; it converges in a few steps, and the prices of the last time are where it starts.

So a slot costs nothing at an empty site, little at a half full one, and near its last free slots as much as the
requests that would come are worth: a price that follows the load from one request to the next, without a control loop.
"""

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Final, NamedTuple, TypeAlias

STEPS: Final = 2
# A kind is not one worth but a spread of sizes and lengths about it: half the width of the spread, of the mean worth.
SPREAD: Final = 0.6
# The chain is worked out this far about the slots, in standard deviations of a full site; outside it stays as it is.
REACH: Final = 4.0
STATES_MAX: Final = 128  # on either side: the work for the largest sites
TINY: Final = 1e-12
HUGE: Final = 1e200

Want: TypeAlias = tuple[float, float, float]  # erlangs, worth per slot-second, loss per slot-second and second of wait


class SlotPrice(NamedTuple):
    """Money per slot-second by load: 0 below `first`, then one price per request there, the last for all beyond."""

    first: int
    by_load: tuple[float, ...]

    def at(self, load: int) -> float:
        number = load - self.first
        return 0.0 if number < 0 else self.by_load[min(number, len(self.by_load) - 1)]


FREE: Final = SlotPrice(0, (0.0,))


def constant(price: float) -> SlotPrice:
    return SlotPrice(0, (price,))


def slot_price(
    slots: int, queue_max: int, wants: Sequence[Want], service_s: float = 0.0, before: SlotPrice = FREE
) -> SlotPrice:
    """`service_s`: the mean, which makes a place in the queue a time. `before`: where to start from."""
    width = min(ceil(REACH * sqrt(slots)), STATES_MAX)
    first, end = max(slots - width, 0), slots + min(queue_max, width)
    erlangs = sum(want[0] for want in wants)
    if erlangs <= 0.0 or end <= first or erlangs + REACH * sqrt(erlangs) < first:
        return FREE
    most = max(want[1] for want in wants)
    spread = max(SPREAD * sum(want[0] * want[1] for want in wants) / erlangs, TINY)
    prices = [before.at(load) for load in range(first, end)]
    for _ in range(STEPS):
        births, worths = _taken(first, slots, wants, prices, service_s, spread)
        prices = _relative(first, slots, births, worths, most)
    return SlotPrice(first, tuple(prices))


def _taken(
    first: int, slots: int, wants: Sequence[Want], prices: Sequence[float], service_s: float, spread: float
) -> tuple[list[float], list[float]]:
    """Erlangs taken in each state, and what they are worth; at the end nothing is."""
    births: list[float] = []
    worths: list[float] = []
    quarter = 0.25 / spread
    for load, price in enumerate(prices, first):
        wait_s = (load + 1 - slots) / slots * service_s if load >= slots else 0.0
        birth = worth = 0.0
        for erlangs, value, patience in wants:
            surplus = value - patience * wait_s - price
            if surplus >= spread:
                birth += erlangs
                worth += erlangs * (surplus + price)
            elif surplus > -spread:  # part of the kind is worth more than the price
                reach = surplus + spread
                share = 0.5 * reach / spread
                birth += erlangs * share
                worth += erlangs * (reach * reach * quarter + share * price)
        births.append(birth if birth > TINY else TINY)
        worths.append(worth)
    worths.append(0.0)
    return births, worths


def _relative(first: int, slots: int, births: Sequence[float], worths: Sequence[float], most: float) -> list[float]:
    count = len(births)
    pi = [1.0]
    for number in range(count):
        pi.append(pi[-1] * births[number] / min(first + number + 1, slots))
        if pi[-1] > HUGE:
            pi = [each / HUGE for each in pi]
    whole = sum(pi)
    pi = [each / whole for each in pi]
    mean = sum(share * worth for share, worth in zip(pi, worths, strict=True))
    prices = [0.0] * count
    below = passed = 0.0
    for number in range(count):  # below the middle
        below += pi[number] * (worths[number] - mean)
        passed += pi[number]
        if passed >= 0.5:
            break
        if pi[number] > TINY * TINY:
            prices[number] = below / (births[number] * pi[number])
    above = 0.0
    middle = number
    for number in range(count - 1, middle - 1, -1):
        above += pi[number + 1] * (mean - worths[number + 1])
        if pi[number + 1] > TINY * TINY:
            prices[number] = above / (min(first + number + 1, slots) * pi[number + 1])
    least = 0.0
    for number, price in enumerate(prices):  # one more request there never makes the next one cheaper
        least = prices[number] = min(max(price, least), most)
    return prices
