"""The page's map: country outlines in the Equal Earth projection, and arcs from where tokens are made to where they go.

Outlines are turned into SVG paths once. Sizes are in units of the drawing, which is WIDTH wide.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway import data

WIDTH = 1000.0
NORTH, SOUTH = 80.0, -56.0  # nobody lives beyond
WEST, EAST = 150.0, 178.0  # degrees at the equator: the drawing leaves out the empty sides of the Pacific
ARC_MIN, ARC_MAX = 1.2, 9.0
DOT_MIN, DOT_MAX = 4.0, 11.0
# How far the point that bends an arc lies from the straight line, as a share of its length.
RISE = 0.2
# What a label takes, for keeping labels apart, and how far from its point it may go before it covers another one.
CHAR_WIDTH, LINE_HEIGHT = 10.4, 23.0
DISTANCES = (16.0, 28.0, 42.0, 62.0, 86.0)
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.75, 0.7), (0.75, -0.7), (-0.75, 0.7), (-0.75, -0.7))

Point = tuple[float, float]
Box = tuple[float, float, float, float]


def _equal_earth(lon: float, lat: float) -> Point:
    """Šavrič, Patterson and Jenny (2018). Angles in degrees, result in units of the sphere's radius, y upwards."""
    root3 = math.sqrt(3)
    theta = math.asin(root3 / 2 * math.sin(math.radians(lat)))
    square = theta * theta
    sixth = square**3
    a1, a2, a3, a4 = 1.340264, -0.081106, 0.000893, 0.003796
    slope = a1 + 3 * a2 * square + sixth * (7 * a3 + 9 * a4 * square)
    x = 2 * root3 / 3 * math.radians(lon) * math.cos(theta) / slope
    return x, theta * (a1 + a2 * square + sixth * (a3 + a4 * square))


_LEFT = _equal_earth(-WEST, 0.0)[0]
_SCALE = WIDTH / (_equal_earth(EAST, 0.0)[0] - _LEFT)
_TOP = _equal_earth(0.0, NORTH)[1]
HEIGHT = round((_TOP - _equal_earth(0.0, SOUTH)[1]) * _SCALE, 1)


def place(lon: float, lat: float) -> Point:
    """Where a point of the earth lies in the drawing."""
    x, y = _equal_earth(lon, lat)
    return round((x - _LEFT) * _SCALE, 1), round((_TOP - y) * _SCALE, 1)


@dataclass(frozen=True, slots=True)
class Arc:
    """A road from a country to another, as a curve. `share` is of the widest one's tokens."""

    path: str
    width: float
    origin: Point
    destination: Point
    title: str


@dataclass(frozen=True, slots=True)
class Spot:
    """A country that makes tokens (`makes`) or receives them. `shape` is its outline, empty for small ones."""

    code: str
    name: str
    at: Point
    radius: float
    makes: bool
    shape: str
    label_at: Point
    anchor: str  # start | end | middle, of the label
    leader: str  # a line from the point to a label that had to go away from it; empty beside the point


@dataclass(frozen=True, slots=True)
class Scene:
    """What is drawn upon the outlines."""

    arcs: tuple[Arc, ...]
    spots: tuple[Spot, ...]


@dataclass(frozen=True, slots=True)
class Lane:
    """Tokens from a country to another."""

    origin: str
    destination: str
    tokens: int
    title: str


