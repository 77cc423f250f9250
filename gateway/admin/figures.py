"""Numbers and times as people read them: grouped digits, a true minus sign, the unit said once.

Money stays exact (integer nano units, or a Decimal) until it is text.
"""

from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

UTC = ZoneInfo("UTC")
ZONE_CHARS_MAX = 64
MINUS = "−"
THIN = " "  # between a number and its unit


def zone(name: str) -> ZoneInfo | None:
    """A time zone by its IANA name; None if there is none of that name."""
    if not 0 < len(name) <= ZONE_CHARS_MAX:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def whole(number: int) -> str:
    """1,234,567"""
    return f"{number:,}".replace("-", MINUS)


def short(number: float) -> str:
    """Three digits and a magnitude: 987, 12.3 k, 4.56 M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size * 0.9995:
            return _signed(_three_digits(number / size)) + THIN + unit
    return _signed(f"{number:.0f}")


def _three_digits(number: float) -> str:
    decimals = 2 if abs(number) < 9.995 else 1 if abs(number) < 99.95 else 0
    return f"{number:.{decimals}f}"


def fixed(number: float, decimals: int = 2) -> str:
    """Grouped, with so many decimals; nothing at all is 0."""
    if number == 0:
        return "0"
    text = f"{number:,.{decimals}f}"
    return _signed(text if any(digit in "123456789" for digit in text) else text.lstrip("-"))


def money(amount: Decimal, beside: Decimal = Decimal(0)) -> str:
    """An amount of currency: two decimals from 1 on, below that as many as show three digits of it. What stands beside
    a larger amount has that one's decimals, or as many as show two digits of it while both are below 1."""
    largest = max(abs(amount), abs(beside))
    if largest >= 1 or not amount:
        return decimal(amount, 2)
    return decimal(amount, min(9, max(2 - largest.adjusted(), 1 - amount.adjusted())))


def decimal(amount: Decimal, decimals: int) -> str:
    """Grouped, with so many decimals; nothing at all is 0."""
    return _signed(f"{amount:,.{decimals}f}") if amount else "0"


def nano(amount: int) -> Decimal:
    """Integer nano units as units."""
    return Decimal(amount).scaleb(-9)


def per_mtok(amount_nano: int, tokens: int) -> Decimal:
    """So many nano units for so many tokens, as units per million tokens."""
    return nano(amount_nano) * 1_000_000 / tokens


def percent(share: float) -> str:
    return f"{share:.0%}".replace("%", THIN + "%")


def span(seconds: float) -> str:
    """How long, in its two largest units: 42 s, 5 min, 3 h 20 min, 2 d 4 h."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86_400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


def milliseconds(ms: float) -> str:
    return f"{ms:,.0f}{THIN}ms" if ms >= 10 else f"{ms:.1f}{THIN}ms"


def hour(t: float, tz: ZoneInfo) -> str:
    """14:00"""
    return datetime.fromtimestamp(t, tz).strftime("%H:%M")


def second(t: float, tz: ZoneInfo) -> str:
    """14:00:05"""
    return datetime.fromtimestamp(t, tz).strftime("%H:%M:%S")


def day_and_hour(t: float, tz: ZoneInfo) -> str:
    """Mon 14:00"""
    return datetime.fromtimestamp(t, tz).strftime("%a %H:%M")


def date_and_hour(t: float, tz: ZoneInfo) -> str:
    """Mon 6 May 2024, 14:00"""
    moment = datetime.fromtimestamp(t, tz)
    return f"{moment:%a} {moment.day} {moment:%b %Y, %H:%M}"


def _signed(text: str) -> str:
    return text.replace("-", MINUS)
