"""What will be asked for: learned online, by kinds of requests.

A kind is what decides where a request may go and what its time is worth: where it comes from, its model, destination,
residency and value of a second. Sizes are kept as means.

    now          the recent rate: exponentially weighted, over an hour
    at an hour   the recent rate, times what that hour of the day had over what this one had, a day or a week ago;
                 before there is such history, the recent rate

Kinds and hours are bounded. Nothing is known of a request here but what is known when it is decided.
"""

from math import exp
from typing import Final, NamedTuple

from routing.demand import Demand
from routing.estimate import Recent
from routing.plan import KINDS_MAX, Expected

HOUR_S: Final = 3600.0
DAY_H: Final = 24
WEEK_H: Final = 7 * DAY_H
RECENT_S: Final = 3600.0  # half an hour or two are about as good
MEAN_GAIN: Final = 0.02  # of sizes
KINDS_KEPT: Final = 4 * KINDS_MAX  # what is planned with are the busiest of them
RATIO_MAX: Final = 3.0  # hours differ by more than that only if one of them was no normal one
HISTORY_MIN: Final = 20.0  # requests in an hour that say something


class KindKey(NamedTuple):
    edge: str
    model: str
    destination: str
    deny_origins: frozenset[str]
    value_per_second: float

    @classmethod
    def of(cls, edge: str, demand: Demand) -> "KindKey":
        return cls(edge, demand.model, demand.destination, demand.deny_origins, demand.value_per_second)


class Sums(NamedTuple):
    """Of some requests of a kind."""

    requests: float
    input_tokens: float
    output_tokens: float  # expected
    request_bytes: float

    @classmethod
    def of(cls, demand: Demand) -> "Sums":
        return cls(1.0, float(demand.input_tokens), demand.output_tokens, float(demand.request_bytes))


class Tally:
    """What was asked for since somebody last took it. At most KINDS_KEPT kinds; requests of others are not told of."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[KindKey, Sums] = {}

    def add(self, edge: str, demand: Demand) -> None:
        key = KindKey(edge, demand.model, demand.destination, demand.deny_origins, demand.value_per_second)
        before = self._sums.get(key)
        if before is None:
            if len(self._sums) < KINDS_KEPT:
                self._sums[key] = Sums.of(demand)
            return
        requests, input_tokens, output_tokens, request_bytes = before
        self._sums[key] = Sums(
            requests + 1.0,
            input_tokens + demand.input_tokens,
            output_tokens + demand.output_tokens,
            request_bytes + demand.request_bytes,
        )

    def take(self) -> dict[KindKey, Sums]:
        taken, self._sums = self._sums, {}
        return taken


class _Kind:
    __slots__ = ("at_s", "input_tokens", "output_tokens", "request_bytes", "weight")

    def __init__(self, now: float) -> None:
        self.at_s = now
        self.weight = 0.0  # requests, each counted less the longer it is ago
        self.input_tokens = self.output_tokens = self.request_bytes = 0.0

    def observe(self, sums: Sums, now: float) -> None:
        self.weight = self.weight_at(now) + sums.requests
        self.at_s = now
        gain = min(sums.requests * max(MEAN_GAIN, 1.0 / self.weight), 1.0)
        self.input_tokens += (sums.input_tokens / sums.requests - self.input_tokens) * gain
        self.output_tokens += (sums.output_tokens / sums.requests - self.output_tokens) * gain
        self.request_bytes += (sums.request_bytes / sums.requests - self.request_bytes) * gain

    def weight_at(self, now: float) -> float:
        return self.weight * exp(min(self.at_s - now, 0.0) / RECENT_S)


class Forecast:
    """Times are of the price clock, in seconds; hours are whole ones of it."""

    def __init__(self) -> None:
        self._kinds: Recent[KindKey, _Kind] = Recent(KINDS_KEPT)
        self._hours: Recent[tuple[str, int], float] = Recent(64 * (WEEK_H + DAY_H))  # requests by edge and hour
        self._since: float | None = None

    def observe(self, key: KindKey, sums: Sums, now: float) -> None:
        if self._since is None:
            self._since = now
        kind = self._kinds.values.get(key)
        if kind is None:
            kind = _Kind(now)
            self._kinds.write(key, kind)
        kind.observe(sums, now)
        hour = key.edge, int(now // HOUR_S)
        self._hours.write(hour, self._hours.values.get(hour, 0.0) + sums.requests)

    def expected(self, now: float) -> list[Expected]:
        """What is asked for now."""
        return self.at_hour(now, now)

    def at_hour(self, at: float, now: float) -> list[Expected]:
        """What will be asked for in the hour of `at`."""
        if self._since is None:
            return []
        seen_s = max(now - self._since, 60.0)
        span_s = RECENT_S * (1.0 - exp(-seen_s / RECENT_S))
        found = []
        ratios: dict[str, float] = {}
        for key, kind in self._kinds.values.items():
            if key.edge not in ratios:
                ratios[key.edge] = self._ratio(key.edge, at, now)
            demand = Demand(
                model=key.model,
                tenant="",
                input_tokens=round(kind.input_tokens),
                output_tokens=kind.output_tokens,
                request_bytes=round(kind.request_bytes),
                destination=key.destination,
                deny_origins=key.deny_origins,
                value_per_second=key.value_per_second,
            )
            found.append(Expected(key.edge, demand, kind.weight_at(now) / span_s * ratios[key.edge]))
        return found

    def _ratio(self, edge: str, at: float, now: float) -> float:
        """What was asked for at that time before, against what the recent rate stands for: an hour ago."""
        then, before = 0.0, 0.0
        for ago_h in (DAY_H, WEEK_H):
            wanted = self._rate(edge, at - ago_h * HOUR_S)
            recent = self._rate(edge, now - RECENT_S - ago_h * HOUR_S)
            if wanted is not None and recent is not None:
                then, before = then + wanted, before + recent
        return min(max(then / before, 1 / RATIO_MAX), RATIO_MAX) if before > 0.0 else 1.0

    def _rate(self, edge: str, at: float) -> float | None:
        """Requests an hour about a moment, between the middles of hours."""
        place = at / HOUR_S - 0.5
        first = int(place // 1)
        left, right = self._hours.values.get((edge, first)), self._hours.values.get((edge, first + 1))
        if left is None or right is None or left + right < HISTORY_MIN:
            return None
        return left + (right - left) * (place - first)
