"""A worker to be killed: streams through the log and the board, and tells on standard output what it handed over.

    python -m tests.ledger.crashing DIRECTORY SEED

Each line it prints is one thing a client has seen: `id events`, or `id end` after an end that is durable. It counts on
the board before it prints, as a worker counts before it hands bytes to a socket.
"""

import asyncio
import os
import sys
from pathlib import Path
from random import Random
from uuid import UUID

from gateway.ledger.board import Board
from gateway.ledger.instants import micros
from gateway.ledger.log import LogWriter
from gateway.ledger.opening import FailedAttempt
from gateway.ledger.recovery import recover
from gateway.ledger.settlement import settle_row
from gateway.ledger.tail import LogLimits
from pricing.export import Usage

from .exports import NOW_S, POWER, ending, opening

STREAMS = 24


def tell(export_id: str, what: object) -> None:
    os.write(1, f"{export_id} {what}\n".encode())


async def stream(log: LogWriter, board: Board, rng: Random) -> None:
    opened = opening(0, export_id=str(UUID(int=rng.getrandbits(128))), opened_at_us=micros(NOW_S))
    slot = board.claim(UUID(opened.export_id).bytes, opened.to_bytes())
    assert slot is not None
    ticket = log.append(opened.entry())
    if rng.random() < 0.2:
        await asyncio.sleep(0)
        failed = FailedAttempt("bad-1", "nowhere", "cut", bytes_to_backend=100, units=POWER)
        opened = opened._replace(failed=(failed,))
        slot.reopen(opened.to_bytes())
        ticket = log.append(opened.entry())
    durable = log.wait(ticket)
    if durable is not None:
        await durable
    slot.mark_first(1000, 200)
    events = rng.randrange(1, 40)
    for event in range(1, events + 1):
        slot.generated(event, 0, event * 350)
        slot.count(event, 0, event * 350)
        tell(opened.export_id, event)
        if rng.random() < 0.5:
            await asyncio.sleep(0)
    usage = Usage(100, output_tokens=events)
    ended = ending(usage=usage, delivered_tokens=events, billed_output_tokens=events, failed=opened.failed)
    ticket = log.terminal(settle_row(opened, ended), slot.release)
    if rng.random() < 0.3:
        durable = log.wait(ticket)
        if durable is not None:
            await durable
        tell(opened.export_id, "end")


async def work(directory: Path, rng: Random) -> None:
    limits = LogLimits(segment_bytes_max=256 * 1024)
    log = LogWriter(directory, int(directory.name), asyncio.get_running_loop(), limits=limits)
    recover(log, NOW_S)
    board = Board.create(directory / "board", 4 * STREAMS)

    async def streams() -> None:
        while True:
            await stream(log, board, rng)

    await asyncio.gather(*(streams() for _ in range(STREAMS)))


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), Random(int(sys.argv[2]))))
