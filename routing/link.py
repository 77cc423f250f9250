"""Link: the road from a region to the edge. RTT, capacity, health; what it costs is `pricing`'s affair.

`Link` is configuration and frozen; `LinkState` beside it is live and survives a reload. The load of a link is what the
requests in flight are expected to move, booked with their leases: a measurement would come after the line is full.
"""

from dataclasses import dataclass
from typing import Protocol

from routing.estimate import Mean


class Floats(Protocol):
    """Where numbers are shown: shared memory, or a list."""

    def __setitem__(self, index: int, value: float, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Link:
    name: str
    origin: str  # region
    edge: str  # region
    rtt_s: float
    transit: tuple[str, ...] = ()  # countries passed
    capacity_mbps: float = 0.0  # 0: none


class LinkState:
    __slots__ = ("cell", "inflight", "loads", "mbps", "mbps_elsewhere", "name", "rtt", "up")

    def __init__(self, link: Link) -> None:
        self.name = link.name
        self.up = True
        self.inflight = 0
        self.mbps = 0.0  # expected of the requests in flight over it
        self.mbps_elsewhere = 0.0  # the same, of the other workers
        self.loads: Floats = [0.0]  # where they look for ours, at `cell`
        self.cell = 0
        self.rtt = Mean(link.rtt_s)  # seconds

    def adopt(self, link: Link) -> None:
        """A reload changed the configuration: a measured RTT stays."""
        self.rtt.adopt(link.rtt_s)

    def observe_rtt(self, rtt_s: float) -> None:
        """From a connect or a probe; nothing that contains the backend's own work."""
        self.rtt.observe(rtt_s)

    def take(self, mbps: float) -> None:
        self.inflight += 1
        if mbps:
            self.mbps += mbps
            self.loads[self.cell] = self.mbps

    def give_back(self, mbps: float) -> None:
        self.inflight -= 1
        if self.mbps:
            # No drift of float sums past an idle moment.
            self.mbps = max(self.mbps - mbps, 0.0) if self.inflight > 0 else 0.0
            self.loads[self.cell] = self.mbps
