"""The sections of the page that come from the ledger: headline, export volume, map, token spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from zoneinfo import ZoneInfo

from gateway.admin import figures
from gateway.admin.drawing import Stack, stack
from gateway.admin.trade import LaneVolume, Money, Trade
from gateway.admin.world import Lane, Scene, World

# Lanes with a colour of their own; the rest is one series.
SERIES_MAX = 5
# Lanes drawn on the map, the largest: more than a person can tell apart.
ARCS_MAX = 40


@dataclass(frozen=True, slots=True)
class Headline:
    exported: str
    delivered: str
    requests: str
    revenue: str
    cost: str
    spread: str  # per million delivered tokens; empty without any
    earned: str  # revenue - cost
    loss: bool


@dataclass(frozen=True, slots=True)
class SeriesView:
    """A lane of the chart and its line in the legend."""

    number: int  # which colour
    origin: str
    destination: str
    tokens: str
    share: str


@dataclass(frozen=True, slots=True)
class HourView:
    """A column of the chart and a row of the table behind it."""

    label: str
    tick: str  # under the chart; empty between ticks
    title: str
    tokens: tuple[str, ...]  # of each series
    total: str


@dataclass(frozen=True, slots=True)
class VolumeView:
    total: str
    chart: Stack
    series: tuple[SeriesView, ...]
    hours: tuple[HourView, ...]
    scale: tuple[str, ...]  # from the upper edge down


@dataclass(frozen=True, slots=True)
class MapView:
    scene: Scene
    edge_at: tuple[float, float] | None  # where this gateway stands
    missing: str  # countries that are on no map; empty if none


@dataclass(frozen=True, slots=True)
class SpreadView:
    """Per million delivered tokens, except `tokens` and `earned`."""

    region: str
    country: str
    tokens: str
    revenue: str
    energy: str
    bought: str
    link: str
    waste: str
    spread: str
    loss: bool
    width: float  # of its bar, in percent of the widest
    earned: str


def headline(money: Money) -> Headline:
    revenue, cost = figures.nano(money.revenue), figures.nano(money.cost)
    largest = max(revenue, cost)
    return Headline(
        exported=figures.whole(money.exported),
        delivered=figures.whole(money.tokens),
        requests=figures.whole(money.requests),
        revenue=figures.money(revenue, largest),
        cost=figures.money(cost, largest),
        spread=figures.money(figures.per_mtok(money.spread, money.tokens)) if money.tokens else "",
        earned=figures.money(revenue - cost, largest),
        loss=money.spread < 0,
    )


def volume(trade: Trade, tz: ZoneInfo) -> VolumeView | None:
    """None before the first export of these hours."""
    if not trade.lanes:
        return None
    lanes = _series(trade.lanes)
    total = sum(lane.tokens for lane in lanes)
    chart = stack([[lane.hours[hour] for lane in lanes] for hour in range(len(trade.hours))])
    return VolumeView(
        total=figures.whole(total),
        chart=chart,
        series=tuple(
            SeriesView(
                number=number if lane.origin else SERIES_MAX,
                origin=lane.origin,
                destination=lane.destination,
                tokens=figures.whole(lane.tokens),
                share=figures.percent(lane.tokens / total),
            )
            for number, lane in enumerate(lanes)
        ),
        hours=tuple(_hour(trade, lanes, index, tz) for index in range(len(trade.hours))),
        scale=tuple(figures.short(value) for value in (chart.top, chart.top / 2, 0)),
    )


def _series(lanes: Sequence[LaneVolume]) -> list[LaneVolume]:
    """The largest lanes, and all others as one without places."""
    if len(lanes) <= SERIES_MAX + 1:
        return list(lanes)
    rest = zip(*(lane.hours for lane in lanes[SERIES_MAX:]), strict=True)
    return [*lanes[:SERIES_MAX], LaneVolume("", "", tuple(map(sum, rest)))]


def _hour(trade: Trade, lanes: Sequence[LaneVolume], index: int, tz: ZoneInfo) -> HourView:
    start = trade.hours[index]
    total = sum(lane.hours[index] for lane in lanes)
    parts = ", ".join(
        f"{lane.origin or 'other'} → {lane.destination or 'other'} {figures.whole(lane.hours[index])}"
        for lane in lanes
        if lane.hours[index]
    )
    label = figures.day_and_hour(start, tz)
    return HourView(
        label=label,
        tick=figures.hour(start, tz) if index % 6 == 0 else "",
        title=f"{label}: {figures.whole(total)} tokens" + (f" ({parts})" if parts else ""),
        tokens=tuple(figures.whole(lane.hours[index]) for lane in lanes),
        total=figures.whole(total),
    )


def elsewhere(trade: Trade) -> str:
    """What was delivered in these hours and is no export; empty if nothing."""
    parts = []
    if trade.at_home:
        parts.append(f"{figures.whole(trade.at_home)} tokens were delivered in the country that made them")
    if trade.unplaced:
        parts.append(f"{figures.whole(trade.unplaced)} tokens went to clients whose country is unknown")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}. Neither is an export." if len(parts) == 2 else f"{text}." if text else ""


def world_map(world: World, trade: Trade, makers: Sequence[str], edge: str) -> MapView:
    """Where tokens went in these hours, and the countries that make them."""
    drawn = trade.lanes[:ARCS_MAX]
    scene = world.scene(
        [
            Lane(
                lane.origin,
                lane.destination,
                lane.tokens,
                f"{world.name(lane.origin)} → {world.name(lane.destination)}: {figures.whole(lane.tokens)} tokens",
            )
            for lane in drawn
        ],
        makers,
    )
    shown = {spot.code for spot in scene.spots}
    missing = {code for lane in drawn for code in (lane.origin, lane.destination)} - shown
    return MapView(scene, world.point(edge), ", ".join(sorted(missing)))


def spreads(trade: Trade) -> list[SpreadView]:
    """By region, the one with the most tokens first; regions without a token in these hours are left out."""
    served = [origin for origin in trade.origins if origin.region and origin.money.tokens]
    per_mtok = {origin.region: figures.per_mtok(origin.money.spread, origin.money.tokens) for origin in served}
    widest = max((abs(spread) for spread in per_mtok.values()), default=Decimal(0)) or Decimal(1)
    return [
        SpreadView(
            region=origin.region,
            country=origin.country,
            tokens=figures.whole(origin.money.tokens),
            **{
                name: figures.decimal(figures.per_mtok(getattr(origin.money, name), origin.money.tokens), 4)
                for name in ("revenue", "energy", "bought", "link", "waste", "spread")
            },
            loss=origin.money.spread < 0,
            width=round(float(abs(per_mtok[origin.region]) / widest) * 100, 2),
            earned=figures.money(figures.nano(origin.money.spread)),
        )
        for origin in served
    ]


def lost(trade: Trade) -> str:
    """What requests cost that no backend served, for the line below the spread; empty if nothing."""
    waste = sum(origin.money.cost for origin in trade.origins if not origin.money.tokens)
    return figures.money(figures.nano(waste)) if waste else ""
