"""Power prices of the day behind and the day ahead, for drawing.

The book is asked on a grid of quarter hours (all public markets change price on one), and what it answered is kept as
long as the book is the same: a page that is looked at every two seconds asks for the few quarters that are new.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pricing.book import PriceBook
from pricing.energy import PricePoint

STEP_S = 900
SIDE_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Sample:
    """The price from `since` on, in the gateway's currency."""

    since: float
    price_per_mwh: float
    quality: str


class Outlook:
    """Remembers the quarters of one book."""

    def __init__(self) -> None:
        self._source: PriceBook | None = None
        self._book: PriceBook | None = None
        self._quarters: dict[int, Mapping[str, Sample]] = {}

    def around(self, book: PriceBook, at: float) -> dict[str, list[Sample]]:
        """By region with a price of power: samples over [at - SIDE_S, at + SIDE_S], the first one at or before it."""
        self._open(book)
        first, last = math.floor((at - SIDE_S) / STEP_S), math.floor((at + SIDE_S) / STEP_S)
        for number in [number for number in self._quarters if not first <= number <= last]:
            del self._quarters[number]
        curves: dict[str, list[Sample]] = {}
        for number in range(first, last + 1):
            for region, sample in self._quarter(number).items():
                curves.setdefault(region, []).append(sample)
        return curves

    def power(self, region: str, at: float) -> PricePoint | None:
        """The price at another moment, from the book seen last."""
        assert self._book is not None
        return self._book.at(at).power(region)

    def _open(self, book: PriceBook) -> None:
        if book is not self._source:
            # A copy, because a book remembers the slice it was asked for last, and others ask it for the present.
            self._source, self._book, self._quarters = book, replace(book), {}

    def _quarter(self, number: int) -> Mapping[str, Sample]:
        known = self._quarters.get(number)
        if known is None:
            assert self._book is not None
            since = float(number * STEP_S)
            prices = self._book.at(since)
            points = {region: prices.power(region) for region in self._book.regions}
            known = self._quarters[number] = {
                region: Sample(since, point.price_per_mwh, point.quality)
                for region, point in points.items()
                if point is not None
            }
        return known
