"""Ledgers to ship, and shippers without a gateway around them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gateway.ledger.entry import Entry
from gateway.ledger.log import LogWriter
from gateway.ledger.reading import Reader
from gateway.ledger.segment import Record
from gateway.shipping.shipper import Shipper, Sink
from tests.ledger.exports import NOW_S, export_id, row, write_log

FIGURES_BY = ("origin_country", "destination_country", "tenant", "model", "outcome")


def log_of(data_dir: Path, log: int = 0) -> Path:
    return data_dir / "ledger" / str(log)


def rows_of(numbers: Iterable[int], **changes: Any) -> list[Record]:
    """Rows that differ in tenant and in whether they were exported; their ids are their numbers."""
    return [
        row(number, tenant=f"tenant-{number % 3}", exported=(True, False, None)[number % 3], **changes)
        for number in numbers
    ]


def write(data_dir: Path, numbers: Iterable[int], log: int = 0, **options: Any) -> None:
    write_log(log_of(data_dir, log), rows_of(numbers), **options)


def refuse(data_dir: Path, *counts: int, log: int = 0, tenant: str = "acme") -> None:
    """So many counts of refused requests, each a record."""
    writer = LogWriter(log_of(data_dir, log), log, None)
    for number, count in enumerate(counts):
        minute = f"2025-11-24T16:{number:02d}:00.000000Z"
        record = {"record": "refused", "minute": minute, "tenant": tenant, "reason": "budget", "count": count}
        writer.append(Entry.of(record))
    writer.close()


def shipper(data_dir: Path, sink: Sink, batch_rows: int = 100, name: str = "store") -> Shipper:
    return Shipper(name, "test", sink, data_dir, batch_rows, lambda: NOW_S)


def ship(shipping: Shipper) -> None:
    """Turns until nothing is left; none may fail."""
    for _ in range(1000):
        if shipping.turn() != 0.0:
            break
    assert shipping.condition.reachable, shipping.condition.problem


def figures(reader: Any) -> tuple[list[Record], ...]:
    """What a report shows, by several dimensions and periods, and all rows."""
    return (
        list(reader.rows()),
        _sorted(reader.sums(FIGURES_BY, "day", "Asia/Shanghai")),
        _sorted(reader.sums(("tenant",), "hour", "Europe/Berlin", NOW_S + 60, NOW_S + 3600)),
        _sorted(reader.sums(FIGURES_BY[:2], "month", "America/New_York")),
        reader.sums((), None),
        reader.refusals(),
    )


def _sorted(sums: list[Record]) -> list[Record]:
    """Within a period, who comes first is nobody's concern."""
    return sorted(sums, key=lambda each: [str(value) for value in each.values()])


def ledger_figures(data_dir: Path) -> tuple[list[Record], ...]:
    with Reader(data_dir) as reader:
        return figures(reader)


def ids(numbers: Iterable[int]) -> list[str]:
    return [export_id(number) for number in numbers]
