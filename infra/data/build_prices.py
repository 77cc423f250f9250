"""Cuts the hourly power prices that the demo replays out of a table with one column per market.

    python infra/data/build_prices.py prices_hourly_2024.csv.gz 2024-05-06 2024-07-01 gateway/data/prices

The table (plain or gzip) has a first column `utc_hour` (`2024-05-06T00`) and columns named ZONE_CURRENCY, in that
currency per MWh. One feed file per market is written, in the format of `kind = "csv"`. A missing hour ends the build:
a replay with holes would show the fallback tariff and call it the market.
"""

import argparse
import csv
import gzip
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

MARKETS = {"no2.csv": "NO-NO2_EUR", "de_lu.csv": "DE-LU_EUR", "au_nsw.csv": "AU-NSW_AUD"}


def read_table(path: Path) -> dict[datetime, dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        rows = list(csv.DictReader(file))
    return {datetime.fromisoformat(row["utc_hour"] + ":00+00:00"): row for row in rows}


def cut(table: dict[datetime, dict[str, str]], column: str, start: datetime, end: datetime) -> list[str]:
    """The lines of one feed, start inclusive, end exclusive."""
    lines = ["utc_start,price_per_mwh"]
    for hour in (start + timedelta(hours=n) for n in range(int((end - start) / timedelta(hours=1)))):
        price = table.get(hour, {}).get(column, "")
        if not price:
            raise ValueError(f"{column} has no price for {hour:%Y-%m-%dT%H:%MZ}")
        lines.append(f"{hour:%Y-%m-%dT%H:%M:%SZ},{price}")
    return lines


def main() -> int:
    arguments = argparse.ArgumentParser(description="Cut the price feeds that the demo replays.")
    arguments.add_argument("table", type=Path)
    arguments.add_argument("start", help="first day, UTC, YYYY-MM-DD")
    arguments.add_argument("end", help="day after the last")
    arguments.add_argument("directory", type=Path)
    given = arguments.parse_args()
    start, end = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (given.start, given.end))
    table = read_table(given.table)
    given.directory.mkdir(parents=True, exist_ok=True)
    for name, column in MARKETS.items():
        lines = cut(table, column, start, end)
        (given.directory / name).write_text("\n".join(lines) + "\n")
        print(f"{given.directory / name}: {len(lines) - 1} hours of {column}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
