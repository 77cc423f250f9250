"""What flows over the links, in bins of five minutes: 95th-percentile bills and caps.

A row's bytes flow evenly while it holds its slot, parts of bins in proportion; all rows count, reported or not, and
what flows after the end of the scenario is in no bin. The rate of a bin is 8 x bytes / (bin_s x 1e6) Mbps.

A p95 line is billed per period: of all its bins, idle ones too, the highest twentieth is free (rounded down) and the
next one sets the bill for the whole period.
"""

import math
from typing import Final

from routing.simulator.world import MONTH_S, P95, Link, World

FREE_ONE_IN: Final = 20  # bins
CAP_TOLERANCE: Final = 1e-9  # relative


class LinkBins:
    """Bytes of one link by bin."""

    def __init__(self, world: World, link: Link) -> None:
        scenario = world.scenario
        self._scenario = scenario
        self._link = link
        self._bytes = [0.0] * math.ceil(scenario.duration_s / scenario.bin_s)

    def flow(self, size_bytes: float, start_s: float, hold_s: float) -> None:
        """Spread over [start, start + hold)."""
        bin_s, bins = self._scenario.bin_s, self._bytes
        end_s = start_s + hold_s
        first = max(int(start_s // bin_s), 0)
        if hold_s <= 0.0:
            if first < len(bins):
                bins[first] += size_bytes
            return
        per_s = size_bytes / hold_s
        for number in range(first, min(int(end_s // bin_s) + 1, len(bins))):
            bins[number] += per_s * max(min(end_s, (number + 1) * bin_s) - max(start_s, number * bin_s), 0.0)

    def rates_mbps(self, from_s: float, to_s: float) -> list[float]:
        """Of the bins that start in [from, to)."""
        bin_s = self._scenario.bin_s
        per_byte = 8 / (bin_s * 1e6)
        return [size * per_byte for number, size in enumerate(self._bytes) if from_s <= number * bin_s < to_s]

    def p95_usd(self) -> float:
        """The bills of the periods that are reported; 0 for a line that is not billed so."""
        if self._link.billing != P95:
            return 0.0
        scenario = self._scenario
        period_s = scenario.billing_period_s
        per_mbps = self._link.usd_per_mbps_month * period_s / MONTH_S
        bills = []
        for number in range(math.ceil(scenario.duration_s / period_s)):
            if scenario.reports(number * period_s):
                rates = sorted(self.rates_mbps(number * period_s, (number + 1) * period_s), reverse=True)
                bills.append(rates[len(rates) // FREE_ONE_IN] * per_mbps if rates else 0.0)
        return math.fsum(bills)

    def bins_over_capacity(self) -> int:
        """In the report window."""
        capacity_mbps = self._link.capacity_mbps
        if capacity_mbps <= 0:
            return 0
        scenario = self._scenario
        rates = self.rates_mbps(scenario.report_from_s, scenario.report_to_s)
        return sum(rate > capacity_mbps * (1 + CAP_TOLERANCE) for rate in rates)
