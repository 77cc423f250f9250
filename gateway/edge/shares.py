"""A limit that means the same with one worker and with eight: each draws on it in blocks.

No remainder is shared. Worker k writes what it has drawn into a cell of its own; what is left is the limit less the sum
of all that was drawn, read under a lock while k raises its own. It draws for more than one request, so that nearly all
requests need neither the lock nor a look at the others: `spare` is what was drawn and not given out yet. A block is at
most one hundredth of what is left, over all workers, and at least what the request needs: no limit is passed by more
than 1 % or one request, and no more than that can lie idle in another worker. A worker gives its spare back at the
first sweep after one without a draw.

A `Budget` is a sum over a calendar period, and its cells are the period, what was drawn and what is settled. A worker
that has not entered the period yet only holds what it has under way.

A `Rate` is a bucket that holds a minute's worth and refills continuously. A level that several workers lower and time
raises cannot be a sum of theirs, so two things are told apart. What was *drawn* only grows by draws: the sum over the
workers. What has *drained* since the beginning only grows with time, at the rate: any worker may advance it, and the
largest (with the latest time it was advanced) is the true one. Their difference is the debt, and what is left is a
minute's worth less the debt. Nothing drains from an empty bucket: where less was drawn than drained, whoever sees it
first adds the difference to what it has drawn itself.

A kill between any two stores leaves a state that says too little is left, never too much: the time goes before the
drained, and a draw is written before it is given out. What a killed worker held of a rate drains within the minute.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.ledger.cells import FIRST, Cells, Row

# Of a tenant's row.
REQUESTS, TOKENS = FIRST, FIRST + 3
_DRAINED, _AT = 1, 2  # of a rate, floats, behind what was drawn
PERIOD, DRAWN, USED = FIRST + 6, FIRST + 7, FIRST + 8  # of a budget

# Of what is left, how much may lie drawn and not given out, in all workers together.
SPARE_SHARE: Final = 0.01
# Sums of times and rates are not exact; no limit is told from its neighbour by so little.
_NOTHING = 1e-6


class Rate:
    """`per_minute` permits a minute in all workers together, at most a minute's worth at once."""

    __slots__ = ("_at", "_cells", "_floats", "_here", "_keep", "_others", "_row", "drew", "per_minute", "spare")

    def __init__(self, cells: Cells, row: Row, first: int, per_minute: float) -> None:
        self._cells = cells
        self._row = row.number
        self._floats = row.floats
        self._here = row.here + first
        self._others = tuple(base + first for base in row.elsewhere)
        self._keep = 0.0
        self.per_minute = per_minute
        self.spare = 0.0  # drawn and not given out
        self.drew = False  # since the last sweep

    def wait_s(self, count: float, now: float) -> float:
        """Have `count` to spare, or say in how many seconds that may be. A single demand above the limit waits for a
        full bucket."""
        if count <= self.spare:
            return 0.0
        if self._others:
            # Looked at without the lock first: a flood of refusals holds up nobody.
            missing = min(count, self.per_minute) - self.spare - self._left(now)[0]
            if missing > _NOTHING:
                return missing * 60 / self.per_minute
        self._cells.lock(self._row)
        try:
            missing = self._draw(count, now)
        finally:
            self._cells.unlock(self._row)
        return missing * 60 / self.per_minute if missing > _NOTHING else 0.0

    def give_back(self, count: float) -> None:
        """So much of what was given out was not needed; less than nothing: more was."""
        self.spare += count
        if not 0.0 <= self.spare <= self._keep:
            self._leave(min(max(self.spare, 0.0), self._keep))

    def adopt(self, per_minute: float, now: float) -> None:
        """Another limit. What was taken under the old one stays taken, but for what the new one could never hold."""
        if per_minute == self.per_minute:
            return
        self._cells.lock(self._row)
        try:
            self._leave(0.0)
            left, drained, drawn = self._left(now)
            self._advance(drained, drawn, now)
            debt = self.per_minute - left
            if debt > per_minute:
                self._floats[self._here] -= debt - per_minute
        finally:
            self._cells.unlock(self._row)
        self.per_minute, self._keep = per_minute, 0.0

    def trim(self) -> None:
        """Keep no more to spare than a block: what was drawn for a request that is refused after all."""
        if self.spare > self._keep:
            self._leave(self._keep)

    def rest(self) -> bool:
        """At a sweep: give back what lies idle. Whether there was a draw since the last one."""
        drew, self.drew = self.drew, False
        if not drew:
            self._leave(0.0)
        return drew

    def _draw(self, count: float, now: float) -> float:
        left, drained, drawn = self._left(now)
        required = min(count, self.per_minute) - self.spare
        if required > left + _NOTHING:
            return required - left
        self._advance(drained, drawn, now)
        need = count - self.spare
        block = max(need, left * SPARE_SHARE / (1 + len(self._others)))
        self._floats[self._here] += block
        self.spare += block
        self._keep = block - need
        self.drew = True
        return 0.0

    def _left(self, now: float) -> tuple[float, float, float]:
        """What is left in the bucket; all that has drained by now; all that was drawn."""
        floats, here = self._floats, self._here
        drawn, drained, at = floats[here], floats[here + _DRAINED], floats[here + _AT]
        for other in self._others:
            drawn += floats[other]
            drained = max(drained, floats[other + _DRAINED])
            at = max(at, floats[other + _AT])
        if now > at:
            drained += (now - at) * self.per_minute / 60
        debt = drawn - drained
        return (self.per_minute - debt if debt > 0.0 else self.per_minute), drained, drawn

    def _advance(self, drained: float, drawn: float, now: float) -> None:
        """Write down what has drained, and make up for what an empty bucket could not drain. Under the lock."""
        floats, here = self._floats, self._here
        if now > floats[here + _AT]:
            floats[here + _AT] = now
        floats[here + _DRAINED] = drained
        if drained > drawn:
            floats[here] += drained - drawn

    def _leave(self, spare: float) -> None:
        """Give back all but so much. Nobody else writes the cell, and who reads it a moment too early sees less."""
        self._floats[self._here] -= self.spare - spare
        self.spare = spare


