"""Refusals by limit, budget, residency or overload, counted per minute, tenant and reason.

A flood of refused requests must not become a flood of records: what is counted in memory becomes one `refused` record
per key when its minute is over. A crash loses the minute that was not over; nobody was served or charged in it.
"""

from collections.abc import Callable

from gateway.ledger.entry import Entry
from gateway.ledger.instants import MICROS, rfc3339

MINUTE_US = 60 * MICROS
OTHER = "*"  # tenant and reason of what found no room
KEYS_MAX = 4096  # minutes x tenants x reasons in memory, about 1 MB; more are counted in one key

_Key = tuple[int, str, str]


class Refusals:
    """The counts of the minutes that are not written yet."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._counts: dict[_Key, int] = {}
        self._overflow: _Key | None = None

    def add(self, at_us: int, tenant: str, reason: str) -> None:
        minute_us = at_us - at_us % MINUTE_US
        key = (minute_us, tenant, reason)
        if key not in self._counts and len(self._counts) >= self._keys_max:
            key = self._overflow = self._overflow or (minute_us, OTHER, OTHER)
        self._counts[key] = self._counts.get(key, 0) + 1

    def flush(self, now_us: int, append: Callable[[Entry], object], *, everything: bool = False) -> int:
        """Hand the records of the minutes that are over to `append`, or of all of them. Returns how many.

        What `append` does not take, because it raises, stays counted.
        """
        minute_us = now_us - now_us % MINUTE_US
        due = [key for key in self._counts if everything or key[0] < minute_us]
        for key in due:
            append(_entry(key, self._counts[key]))
            del self._counts[key]
            if key == self._overflow:
                self._overflow = None
        return len(due)


def _entry(key: _Key, count: int) -> Entry:
    minute_us, tenant, reason = key
    minute = rfc3339(minute_us)
    return Entry.of({"record": "refused", "minute": minute, "tenant": tenant, "reason": reason, "count": count})
