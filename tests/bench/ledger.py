"""The ledger alone: what a request's open and end cost a worker, how many exports one log takes, how fast they fold.

`python -m tests.bench.ledger CONFIG DIRECTORY SECONDS ROUNDS` prints JSON. A request does here what it does in a
worker: an id, an opening, a board slot, the open record, the wait for its commit, the row, the end, the slot given
back; all of it by callbacks of one event loop, the next one when one has ended. In turn, round by round:

- `durable`: the log as it is, its writer thread included
- `unsynced`: the same with files that keep nothing, so encoding, hashing and threads without the disk
- `memory`: the same requests with a ledger that only frees the slot
- `floor`: lines that are encoded already, one write and one sync for as many requests as are in flight
"""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Protocol

import uvloop

from gateway.clock import PriceTime
from gateway.config import load_file
from gateway.control.worker import GC_THRESHOLD
from gateway.edge.live import Live
from gateway.ledger.board import Board, Slot
from gateway.ledger.export_id import ExportIds
from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.log import LogWriter
from gateway.ledger.opening import Opening
from gateway.ledger.reading import LEDGER_NAME
from gateway.ledger.segment import segment_path
from gateway.ledger.settlement import Ending, settle_row
from gateway.ledger.storage import SegmentIO
from gateway.ledger.terms import Terms, terms_of
from pricing.export import Usage
from tests.bench.world import MODEL

IN_FLIGHT = 16
CROWD = 1024  # in flight for the rate of one log
SLOTS = 2 * CROWD
WARM_UP_S = 0.2

Found = dict[str, list[float]]


class Ledger(Protocol):
    """Where a request is written down."""

    def opened(self, opening: Opening) -> asyncio.Future[None] | None: ...

    def ended(self, opening: Opening, ending: Ending, slot: Slot) -> None: ...

    def flush(self) -> None: ...


class Durable:
    """The log, as a worker uses it."""

    def __init__(self, log: LogWriter) -> None:
        self.log = log

    def opened(self, opening: Opening) -> asyncio.Future[None] | None:
        return self.log.wait(self.log.append(opening.entry()))

    def ended(self, opening: Opening, ending: Ending, slot: Slot) -> None:
        self.log.terminal(settle_row(opening, ending), slot.release)

    def flush(self) -> None:
        self.log.flush()


class Memory:
    """Nothing is kept."""

    def opened(self, opening: Opening) -> None:
        return None

    def ended(self, opening: Opening, ending: Ending, slot: Slot) -> None:
        slot.release()

    def flush(self) -> None:
        pass


class Unsynced(SegmentIO):
    """Files that keep nothing but what begins a segment."""

    def write(self, descriptor: int, data: bytes) -> int:
        return len(data)

    def sync(self, descriptor: int) -> None:
        pass


class Requests:
    """A closed loop of requests over one ledger."""

    def __init__(self, ledger: Ledger, board: Board, terms: Terms) -> None:
        self._ledger = ledger
        self._board = board
        self._terms = terms
        self._ids = ExportIds(Random(1).getrandbits)
        self._loop = asyncio.get_running_loop()
        self._running = 0
        self._until = 0.0
        self.count = 0

    async def run(self, in_flight: int, seconds: float) -> None:
        """For so long; everything is durable then."""
        self.count, self._running = 0, in_flight
        self._over = self._loop.create_future()
        self._until = time.perf_counter() + seconds
        for _ in range(in_flight):
            self._begin()
        await self._over
        self._ledger.flush()

    def _begin(self) -> None:
        if time.perf_counter() >= self._until:
            self._running -= 1
            if not self._running:
                self._over.set_result(None)
            return
        wall_s = time.time()
        export_id, text = self._ids.next(wall_s)
        opening = Opening(text, round(wall_s * 1e6), self._terms, f"req-{self.count}", 40)
        slot = self._board.claim(export_id, opening.to_bytes())
        assert slot is not None
        commit = self._ledger.opened(opening)
        if commit is None:
            self._loop.call_soon(self._end, opening, slot)
        else:
            commit.add_done_callback(lambda done: self._end(opening, slot))

    def _end(self, opening: Opening, slot: Slot) -> None:
        ending = Ending(
            outcome="completed",
            ended_at_us=round(time.time() * 1e6),
            status=200,
            usage=Usage(412, 0, 0, 200),
            delivered_tokens=200,
            billed_output_tokens=200,
            count_source="upstream",
            bytes_from_client=1640,
            bytes_to_client=70_212,
            bytes_to_backend=1711,
            bytes_from_backend=70_310,
            ttft_ms=181,
            duration_ms=6212,
            attempt_ttft_ms=180,
            attempt_duration_ms=6210,
        )
        self._ledger.ended(opening, ending, slot)
        self.count += 1
        self._begin()


