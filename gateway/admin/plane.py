"""What the admin port needs of the control plane, as protocols: the supervisor is one, a test's object another.

The arrow points from the supervisor to this package, so nothing here imports it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gateway.clock import PriceTime
from gateway.config import Settings
from gateway.ledger.sealing import DamagedSegment
from gateway.shipping.shipper import Condition
from pricing.book import PriceBook


class FeedCondition(Protocol):
    """How a feed is doing. Times are epoch seconds; `problem` is empty after a good reading."""

    @property
    def fetched_at(self) -> float | None: ...

    @property
    def problem(self) -> str: ...


class PriceDesk(Protocol):
    """The prices in force."""

    @property
    def book(self) -> PriceBook: ...

    @property
    def feeds(self) -> Mapping[str, FeedCondition]: ...


class PlanDesk(Protocol):
    """Prices of room. Times are epoch seconds; `problem` says why there is no hourly plan, empty if there is one."""

    @property
    def problem(self) -> str: ...

    @property
    def planned_at(self) -> float | None: ...

    @property
    def followed_at(self) -> float | None: ...

    def outlook(self, now: float) -> list[dict[str, Any]]:
        """The hours planned: `since` and `slot_per_hour`, the mean price of a slot by backend."""
        ...


class SumDesk(Protocol):
    """Questions to the ledger."""

    async def sums(
        self, by: Sequence[str], period: str | None, tz: str, start: float | None, end: float | None
    ) -> list[dict[str, Any]]:
        """Ledger columns summed by the dimensions `by` and, if one is given, by period; ends in [start, end)."""
        ...


class SealCondition(Protocol):
    """What of the ledger is sealed. Times are epoch seconds."""

    @property
    def segments(self) -> int: ...

    @property
    def sealed_bytes(self) -> int: ...

    @property
    def last_sealed_at(self) -> float | None: ...

    @property
    def damaged(self) -> Sequence[DamagedSegment]: ...

    @property
    def problem(self) -> str: ...


class SealDesk(Protocol):
    """Who keeps the ledger sealed."""

    @property
    def now(self) -> SealCondition: ...


class ShippingDesk(Protocol):
    """The stores that rows are shipped to."""

    def conditions(self) -> Sequence[Condition]: ...


class ControlPlane(Protocol):
    """A running gateway, seen from its admin port."""

    @property
    def settings(self) -> Settings: ...

    @property
    def price_time(self) -> PriceTime: ...

    @property
    def prices(self) -> PriceDesk: ...

    @property
    def planner(self) -> PlanDesk: ...

    @property
    def books(self) -> SumDesk: ...

    @property
    def seals(self) -> SealDesk: ...

    @property
    def shipping(self) -> ShippingDesk: ...

    @property
    def ready(self) -> bool: ...

    @property
    def started_at(self) -> float: ...

    async def ask_workers(self, what: str, **fields: Any) -> list[Any]:
        """Every worker's answer; one that is silent is left out."""
        ...

    async def reload(self) -> list[str]:
        """Read the configuration again. Returns what is wrong with it; with anything wrong, the old one stays."""
        ...
