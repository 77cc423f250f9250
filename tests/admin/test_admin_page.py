"""The operator's page: what it says, and that nothing it shows can do anything."""

import sqlite3
import time
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.shipping.shipper import Condition
from pricing.book import PriceBook
from tests.admin.conftest import Serve
from tests.admin.plane import Feed, Plane, backend, decision, settings, status, sums

LANES = ("origin_country", "destination_country")
ORIGINS = ("origin_region", "origin_country")
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Document(HTMLParser):
    """What a browser would make of the page: elements, attributes, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, *names: str) -> list[str]:
        return [value or "" for _, name, value in self.attributes if name in names]


async def read(client: ClientSession, path: str = "/") -> Document:
    async with client.get(path) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        return Document(await response.text())


def trading(plane: Plane) -> Plane:
    """A day of trade: 1,234,567 tokens exported, two of the lanes in the current hour."""
    hour = datetime.fromtimestamp(time.time(), UTC).replace(minute=0).isoformat(timespec="minutes")
    money: dict[str, Any] = {
        "revenue_nano": 4_000_000_000,
        "cost_energy_nano": 300_000_000,
        "cost_link_nano": 100_000_000,
        "cost_nano": 400_000_000,
    }
    plane.books.rows = [
        sums(requests=4321, exported_tokens=1_234_567, delivered_tokens=2_000_000, **money),
        sums(
            LANES,
            period=hour,
            origin_country="CN",
            destination_country="DE",
            exported_tokens=1_000_000,
            delivered_tokens=1_000_000,
        ),
        sums(
            LANES,
            period=hour,
            origin_country="NO",
            destination_country="DE",
            exported_tokens=234_567,
            delivered_tokens=234_567,
        ),
        sums(LANES, period=hour, origin_country="NO", destination_country=None, delivered_tokens=5_550),
        sums(
            ORIGINS,
            origin_region="south",
            origin_country="CN",
            exported_tokens=1_000_000,
            delivered_tokens=1_000_000,
            **money,
        ),
    ]
    return plane


async def test_the_headline_says_what_was_exported_earned_and_spent(serve: Serve, plane: Plane) -> None:
    text = (await read(await serve(trading(plane)))).text
    assert "Tokens exported today 1,234,567 of 2,000,000 delivered in 4,321 requests" in text
    assert "Revenue 4.00 USD" in text
    assert "Cost 0.40 USD" in text
    assert "Token spread 1.80 USD / Mtok 3.60 USD in all" in text


async def test_volume_is_shown_by_origin_and_destination_with_a_table_behind_the_bars(
    serve: Serve, plane: Plane
) -> None:
    page = await read(await serve(trading(plane)))
    assert "CN → DE 1,000,000 81 % NO → DE 234,567 19 % All exports 1,234,567" in page.text
    assert any("1,234,567 tokens (CN → DE 1,000,000, NO → DE 234,567)" in word for word in page.words)
    assert "Hour (UTC) CN → DE NO → DE All" in page.text
    assert "China → Germany: 1,000,000 tokens" in page.words
    assert "5,550 tokens went to clients whose country is unknown." in page.text


async def test_the_spread_of_an_origin_is_its_tariff_less_what_a_million_tokens_cost(
    serve: Serve, plane: Plane
) -> None:
    text = (await read(await serve(trading(plane)))).text
    assert "south CN 4.0000 0.3000 0 0.1000 0 3.6000" in text


async def test_prices_now_are_those_of_the_price_clock_in_the_gateways_currency(admin: ClientSession) -> None:
    text = (await read(admin)).text
    # 10:30 on the price clock: 400 CNY at 0.14 until noon; hour 10 of the feed is 50 EUR at 1.1 until 11:00.
    assert "south CN distance simulated 56.00 south 12:00 ▲ 84.00" in text
    assert "north NO 55.00 nordic 11:00 ▲ 56.10" in text
    assert "at the price clock’s Mon 6 May 2024, 10:30" in text


async def test_what_a_million_tokens_costs_over_each_route_is_shown_cheapest_first(admin: ClientSession) -> None:
    text = (await read(admin)).text
    # 1 J a token is 1/3.6 kWh a million: 0.0556 USD at a PUE of 1.2 at 56 USD; 350 bytes a token at 0.12 USD per GB.
    north, south, shop = (text.index(f"{name}-1 {name}-edge") for name in ("north", "south", "shop"))
    assert "north-1 north-edge 0.0153 – 0 0.0153" in text
    assert "south-1 south-edge 0.0187 – 0.0420 0.0607" in text
    assert "shop-1 shop-edge – 0.5000 0 0.5000" in text
    assert north < south < shop


async def test_routes_show_who_was_chosen_and_who_is_out(serve: Serve, plane: Plane) -> None:
    chosen = [decision(1000.0 + i, "south-1") for i in range(3)] + [decision(900.0, "north-1")]
    out = backend("north-1", "north", available=False, barred="ejected", in_flight=0)
    plane.workers = [status(decisions=chosen, backends=[backend("south-1", "south"), out])]
    text = (await read(await serve(plane))).text
    assert "of the last 4 decisions" in text
    assert "south-1 south 75 % 1 / 4 in service 120 ms 20 ms 1.00" in text
    assert "north-1 north 25 % 0 / 4 ejected" in text
    assert "00:16:42 acme m DE south-1 / south-edge south 40.00 0 12.00 0 0.10 52.10 north-1 71.00" in text


async def test_a_gateway_without_exports_says_how_to_make_one(admin: ClientSession) -> None:
    text = (await read(admin)).text
    assert "No exports yet; send one with curl -N http://127.0.0.1:8080/v1/chat/completions" in text
    assert '"model": "m"' in text
    assert "No tokens delivered in these hours." in text
    assert "no decisions yet" in text


async def test_replayed_prices_and_simulated_places_are_announced(serve: Serve, plane: Plane) -> None:
    text = (await read(await serve(plane))).text
    assert "Prices are replayed. The price clock shows Mon 6 May 2024, 10:30 UTC and runs 0.01 times as fast" in text
    assert "Simulated, replayed or assumed: regions south." in text


async def test_a_gateway_in_earnest_announces_nothing(serve: Serve, tmp_path: Path) -> None:
    page = await read(await serve(Plane(settings(tmp_path, label="hall 2"), replayed=False)))
    assert "replayed" not in page.text
    assert "hall 2" in page.text
    assert not any("notice info" in value for value in page.values("class"))


async def test_hostile_names_are_text_wherever_they_appear(serve: Serve, tmp_path: Path) -> None:
    hostile_label = HOSTILE.replace('"', "&quot;")
    plane = Plane(settings(tmp_path, label=hostile_label))
    plane.prices.feeds = {HOSTILE: Feed(time.time(), HOSTILE)}
    plane.workers = [
        status(
            route_version=HOSTILE,
            ledger={"writable": False, "reason": HOSTILE},
            backends=[backend(HOSTILE, HOSTILE, available=False, barred=HOSTILE)],
            tenants=[{"name": HOSTILE, "streams": 1, "budget": None}],
            decisions=[
                decision(
                    1000.0,
                    HOSTILE,
                    tenant=HOSTILE,
                    model=HOSTILE,
                    destination=HOSTILE,
                    link=HOSTILE,
                    region=HOSTILE,
                    second=HOSTILE,
                )
            ],
        )
    ]
    hour = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="minutes")
    plane.books.rows = [
        sums(requests=1, delivered_tokens=1),
        sums(LANES, period=hour, origin_country=HOSTILE, destination_country=HOSTILE + "2", exported_tokens=7),
        sums(ORIGINS, origin_region=HOSTILE, origin_country=HOSTILE, delivered_tokens=7, currency="USD"),
        sums(ORIGINS, origin_region="x", origin_country="DE", delivered_tokens=7, currency=HOSTILE),
    ]
    client = await serve(plane)
    for page in [await read(client), await read(client, "/sections"), await read(client, f"/?tz={HOSTILE[:60]}")]:
        assert page.tags.count("script") == (1 if "html" in page.tags else 0)
        assert "img" not in page.tags
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        assert page.text.count("<script>alert(1)</script>") > 10


@pytest.mark.parametrize("path", ["/", "/sections"])
async def test_the_page_needs_nothing_from_elsewhere_and_nothing_inline(serve: Serve, plane: Plane, path: str) -> None:
    client = await serve(trading(plane))
    page = await read(client, path)
    for link in page.values("href", "src", "action", "data-src"):
        assert link.startswith(("/", "#")) and not link.startswith("//")
        if link.startswith("/static/"):
            async with client.get(link) as response:
                assert response.status == 200
    assert "style" not in page.tags
    assert not [name for _, name, _ in page.attributes if name == "style" or name.startswith("on")]
    assert all(value.startswith(("#", "url(#")) for value in page.values("fill", "stroke"))


async def test_a_refresh_brings_every_section_of_the_page_and_not_the_outlines(serve: Serve, plane: Plane) -> None:
    client = await serve(trading(plane))
    page, refresh = await read(client), await read(client, "/sections")
    ids = [value for tag, name, value in refresh.attributes if (tag, name) == ("section", "id")]
    assert ids == [value for tag, name, value in page.attributes if (tag, name) == ("section", "id")]
    assert len(set(page.values("id"))) == len(page.values("id"))
    assert "land" in page.values("id") and "land" not in refresh.values("id")


async def test_times_are_shown_in_the_zone_asked_for(serve: Serve, plane: Plane) -> None:
    client = await serve(plane)
    text = (await read(client, "/?tz=Asia/Shanghai")).text
    assert "at the price clock’s Mon 6 May 2024, 18:30" in text
    assert "Asia/Shanghai" in text


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "/etc/passwd", "x" * 5000, "\x00"])
async def test_a_zone_that_does_not_exist_is_named_and_times_are_in_utc(admin: ClientSession, name: str) -> None:
    async with admin.get("/", params={"tz": name}) as response:
        page = Document(await response.text())
    assert "There is no time zone" in page.text
    assert "10:30 UTC" in page.text


async def test_a_ledger_that_cannot_be_read_costs_the_page_its_sums_only(serve: Serve, plane: Plane) -> None:
    plane.books.failure = sqlite3.OperationalError("disk I/O error")
    text = (await read(await serve(plane))).text
    assert "Sums cannot be read." in text
    assert "The figures of today cannot be read." in text
    assert "disk I/O error" not in text
    assert "south CN distance simulated 56.00" in text


async def test_a_gateway_without_workers_still_shows_its_prices(serve: Serve, plane: Plane) -> None:
    plane.workers = []
    text = (await read(await serve(plane))).text
    assert "No worker answers." in text
    assert "south CN distance simulated 56.00" in text


async def test_settings_may_be_ahead_of_prices_while_a_reload_reads_its_feeds(serve: Serve, plane: Plane) -> None:
    book = plane.prices.book
    plane.prices.book = PriceBook(
        currency="USD", fx=book.fx, regions={"south": book.regions["south"]}, tariffs=book.tariffs
    )
    client = await serve(plane)
    assert "south CN distance simulated 56.00" in (await read(client)).text
    for path in ("/status", "/metrics"):
        async with client.get(path) as response:
            assert response.status == 200


async def test_a_ledger_that_cannot_be_written_is_an_alert(serve: Serve, plane: Plane) -> None:
    plane.workers = [status(ledger={"writable": False, "reason": "no space left"})]
    text = (await read(await serve(plane))).text
    assert "The ledger cannot be written." in text and "log 0: no space left" in text


async def test_many_viewers_cost_one_reading_of_the_ledger(serve: Serve, plane: Plane) -> None:
    client = await serve(trading(plane))
    for _ in range(5):
        await read(client, "/sections")
    assert plane.books.asked <= 6  # two readings of three sums, if the machine is slow; five would be fifteen


async def test_a_budget_is_shown_with_what_is_used_and_reserved(serve: Serve, plane: Plane) -> None:
    budget = {"tokens": 1_000_000, "period": "month", "used": 400_000, "reserved": 100_000, "ends": None}
    plane.workers = [status(tenants=[{"name": "acme", "streams": 2, "budget": budget}])]
    text = (await read(await serve(plane))).text
    assert "acme 2 400,000 50 % of 1,000,000 a month" in text


async def test_the_page_says_plainly_how_each_store_is_doing(serve: Serve, plane: Plane) -> None:
    now = time.time()
    client = await serve(plane)
    assert "Shipped to" not in (await read(client)).text
    plane.shipping.sinks = [
        Condition("pg", "postgres", reachable=True, rows=1234),
        Condition("slow", "postgres", reachable=True, lag_rows=1, lag_bytes=3000, oldest_at=now - 42),
        Condition("js", "nats", reachable=False, since=now - 7200, problem=HOSTILE, lag_rows=5, oldest_at=now - 7200),
        Condition("new", "clickhouse"),
    ]
    text = (await read(client)).text
    for words in (
        "pg postgres 1,234 up to date –",
        "slow postgres 0 1 row, 42 s behind 1 row,",
        "js nats 0 takes nothing since",
        HOSTILE,
        "new clickhouse 0 connecting",
    ):
        assert words in text, words


async def test_status_names_each_store_with_its_lag(serve: Serve, plane: Plane) -> None:
    plane.shipping.sinks = [Condition("js", "nats", False, 0.0, "gone", 7, 1, 2, 5, 900, time.time() - 60)]
    async with (await serve(plane)).get("/status") as response:
        (sink,) = (await response.json())["sinks"]
    assert sink.pop("lag_s") == pytest.approx(60, abs=10)
    assert sink == {
        "name": "js",
        "kind": "nats",
        "reachable": False,
        "since": "1970-01-01T00:00:00.000000Z",
        "problem": "gone",
        "rows": 7,
        "skipped_lines": 1,
        "failures": 2,
        "lag_rows": 5,
        "lag_bytes": 900,
    }