def terms(live: Live) -> Terms:
    """What a request of the bench's tenant is written down on."""
    backend = next(iter(live.table.backends.values()))
    rule = live.table.match(MODEL, "DE")
    assert rule is not None
    prices = live.prices(time.time())
    units, tariff = prices.units(backend.name, rule.routes[0].link.name), prices.charge("acme")
    who = ("acme", MODEL, "0123456789ab", "openai", True)
    origin = (backend.models[MODEL], backend.name, backend.region, backend.country)
    versions = (live.book.currency, prices.version, live.table.version, live.table.edge)
    return terms_of(units, tariff, *who, *origin, "DE", "header", True, backend.tokens_per_event_max, *versions)


async def cpu(terms: Terms, directory: Path, seconds: float, rounds: int) -> Found:
    """Microseconds of a request at 16 in flight, all threads: a list for each, one per round."""
    loop, board = asyncio.get_running_loop(), Board.create(directory / "board", SLOTS)
    logs = [LogWriter(directory / "0", 0, loop), LogWriter(directory / "1", 1, loop, io=Unsynced())]
    ledgers: dict[str, Ledger] = {"durable": Durable(logs[0]), "unsynced": Durable(logs[1]), "memory": Memory()}
    requests = {name: Requests(ledger, board, terms) for name, ledger in ledgers.items()}
    found: Found = {name: [] for name in (*requests, "floor")}
    for name in requests:
        await requests[name].run(IN_FLIGHT, WARM_UP_S)
    lines = segment_path(directory / "0", 1).read_bytes().splitlines(keepends=True)[-2 * IN_FLIGHT :]
    for _ in range(rounds):
        for name, subject in requests.items():
            before = time.process_time()
            await subject.run(IN_FLIGHT, seconds)
            found[name].append((time.process_time() - before) / subject.count * 1e6)
        found["floor"].append(floor(directory / "floor", b"".join(lines), seconds))
    for log in logs:
        log.close()
    board.close()
    return found


def floor(path: Path, lines: bytes, seconds: float) -> float:
    """Microseconds of a request whose lines are there already."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o640)
    sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
    until, count, before = time.perf_counter() + seconds, 0, time.process_time()
    while time.perf_counter() < until:
        os.write(descriptor, lines)
        sync(descriptor)
        count += IN_FLIGHT
    os.close(descriptor)
    return (time.process_time() - before) / count * 1e6


async def rate(terms: Terms, directory: Path, seconds: float, rounds: int) -> Found:
    """Exports that one log makes durable, as many in flight as a busy worker has, sync on: a second, and a second of
    CPU."""
    log = LogWriter(directory / "0", 0, asyncio.get_running_loop())
    board = Board.create(directory / "board", SLOTS)
    requests, found = Requests(Durable(log), board, terms), Found(rate=[], rate_cpu=[])
    await requests.run(CROWD, WARM_UP_S)
    for _ in range(rounds):
        began, cpu_s = time.perf_counter(), time.process_time()
        await requests.run(CROWD, seconds)
        found["rate"].append(requests.count / (time.perf_counter() - began))
        found["rate_cpu"].append(requests.count / (time.process_time() - cpu_s))
    log.close()
    board.close()
    return found


def folded(data_dir: Path) -> Found:
    """Rows into the index, of everything in the ledger: a second, and a second of CPU."""
    ledger = data_dir / LEDGER_NAME
    index = Index(ledger / INDEX_NAME)
    began, cpu_s = time.perf_counter(), time.process_time()
    rows = index.fold(ledger)
    found = {"fold": [rows / (time.perf_counter() - began)], "fold_cpu": [rows / (time.process_time() - cpu_s)]}
    index.close()
    return found


def main(config: str, directory: str, seconds: str, rounds: str) -> None:
    gc.set_threshold(GC_THRESHOLD, 20, 50)  # as a worker does
    live = Live(load_file(Path(config), os.environ), {}, PriceTime(None, 0.0), Random(1))
    found = uvloop.run(cpu(terms(live), _made(Path(directory) / "cpu"), float(seconds), int(rounds)))
    data_dir = Path(directory) / "rate"
    found |= uvloop.run(rate(terms(live), _made(data_dir / LEDGER_NAME), float(seconds), int(rounds)))
    found |= folded(data_dir)
    print(json.dumps(found))


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


if __name__ == "__main__":
    main(*sys.argv[1:5])
