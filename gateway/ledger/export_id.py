"""Export ids: UUIDv7 (RFC 9562), so that they sort by the time of admission.

Within one millisecond of one process the 12 bits after the time count up from a random start (section 6.2, method 1),
so ids of one worker never repeat and never run backwards, even when the wall clock does; 62 random bits keep workers
and machines apart.
"""

from collections.abc import Callable


class ExportIds:
    """A source of ids. `randbits(k)` gives k random bits."""

    def __init__(self, randbits: Callable[[int], int]) -> None:
        self._randbits = randbits
        self._last_ms = 0
        self._count = 0

    def next(self, wall_s: float) -> tuple[bytes, str]:
        """An id as 16 bytes and as text."""
        now_ms = int(wall_s * 1000)
        if now_ms > self._last_ms:
            self._last_ms, self._count = now_ms, self._randbits(11)
        else:
            self._count += 1
            if self._count > 0xFFF:
                # More than the counter holds in one millisecond: borrow from the next.
                self._last_ms, self._count = self._last_ms + 1, self._randbits(11)
        number = (
            (self._last_ms & 0xFFFFFFFFFFFF) << 80 | 0x7 << 76 | self._count << 64 | 0b10 << 62 | self._randbits(62)
        )
        digits = f"{number:032x}"
        text = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        return number.to_bytes(16, "big"), text
