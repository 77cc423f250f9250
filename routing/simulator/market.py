"""Which prices are public at a moment, as price books.

    day ahead   the 24 hours of a UTC day together, at a fixed hour of the day before
    real time   every hour by itself, a lag after it began
    dead feed   what would have been published while a feed is dead comes when it is back

Token prices and power tariffs are known for all time. A release makes a new book that follows the one before, so the
price change counts from the moment of the release and not from the hour. What stands in for a price that is not there
yet is the curve's own business (pricing.energy): it is held, then trusted less and less.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from pricing.book import PriceBook
from pricing.energy import PriceCurve
from routing.simulator.staging import feed_name, price_book
from routing.simulator.world import (
    ALL_FEEDS,
    DAY_AHEAD,
    DAY_S,
    FEED_DEAD,
    HOUR_S,
    Fault,
    Market,
    World,
    ZonePrices,
)

# Hours a curve reaches back: what a feed's batch holds. Enough for the same hour of the day before through the longest
# time a silent feed is still believed.
HISTORY_H: Final = 96


class Release(NamedTuple):
    at_s: float
    until: Mapping[str, int]  # by feed: the UTC hour up to which its prices are public now


class PublicPrices:
    """The price book in force, and what will still be released."""

    def __init__(self, world: World, prices: Mapping[str, ZonePrices]) -> None:
        self._start = world.scenario.start
        self._markets = _markets(world)
        self._prices = prices
        known: dict[str, int] = {}
        self.pending: list[Release] = []
        for release in releases(world, prices):
            if release.at_s <= 0:
                known.update(release.until)
            else:
                self.pending.append(release)
        self.book: PriceBook = price_book(world, {feed: self._curve(feed, until) for feed, until in known.items()})

    def release(self, release: Release) -> None:
        book = self.book
        for feed, until in release.until.items():
            book = book.with_curve(feed, self._curve(feed, until))
        self.book = book.following(self.book, self._start + release.at_s)

    def _curve(self, feed: str, until: int) -> PriceCurve:
        market = self._markets[feed]
        zone = self._prices[market.zone]
        hours = range(max(zone.first_utc_hour, until - HISTORY_H), until)
        points = [(float(hour * HOUR_S), zone.at(hour)) for hour in hours]
        return PriceCurve.build(points, currency=market.currency, resolution_s=HOUR_S, zone=market.zone)


def _markets(world: World) -> dict[str, Market]:
    supplies = [site.supply for site in world.sites.values() if isinstance(site.supply, Market)]
    return {feed_name(market): market for market in supplies}


def releases(world: World, prices: Mapping[str, ZonePrices]) -> list[Release]:
    """All that matter to the scenario, in order of time; those at one moment are one."""
    by_time: dict[float, dict[str, int]] = {}
    for feed, market in _markets(world).items():
        dead = [fault for fault in world.faults if fault.kind == FEED_DEAD and fault.target in (market.zone, ALL_FEEDS)]
        zone = prices[market.zone]
        for due_s, until in _schedule(world, market):
            at_s = _delayed(due_s, dead)
            public = min(until, zone.end_utc_hour)
            if public > zone.first_utc_hour and at_s <= world.scenario.duration_s:
                feeds = by_time.setdefault(at_s, {})
                feeds[feed] = max(public, feeds.get(feed, public))
    return [Release(at_s, by_time[at_s]) for at_s in sorted(by_time)]


def _schedule(world: World, market: Market) -> Iterator[tuple[float, int]]:
    """When, in seconds after the start, prices up to which UTC hour should come."""
    scenario, publication = world.scenario, world.publication
    first = scenario.start // HOUR_S - HISTORY_H
    end = scenario.utc_hour(scenario.duration_s) + 1
    if market.publish == DAY_AHEAD:
        for day in range(first // 24, end // 24 + 3):
            at = (day - 1) * DAY_S + publication.day_ahead_utc_hour * HOUR_S
            yield at - scenario.start, (day + 1) * 24
    else:
        for hour in range(first, end):
            yield hour * HOUR_S + publication.real_time_lag_s - scenario.start, hour + 1


def _delayed(due_s: float, dead: list[Fault]) -> float:
    """The first moment from `due_s` on at which the feed lives."""
    while True:
        later_s = max((fault.to_s for fault in dead if fault.in_force(due_s)), default=-math.inf)
        if later_s <= due_s:
            return due_s
        due_s = later_s
