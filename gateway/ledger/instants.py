"""Moments as the ledger writes them: UTC, RFC 3339, always six decimals, so that text order is time order.

In numbers a moment is whole microseconds since the epoch: a float would not hold them exactly for ever.
"""

from datetime import UTC, datetime
from functools import lru_cache

MICROS = 1_000_000
QUARTER_US = 900 * MICROS  # rollups are kept per quarter of an hour: every time zone's day begins on one
DAY_US = 86_400 * MICROS  # budgets count whole days, in UTC

_SMALL_DIGITS = 10  # of minutes, seconds and microseconds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=64)  # a busy gateway formats the same second over and over
def _second(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def micros(seconds: float) -> int:
    """Epoch seconds as whole microseconds."""
    return round(seconds * MICROS)


def rfc3339(instant_us: int) -> str:
    return stamp(instant_us).decode()


def stamp(instant_us: int) -> bytes:
    """The same as bytes, for a line of a log."""
    seconds = instant_us // MICROS
    return b"%b.%06dZ" % (_second(seconds), instant_us - seconds * MICROS)


def parse_us(text: str) -> int:
    """Microseconds since the epoch of an RFC 3339 moment. ValueError if it is none or names no zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} names no time zone")
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * MICROS + since.microseconds


def parse_stamp(text: str) -> int:
    """Microseconds of a moment exactly as `rfc3339` writes it; ValueError for any other text."""
    minute, second, fraction = text[14:16], text[17:19], text[20:26]
    digits = f"{minute}{second}{fraction}"
    if (
        f"{text[:13]}:{minute}:{second}.{fraction}Z" != text
        or not digits.isascii()
        or not digits.isdecimal()
        or len(digits) != _SMALL_DIGITS
    ):
        raise ValueError(f"{text} is not a moment of the ledger's")
    if minute > "59" or second > "59":
        raise ValueError(f"{text} is not a moment of the ledger's")
    return _hour(text[:13]) + (int(minute) * 60 + int(second)) * MICROS + int(fraction)


@lru_cache(maxsize=256)  # rows of one hour come together
def _hour(text: str) -> int:
    instant_us = parse_us(f"{text}:00:00Z")
    if rfc3339(instant_us)[:13] != text:
        raise ValueError(f"{text} is not an hour of the ledger's")
    return instant_us
