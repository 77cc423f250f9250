"""The data that ships can be found, opened and built anew."""

import json
import subprocess
import sys
from pathlib import Path

import geoip2.database
import geoip2.errors
import pytest

from gateway import data

SCRIPTS = Path(__file__).resolve().parents[2] / "infra" / "data"


def build(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def country(path: Path, address: str) -> str | None:
    with geoip2.database.Reader(path) as reader:
        return reader.country(address).country.iso_code


@pytest.mark.parametrize(("address", "expected"), [("8.8.8.8", "US"), ("193.0.6.139", "NL"), ("1.2.4.8", "CN")])
def test_the_country_of_an_address_is_known(address, expected):
    assert country(data.path("country.mmdb"), address) == expected


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "2001:db8::1"])
def test_private_and_ipv6_addresses_have_no_country(address):
    with pytest.raises(geoip2.errors.AddressNotFoundError):
        country(data.path("country.mmdb"), address)


def test_every_file_that_ships_has_its_origin_and_licence_stated():
    notice = data.path("NOTICE").read_text()
    root = data.path("NOTICE").parent
    shipped = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    for name in shipped - {"NOTICE"}:
        if not name.endswith((".py", ".pyc")):
            assert name in notice


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv is missing"):
        data.path("nothing.csv")


def test_the_map_has_outlines_and_points_within_the_world():
    world = json.loads(data.path("world.json").read_text())
    assert len(world["rings"]) > 150
    assert len(world["points"]) > 200
    for country_rings in world["rings"].values():
        assert country_rings
        for ring in country_rings:
            assert len(ring) >= 6
            assert all(abs(lon) <= 1800 for lon in ring[::2])
            assert all(abs(lat) <= 900 for lat in ring[1::2])
            steps = zip(ring[::2], ring[2::2], strict=False)
            assert max(abs(a - b) for a, b in steps) < 1800  # nothing is drawn right across the map
    assert world["points"]["SG"] == ["Singapore", 1038, 14]


def test_the_country_database_is_built_with_the_same_bytes_every_time(tmp_path):
    ranges = tmp_path / "ranges.csv"
    ranges.write_text("start,end,cc\n16777216,16777471,AU\n16777472,16778239,CN\n3221225472,3221225474,NZ\n")
    built = []
    for name in ("a.mmdb", "b.mmdb"):
        done = build("build_country_db.py", ranges, "2025-05-09", tmp_path / name)
        assert done.returncode == 0, done.stderr
        built.append((tmp_path / name).read_bytes())
    assert built[0] == built[1]
    found = [country(tmp_path / "a.mmdb", address) for address in ("1.0.0.255", "1.0.1.0", "192.0.0.2")]
    assert found == ["AU", "CN", "NZ"]
    with pytest.raises(geoip2.errors.AddressNotFoundError):
        country(tmp_path / "a.mmdb", "192.0.0.3")


def test_a_hole_in_the_prices_stops_the_build(tmp_path):
    hours = [f"2024-05-06T{hour:02},{hour}.5,1,2" for hour in range(24)]
    table = tmp_path / "prices.csv"
    table.write_text("\n".join(["utc_hour,NO-NO2_EUR,DE-LU_EUR,AU-NSW_AUD", *hours]) + "\n")
    done = build("build_prices.py", table, "2024-05-06", "2024-05-07", tmp_path / "good")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "good" / "no2.csv").read_text().splitlines()
    assert lines[:2] == ["utc_start,price_per_mwh", "2024-05-06T00:00:00Z,0.5"]
    assert len(lines) == 25
    done = build("build_prices.py", table, "2024-05-06", "2024-05-08", tmp_path / "holes")
    assert done.returncode != 0
    assert "NO-NO2_EUR has no price for 2024-05-07T00:00Z" in done.stderr


def test_a_ring_across_the_date_line_is_cut_there(tmp_path):
    ring = [[170, 60], [-170, 60], [-170, 70], [170, 70], [170, 60]]
    (tmp_path / "world.json").write_text(json.dumps({"source": "none", "rings": {"XX": [ring]}}))
    (tmp_path / "points.csv").write_text("country,name,lon,lat\nXX,Example,175.0,65.0\n")
    done = build("build_world_map.py", tmp_path / "world.json", tmp_path / "points.csv", tmp_path / "small.json")
    assert done.returncode == 0, done.stderr
    west, east = json.loads((tmp_path / "small.json").read_text())["rings"]["XX"]
    assert {min(west[::2]), max(west[::2])} == {1700, 1800}
    assert {min(east[::2]), max(east[::2])} == {-1800, -1700}
