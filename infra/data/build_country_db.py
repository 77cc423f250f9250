"""Builds gateway/data/country.mmdb from ranges of IPv4 addresses and the country each is registered in.

    python infra/data/build_country_db.py ip4_country.csv.gz 2025-05-09 gateway/data/country.mmdb

The CSV (plain or gzip) has the header `start,end,cc`: first and last address of a range as whole numbers, both
inclusive, and an ISO 3166 alpha-2 code. The date is the one of the registries' statistics; it becomes the build time
in the file, so that the same input gives the same bytes. Needs mmdb-writer (a development dependency).

The reader is geoip2, which only opens an IPv6 tree as a country database; the IPv4 addresses lie in its ::/96.
"""

import argparse
import csv
import gzip
import ipaddress
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import mmdb_writer
from netaddr import IPNetwork, IPSet


def read_ranges(path: Path) -> Iterator[tuple[int, int, str]]:
    """The rows of the CSV; a malformed one ends the build with its line number."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        rows = csv.reader(file)
        if next(rows, None) != ["start", "end", "cc"]:
            raise ValueError("line 1: the header must be start,end,cc")
        for row in rows:
            start, end, country = int(row[0]), int(row[1]), row[2]
            if not (0 <= start <= end < 2**32 and len(country) == 2 and country.isalpha() and country.isupper()):
                raise ValueError(f"line {rows.line_num}: not a range of addresses and a country: {row}")
            yield start, end, country


def networks_by_country(ranges: Iterable[tuple[int, int, str]]) -> dict[str, list[str]]:
    """Every range as the fewest networks that cover it exactly."""
    networks: dict[str, list[str]] = {}
    for start, end, country in ranges:
        first, last = ipaddress.IPv4Address(start), ipaddress.IPv4Address(end)
        networks.setdefault(country, []).extend(map(str, ipaddress.summarize_address_range(first, last)))
    return networks


def build(networks: dict[str, list[str]], built_at: datetime, target: Path) -> None:
    writer = mmdb_writer.MMDBWriter(
        ip_version=6,
        ipv4_compatible=True,
        database_type="GeoLite2-Country",  # what geoip2 asks for before it answers country()
        languages=["en"],
        description="Country an IPv4 range is registered in. RIR delegated statistics, NRO, CC BY 4.0.",
    )
    for country in sorted(networks):
        addresses = IPSet(map(IPNetwork, networks[country]))
        writer.insert_network(addresses, {"country": {"iso_code": country}})
    with mock.patch("time.time", built_at.timestamp):  # the writer stamps the file with now
        writer.to_db_file(str(target))


def main() -> int:
    arguments = argparse.ArgumentParser(description="Build the country database that ships.")
    arguments.add_argument("ranges", type=Path, help="CSV with the header start,end,cc; may be gzip")
    arguments.add_argument("date", help="date of the statistics, YYYY-MM-DD")
    arguments.add_argument("target", type=Path)
    given = arguments.parse_args()
    networks = networks_by_country(read_ranges(given.ranges))
    build(networks, datetime.fromisoformat(given.date).replace(tzinfo=UTC), given.target)
    count = sum(map(len, networks.values()))
    print(f"{given.target}: {count} networks, {len(networks)} countries, {given.target.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
