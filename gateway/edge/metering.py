"""Limits and budgets of one tenant: reserve before, settle after.

Rates are token buckets (a minute's worth at most, refilled continuously), so that a limit of 60 a minute admits one a
second after a burst. A budget is a sum over a calendar period: what is settled plus what is reserved may not pass it,
so concurrent requests cannot overshoot together; each reserves its prompt and the output it is expected to make.
What a period has already used comes from the ledger at start.
"""

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gateway.errors import Refused


@dataclass(slots=True)
class Bucket:
    """`per_minute` permits a minute, at most a minute's worth at once. 0: no limit."""

    per_minute: float
    level: float = field(init=False)
    filled_at: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self.level = self.per_minute

    def wait_s(self, count: float, now: float) -> float:
        """Seconds until `count` could be taken; 0 if now. A single demand above the limit waits for a full bucket."""
        if self.per_minute <= 0:
            return 0.0
        if self.filled_at != float("-inf"):
            self.level = min(self.per_minute, self.level + (now - self.filled_at) * self.per_minute / 60)
        self.filled_at = now
        missing = min(count, self.per_minute) - self.level
        return missing * 60 / self.per_minute if missing > 0 else 0.0

    def take(self, count: float) -> None:
        self.level -= count

    def adopt(self, per_minute: float) -> None:
        """Another limit; what was taken under the old one stays taken."""
        self.level += per_minute - self.per_minute
        self.per_minute = per_minute


def period_bounds(period: str, wall_s: float) -> tuple[float, float]:
    """Start and end (epoch seconds, UTC) of the day, month or year that holds a time."""
    day = datetime.fromtimestamp(wall_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        start, end = day, day + timedelta(days=1)
    elif period == "month":
        start = day.replace(day=1)
        end = (start + timedelta(days=32)).replace(day=1)
    else:
        start = day.replace(month=1, day=1)
        end = start.replace(year=start.year + 1)
    return start.timestamp(), end.timestamp()


@dataclass(slots=True)
class Budget:
    """Tokens (input + billed output) in a calendar period."""

    tokens: int
    period: str
    used: int = 0
    reserved: int = 0
    starts: float = 0.0
    ends: float = 0.0

    def roll(self, wall_s: float) -> None:
        """Enter the period that holds `wall_s`; what was used before it no longer counts."""
        if self.starts <= wall_s < self.ends:
            return
        if self.ends:
            self.used = 0
        self.starts, self.ends = period_bounds(self.period, wall_s)

    @property
    def left(self) -> int:
        return self.tokens - self.used - self.reserved


class Permit:
    """What one request holds of its tenant's limits. Returned exactly once, with what was really used."""

    __slots__ = ("_budget", "_meter", "_tokens")

    def __init__(self, meter: "Meter", tokens: int) -> None:
        self._meter: Meter | None = meter
        self._budget = meter.budget  # a reload may give the meter another
        self._tokens = tokens

    def settle(self, tokens: int, now: float) -> None:
        """Give the reservation back and take what was used. Later calls do nothing."""
        meter, self._meter = self._meter, None
        if meter is not None:
            meter.settled(self._tokens, tokens, now, self._budget)


class Meter:
    """One tenant's limits and budget, as they stand in this worker."""

    def __init__(
        self,
        *,
        requests_per_minute: int = 0,
        tokens_per_minute: int = 0,
        streams: int = 0,
        budget: Budget | None = None,
    ) -> None:
        self._requests = Bucket(requests_per_minute)
        self._tokens = Bucket(tokens_per_minute)
        self._streams_max = streams
        self.streams = 0
        self.budget = budget

    def admit(self, tokens: int, now: float, wall_s: float) -> Permit:
        """Reserve one request of about `tokens` tokens.

        Raises:
            Refused: 429 with the limit's name and when it may be tried again.
        """
        if self._streams_max and self.streams >= self._streams_max:
            raise _limited(
                "streams_limit", f"All {self._streams_max} concurrent requests of this tenant are in use.", 1
            )
        wait_s = self._requests.wait_s(1, now)
        if wait_s > 0:
            raise _limited("requests_limit", "The tenant's requests per minute are used up.", wait_s)
        wait_s = self._tokens.wait_s(tokens, now)
        if wait_s > 0:
            raise _limited("tokens_limit", "The tenant's tokens per minute are used up.", wait_s)
        if self.budget is not None:
            self._within_budget(self.budget, tokens, wall_s)
        self._requests.take(1)
        self._tokens.take(tokens)
        self.streams += 1
        return Permit(self, tokens)

    def settled(self, reserved: int, used: int, now: float, budget: Budget | None) -> None:
        """Called by the permit."""
        self.streams -= 1
        self._tokens.wait_s(0, now)
        self._tokens.take(used - reserved)
        if budget is not None:
            budget.reserved -= reserved
            budget.used += used

    def adopt(self, fresh: "Meter") -> None:
        """Take the limits of a reload. The meter itself stays, for the permits that are out come back to it."""
        self._streams_max = fresh._streams_max
        self._requests.adopt(fresh._requests.per_minute)
        self._tokens.adopt(fresh._tokens.per_minute)
        if self.budget is not None and fresh.budget is not None and self.budget.period == fresh.budget.period:
            self.budget.tokens = fresh.budget.tokens
        else:
            self.budget = fresh.budget

    def _within_budget(self, budget: Budget, tokens: int, wall_s: float) -> None:
        budget.roll(wall_s)
        if tokens > budget.left:
            raise Refused(
                429,
                "budget_exceeded",
                f"The tenant's budget of {budget.tokens} tokens per {budget.period} has {max(0, budget.left)} left; "
                f"this request may need {tokens}.",
                retry_after_s=max(1, math.ceil(budget.ends - wall_s)),
                should_retry=False,
                type="insufficient_quota",
            )
        budget.reserved += tokens


def _limited(reason: str, message: str, wait_s: float) -> Refused:
    return Refused(429, reason, message, retry_after_s=max(1, math.ceil(wait_s)), type="rate_limit_exceeded")
