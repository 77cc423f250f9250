import math
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.energy import Period, PriceCurve, TimeOfUse

HOUR = 3600.0
START = datetime(2026, 3, 28, tzinfo=UTC).timestamp()


def hourly(prices: list[float], **settings: Any) -> PriceCurve:
    return PriceCurve.build(
        [(START + index * HOUR, price) for index, price in enumerate(prices)], currency="EUR", **settings
    )


def test_an_hour_has_its_price_from_its_first_moment_to_just_before_its_last() -> None:
    curve = hourly([10.0, 20.0, 30.0])
    before = math.nextafter(START + HOUR, 0)
    assert curve.at(before) == curve.at(START)
    second = curve.at(START + HOUR)
    assert second is not None
    assert (second.price_per_mwh, second.since, second.until) == (20.0, START + HOUR, START + 2 * HOUR)
    assert second.quality == "live"


def test_before_its_first_hour_a_curve_has_no_price() -> None:
    curve = hourly([10.0])
    assert curve.at(START - 1) is None
    assert curve.silence(START - 1) == (-math.inf, START)


def test_negative_prices_are_real() -> None:
    point = hourly([-135.45]).at(START)
    assert point is not None and point.price_per_mwh == -135.45


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "no prices"),
        ([(START, math.nan)], r"price 1 \(2026-03-28T00:00:00Z\): nan is not finite"),
        ([(START, math.inf)], "inf is not finite"),
        ([(START, 1.0), (math.nan, 1.0)], "price 2: the start nan is not finite"),
        ([(START, 30_000.01)], "outside -1000 to 30000"),
        ([(START, -1_000.01)], "outside -1000 to 30000"),
        ([(START + HOUR, 1.0), (START, 1.0)], r"price 2 \(2026-03-28T00:00:00Z\): starts before the price above it"),
        ([(START, 1.0), (START, 2.0)], "duplicate start"),
        ([(1e300, math.nan)], r"price 1 \(1e\+300\)"),
    ],
)
def test_one_bad_price_refuses_the_whole_batch_by_name(points: list[tuple[float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PriceCurve.build(points, currency="EUR")


def test_limits_follow_the_size_of_the_currencys_unit() -> None:
    korean = PriceCurve.build([(START, 228_890.0)], currency="KRW")
    assert korean.prices == (228_890.0,)
    with pytest.raises(ValueError, match="outside"):
        PriceCurve.build([(START, 228_890.0)], currency="EUR")


@pytest.mark.parametrize("settings", [{"resolution_s": 0.0}, {"resolution_s": math.nan}, {"stale_after_s": -1.0}])
def test_a_curve_without_sensible_times_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="resolution_s"):
        hourly([1.0], **settings)


def test_a_price_is_held_until_it_is_stale_and_an_interval_is_firm_however_short_that_is() -> None:
    held = hourly([10.0], stale_after_s=3 * HOUR).at(START + 2 * HOUR)
    assert held is not None and (held.quality, held.until) == ("live", START + 3 * HOUR)
    firm = hourly([10.0], stale_after_s=60.0).at(START + HOUR - 1)
    assert firm is not None and (firm.quality, firm.until) == ("live", START + HOUR)


def test_a_stale_curve_repeats_its_last_day_with_falling_trust_and_is_dropped() -> None:
    curve = hourly([float(hour) for hour in range(48)], stale_after_s=HOUR)
    end = START + 48 * HOUR
    points = [curve.at(end + hour * HOUR) for hour in range(25)]
    assert [point and point.price_per_mwh for point in points] == [*(float(hour) for hour in range(24, 48)), None]
    assert [point and point.trust for point in points] == [*[0.75] * 8, *[0.5] * 8, *[0.25] * 8, None]
    assert {point and point.quality for point in points[:-1]} == {"stale"}
    assert curve.silence(end + 24 * HOUR) == (end + 24 * HOUR, math.inf)


def test_a_stale_curve_of_a_few_hours_keeps_its_last_price_where_yesterday_has_none() -> None:
    curve = hourly([10.0, 20.0], stale_after_s=HOUR)
    end = START + 2 * HOUR
    kept = curve.at(end + HOUR)
    assert kept is not None
    assert (kept.price_per_mwh, kept.since, kept.until, kept.trust) == (20.0, end, end + 8 * HOUR, 0.75)
    twin = curve.at(START + 24 * HOUR)
    assert twin is not None and (twin.price_per_mwh, twin.trust) == (10.0, 0.25)


def test_silence_inside_a_batch_is_silence_until_the_next_price() -> None:
    curve = PriceCurve.build([(START, 10.0), (START + 72 * HOUR, 20.0)], currency="EUR", stale_after_s=HOUR)
    stale = curve.at(START + 2 * HOUR)
    assert stale is not None and stale.quality == "stale"
    assert curve.at(START + 71 * HOUR) is None
    assert curve.silence(START + 71 * HOUR) == (START + 25 * HOUR, START + 72 * HOUR)
    again = curve.at(START + 72 * HOUR)
    assert again is not None and (again.price_per_mwh, again.quality) == (20.0, "live")


curves = st.builds(
    lambda gaps, prices, resolution, stale: PriceCurve.build(
        [(START + sum(gaps[: index + 1]) * 900.0, price) for index, price in enumerate(prices[: len(gaps)])],
        currency="EUR",
        resolution_s=resolution,
        stale_after_s=stale,
    ),
    st.lists(st.integers(1, 200), min_size=1, max_size=12),
    st.lists(st.floats(-1_000, 30_000), min_size=12, max_size=12),
    st.sampled_from([900.0, 3600.0]),
    st.sampled_from([0.0, 1800.0, 10_800.0, 200_000.0]),
)


@given(curves, st.integers(-10, 3000), st.floats(0, 1))
def test_a_point_of_a_curve_holds_in_its_whole_span(curve: PriceCurve, quarter: int, inside: float) -> None:
    point = curve.at(START + quarter * 900.0)
    since, until = (point.since, point.until) if point else curve.silence(START + quarter * 900.0)
    assert since <= START + quarter * 900.0 < until
    low, high = max(since, START - 1e6), min(until, START + 1e7)
    assert curve.at(min(low + inside * (high - low), math.nextafter(high, 0))) == point


@given(curves)
def test_a_price_of_a_curve_is_one_of_its_batch(curve: PriceCurve) -> None:
    points = [curve.at(START + quarter * 900.0) for quarter in range(0, 3000, 29)]
    assert {point.price_per_mwh for point in points if point} <= set(curve.prices)


def test_the_mean_of_the_last_day_leaves_out_the_days_before() -> None:
    assert hourly([1000.0] * 24 + [10.0, 20.0] * 12).mean_of_last_day() == 15.0
    assert hourly([7.0]).mean_of_last_day() == 7.0


def test_when_a_curve_was_fetched_is_not_part_of_its_content() -> None:
    assert hourly([1.0], fetched_at=5.0) == hourly([1.0], fetched_at=6.0)


NIGHT = Period(hours="00-08", price_per_mwh=260.0)


def test_a_tariff_has_the_price_of_the_local_hour() -> None:
    tariff = TimeOfUse.build(
        "guizhou", currency="CNY", timezone="Asia/Shanghai", price_per_mwh=400.0, periods=[NIGHT], holidays=[]
    )
    midnight = datetime(2026, 3, 28, 16, tzinfo=UTC).timestamp()
    night = tariff.at(midnight)
    assert (night.price_per_mwh, night.since, night.until) == (260.0, midnight, midnight + 8 * HOUR)
    assert tariff.at(math.nextafter(midnight, 0)).price_per_mwh == 400.0
    assert tariff.at(midnight + 8 * HOUR).price_per_mwh == 400.0


def test_a_holiday_may_be_written_as_a_date_or_as_text() -> None:
    def tariff(*holidays: date | str) -> TimeOfUse:
        return TimeOfUse.build(
            "t",
            currency="EUR",
            timezone="UTC",
            price_per_mwh=1.0,
            periods=[Period(hours="00-24", price_per_mwh=0.5, holidays=True)],
            holidays=holidays,
        )

    assert tariff("2026-10-01") == tariff(date(2026, 10, 1))
    assert tariff("2026-10-01").at(datetime(2026, 10, 1, tzinfo=UTC).timestamp()).price_per_mwh == 0.5


def test_the_order_of_periods_is_no_content() -> None:
    noon = Period(hours="12-14", price_per_mwh=1.0)
    assert TimeOfUse("t", "CNY", "UTC", 2.0, (NIGHT, noon)) == TimeOfUse("t", "CNY", "UTC", 2.0, (noon, NIGHT))


@pytest.mark.parametrize(
    ("periods", "holidays", "timezone", "price", "message"),
    [
        ([NIGHT, Period(hours="07-09", price_per_mwh=1.0)], [], "UTC", 1.0, 'match hour 07: hours "00-08" and hours'),
        ([Period(hours="7-9-11", price_per_mwh=1.0)], [], "UTC", 1.0, "is not hours like"),
        ([], ["1 October"], "UTC", 1.0, "holidays"),
        ([], [], "Moon/Base", 1.0, "unknown time zone"),
        ([], [], "UTC", math.nan, "not a finite number"),
        ([Period(hours="00-08", price_per_mwh=math.inf)], [], "UTC", 1.0, "not a finite number"),
    ],
)
def test_a_mistake_in_a_tariff_is_named_with_the_tariff(
    periods: list[Period], holidays: list[str], timezone: str, price: float, message: str
) -> None:
    with pytest.raises(ValueError, match=f"tariff guizhou: .*{message}"):
        TimeOfUse.build(
            "guizhou", currency="CNY", timezone=timezone, price_per_mwh=price, periods=periods, holidays=holidays
        )
