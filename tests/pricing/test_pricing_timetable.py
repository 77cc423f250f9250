import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.timetable import Timetable, Window

ZONES = ["Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
# Days around which those zones change their clocks in 2026, and one where none does.
DAYS = ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05", "2026-10-04", "2026-07-15"]
HOLIDAYS = frozenset({date(2026, 10, 4), date(2026, 10, 26), date(2026, 3, 29)})
WINDOWS = (
    Window("22-06", 1.0, days="mon-fri", holidays=False),
    Window("22-02,04-06", 2.0, days="sat,sun", holidays=False),
    Window("12-14", 3.0, months="6-9"),
    Window("12-14", 4.0, months="10-3", days="sun"),
    Window("00-02", 5.0, holidays=True),
)

moments = st.builds(
    lambda day, offset: datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() + offset,
    st.sampled_from(DAYS),
    st.floats(-86_400, 2 * 86_400),
)


def expected_value(local: datetime) -> float:
    """The windows above, written as plain conditions on the local clock."""
    weekend, holiday = local.weekday() >= 5, local.date() in HOLIDAYS
    if holiday and local.hour < 2:
        return 5.0
    if not holiday and not weekend and (local.hour >= 22 or local.hour < 6):
        return 1.0
    if not holiday and weekend and (local.hour >= 22 or local.hour < 2 or 4 <= local.hour < 6):
        return 2.0
    if 12 <= local.hour < 14 and 6 <= local.month <= 9:
        return 3.0
    if 12 <= local.hour < 14 and (local.month >= 10 or local.month <= 3) and local.weekday() == 6:
        return 4.0
    return 0.0


@given(st.sampled_from(ZONES), moments)
def test_the_value_is_that_of_the_hour_the_local_clock_shows(zone: str, t: float) -> None:
    span = Timetable(zone, 0.0, WINDOWS, HOLIDAYS).at(t)
    assert span.value == expected_value(datetime.fromtimestamp(math.floor(t), ZoneInfo(zone)))


@given(st.sampled_from(ZONES), moments)
def test_a_span_is_exactly_as_long_as_its_value(zone: str, t: float) -> None:
    table = Timetable(zone, 0.0, WINDOWS, HOLIDAYS)
    span = table.at(t)
    assert span.since <= t < span.until
    assert table.at(span.since - 1).value != span.value != table.at(span.until).value
    for part in range(6):
        assert table.at(span.since + part * (span.until - span.since) / 6) == span


def local_day_spans(zone: str, day: date, *windows: Window) -> list[tuple[float, float]]:
    """(value, hours) of the pieces of one local day."""
    table, start = Timetable(zone, 0.0, windows), datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    t, end = start.timestamp(), (start + timedelta(days=1)).timestamp()
    pieces = []
    while t < end:
        span = table.at(t)
        until = min(span.until, end)
        pieces.append((span.value, (until - t) / 3600))
        t = until
    return pieces


@pytest.mark.parametrize(
    ("zone", "day", "pieces"),
    [
        ("Europe/Berlin", date(2026, 3, 29), [(1.0, 5), (0.0, 16), (1.0, 2)]),
        ("Europe/Berlin", date(2026, 10, 25), [(1.0, 7), (0.0, 16), (1.0, 2)]),
        ("America/New_York", date(2026, 3, 8), [(1.0, 5), (0.0, 16), (1.0, 2)]),
        ("America/New_York", date(2026, 11, 1), [(1.0, 7), (0.0, 16), (1.0, 2)]),
        ("Asia/Shanghai", date(2026, 3, 29), [(1.0, 6), (0.0, 16), (1.0, 2)]),
    ],
)
def test_a_night_is_an_hour_shorter_or_longer_when_the_clock_changes(
    zone: str, day: date, pieces: list[tuple[float, float]]
) -> None:
    assert local_day_spans(zone, day, Window("22-06", 1.0)) == pieces


def test_an_hour_the_clock_skips_never_matches_and_one_it_repeats_matches_twice() -> None:
    assert local_day_spans("Europe/Berlin", date(2026, 3, 29), Window("02-03", 1.0)) == [(0.0, 23)]
    assert local_day_spans("Europe/Berlin", date(2026, 10, 25), Window("02-03", 1.0)) == [(0.0, 2), (1.0, 2), (0.0, 21)]


def test_a_clock_put_back_across_midnight_is_walked_through() -> None:
    # St John's changed at 00:01: 7 November 2010 began, and went back to 23:01 of the day before.
    table = Timetable("America/St_Johns", 0.0, (Window("00-24", 1.0, days="sun"),))
    first_midnight = datetime(2010, 11, 7, tzinfo=ZoneInfo("America/St_Johns")).timestamp()
    assert table.at(first_midnight).until == first_midnight + 60
    assert table.at(first_midnight + 60).until == first_midnight + 3600
    assert table.at(first_midnight + 3600).until == first_midnight + 25 * 3600


def test_a_wrapped_hour_belongs_to_its_own_calendar_day() -> None:
    table = Timetable("UTC", 0.0, (Window("22-06", 1.0, days="fri"),))
    friday = datetime(2026, 7, 17, tzinfo=UTC).timestamp()
    assert [table.at(friday + hour * 3600).value for hour in (-1, 0, 5, 6, 21, 22, 23, 24)] == [0, 1, 1, 0, 0, 1, 1, 0]


def test_a_seasonal_window_ends_with_its_last_local_day() -> None:
    table = Timetable("Asia/Shanghai", 0.0, (Window("00-24", 1.0, months="6-9"),))
    span = table.at(datetime(2026, 7, 15, tzinfo=UTC).timestamp())
    assert datetime.fromtimestamp(span.since, ZoneInfo("Asia/Shanghai")).isoformat() == "2026-06-01T00:00:00+08:00"
    assert datetime.fromtimestamp(span.until, ZoneInfo("Asia/Shanghai")).isoformat() == "2026-10-01T00:00:00+08:00"


def test_without_windows_nothing_ever_changes() -> None:
    assert Timetable("Europe/Berlin", 7.0).at(0.0) == (7.0, -math.inf, math.inf)


def test_a_holiday_years_ago_leaves_a_span_that_is_true_if_not_endless() -> None:
    table = Timetable("UTC", 0.0, (Window("00-24", 1.0, holidays=True),), frozenset({date(2020, 1, 1)}))
    now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    span = table.at(now)
    assert span.value == 0.0
    assert span.since < now - 300 * 86_400 and span.until > now + 300 * 86_400


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"hours": "22-06"}, {"hours": "05-07"}),
        ({"hours": "00-24"}, {"hours": "13-14", "days": "sun"}),
        ({"hours": "08-12", "days": "fri-mon"}, {"hours": "11-13", "days": "sun"}),
        ({"hours": "08-12", "months": "11-2"}, {"hours": "08-12", "months": "2-4"}),
        ({"hours": "08-12", "holidays": True}, {"hours": "08-12"}),
        ({"hours": "08-12", "holidays": True}, {"hours": "08-12", "holidays": True}),
    ],
)
def test_two_windows_that_match_the_same_hour_are_an_error_that_names_both(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    with pytest.raises(ValueError) as caught:
        Timetable("UTC", 0.0, (Window(value=1.0, **first), Window(value=2.0, **second)))
    assert str(Window(value=1.0, **first)) in str(caught.value)
    assert str(Window(value=2.0, **second)) in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"hours": "22-06"}, {"hours": "06-22"}),
        ({"hours": "08-12", "holidays": True}, {"hours": "08-12", "holidays": False}),
        ({"hours": "08-12", "months": "11-2"}, {"hours": "08-12", "months": "3-10"}),
        ({"hours": "08-12", "days": "mon-fri"}, {"hours": "08-12", "days": "sat,sun"}),
    ],
)
def test_windows_that_share_no_hour_may_stand_side_by_side(first: dict[str, Any], second: dict[str, Any]) -> None:
    table = Timetable("UTC", 0.0, (Window(value=1.0, **first), Window(value=2.0, **second)))
    assert len({table.at(hour * 3600.0).value for hour in range(9, 24 * 366, 61)}) >= 2


