"""A period of a statement: a year, a month or a day of a time zone, and the UTC moments it lies between.

A day that a clock change makes longer or shorter has the 25 or 23 hours it has; the end of a period is the beginning of
the next, and is not part of it.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from gateway.ledger.instants import MICROS, rfc3339

_NAME = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?", re.ASCII)
_YEARS = range(1970, 9999)  # the ledger counts from the epoch, and the year after must exist


@dataclass(frozen=True, slots=True)
class Period:
    name: str  # as it was asked for: 2026, 2026-11 or 2026-11-24
    tz: str
    start_us: int
    end_us: int  # not included

    @classmethod
    def of(cls, name: str, tz: ZoneInfo) -> "Period":
        """ValueError if there is no such year, month or day."""
        match = _NAME.fullmatch(name)
        if match is None or int(match[1]) not in _YEARS:
            raise ValueError(f"{name} is not a year, month or day")
        year, month, day = int(match[1]), int(match[2] or 1), int(match[3] or 1)
        start = datetime(year, month, day, tzinfo=tz)
        if match[3]:
            # Past 23:59 by the local clock, not 24 hours on.
            end = datetime.fromordinal(start.toordinal() + 1).replace(tzinfo=tz)
        elif match[2]:
            end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=tz)
        else:
            end = datetime(year + 1, 1, 1, tzinfo=tz)
        return cls(name, tz.key, _micros(start), _micros(end))

    @property
    def start(self) -> str:
        return rfc3339(self.start_us)

    @property
    def end(self) -> str:
        return rfc3339(self.end_us)


def _micros(moment: datetime) -> int:
    return int(moment.timestamp()) * MICROS  # midnights are whole seconds in every zone
