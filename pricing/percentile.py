"""The arithmetic of a line that is billed by its 95th percentile.

A billing period is cut into bins of five minutes. The rate of a bin is 8 x bytes / (bin_s x 1e6) Mbps, both directions.
Of all bins, idle ones too, the highest twentieth (rounded down) is free; the highest of the others sets the bill of the
whole period. So a byte costs nothing by itself: what costs is to raise that one rate.

    settled rate   what would be billed if nothing more flowed: below it every further byte of the period is free
    burnt bin      one above a level; up to `free` of them can be above it for nothing

A period is a calendar month in UTC, or any other span.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

BIN_S: Final = 300.0
FREE_ONE_IN: Final = 20  # bins


def month_of(at: float) -> tuple[float, float]:
    """The calendar month in UTC that a moment belongs to: its start and its end."""
    day = datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1)
    return day.timestamp(), following.timestamp()


class BilledBins:
    """What flowed over one line in one billing period."""

    __slots__ = ("_sizes", "bin_s", "since", "until")

    def __init__(self, since: float, until: float, bin_s: float = BIN_S) -> None:
        self.since = since
        self.until = until
        self.bin_s = bin_s
        self._sizes = [0.0] * max(math.ceil((until - since) / bin_s), 1)

    @property
    def count(self) -> int:
        return len(self._sizes)

    @property
    def free(self) -> int:
        """Bins that may be above the level for nothing."""
        return len(self._sizes) // FREE_ONE_IN

    def number(self, at: float) -> int:
        """The bin of a moment, which may lie outside of the period."""
        return math.floor((at - self.since) / self.bin_s)

    def ends_at(self, at: float) -> float:
        """When the bin of a moment is over."""
        return self.since + (self.number(at) + 1) * self.bin_s

    def add(self, at: float, size_bytes: float) -> None:
        """What flows outside of the period is in no bin of it."""
        number = self.number(at)
        if 0 <= number < len(self._sizes):
            self._sizes[number] += size_bytes

    def flow(self, size_bytes: float, from_s: float, to_s: float) -> None:
        """Spread evenly over a span; negative to take back."""
        if to_s <= from_s:
            self.add(from_s, size_bytes)
            return
        per_s, bin_s, since, sizes = size_bytes / (to_s - from_s), self.bin_s, self.since, self._sizes
        for number in range(max(self.number(from_s), 0), min(self.number(to_s) + 1, len(sizes))):
            start = since + number * bin_s
            sizes[number] += per_s * max(min(to_s, start + bin_s) - max(from_s, start), 0.0)

    def rate_mbps(self, at: float) -> float:
        """Of the bin of a moment: what flowed in it so far, over the whole bin."""
        number = self.number(at)
        return self._mbps(self._sizes[number]) if 0 <= number < len(self._sizes) else 0.0

    def above(self, level_mbps: float) -> int:
        """How many bins are above a level."""
        most_bytes = level_mbps * self.bin_s * 1e6 / 8
        return sum(size > most_bytes for size in self._sizes)

    def settled_mbps(self) -> float:
        """The rate that is billed if nothing more flows."""
        return self._mbps(sorted(self._sizes, reverse=True)[self.free])

    def sizes(self) -> dict[int, float]:
        """Bytes of the bins that are not empty, by number: for keeping."""
        return {number: size for number, size in enumerate(self._sizes) if size}

    def restore(self, sizes: Mapping[int, float]) -> None:
        for number, size in sizes.items():
            if 0 <= number < len(self._sizes):
                self._sizes[number] += size

    def _mbps(self, size_bytes: float) -> float:
        return 8 * size_bytes / (self.bin_s * 1e6)