def period_bounds(period: str, wall_s: float) -> tuple[int, int]:
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
    return int(start.timestamp()), int(end.timestamp())


class Budget:
    """Tokens (input + billed output) in a calendar period, all workers together."""

    __slots__ = (
        "_cells",
        "_keep",
        "_ledger",
        "_row",
        "_wall_lead_s",
        "drew",
        "ends",
        "period",
        "reserved",
        "settled",
        "spare",
        "starts",
        "tokens",
    )

    def __init__(self, cells: Cells, row: Row, tokens: int, period: str) -> None:
        self._cells = cells
        self._row = row
        self._keep = 0
        self._ledger = 0  # used in this period by logs that no worker has
        self._wall_lead_s = 0.0  # of the wall clock over the loop's
        self.tokens = tokens
        self.period = period
        self.settled = 0  # by this worker in this period
        self.reserved = 0
        self.spare = 0  # drawn, and neither settled nor reserved
        self.starts = self.ends = 0
        self.drew = False

    def begin(self, wall_s: float, here: int, nowhere: int) -> None:
        """Take what the ledger says was used in the period of that time, by this worker's log and by logs that no
        worker has. What is under way comes on top."""
        self._cells.lock(self._row.number)
        try:
            self.starts, self.ends = period_bounds(self.period, wall_s)
            self._ledger, self.settled, self.spare, self._keep = nowhere, here, 0, 0
            self._write()
        finally:
            self._cells.unlock(self._row.number)

    def missing(self, tokens: int, wall_s: float) -> int:
        """Have so many tokens to spare, or say how many are missing."""
        if wall_s >= self.ends:
            self._roll(wall_s)
        if tokens <= self.spare:
            return 0
        if self._row.elsewhere:
            # Looked at without the lock first, as for a rate.
            missing = tokens - self.left
            if missing > 0:
                return missing
        self._cells.lock(self._row.number)
        try:
            return self._draw(tokens)
        finally:
            self._cells.unlock(self._row.number)

    def reserve(self, tokens: int, wall_lead_s: float) -> None:
        self._wall_lead_s = wall_lead_s
        self.spare -= tokens
        self.reserved += tokens

    def settle(self, reserved: int, used: int, now: float) -> None:
        """Give a reservation back (0: it was made on another budget) and count what was used, in the period of now."""
        if self._wall_lead_s and now + self._wall_lead_s >= self.ends:
            self._roll(now + self._wall_lead_s)
        row = self._row
        self.reserved -= reserved
        self.settled += used
        self.spare += reserved - used
        row.ints[row.here + USED] = self.settled
        if not 0 <= self.spare <= self._keep:
            self._leave(min(max(self.spare, 0), self._keep))

    def adopt(self, tokens: int) -> None:
        """Another limit for the same period."""
        if tokens != self.tokens:
            self._leave(0)
            self.tokens, self._keep = tokens, 0

    def trim(self) -> None:
        """Keep no more to spare than a block."""
        if self.spare > self._keep:
            self._leave(self._keep)

    def rest(self) -> bool:
        """At a sweep: give back what lies idle. Whether there was a draw since the last one."""
        drew, self.drew = self.drew, False
        if not drew:
            self._leave(0)
        return drew

    @property
    def left(self) -> int:
        """What this worker could still give out."""
        return self.tokens - self._ledger - self._drawn_elsewhere() - self.settled - self.reserved

    @property
    def used(self) -> int:
        """Settled in this period, by all workers."""
        row, used = self._row, self._ledger + self.settled
        for base in row.elsewhere:
            if row.ints[base + PERIOD] == self.starts:
                used += row.ints[base + USED]
        return used

    def _draw(self, tokens: int) -> int:
        left, need = self.left - self.spare, tokens - self.spare
        if need > left:
            return need - left
        # A worker without others may have all of it.
        row, workers = self._row, 1 + len(self._row.elsewhere)
        block = max(need, int(left * SPARE_SHARE / workers)) if workers > 1 else left
        row.ints[row.here + DRAWN] += block
        self.spare += block
        self._keep = block - need if workers > 1 else self.tokens
        self.drew = True
        return 0

    def _drawn_elsewhere(self) -> int:
        row, drawn = self._row, 0
        ints = row.ints
        for base in row.elsewhere:
            drawn += ints[base + DRAWN]
            if ints[base + PERIOD] != self.starts:
                drawn -= ints[base + USED]
        return drawn

    def _roll(self, wall_s: float) -> None:
        """Enter the period that holds `wall_s`; what was used before it no longer counts."""
        self._cells.lock(self._row.number)
        try:
            self.starts, self.ends = period_bounds(self.period, wall_s)
            self._ledger = self.settled = self.spare = self._keep = 0
            self._write()
        finally:
            self._cells.unlock(self._row.number)

    def _write(self) -> None:
        """All cells anew, under the lock. After a kill in between they say more than was used, not less."""
        ints, here = self._row.ints, self._row.here
        drawn = self.settled + self.reserved + self.spare
        ints[here + DRAWN] = max(drawn, ints[here + DRAWN])
        ints[here + USED] = self.settled
        ints[here + PERIOD] = self.starts
        ints[here + DRAWN] = drawn

    def _leave(self, spare: int) -> None:
        """Give back all but so much."""
        row = self._row
        row.ints[row.here + DRAWN] -= self.spare - spare
        self.spare = spare
