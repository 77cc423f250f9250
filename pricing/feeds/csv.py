"""Prices from a CSV file: header `utc_start,price_per_mwh`, one interval a line.

    utc_start,price_per_mwh
    2026-01-01T00:00:00Z,41.20
    2026-01-01T01:00:00Z,-3.05

Starts are ISO 8601; without an offset they are UTC. Everything unexpected is an error with its line: a price that is
quietly skipped would be an hour at the wrong price.
"""

import csv
import re
from dataclasses import dataclass
from datetime import UTC, datetime

HEADER = ["utc_start", "price_per_mwh"]
# Five years of quarter-hours, with room; a longer file is not a price feed.
ROWS_MAX = 200_000

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # no nan, inf or 1_000, which float() takes


@dataclass(frozen=True, slots=True)
class CsvFeed:
    location: str  # path or URL
    rows_max: int = ROWS_MAX

    def request(self) -> str:
        return self.location

    def parse(self, body: bytes) -> list[tuple[float, float]]:
        try:
            text = body.decode("utf-8-sig")  # spreadsheets write a byte order mark
        except UnicodeDecodeError as error:
            line = body.count(b"\n", 0, error.start) + 1
            raise ValueError(f"line {line}: not UTF-8") from None
        rows = csv.reader(text.splitlines())
        prices: list[tuple[float, float]] = []
        try:
            header = [cell.strip() for cell in next(rows, [])]
            if header != HEADER:
                raise ValueError(f'the header must be "{",".join(HEADER)}"')
            for row in rows:
                if not row:
                    continue
                if len(prices) == self.rows_max:
                    raise ValueError(f"more than {self.rows_max} prices")
                prices.append(_price(row))
        except (ValueError, csv.Error) as error:
            raise ValueError(f"line {max(1, rows.line_num)}: {error}") from None
        return prices


def _price(row: list[str]) -> tuple[float, float]:
    if len(row) != len(HEADER):
        raise ValueError(f"{len(row)} cells instead of {len(HEADER)}")
    start_text, price_text = (cell.strip() for cell in row)
    try:
        start = datetime.fromisoformat(start_text)
    except ValueError:
        raise ValueError(f'"{start_text[:40]}" is not an ISO 8601 time') from None
    if start.tzinfo is None:
        start = start.replace(tzinfo=UTC)
    if not _NUMBER.fullmatch(price_text):
        raise ValueError(f'"{price_text[:40]}" is not a price')
    return start.timestamp(), float(price_text)
