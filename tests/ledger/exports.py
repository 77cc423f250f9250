"""Exports to write down, and logs full of them."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from gateway.ledger.entry import Entry
from gateway.ledger.instants import MICROS, parse_us
from gateway.ledger.log import LogWriter
from gateway.ledger.opening import Opening
from gateway.ledger.segment import TERMINAL, Record, parse
from gateway.ledger.settlement import Ending, settle_row
from gateway.ledger.storage import SegmentIO
from gateway.ledger.tail import LogLimits
from gateway.ledger.terms import Terms
from pricing.export import Usage
from pricing.tariff import Tariff
from pricing.unit_prices import UnitPrices

NOW_S = 1_764_000_000.0
NOW_US = parse_us("2025-11-24T16:00:00Z")
POWER = UnitPrices("guizhou", 52_000_000, 1200, 404, 250, 1100, 120_000_000)
BOUGHT = UnitPrices(input_nano_per_mtok=10**8, cached_nano_per_mtok=10**6, output_nano_per_mtok=4 * 10**8)
PRICE = Tariff(300_000_000, 30_000_000, 1_200_000_000)


def export_id(number: int) -> str:
    return str(UUID(int=0x0197_0000_0000_7000_8000_0000_0000_0000 + number))


def opening(number: int, **changes: Any) -> Opening:
    fields: dict[str, Any] = {
        "export_id": export_id(number),
        "opened_at_us": NOW_US + number * MICROS,
        "tenant": "acme",
        "model": "qwen3",
        "request_id": f"client-{number}",
        "key_id": "k1",
        "upstream_model": "Qwen/Qwen3",
        "origin_backend": "gz-1",
        "origin_region": "guizhou",
        "origin_country": "CN",
        "destination_country": "DE",
        "destination_method": "address",
        "exported": True,
        "input_estimate": 90,
        "tokens_per_event_max": 1,
        "currency": "USD",
        "price_version": "a" * 12,
        "route_version": "b" * 12,
        "edge": "eu-edge",
        "units": POWER,
        "tariff": PRICE,
    }
    members = {**fields, **changes}
    own = {name: members.pop(name) for name in Opening._fields if name in members}
    return Opening(terms=Terms(**members), **own)


def ending(number: int = 0, **changes: Any) -> Ending:
    fields: dict[str, Any] = {
        "outcome": "completed",
        "ended_at_us": NOW_US + (number + 1) * MICROS,
        "status": 200,
        "usage": Usage(100 + number, 20, 0, 50 + number, 5),
        "delivered_tokens": 50 + number,
        "billed_output_tokens": 50 + number,
        "count_source": "upstream",
        "bytes_from_client": 400,
        "bytes_to_client": 9000,
        "bytes_to_backend": 500,
        "bytes_from_backend": 9500,
        "ttft_ms": 120,
        "duration_ms": 900,
    }
    return Ending(**{**fields, **changes})


def row(number: int, **changes: Any) -> Record:
    """A settled row; changes are those of the opening."""
    return row_of(opening(number, **changes), ending(number))


def row_of(opened: Opening, ended: Ending) -> Record:
    """What the log writes, as the first record of log 0."""
    end = settle_row(opened, ended)
    end.number(0, 0)
    return written(end)


def record_of(opened: Opening) -> Record:
    """What the log writes when it begins."""
    return written(opened.entry())


def written(entry: Entry) -> Record:
    """An entry as the log writes it, but for the chain."""
    record: Record = orjson.loads(entry.head + entry.body + entry.tail + b"}")
    return record


def an_end(row: Record) -> Entry:
    """A row, however odd, as an end for the log, which gives it its numbers."""
    members = [orjson.dumps({name: value})[1:-1] for name, value in row.items()]
    at_seq, at_log = (list(row).index(name) for name in ("seq", "log"))
    head = b"{" + b"".join(member + b"," for member in members[:at_seq]) + b'"seq":'
    body = b"".join(b"," + member for member in members[at_seq + 1 : at_log]) + b',"log":'
    return Entry(row["record"], row["export_id"], head, body, b"".join(b"," + each for each in members[at_log + 1 :]))


def write_log(directory: Path, rows: Iterable[Record], *, singly: bool = False, **options: Any) -> None:
    """Open and end these rows in the log in `directory` (its name is its number). `singly`: a commit for each."""
    writer = LogWriter(directory, int(directory.name), None, **options)
    for each in rows:
        writer.append(Entry.of({"record": "open", "export_id": each["export_id"]}))
        writer.terminal(an_end(each))
        if singly:
            writer.flush()
    writer.close()


def start(directory: Path, **options: Any) -> LogWriter:
    """A writer of the log in `directory`, for the running loop."""
    return LogWriter(directory, int(directory.name), asyncio.get_running_loop(), **options)


async def settled(writer: LogWriter, number: int) -> None:
    """Open and end an export, both durable."""
    for ticket in (writer.append(opening(number).entry()), writer.terminal(an_end(row(number)))):
        await durable(writer, ticket)


async def durable(writer: LogWriter, ticket: int) -> None:
    future = writer.wait(ticket)
    if future is not None:
        await asyncio.wait_for(future, 10)


def ends(directory: Path) -> list[Record]:
    """The terminal records of a log, damaged lines left out."""
    records = [parse(line)[0] for line in lines(directory)]
    return [record for record in records if record is not None and record["record"] in TERMINAL]


def lines(directory: Path) -> list[bytes]:
    """All lines of a log, in order."""
    return [line for path in sorted(directory.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for something another thread brings about."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen within ten seconds")


class FaultyIO(SegmentIO):
    """A disk that fails on demand, and tells when it did."""

    def __init__(self) -> None:
        self.failing = ""  # write | sync | create | truncate
        self.loop: asyncio.AbstractEventLoop | None = None
        self.failed = asyncio.Event()
        self.free = 10**12
        self.syncs = 0
        self.checks = 0
        self.tears = False  # a failing write leaves half of its data

    def _may_fail(self, operation: str) -> None:
        if self.failing == operation:
            if self.loop is not None:
                self.loop.call_soon_threadsafe(self.failed.set)
            raise OSError(5, f"injected failure of {operation}")

    def create(self, path: Path) -> int:
        self._may_fail("create")
        return super().create(path)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.tears and self.failing == "write":
            super().write(descriptor, data[: len(data) // 2])
        self._may_fail("write")
        return super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._may_fail("sync")
        self.syncs += 1
        super().sync(descriptor)

    def truncate(self, path: Path, length: int) -> None:
        self._may_fail("truncate")
        super().truncate(path, length)

    def free_bytes(self, path: Path) -> int:
        self.checks += 1
        return self.free


QUICK = LogLimits(retry_s=0.01, disk_check_s=0.01)
