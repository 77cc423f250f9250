"""Numbers, charts, maps and sums of the page, one by one."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admin import figures, trade_views
from gateway.admin.drawing import nice_ceiling, spark, stack
from gateway.admin.fleet import merge
from gateway.admin.outlook import SIDE_S, Outlook, Sample
from gateway.admin.trade import HOURS, read
from gateway.admin.world import HEIGHT, WIDTH, Lane, World, place
from tests.admin.plane import Ledger, Plane, backend, decision, settings, status, sums

LANES = ("origin_country", "destination_country")
ORIGINS = ("origin_region", "origin_country")


# ---- text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("1234567.891", "1,234,567.89"),
        ("1", "1.00"),
        ("0.5", "0.500"),
        ("-0.0123", "−0.0123"),
        ("0.000012345", "0.0000123"),
        ("0.000000001", "0.000000001"),
    ],
)
def test_money_shows_cents_or_three_digits(amount: str, text: str) -> None:
    assert figures.money(Decimal(amount)) == text


def test_money_beside_a_larger_amount_has_its_decimals() -> None:
    assert figures.money(Decimal("0.3572"), Decimal("3.37")) == "0.36"
    assert figures.money(Decimal("0.0000093"), Decimal("0.000273")) == "0.0000093"
    assert figures.money(Decimal("0.0002"), Decimal("0.0003")) == "0.000200"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (987, "987"), (999.6, "1.00 k"), (12_345, "12.3 k"), (4_560_000, "4.56 M"), (-250_000, "−250 k")],
)
def test_short_numbers_have_three_digits(number: float, text: str) -> None:
    assert figures.short(number).replace("\N{THIN SPACE}", " ").replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3_600, "1 h 0 min"), (90_000, "1 d 1 h")],
)
def test_spans_name_their_two_largest_units(seconds: float, text: str) -> None:
    assert figures.span(seconds) == text


# ---- drawings


@given(st.integers(min_value=0, max_value=10**18))
def test_the_upper_edge_of_a_chart_is_round_and_close(number: int) -> None:
    edge = nice_ceiling(number)
    assert number <= edge <= max(2, 2 * number)
    assert str(edge).strip("0") in {"1", "2", "3", "4", "5", "6", "8"}


@given(st.lists(st.lists(st.integers(min_value=0, max_value=10**15), min_size=1, max_size=6), min_size=1, max_size=24))
def test_bars_stay_inside_the_chart_and_stand_for_their_share(columns: list[list[int]]) -> None:
    chart = stack(columns)
    for bar, parts in zip(chart.bars, columns, strict=True):
        assert bar.x >= 0 and bar.x + bar.width <= chart.width
        assert [block.series for block in bar.blocks] == [series for series, part in enumerate(parts) if part]
        for block in bar.blocks:
            assert -0.01 <= block.y <= chart.height
            assert abs(block.height - parts[block.series] / chart.top * chart.height) < 0.62


def test_a_price_line_tells_past_from_future_and_sure_from_unsure() -> None:
    samples = [Sample(0, 10, "live"), Sample(10, 30, "live"), Sample(20, 20, "stale")]
    drawn = spark(samples, 0, 15, 30)
    assert drawn is not None
    assert (drawn.low, drawn.high, drawn.now_x) == (10, 30, 120.0)
    assert drawn.past == "M0.0 37.0H80.0V3.0H120.0"
    assert drawn.ahead == "M120.0 3.0H160.0"
    assert drawn.past_unsure == ""
    assert drawn.ahead_unsure == "M160.0 20.0H240.0"
    assert drawn.zero_y is None


def test_a_price_line_shows_zero_where_prices_are_negative() -> None:
    drawn = spark([Sample(0, -10, "live"), Sample(10, 10, "live")], 0, 5, 20)
    assert drawn is not None and drawn.zero_y == 20.0


def test_a_level_price_is_one_line_in_the_middle() -> None:
    drawn = spark([Sample(t, 50, "live") for t in range(20)], 0, 10, 20)
    assert drawn is not None
    assert (drawn.past, drawn.ahead) == ("M0.0 20.0H120.0", "M120.0 20.0H240.0")


def test_the_outlook_is_of_the_book_it_is_asked_about(tmp_path: Path) -> None:
    plane = Plane(settings(tmp_path))
    book, outlook = plane.prices.book, Outlook()
    noon = datetime(2024, 5, 6, 12, tzinfo=UTC).timestamp()
    before = outlook.around(book, noon)
    assert set(before) == {"south", "north"}
    at_noon = next(sample for sample in before["south"] if sample.since == noon)
    assert at_noon.price_per_mwh == pytest.approx(84.0)
    assert before["south"][0].since <= noon - SIDE_S and before["south"][-1].since <= noon + SIDE_S
    other = Plane(settings(tmp_path)).prices.book.with_curve("nordic", book.curves["nordic"])
    dearer = type(other)(
        currency="USD",
        fx={"CNY": 0.28, "EUR": 1.1},
        regions=book.regions,
        tariffs=book.tariffs,
        curves=book.curves,
    )
    after = outlook.around(dearer, noon)
    assert next(sample for sample in after["south"] if sample.since == noon).price_per_mwh == pytest.approx(168.0)


# ---- map


def test_the_world_that_ships_has_every_country_inside_the_drawing() -> None:
    world = World.load()
    assert world is not None
    assert world.land.count("M") > 200
    for code in ("CN", "DE", "NO", "SG", "NZ", "US", "BR", "ZA"):
        x, y = world.point(code) or (-1, -1)
        assert 0 < x < WIDTH and 0 < y < HEIGHT, code


def test_east_is_right_and_north_is_up() -> None:
    assert place(0, 0)[0] < place(90, 0)[0]
    assert place(0, 60)[1] < place(0, 0)[1]


def test_arcs_are_wider_for_more_tokens_and_stay_away_from_what_is_on_no_map() -> None:
    world = World.load()
    assert world is not None
    lanes = [Lane("CN", "DE", 900, "a"), Lane("NO", "DE", 100, "b"), Lane("XX", "DE", 5, "c"), Lane("DE", "DE", 5, "d")]
    scene = world.scene(lanes, ["AU"])
    assert [arc.title for arc in scene.arcs] == ["b", "a"]
    assert scene.arcs[0].width < scene.arcs[1].width
    makes = {spot.code: spot.makes for spot in scene.spots}
    assert makes == {"CN": True, "NO": True, "AU": True, "DE": True}


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    world = World.load()
    assert world is not None
    codes = ["DE", "PL", "FR", "NL", "BE", "GB", "AT", "CH"]
    scene = world.scene([Lane("CN", code, 10, code) for code in codes], [])
    places = {spot.label_at for spot in scene.spots}
    assert len(places) == len(codes) + 1
    ordered = sorted(y for (x, y) in places if x < 700)
    assert ordered[-1] - ordered[0] > 40


# ---- sums


async def test_an_hour_that_a_clock_change_repeats_is_two_hours() -> None:
    tz = ZoneInfo("Europe/Berlin")
    now = datetime(2026, 10, 25, 12, 30, tzinfo=tz).timestamp()
    twice = [
        sums(LANES, period=period, origin_country="CN", destination_country="DE", exported_tokens=tokens)
        for period, tokens in (("2026-10-25T02:00+02:00", 5), ("2026-10-25T02:00+01:00", 7))
    ]
    trade = await read(Ledger(twice), "USD", tz, now)
    (lane,) = trade.lanes
    assert [tokens for tokens in lane.hours if tokens] == [5, 7]
    hours = [datetime.fromtimestamp(start, tz) for start in trade.hours]
    assert hours[-1].hour == 12 and len(hours) == HOURS
    assert [hours[index].isoformat() for index, tokens in enumerate(lane.hours) if tokens] == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:00:00+01:00",
    ]


async def test_money_of_another_currency_is_left_out_and_named() -> None:
    ledger = Ledger(
        [
            sums(ORIGINS, origin_region="a", origin_country="CN", delivered_tokens=100, revenue_nano=5),
            sums(ORIGINS, origin_region="a", origin_country="CN", delivered_tokens=50, revenue_nano=99, currency="EUR"),
        ]
    )
    trade = await read(ledger, "USD", figures.UTC, 1_700_000_000.0)
    (origin,) = trade.origins
    assert (origin.money.tokens, origin.money.revenue) == (150, 5)
    assert trade.other_currencies == ("EUR",)


async def test_lanes_beyond_those_with_a_colour_are_summed_up_as_others() -> None:
    period = datetime.fromtimestamp(1_700_000_000, UTC).replace(minute=0, second=0).isoformat(timespec="minutes")
    rows = [
        sums(LANES, period=period, origin_country="CN", destination_country=f"{letter}X", exported_tokens=10 - number)
        for number, letter in enumerate("ABCDEFGH")
    ]
    trade = await read(Ledger(rows), "USD", figures.UTC, 1_700_000_000.0)
    view = trade_views.volume(trade, figures.UTC)
    assert view is not None
    assert [series.destination for series in view.series] == ["AX", "BX", "CX", "DX", "EX", ""]
    assert view.series[-1].tokens == "12"
    assert view.total == "52"


async def test_a_loss_is_a_negative_spread() -> None:
    row = sums(
        ORIGINS, origin_region="a", origin_country="CN", delivered_tokens=1_000_000, revenue_nano=1, cost_nano=10**9
    )
    trade = await read(Ledger([row]), "USD", figures.UTC, 1_700_000_000.0)
    (spread,) = trade_views.spreads(trade)
    assert spread.loss and spread.spread == "−1.0000" and spread.width == 100.0


async def test_what_failed_requests_cost_is_not_hidden() -> None:
    row = sums(ORIGINS, origin_region=None, origin_country=None, cost_waste_nano=5 * 10**9, cost_nano=5 * 10**9)
    trade = await read(Ledger([row]), "USD", figures.UTC, 1_700_000_000.0)
    assert trade_views.spreads(trade) == []
    assert trade_views.lost(trade) == "5.00"


# ---- workers


def test_workers_add_up_and_their_estimates_are_averaged() -> None:
    fleet = merge(
        [
            status(1, 101, backends=[backend("a", "r", in_flight=2, ttft_ms=100.0)], decisions=[decision(5.0)]),
            None,
            status(0, 100, backends=[backend("a", "r", in_flight=3, ttft_ms=300.0)], decisions=[decision(7.0)]),
        ]
    )
    (merged,) = fleet.backends
    assert (merged.in_flight, merged.ttft_ms, merged.workers) == (5, 200.0, 2)
    assert [worker.log for worker in fleet.workers] == [0, 1]
    assert [one["at"] for one in fleet.decisions] == [7.0, 5.0]
    assert fleet.connections == 6


def test_no_more_decisions_are_kept_than_one_worker_has() -> None:
    many = [decision(float(-number)) for number in range(200)]
    fleet = merge([status(0, 100, decisions=many), status(1, 101, decisions=many)])
    assert len(fleet.decisions) == 200
    assert fleet.decisions[-1]["at"] == -99.0


def test_a_budget_is_what_the_best_informed_worker_knows() -> None:
    def tenant(used: int, reserved: int, ends: float | None) -> dict[str, object]:
        budget = {"tokens": 100, "period": "day", "used": used, "reserved": reserved, "ends": ends}
        return {"name": "acme", "streams": 1, "budget": budget}

    fleet = merge([status(0, 100, tenants=[tenant(10, 5, None)]), status(1, 101, tenants=[tenant(30, 1, 99.0)])])
    budget = fleet.tenants[0].budget
    assert budget is not None
    assert (budget.used, budget.reserved, budget.ends) == (30, 6, 99.0)
    assert fleet.tenants[0].streams == 2
