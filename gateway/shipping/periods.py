"""Hours, days, months and years of a time zone, as moments at which they begin.

A store groups by which of these moments lies last before a row's end. So periods are named by the code that names them
over one ledger, with the same time zone data, and the store needs none.
"""

from collections.abc import Iterator

from gateway.ledger.instants import QUARTER_US
from gateway.ledger.reading import period_labels


def period_starts(period: str | None, tz: str, first_us: int, last_us: int) -> tuple[list[int], list[str]]:
    """Where the periods from the first to the last moment begin, in microseconds, and their names.

    Raises:
        ValueError: no such period or time zone.
    """
    starts: list[int] = []
    names: list[str] = []
    for quarter, name in _named(period, tz, first_us, last_us):
        if not names or names[-1] != name:
            starts.append(quarter * QUARTER_US)
            names.append(name)
    return starts, names


def _named(period: str | None, tz: str, first_us: int, last_us: int) -> Iterator[tuple[int, str]]:
    """Every period begins with a quarter of an hour, in every time zone."""
    label = period_labels(period, tz)
    last = last_us // QUARTER_US if period is not None else first_us // QUARTER_US
    for quarter in range(first_us // QUARTER_US, last + 1):
        yield quarter, label(quarter)
