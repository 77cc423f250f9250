"""Sealed ledgers to look at and to damage."""

from pathlib import Path

from gateway.ledger.instants import MICROS, parse_us
from gateway.ledger.resume import started_at
from gateway.ledger.sealing import Sealer, Sealing
from gateway.ledger.sealkey import load_or_make_key
from gateway.ledger.segment import segment_numbers
from gateway.ledger.storage import SegmentIO
from gateway.ledger.tail import LogLimits

from .exports import row, write_log

SMALL = LogLimits(segment_bytes_max=9000)
PLAIN_S = 600.0


def write_small(data_dir: Path, rows: int = 10) -> Path:
    """A log of a few small segments; returns its directory."""
    directory = data_dir / "ledger" / "0"
    write_log(directory, [row(number) for number in range(rows)], singly=True, limits=SMALL)
    return directory


def last_closing(directory: Path) -> float:
    """When the last closed segment was closed."""
    return parse_us(started_at(directory, segment_numbers(directory)[-1])) / MICROS


def seal(data_dir: Path, *, after_s: float = 0.0, io: SegmentIO | None = None, log: str = "0") -> Sealing:
    """A pass, so long after the last closing."""
    now = last_closing(data_dir / "ledger" / log) + after_s
    result = Sealing()
    Sealer(data_dir / "ledger", load_or_make_key(data_dir), PLAIN_S, lambda: now, io=io).run((), result)
    return result


def seal_whole(data_dir: Path) -> Sealing:
    """A pass after which no plain file of a closed segment is left."""
    return seal(data_dir, after_s=PLAIN_S)


def names(directory: Path) -> list[str]:
    """The files of segments."""
    return sorted(path.name for path in directory.iterdir() if path.name[0].isdigit())
