from datetime import UTC, datetime

import pytest

from pricing.energy import PriceCurve
from pricing.feeds import PriceFeed
from pricing.feeds.csv import CsvFeed

FEED: PriceFeed = CsvFeed("prices.csv")
START = datetime(2026, 3, 29, tzinfo=UTC).timestamp()


def test_a_feed_says_what_to_fetch() -> None:
    assert FEED.request() == "prices.csv"


@pytest.mark.parametrize(
    "start",
    ["2026-03-29T00:00:00Z", "2026-03-29T00:00", "2026-03-29T00", "2026-03-29 00:00:00", "2026-03-29T01:00:00+01:00"],
)
def test_a_start_is_utc_unless_it_says_otherwise(start: str) -> None:
    assert FEED.parse(f"utc_start,price_per_mwh\n{start},41.20\n".encode()) == [(START, 41.2)]


def test_line_ends_blank_lines_spaces_and_a_byte_order_mark_do_not_matter() -> None:
    body = b"\xef\xbb\xbfutc_start, price_per_mwh\r\n2026-03-29T00:00Z, -3.05\r\n\r\n2026-03-29T01:00Z,1e2"
    assert FEED.parse(body) == [(START, -3.05), (START + 3600, 100.0)]


def test_prices_read_become_a_curve() -> None:
    prices = FEED.parse(b"utc_start,price_per_mwh\n2026-03-29T00:00Z,10\n2026-03-29T01:00Z,20\n")
    point = PriceCurve.build(prices, currency="EUR").at(START + 3600)
    assert point is not None and point.price_per_mwh == 20.0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", 'line 1: the header must be "utc_start,price_per_mwh"'),
        (b"utc_hour,price_per_mwh\n", "line 1: the header"),
        (b"utc_start,price_per_mwh\n2026-03-29T00:00Z,1\nyesterday,2\n", 'line 3: "yesterday" is not an ISO 8601 time'),
        (b"utc_start,price_per_mwh\n2026-03-29T00:00Z,\n", 'line 2: "" is not a price'),
        (b"utc_start,price_per_mwh\n2026-03-29T00:00Z,nan\n", 'line 2: "nan" is not a price'),
        (b"utc_start,price_per_mwh\n2026-03-29T00:00Z,-inf\n", 'line 2: "-inf" is not a price'),
        (b"utc_start,price_per_mwh\n2026-03-29T00:00Z,1_000\n", 'line 2: "1_000" is not a price'),
        (b"utc_start,price_per_mwh\n2026-03-29T00:00Z,41,20\n", "line 2: 3 cells instead of 2"),
        (b"utc_start,price_per_mwh\n2026-03-29T00:00Z,\xff\n", "line 2: not UTF-8"),
    ],
)
def test_a_mistake_is_named_with_its_line(body: bytes, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        FEED.parse(body)
    assert str(caught.value).startswith(message)


def test_a_file_without_end_is_not_a_price_feed() -> None:
    feed = CsvFeed("prices.csv", rows_max=3)
    body = b"utc_start,price_per_mwh\n" + b"2026-03-29T00:00Z,1\n" * 3
    assert len(feed.parse(body)) == 3
    with pytest.raises(ValueError, match="line 5: more than 3 prices"):
        feed.parse(body + b"2026-03-29T00:00Z,1\n")
