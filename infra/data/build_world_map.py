"""Reduces country outlines to the small map of the operator's page.

    python infra/data/build_world_map.py world_110m.json country_points.csv gateway/data/world.json

Outlines come as `{"rings": {COUNTRY: [[[lon, lat], ...], ...]}}`, points as a CSV `country,name,lon,lat`; both are
Natural Earth, public domain. The page draws about 1,000 pixels of world, so a bend of less than a third of a degree
is under one pixel and is dropped (Douglas-Peucker), and so is an island smaller than one square degree unless it is
all a country has. A ring across the date line (Russia, Fiji) is cut there, or it would be drawn right across the map.
Coordinates are whole tenths of a degree, flat: [lon, lat, lon, lat, ...].
"""

import argparse
import csv
import json
import sys
from pathlib import Path

BEND_MIN = 0.3  # degrees a vertex must stand off the line between its neighbours
AREA_MIN = 1.0  # square degrees of a ring worth drawing

Point = tuple[float, float]


def distance(point: Point, start: Point, end: Point) -> float:
    """Distance of a point from the segment between two others, in degrees."""
    along = (end[0] - start[0], end[1] - start[1])
    length_squared = along[0] ** 2 + along[1] ** 2
    share = 0.0
    if length_squared:
        dot = (point[0] - start[0]) * along[0] + (point[1] - start[1]) * along[1]
        share = min(1.0, max(0.0, dot / length_squared))
    foot = (start[0] + share * along[0], start[1] + share * along[1])
    return float(((point[0] - foot[0]) ** 2 + (point[1] - foot[1]) ** 2) ** 0.5)


def simplify(points: list[Point]) -> list[Point]:
    """The points of a line that bend it by more than BEND_MIN, ends included."""
    if len(points) < 3:
        return points
    offsets = [distance(point, points[0], points[-1]) for point in points[1:-1]]
    worst = max(range(len(offsets)), key=offsets.__getitem__) + 1
    if offsets[worst - 1] <= BEND_MIN:
        return [points[0], points[-1]]
    return simplify(points[: worst + 1])[:-1] + simplify(points[worst:])


def area(ring: list[Point]) -> float:
    """Area of a closed ring in square degrees."""
    pairs = zip(ring, ring[1:] + ring[:1], strict=True)
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)) / 2


def clip_east(ring: list[Point], bound: float) -> list[Point]:
    """The part of a closed ring that lies east of a meridian."""
    inside: list[Point] = []
    for a, b in zip(ring, ring[1:] + ring[:1], strict=True):
        if a[0] >= bound:
            inside.append(a)
        if (a[0] >= bound) != (b[0] >= bound):
            share = (bound - a[0]) / (b[0] - a[0])
            inside.append((bound, a[1] + share * (b[1] - a[1])))
    return inside


def mirror(ring: list[Point]) -> list[Point]:
    return [(-lon, lat) for lon, lat in ring]


def cut_at_date_line(ring: list[Point]) -> list[list[Point]]:
    """A ring in one or two parts, each within -180..180."""
    unwrapped = [ring[0]]
    for lon, lat in ring[1:]:
        turns = round((unwrapped[-1][0] - lon) / 360)  # a step of over half the world is one across the date line
        unwrapped.append((lon + 360 * turns, lat))
    longitudes = [lon for lon, _ in unwrapped]
    if min(longitudes) >= -180 and max(longitudes) <= 180:
        return [ring]
    if min(longitudes) < -180:
        unwrapped = [(lon + 360, lat) for lon, lat in unwrapped]
    west = mirror(clip_east(mirror(unwrapped), -180))
    east = [(lon - 360, lat) for lon, lat in clip_east(unwrapped, 180)]
    return [part for part in (west, east) if len(part) >= 3]


def reduce_ring(ring: list[Point]) -> list[Point]:
    """A closed ring without the bends that cannot be seen; its first point is not repeated at the end."""
    open_ring = ring[:-1] if ring[0] == ring[-1] else ring
    # A ring starts and ends in one point, from which no bend can be measured: split it at its far side.
    half = len(open_ring) // 2
    line = simplify(open_ring[: half + 1])[:-1] + simplify([*open_ring[half:], open_ring[0]])[:-1]
    return line if len(line) >= 3 else open_ring


def reduce_rings(rings: list[list[Point]]) -> list[list[int]]:
    """The rings of one country that can be seen, largest first, as flat tenths of a degree."""
    by_size = sorted((part for ring in rings for part in cut_at_date_line(ring)), key=area, reverse=True)
    seen = [ring for ring in by_size if area(ring) >= AREA_MIN] or by_size[:1]
    return [[round(value * 10) for point in reduce_ring(ring) for value in point] for ring in seen]


def main() -> int:
    arguments = argparse.ArgumentParser(description="Reduce the world map of the operator's page.")
    arguments.add_argument("outlines", type=Path)
    arguments.add_argument("points", type=Path)
    arguments.add_argument("target", type=Path)
    given = arguments.parse_args()
    outlines = json.loads(given.outlines.read_text())
    rings = {
        country: reduce_rings([[(lon, lat) for lon, lat in ring] for ring in parts])
        for country, parts in sorted(outlines["rings"].items())
    }
    with given.points.open() as file:
        points = {
            row["country"]: [row["name"], round(float(row["lon"]) * 10), round(float(row["lat"]) * 10)]
            for row in csv.DictReader(file)
        }
    world = {"source": outlines["source"], "coordinates": "tenths of a degree", "rings": rings, "points": points}
    given.target.write_text(json.dumps(world, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(f"{given.target}: {len(rings)} outlines, {len(points)} points, {given.target.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
