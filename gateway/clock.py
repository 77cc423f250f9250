"""The clocks of the running port, in one place so that everything below takes time as an argument.

Three times, never mixed: the loop's monotonic clock for durations and deadlines, the wall clock for what is written
down, and the price clock, which says which hour's prices apply. The price clock is the wall clock unless the
configuration replays recorded prices (`[price_clock]`).
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.config import PriceClock


def wall() -> float:
    """Seconds since the epoch."""
    return time.time()


def timestamp(seconds: float) -> str:
    """A time as the ledger writes it: UTC, RFC 3339, microseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class PriceTime:
    """The price clock, anchored: every process that shares the anchor reads the same hour."""

    clock: PriceClock | None
    anchor: float  # wall time, epoch seconds, at which a replay began

    @property
    def replayed(self) -> bool:
        return self.clock is not None

    def at(self, wall_s: float) -> float:
        """Epoch seconds whose prices apply at a wall time."""
        return wall_s if self.clock is None else self.clock.at(wall_s - self.anchor)