hour_ranges = st.tuples(st.integers(0, 23), st.integers(1, 24)).filter(lambda pair: pair[0] != pair[1])


@given(st.lists(hour_ranges, min_size=2, max_size=4))
def test_overlap_is_found_exactly_when_hours_are_shared(ranges: list[tuple[int, int]]) -> None:
    def hours(start: int, end: int) -> list[int]:
        return [hour % 24 for hour in range(start, end if end > start else end + 24)]

    listed = [hour for pair in ranges for hour in hours(*pair)]
    windows = tuple(Window(f"{start:02d}-{end:02d}", 1.0 + index) for index, (start, end) in enumerate(ranges))
    if len(set(listed)) < len(listed):
        with pytest.raises(ValueError, match="two periods match hour"):
            Timetable("UTC", 0.0, windows)
    else:
        table = Timetable("UTC", 0.0, windows)
        assert {hour for hour in range(24) if table.at(hour * 3600.0).value} == set(listed)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Window("8", 1.0), '"8" is not hours like'),
        (lambda: Window("", 1.0), "is not hours like"),
        (lambda: Window("08-25", 1.0), "is not hours like"),
        (lambda: Window("24-06", 1.0), "is not hours like"),
        (lambda: Window("08:30-09", 1.0), "is not hours like"),
        (lambda: Window("08-08", 1.0), 'a whole day is "00-24"'),
        (lambda: Window("08-12,11-13", 1.0), "an hour is listed twice"),
        (lambda: Window("08-12", 1.0, days="mon-frei"), '"frei" is not one of mon, tue'),
        (lambda: Window("08-12", 1.0, days="mon,,fri"), '"" is not one of'),
        (lambda: Window("08-12", 1.0, months="0-3"), '"0" is not one of 1, 2'),
        (lambda: Window("08-12", 1.0, months="13"), '"13" is not one of'),
    ],
)
def test_a_window_that_says_nothing_sensible_is_refused_with_the_word(
    build: Callable[[], Window], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Timetable("UTC", 0.0, (build(),))


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "Europe", "../etc/passwd", "/etc/localtime"])
def test_an_unknown_time_zone_is_refused_by_name(zone: str) -> None:
    with pytest.raises(ValueError, match="unknown time zone"):
        Timetable(zone, 0.0)
