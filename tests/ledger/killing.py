"""Lives of a worker and of the fold, each killed at a line of the ledger's code that was chosen beforehand.

    python -m tests.ledger.killing DIRECTORY SEED LIVES

A life opens the log, recovers what the last one left, serves some requests and folds the index. The lines that run in
`gateway/ledger` are counted, in all threads, and at a chosen time of a chosen one the process kills itself: in a claim,
between two stores, in the midst of recovery, of a head, of a fold. Files take turns, and a line that runs once is as
likely as one that runs a thousand times. After each life what is left must pass the audit, and at the end nothing that
a client was told may be missing. Prints where the kills fell.

Lives are forks of this process, which has no threads while it forks: hundreds of them take seconds.
"""

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any
from uuid import UUID

import gateway.ledger
from gateway.ledger.board import Board
from gateway.ledger.entry import Entry
from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.instants import micros
from gateway.ledger.log import LogWriter
from gateway.ledger.opening import FailedAttempt
from gateway.ledger.reading import Reader
from gateway.ledger.recovery import recover
from gateway.ledger.settlement import settle_row
from gateway.ledger.tail import LogLimits
from gateway.ledger.verify import verify
from pricing.export import Usage

from .exports import NOW_S, POWER, ending, opening

SOURCES = str(Path(gateway.ledger.__file__).parent)
REQUESTS = 6
SLOTS = 8
# A new segment every few records: what begins one is hit as often as anything.
LIMITS = LogLimits(segment_bytes_max=6000)
REFUSED = {
    "record": "refused",
    "minute": "2025-11-24T16:00:00.000000Z",
    "tenant": "acme",
    "reason": "budget",
    "count": 1,
}

Line = tuple[str, int]  # of a file
Where = tuple[Line, int]  # and which time that it runs
NOWHERE: Where = (("", 0), 0)


class Killer:
    """Counts lines, and kills at one of them."""

    def __init__(self, at: Where, tell: Callable[[str], None]) -> None:
        self._at = at
        self._tell = tell
        self.counts: Counter[Line] = Counter()

    def start(self) -> None:
        threading.settrace(self._called)
        sys.settrace(self._called)

    def stop(self) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]

    def _called(self, frame: FrameType, event: str, _: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(SOURCES) else None

    def _line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            line = frame.f_code.co_filename[len(SOURCES) + 1 :], frame.f_lineno
            self.counts[line] += 1
            if (line, self.counts[line]) == self._at:
                self._tell(f"killed {line[0]} {line[1]}")
                os.kill(os.getpid(), signal.SIGKILL)
        return self._line


def live(data_dir: Path, rng: Random, tell: Callable[[str], None]) -> None:
    """One life, as far as it comes."""
    directory = data_dir / "ledger" / "0"
    log = LogWriter(directory, 0, None, limits=LIMITS)
    recover(log, NOW_S)
    board = Board.create(directory / "board", SLOTS)
    for _ in range(REQUESTS):
        request(log, board, rng, tell)
    log.append(Entry.of(REFUSED))
    log.flush()
    index = Index(data_dir / "ledger" / INDEX_NAME)
    index.fold(data_dir / "ledger")
    index.close()
    log.close()
    board.close()


def request(log: LogWriter, board: Board, rng: Random, tell: Callable[[str], None]) -> None:
    opened = opening(0, export_id=str(UUID(int=rng.getrandbits(128))), opened_at_us=micros(NOW_S))
    slot = board.claim(UUID(opened.export_id).bytes, opened.to_bytes())
    assert slot is not None
    log.append(opened.entry())
    if rng.random() < 0.4:
        failed = FailedAttempt("bad-1", "nowhere", "cut", bytes_to_backend=100, units=POWER)
        opened = opened._replace(failed=(failed,))
        slot.reopen(opened.to_bytes())
        log.append(opened.entry())
    log.flush()
    slot.mark_first(1000, 200)
    events = rng.randrange(1, 5)
    for event in range(1, events + 1):
        slot.generated(event, event + 1, event * 350)
        slot.count(event, event + 1, event * 350)
        tell(f"{opened.export_id} {event}")
    usage = Usage(100, output_tokens=events)
    ended = ending(usage=usage, delivered_tokens=events, billed_output_tokens=events, failed=opened.failed)
    log.terminal(settle_row(opened, ended), slot.release)
    if rng.random() < 0.5:
        log.flush()
        tell(f"{opened.export_id} end")


def fork(data_dir: Path, at: Where, seed: int) -> list[str]:
    """A life in a process of its own, killed where it is told to be if it comes there. Returns what it told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)

        def tell(text: str) -> None:
            os.write(writing, text.encode() + b"\n")

        killer = Killer(at, tell)
        killer.start()
        try:
            live(data_dir, Random(seed), tell)
        except BaseException as error:
            tell(f"failed {error!r}")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        told = file.read().decode().splitlines()
    os.waitpid(child, 0)
    return told


def rehearse(data_dir: Path, seed: int) -> Counter[Line]:
    """How often each line runs in a life."""
    killer = Killer(NOWHERE, print)
    killer.start()
    try:
        live(data_dir, Random(seed), lambda _: None)
    finally:
        killer.stop()
    return killer.counts


def main(data_dir: Path, seed: int, lives: int) -> None:
    rng = Random(seed)
    rehearse(data_dir, rng.getrandbits(64))
    counts = rehearse(data_dir, rng.getrandbits(64))  # the second one finds a log and an index
    files = sorted({name for name, _ in counts})
    delivered: dict[str, int] = {}
    ended: set[str] = set()
    fell: Counter[str] = Counter()
    for number in range(lives):
        line = rng.choice(sorted(line for line in counts if line[0] == files[number % len(files)]))
        at = line, rng.randint(1, counts[line])
        for line in fork(data_dir, at, rng.getrandbits(64)):
            what, *more = line.split()
            assert what != "failed", line
            if what == "killed":
                fell[more[0]] += 1
            elif more[0] == "end":
                ended.add(what)
            else:
                delivered[what] = int(more[0])
        findings = [each for each in verify(data_dir) if "has no end" not in each.problem]
        assert findings == [], (number, fell, findings)
    live(data_dir, rng, lambda _: None)
    assert verify(data_dir) == []
    judge(data_dir, delivered, ended)
    print(dict(fell))


def judge(data_dir: Path, delivered: dict[str, int], ended: set[str]) -> None:
    """Nothing lost, nothing twice, nothing below what was told; and the index is what a new one would be."""
    with Reader(data_dir) as reader:
        rows, sums, refusals = list(reader.rows()), reader.sums(("outcome",), period="hour"), reader.refusals()
    found = {row["export_id"]: row for row in rows}
    assert len(found) == len(rows)
    assert delivered.keys() <= found.keys()
    for export_id, events in delivered.items():
        # The kill may have come between the count on the board and the telling of it.
        assert events <= found[export_id]["delivered_tokens"] <= events + 1, found[export_id]
    assert {found[export_id]["outcome"] for export_id in ended} == {"completed"}
    (data_dir / "ledger" / INDEX_NAME).unlink()
    index = Index(data_dir / "ledger" / INDEX_NAME)
    index.fold(data_dir / "ledger")
    index.close()
    with Reader(data_dir) as reader:
        assert list(reader.rows()) == rows
        assert (reader.sums(("outcome",), period="hour"), reader.refusals()) == (sums, refusals)
    assert verify(data_dir) == []


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
