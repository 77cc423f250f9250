"""Values by local hour: the calendar behind power tariffs and time-of-use token prices.

A timetable has a default value and windows that replace it. A window is a set of local hours ("22-06,12-14", end
exclusive, may wrap midnight), optionally narrowed to days ("mon-fri", "sat,sun"), months ("6-9", "11-2") and to
holidays or to days that are none. All of that depends on (month, weekday, holiday or not) and the hour only, so a
timetable is a table of 12 x 7 x 2 rows of 24 values, and overlapping windows are found while it is filled.

The day of an hour is the local calendar day that hour belongs to, also in a window that wraps: "22-06" on "fri" is
Friday 00:00-06:00 and Friday 22:00-24:00, not the small hours of Saturday.

Hours are what the local clock shows: an hour that a change of the clock skips never matches, one that it repeats
matches twice. Spans are UTC seconds, so a day with 23 or 25 hours needs no case of its own.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from itertools import product
from typing import NamedTuple
from zoneinfo import ZoneInfo

HOUR_S = 3600
DAY_S = 86_400
ONE_DAY = timedelta(days=1)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

# How far a change of value is looked for. Months and weekdays repeat within a leap year; only a holiday can lie further
# away, and a span that ends here is still a span without a change in it.
HORIZON_DAYS = 800
# Looking back goes in widening steps: most changes are hours away, seasonal ones months.
LOOK_BACK_DAYS = (1, 8, 40, 130, 400, HORIZON_DAYS)


class Span(NamedTuple):
    """A value and the UTC seconds [since, until) it holds in."""

    value: float
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Window:
    hours: str
    value: float
    days: str = ""
    months: str = ""
    holidays: bool | None = None  # True: on holidays only; False: on other days only; None: on both

    def __str__(self) -> str:
        parts = [f'hours "{self.hours}"']
        if self.days:
            parts.append(f'days "{self.days}"')
        if self.months:
            parts.append(f'months "{self.months}"')
        if self.holidays is not None:
            parts.append(f"holidays {str(self.holidays).lower()}")
        return " ".join(parts)


_Row = tuple[float, ...]
_Kind = tuple[int, int, bool]  # month 1-12, weekday 0-6, holiday


@dataclass(frozen=True, slots=True)
class Timetable:
    timezone: str  # IANA name
    default: float
    windows: tuple[Window, ...] = ()
    holidays: frozenset[date] = frozenset()
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _rows: dict[_Kind, _Row] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_zone", _zone(self.timezone))
        object.__setattr__(self, "_rows", _rows(self.default, self.windows))

    def at(self, t: float) -> Span:
        """The value at t and how long it holds without a break."""
        second = math.floor(t)
        value = self._value(second)
        if not self.windows:
            return Span(value, -math.inf, math.inf)
        return Span(value, self._last_change(second), self._next_change(second))

    def _local(self, second: int) -> datetime:
        return datetime.fromtimestamp(second, self._zone)

    def _row(self, day: date) -> _Row:
        return self._rows[day.month, day.weekday(), day in self.holidays]

    def _value(self, second: int) -> float:
        local = self._local(second)
        return self._row(local.date())[local.hour]

    def _next_change(self, second: int) -> float:
        """The first moment after `second` with another value."""
        value, end = self._value(second), second + HORIZON_DAYS * DAY_S
        while second < end:
            second = self._step(second)
            if self._value(second) != value:
                break
        return float(second)

    def _last_change(self, second: int) -> float:
        """The last moment up to `second` at which the value became what it is."""
        for days in LOOK_BACK_DAYS:
            step = second - days * DAY_S
            value, last = self._value(step), None
            while (step := self._step(step)) <= second:
                if self._value(step) != value:
                    value, last = self._value(step), step
            if last is not None:
                return float(last)
        return float(second - HORIZON_DAYS * DAY_S)

    def _step(self, second: int) -> int:
        """A later moment such that the value cannot change in between: the next local hour with another value or the
        end of the day, for a day of one value the next day of another kind, but at most the next change of the clock.
        """
        local = self._local(second)
        row = self._row(local.date())
        hour = next((hour for hour in range(local.hour + 1, 24) if row[hour] != row[local.hour]), 24)
        step = second + (hour - local.hour) * HOUR_S - local.minute * 60 - local.second
        if row.count(row[0]) == len(row):
            day, last = local.date() + ONE_DAY, local.date() + ONE_DAY * HORIZON_DAYS
            while day < last and self._row(day) == row:
                day += ONE_DAY
            midnight = datetime.combine(day, time(), self._zone)
            # A clock put back across midnight shows midnight twice, and then the first one may lie behind us.
            step = max(step, int(midnight.timestamp()))
        offset = local.utcoffset()
        if self._local(step).utcoffset() == offset:
            return step
        between = range(second + 1, step + 1)
        return between[bisect_left(between, True, key=lambda moment: self._local(moment).utcoffset() != offset)]


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a relative path, a directory
        raise ValueError(f'unknown time zone "{name}"') from None


def _rows(default: float, windows: tuple[Window, ...]) -> dict[_Kind, _Row]:
    parsed = [(window, *_parse(window)) for window in windows]
    rows: dict[_Kind, _Row] = {}
    for month, weekday, holiday in product(range(1, 13), range(7), (False, True)):
        owners: dict[int, Window] = {}
        for window, hours, days, months in parsed:
            if month not in months or weekday not in days or window.holidays is (not holiday):
                continue
            for hour in hours:
                if hour in owners:
                    raise ValueError(f"two periods match hour {hour:02d}: {owners[hour]} and {window}")
                owners[hour] = window
        rows[month, weekday, holiday] = tuple(owners[hour].value if hour in owners else default for hour in range(24))
    return rows


def _parse(window: Window) -> tuple[frozenset[int], frozenset[int], frozenset[int]]:
    try:
        hours = _hours(window.hours)
        days = _cycle(window.days, {name: number for number, name in enumerate(WEEKDAYS)}) if window.days else range(7)
        numbers = {str(number): number - 1 for number in range(1, 13)}
        months = [month + 1 for month in _cycle(window.months, numbers)] if window.months else range(1, 13)
    except ValueError as error:
        raise ValueError(f"period {window}: {error}") from None
    return frozenset(hours), frozenset(days), frozenset(months)


def _hours(text: str) -> list[int]:
    """Local hours of "22-06,12-14"."""
    hours: list[int] = []
    for part in text.split(","):
        first, dash, end = (piece.strip() for piece in part.partition("-"))
        if not (dash and _two_digits(first, 23) and _two_digits(end, 24)):
            raise ValueError(f'"{part.strip()}" is not hours like "08-17", 00 to 24')
        if first == end:
            raise ValueError(f'"{part.strip()}" is empty; a whole day is "00-24"')
        start, length = int(first), (int(end) - int(first)) % 24 or 24
        hours.extend((start + step) % 24 for step in range(length))
    if len(set(hours)) < len(hours):
        raise ValueError("an hour is listed twice")
    return hours


def _two_digits(text: str, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 2 and int(text) <= most


def _cycle(text: str, numbers: dict[str, int]) -> list[int]:
    """Members of a list of names and ranges that may wrap: "mon-fri", "sat,sun", "11-2". Both ends inclusive."""
    members: list[int] = []
    for part in text.lower().split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        for name in (first, last) if dash else (first,):
            if name not in numbers:
                raise ValueError(f'"{name}" is not one of {", ".join(numbers)}')
        start = numbers[first]
        length = (numbers[last] - start) % len(numbers) if dash else 0
        members.extend((start + step) % len(numbers) for step in range(length + 1))
    return members
