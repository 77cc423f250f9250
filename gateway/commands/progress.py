"""Progress of long work, on stderr: a bar on a terminal, nothing elsewhere, so that logs and pipes stay clean.

Short work shows nothing: the bar comes after a second, and goes without a trace.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

_FIRST_S = 1.0
_EVERY_S = 0.1
_BAR_CHARS = 30
_LINE_CHARS = 79


class Progress:
    """A context manager: `advance` as work gets done. `total` 0: not known."""

    def __init__(
        self,
        total: int,
        unit: str,
        *,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`unit`: what is counted, as people read it: rows, bytes."""
        self._total = total
        self._unit = unit
        self._out = sys.stderr if out is None else out
        self._clock = clock
        self._shows = self._out.isatty()
        self._began_at = clock()
        self._next_at = self._began_at + _FIRST_S
        self._drawn = False
        self.done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._drawn:
            self._out.write("\r" + " " * _LINE_CHARS + "\r")
            self._out.flush()

    def advance(self, n: int = 1) -> None:
        """So much more is done."""
        self.done += n
        if self._shows:
            now = self._clock()
            if now >= self._next_at:
                self._next_at = now + _EVERY_S
                self._draw(now - self._began_at)

    def _draw(self, took_s: float) -> None:
        rate = self.done / took_s
        if self._total:
            share = min(1.0, self.done / self._total)
            filled = round(share * _BAR_CHARS)
            left_s = max(0, round((self._total - self.done) / rate)) if rate else 0
            bar = f"[{'=' * filled}{' ' * (_BAR_CHARS - filled)}] {share:4.0%}"
            text = f"{bar}  {_short(self.done)} of {_short(self._total)} {self._unit}  {_time(left_s)} left"
        else:
            text = f"{_short(self.done)} {self._unit}  {_short(round(rate))} a second"
        self._out.write("\r" + text[:_LINE_CHARS].ljust(_LINE_CHARS))
        self._out.flush()
        self._drawn = True


def _short(number: int) -> str:
    amount = float(number)
    for suffix in ("", "k", "M", "G"):
        if amount < 1000:
            return f"{amount:.3g}{suffix}" if suffix else str(number)
        amount /= 1000
    return f"{amount:.3g}T"


def _time(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
