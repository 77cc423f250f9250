"""What the ledger says of today and of the last day's hours: the figures behind the page's headline, volume and spread.

Three sums from the index, remembered for a moment, so that any number of open pages costs one reading.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from gateway.admin.plane import SumDesk

HOURS = 24
HOUR_S = 3600.0
# A little less than the page's refresh, so that each refresh is new.
FRESH_S = 1.5
# Time zones whose sums are remembered.
ZONES_MAX = 8

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Money:
    """Sums over some requests, in nano units; `tokens` are delivered ones."""

    requests: int = 0
    tokens: int = 0
    exported: int = 0
    revenue: int = 0
    energy: int = 0
    bought: int = 0
    link: int = 0
    waste: int = 0
    cost: int = 0

    @property
    def spread(self) -> int:
        return self.revenue - self.cost


@dataclass(frozen=True, slots=True)
class LaneVolume:
    """Tokens exported from one country to another, by hour."""

    origin: str
    destination: str
    hours: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return sum(self.hours)


@dataclass(frozen=True, slots=True)
class OriginSpread:
    """What one region earned and cost. An empty region: requests that no backend served."""

    region: str
    country: str
    money: Money


@dataclass(frozen=True, slots=True)
class Trade:
    """`hours` are the starts of the last HOURS hours, the current one last; lanes the largest first."""

    today: Money
    hours: tuple[float, ...]
    lanes: tuple[LaneVolume, ...]
    at_home: int  # tokens delivered in the country that made them, in these hours
    unplaced: int  # tokens delivered to an unknown country
    origins: tuple[OriginSpread, ...]
    other_currencies: tuple[str, ...]  # in which some of it was booked; their money is left out


class TradeDesk:
    """Asks for sums, at most once in FRESH_S and time zone."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[float, Trade]] = OrderedDict()
        self._asking = asyncio.Lock()

    async def trade(self, books: SumDesk, currency: str, tz: ZoneInfo, wall_s: float) -> Trade:
        """The figures as of now."""
        async with self._asking:
            asked_at = time.monotonic()
            known = self._known.get(tz.key)
            if known is not None and asked_at - known[0] < FRESH_S:
                return known[1]
            trade = await read(books, currency, tz, wall_s)
            self._known[tz.key] = (asked_at, trade)
            self._known.move_to_end(tz.key)
            if len(self._known) > ZONES_MAX:
                self._known.popitem(last=False)
            return trade


async def read(books: SumDesk, currency: str, tz: ZoneInfo, wall_s: float) -> Trade:
    """Ask the ledger."""
    now = datetime.fromtimestamp(wall_s, tz)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0).timestamp()
    # By subtraction and not by `replace`: an hour that a clock change repeats is two hours.
    first = wall_s - (now.minute * 60 + now.second + now.microsecond / 1e6) - (HOURS - 1) * HOUR_S
    first = round(first)
    today = await books.sums((), None, tz.key, midnight, None)
    hourly = await books.sums(("origin_country", "destination_country"), "hour", tz.key, first, None)
    regions = await books.sums(("origin_region", "origin_country"), None, tz.key, first, None)
    away = [row for row in hourly if row["destination_country"] is not None]
    return Trade(
        today=_money(today, currency),
        hours=tuple(first + index * HOUR_S for index in range(HOURS)),
        lanes=_lanes(away, first),
        at_home=sum(row["delivered_tokens"] for row in away if row["origin_country"] == row["destination_country"]),
        unplaced=sum(row["delivered_tokens"] for row in hourly if row["destination_country"] is None),
        origins=_origins(regions, currency),
        other_currencies=tuple(sorted({row["currency"] for row in regions} - {currency, None})),
    )


def _money(rows: Iterable[Row], currency: str) -> Money:
    """Tokens of all rows, money of those in the gateway's currency."""
    rows = list(rows)
    ours = [row for row in rows if row["currency"] == currency]

    def total(name: str, of: Sequence[Row]) -> int:
        return sum(row[name] or 0 for row in of)

    return Money(
        requests=total("requests", rows),
        tokens=total("delivered_tokens", rows),
        exported=total("exported_tokens", rows),
        revenue=total("revenue_nano", ours),
        energy=total("cost_energy_nano", ours),
        bought=total("cost_tokens_nano", ours),
        link=total("cost_link_nano", ours),
        waste=total("cost_waste_nano", ours),
        cost=total("cost_nano", ours),
    )


def _lanes(rows: Iterable[Row], first: float) -> tuple[LaneVolume, ...]:
    found: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if row["exported_tokens"]:
            lane = (row["origin_country"] or "", row["destination_country"])
            began = datetime.fromisoformat(row["period"]).timestamp()
            # Zones whose clock is not a whole number of hours from UTC begin theirs with the zone; the rest is clipped.
            hour = min(HOURS - 1, max(0, int((began - first) // HOUR_S)))
            found.setdefault(lane, [0] * HOURS)[hour] += row["exported_tokens"]
    lanes = [LaneVolume(*lane, tuple(hours)) for lane, hours in found.items()]
    return tuple(sorted(lanes, key=lambda lane: (-lane.tokens, lane.origin, lane.destination)))


def _origins(rows: Iterable[Row], currency: str) -> tuple[OriginSpread, ...]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["origin_region"] or "", row["origin_country"] or ""), []).append(row)
    origins = [OriginSpread(*place, _money(of, currency)) for place, of in found.items()]
    return tuple(sorted(origins, key=lambda origin: (not origin.region, -origin.money.tokens, origin.region)))