class World:
    """Outlines and points by country code."""

    def __init__(self, rings: Mapping[str, Sequence[Sequence[float]]], points: Mapping[str, tuple[str, Point]]) -> None:
        """Rings and points in degrees; a ring is lon, lat, lon, lat, ..."""
        self._shapes = {code: "".join(_outline(ring) for ring in parts) for code, parts in rings.items()}
        self._points = {code: (name, place(*at)) for code, (name, at) in points.items()}
        self.land = "".join(self._shapes.values())

    @classmethod
    def load(cls) -> "World | None":
        """The world that ships; None where it is not installed: the page then has no map."""
        try:
            content = json.loads(data.path("world.json").read_bytes())
        except FileNotFoundError:
            return None
        rings = {code: [[x / 10 for x in ring] for ring in parts] for code, parts in content["rings"].items()}
        points = {code: (name, (lon / 10, lat / 10)) for code, (name, lon, lat) in content["points"].items()}
        return cls(rings, points)

    def name(self, code: str) -> str:
        """A country's name; the code itself for one without."""
        return self._points[code][0] if code in self._points else code

    def point(self, code: str) -> Point | None:
        """A country's place in the drawing."""
        return self._points[code][1] if code in self._points else None

    def scene(self, lanes: Iterable[Lane], makers: Iterable[str]) -> Scene:
        """Arcs for lanes between two known countries, spots for their ends and for the countries that make tokens."""
        drawn = [lane for lane in lanes if lane.origin in self._points and lane.destination in self._points]
        most = max((lane.tokens for lane in drawn), default=0) or 1
        makes = {code for code in makers if code in self._points} | {lane.origin for lane in drawn}
        arcs = tuple(
            self._arc(lane, most)
            for lane in sorted(drawn, key=lambda lane: lane.tokens)
            if lane.origin != lane.destination
        )
        through: dict[str, int] = dict.fromkeys(sorted(makes), 0)
        for lane in drawn:
            for code in {lane.origin, lane.destination}:
                through[code] = through.get(code, 0) + lane.tokens
        largest = max(through.values(), default=0) or 1
        taken = [_around(self._points[code][1], DOT_MAX) for code in through]
        busiest_first = sorted(through, key=lambda code: (-through[code], code))
        spots = (self._spot(code, through[code] / largest, code in makes, taken) for code in busiest_first)
        return Scene(arcs, tuple(spots))

    def _arc(self, lane: Lane, most: int) -> Arc:
        origin, destination = self._points[lane.origin][1], self._points[lane.destination][1]
        (x0, y0), (x1, y1) = origin, destination
        # Bent to the north, as a great circle would be; one that runs north and south bends to a side.
        north = -RISE if x1 >= x0 else RISE
        middle = ((x0 + x1) / 2 - (y1 - y0) * north, max(4.0, (y0 + y1) / 2 + (x1 - x0) * north))
        width = ARC_MIN + (ARC_MAX - ARC_MIN) * math.sqrt(lane.tokens / most)
        path = f"M{x0} {y0}Q{middle[0]:.1f} {middle[1]:.1f} {x1} {y1}"
        return Arc(path, round(width, 2), origin, destination, lane.title)

    def _spot(self, code: str, share: float, makes: bool, taken: list[Box]) -> Spot:
        """A spot, whose label is added to what is `taken`."""
        name, at = self._points[code]
        radius = round(DOT_MIN + (DOT_MAX - DOT_MIN) * math.sqrt(share), 2)
        label = _label(name, at, taken)
        taken.append(label.box)
        return Spot(code, name, at, radius, makes, self._shapes.get(code, ""), label.at, label.anchor, label.leader)


def _outline(ring: Sequence[float]) -> str:
    corners = [place(ring[i], ring[i + 1]) for i in range(0, len(ring) - 1, 2)]
    return "M" + "L".join(f"{x} {y}" for x, y in corners) + "Z"


def _around(at: Point, radius: float) -> Box:
    return at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius


class _Label(NamedTuple):
    at: Point
    anchor: str
    leader: str
    box: Box


def _label(name: str, at: Point, taken: Sequence[Box]) -> _Label:
    """Where a name goes: as near to its point as it covers nothing else."""
    choices = [_beside(name, at, distance, *way) for distance in DISTANCES for way in DIRECTIONS]
    for choice in choices:
        left, top, right, bottom = choice.box
        if (
            left >= 0
            and top >= 0
            and right <= WIDTH
            and bottom <= HEIGHT
            and not any(_meet(choice.box, b) for b in taken)
        ):
            return choice
    return choices[0]


def _beside(name: str, at: Point, distance: float, right: float, down: float) -> _Label:
    """A label at a distance from its point in a direction."""
    width = len(name) * CHAR_WIDTH
    x, y = round(at[0] + right * distance, 1), round(at[1] + down * distance, 1)
    anchor = "start" if right > 0 else "end" if right < 0 else "middle"
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    box = (left, y - LINE_HEIGHT / 2, left + width, y + LINE_HEIGHT / 2)
    leader = "" if distance == DISTANCES[0] else f"M{at[0]} {at[1]}L{x} {y}"
    return _Label((x, round(y + LINE_HEIGHT / 4, 1)), anchor, leader, box)


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
