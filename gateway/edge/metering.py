"""Limits and budgets of one tenant: reserve before, settle after. All workers together, as `shares` has it.

Rates are buckets (a minute's worth at most, refilled continuously), so that a limit of 60 a minute admits one a second
after a burst. A budget is a sum over a calendar period: what is settled plus what is reserved may not pass it, so
concurrent requests cannot overshoot together; each reserves its prompt and the output it is expected to make.

What a period has used is what the ledger says: at start, when a reload brings a budget, and of a worker that died once
its log is recovered.

The limit on concurrent requests needs no block: every worker shows how many it has, before it looks at the others. Of
what it then sees each other worker may be one ahead, so a total that leaves room for that is right without a lock, and
the last few are given out under it.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.config.settings import BudgetSettings, RateSettings
from gateway.edge.shares import REQUESTS, TOKENS, Budget, Rate
from gateway.errors import Refused
from gateway.ledger.cells import IN_FLIGHT, Cells


class Spent(NamedTuple):
    """What the ledger says of each tenant's current period: tokens by log, and which logs have workers."""

    wall_s: float = 0.0
    logs: tuple[int, ...] = ()
    tokens: Mapping[str, Mapping[str, int]] = {}

    def of(self, tenant: str, log: int) -> tuple[int, int]:
        """Tokens on this log, and on logs that no worker has."""
        tokens = self.tokens.get(tenant, {})
        ours = sum(tokens.get(str(each), 0) for each in self.logs)
        return tokens.get(str(log), 0), sum(tokens.values()) - ours

    def to_message(self) -> dict[str, Any]:
        return self._asdict()

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> "Spent":
        return cls(message["wall_s"], tuple(message["logs"]), message["tokens"])


NOTHING_SPENT = Spent()


class Permit:
    """What one request holds of its tenant's limits. Returned exactly once, with what was really used."""

    __slots__ = ("_budget", "_meter", "_tokens")

    def __init__(self, meter: "Meter", tokens: int) -> None:
        self._meter: Meter | None = meter
        self._budget = meter.budget  # a reload may give the meter another
        self._tokens = tokens

    def settle(self, tokens: int, now: float) -> None:
        """Give the reservation back and take what was used. Later calls do nothing."""
        meter = self._meter
        if meter is not None:
            self._meter = None
            meter.settled(self._tokens, tokens, now, self._budget)


