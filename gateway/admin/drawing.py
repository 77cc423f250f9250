"""The page's charts as geometry: numbers in, coordinates out. Templates turn them into SVG; style sheets colour them.

Charts hold no text and stretch in both directions, so labels stay readable on a phone: they are HTML beside the
drawing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.admin.outlook import Sample

BAR_STEP = 10.0
BAR_WIDTH = 7.6
HEIGHT = 100.0
# A bar of one token beside one of a million is still seen.
SLIVER = 0.6


@dataclass(frozen=True, slots=True)
class Block:
    """One series' part of a bar."""

    series: int
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    width: float
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """Stacked bars. `top` is the value at the upper edge."""

    width: float
    height: float
    top: int
    bars: tuple[Bar, ...]


def stack(columns: Sequence[Sequence[int]]) -> Stack:
    """Bars from left to right, each a list of parts from the bottom up."""
    top = nice_ceiling(max((sum(parts) for parts in columns), default=0))
    bars = []
    for index, parts in enumerate(columns):
        blocks, base = [], 0
        for series, part in enumerate(parts):
            if part > 0:
                height = max(SLIVER, part / top * HEIGHT)
                blocks.append(Block(series, round(HEIGHT - (base + part) / top * HEIGHT, 2), round(height, 2)))
                base += part
        bars.append(Bar(round(index * BAR_STEP + (BAR_STEP - BAR_WIDTH) / 2, 2), BAR_WIDTH, tuple(blocks)))
    return Stack(len(columns) * BAR_STEP, HEIGHT, top, tuple(bars))


def nice_ceiling(number: int) -> int:
    """The least of 2, 3, 4, 5, 6, 8, 10, 20, 30, ... that is not below."""
    if number <= 2:
        return 2
    size: int = 10 ** (len(str(number)) - 1)
    return next(size * step for step in (1, 2, 3, 4, 5, 6, 8, 10) if size * step >= number)


SPARK_WIDTH = 240.0
SPARK_HEIGHT = 40.0
_PAD = 3.0


@dataclass(frozen=True, slots=True)
class Spark:
    """A step line of prices around now. Paths are SVG path data; unsure ones hold stale and fallback prices."""

    width: float
    height: float
    now_x: float
    zero_y: float | None  # where 0 lies, if prices are negative somewhere
    past: str
    past_unsure: str
    ahead: str
    ahead_unsure: str
    low: float
    high: float


def spark(samples: Sequence[Sample], start: float, now: float, end: float) -> Spark | None:
    """The samples between start and end; None without any."""
    if not samples:
        return None
    low = min(sample.price_per_mwh for sample in samples)
    high = max(sample.price_per_mwh for sample in samples)
    room = high - low

    def x_of(t: float) -> float:
        return round((min(max(t, start), end) - start) / (end - start) * SPARK_WIDTH, 1)

    def y_of(price: float) -> float:
        share = (price - low) / room if room > 0 else 0.5
        return round(SPARK_HEIGHT - _PAD - share * (SPARK_HEIGHT - 2 * _PAD), 1)

    paths = {(ahead, sure): _Path() for ahead in (False, True) for sure in (False, True)}
    for index, sample in enumerate(samples):
        until = samples[index + 1].since if index + 1 < len(samples) else end
        y, sure = y_of(sample.price_per_mwh), sample.quality == "live"
        if sample.since <= now:
            paths[False, sure].step(x_of(sample.since), x_of(min(until, now)), y)
        if until > now:
            paths[True, sure].step(x_of(max(sample.since, now)), x_of(until), y)
    return Spark(
        SPARK_WIDTH,
        SPARK_HEIGHT,
        x_of(now),
        y_of(0.0) if low < 0 < high else None,
        paths[False, True].data,
        paths[False, False].data,
        paths[True, True].data,
        paths[True, False].data,
        low,
        high,
    )


class _Path:
    """A step line that joins what touches and merges what is level."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._x = -1.0
        self._y = -1.0

    def step(self, x0: float, x1: float, y: float) -> None:
        if x1 <= x0:
            return
        if x0 != self._x:
            self._parts.append(f"M{x0} {y}")
        elif y != self._y:
            self._parts.append(f"V{y}")
        elif self._parts and self._parts[-1].startswith("H"):
            self._parts.pop()
        self._parts.append(f"H{x1}")
        self._x, self._y = x1, y

    @property
    def data(self) -> str:
        return "".join(self._parts)