class Meter:
    """One tenant's limits and budget, as this worker knows them."""

    __slots__ = (
        "_cells",
        "_drawing",
        "_in_flight",
        "_ints",
        "_requests",
        "_row",
        "_streams_max",
        "_tokens",
        "budget",
        "streams",
    )

    def __init__(self, cells: Cells, tenant: str, drawing: "set[Meter]") -> None:
        """`drawing` gets to know this meter when it has drawn on a limit that others draw on too: `rest` is due."""
        self._cells = cells
        self._drawing = drawing
        self._row = cells.row("tenant", tenant)
        self._ints = cells.ints
        self._in_flight = self._row.here + IN_FLIGHT
        self._requests: Rate | None = None
        self._tokens: Rate | None = None
        self._streams_max = 0
        self.streams = 0  # of this worker
        self.budget: Budget | None = None

    def install(self, limits: RateSettings, budget: BudgetSettings | None, now: float) -> bool:
        """Take the limits of a reload. The meter itself stays, for the permits that are out come back to it. Whether
        there is a budget that has yet to begin."""
        self._streams_max = limits.streams
        self._requests = self._rate(self._requests, REQUESTS, limits.requests_per_minute, now)
        self._tokens = self._rate(self._tokens, TOKENS, limits.tokens_per_minute, now)
        if budget is not None and self.budget is not None and self.budget.period == budget.period:
            self.budget.adopt(budget.tokens)
            return False
        self.budget = None if budget is None else Budget(self._cells, self._row, budget.tokens, budget.period)
        return budget is not None

    def admit(self, tokens: int, now: float, wall_s: float) -> Permit:
        """Reserve one request of about `tokens` tokens.

        Raises:
            Refused: 429 with the limit's name and when it may be tried again.
        """
        requests, rate, budget = self._requests, self._tokens, self.budget
        if self._streams_max and self.streams + self.streams_elsewhere() >= self._streams_max:
            raise self._busy()
        if requests is not None and requests.spare < 1:
            self._draw(requests, 1, now, "requests_limit")
        if rate is not None and rate.spare < tokens:
            self._draw(rate, tokens, now, "tokens_limit")
        if budget is not None and (budget.spare < tokens or wall_s >= budget.ends):
            self._draw_budget(budget, tokens, wall_s)
        self.streams += 1
        self._ints[self._in_flight] = self.streams
        if self._streams_max and self._row.elsewhere:
            self._confirm_stream()
        if requests is not None:
            requests.spare -= 1
        if rate is not None:
            rate.spare -= tokens
        if budget is not None:
            budget.reserve(tokens, wall_s - now)
        return Permit(self, tokens)

    def settled(self, reserved: int, used: int, now: float, budget: Budget | None) -> None:
        """Called by the permit."""
        self.streams -= 1
        self._ints[self._in_flight] = self.streams
        if self._tokens is not None:
            self._tokens.give_back(reserved - used)
        current = self.budget
        if current is not None:
            current.settle(reserved if current is budget else 0, used, now)

    def streams_elsewhere(self) -> int:
        """Requests of this tenant under way in the other workers."""
        ints, total = self._ints, 0
        for base in self._row.elsewhere:
            total += ints[base + IN_FLIGHT]
        return total

    def rest(self) -> bool:
        """At a sweep: give back what was drawn and lies idle. Whether to come again at the next one."""
        limits = (self._requests, self._tokens, self.budget)
        drew = [limit.rest() for limit in limits if limit is not None]
        return any(drew)

    def _rate(self, rate: Rate | None, first: int, per_minute: float, now: float) -> Rate | None:
        if not per_minute:
            return None
        if rate is None:
            return Rate(self._cells, self._row, first, per_minute)
        rate.adopt(per_minute, now)
        return rate

    def _draw(self, rate: Rate, count: float, now: float, reason: str) -> None:
        wait_s = rate.wait_s(count, now)
        if wait_s > 0:
            self._trim()
            what = reason.removesuffix("_limit")
            raise _limited(reason, f"The tenant's {what} per minute are used up.", wait_s)
        self._drew()

    def _draw_budget(self, budget: Budget, tokens: int, wall_s: float) -> None:
        missing = budget.missing(tokens, wall_s)
        if missing > 0:
            self._trim()
            raise Refused(
                429,
                "budget_exceeded",
                f"The tenant's budget of {budget.tokens} tokens per {budget.period} has {max(0, tokens - missing)} "
                f"left; this request may need {tokens}.",
                retry_after_s=max(1, math.ceil(budget.ends - wall_s)),
                should_retry=False,
                type="insufficient_quota",
            )
        self._drew()

    def _drew(self) -> None:
        if self._row.elsewhere:
            self._drawing.add(self)

    def _confirm_stream(self) -> None:
        """This one is shown to the others: now see whether it was too many."""
        room = self._streams_max - self.streams
        if self.streams_elsewhere() <= room - len(self._row.elsewhere):
            return
        self._cells.lock(self._row.number)
        try:
            full = self.streams_elsewhere() > room
            if full:
                self.streams -= 1
                self._ints[self._in_flight] = self.streams
        finally:
            self._cells.unlock(self._row.number)
        if full:
            self._trim()
            raise self._busy()

    def _trim(self) -> None:
        for limit in (self._requests, self._tokens, self.budget):
            if limit is not None:
                limit.trim()

    def _busy(self) -> Refused:
        return _limited("streams_limit", f"All {self._streams_max} concurrent requests of this tenant are in use.", 1)


def _limited(reason: str, message: str, wait_s: float) -> Refused:
    return Refused(429, reason, message, retry_after_s=max(1, math.ceil(wait_s)), type="rate_limit_exceeded")
