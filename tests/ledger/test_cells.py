"""Rows of cells: every worker has its own copy, finds the others', and loses nothing to them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.ledger import cells as module
from gateway.ledger.cells import CELLS_NAME, FIRST, IN_FLIGHT, LOAD, LOCK_BROKEN_S, Cells, CellsFull, Workers

Open = Callable[[int], Cells]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Workers of a gateway of three, by their places."""
    with ExitStack() as stack:
        supervisor = Cells.create(tmp_path / CELLS_NAME, 3)
        stack.callback(supervisor.close)

        def open_at(place: int) -> Cells:
            cells = Cells.open(tmp_path / CELLS_NAME, place)
            stack.callback(cells.close)
            return cells

        yield open_at


def show(cells: Cells, name: str, number: int, cell: int = FIRST) -> None:
    row = cells.row("tenant", name)
    row.ints[row.here + cell] = number


def test_what_one_worker_shows_the_others_add_up(opened: Open) -> None:
    first, second, third = map(opened, range(3))
    show(first, "acme", 5)
    show(second, "acme", 7)
    show(second, "other", 100)
    assert third.row("tenant", "acme").sum_elsewhere(FIRST) == 12
    assert first.row("tenant", "acme").sum_elsewhere(FIRST) == 7


def test_a_name_is_of_a_kind(opened: Open) -> None:
    cells = opened(0)
    assert cells.row("tenant", "a").number != cells.row("backend", "a").number


def test_a_row_is_anothers_once_nobody_uses_it(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = opened(0), opened(1)
    for cells in (first, second):
        cells.claim("tenant", (f"t{n}" for n in range(cells.rows)))
    show(first, "t7", 70)
    with pytest.raises(CellsFull, match="restart"):
        first.claim("tenant", ["new", "newer"])
    first.release("tenant", "t7")
    with pytest.raises(CellsFull):
        first.claim("tenant", ["new"])
    assert second.row("tenant", "t7").sum_elsewhere(FIRST) == 70, "its figures stay as long as one uses them"
    second.release("tenant", "t7")
    assert second.row("tenant", "new").sum_elsewhere(FIRST) == 0
    with pytest.raises(CellsFull):
        second.claim("tenant", ["newer"])


def test_a_tenant_that_comes_back_finds_its_row(opened: Open) -> None:
    first, second = opened(0), opened(1)
    show(first, "acme", 5)
    number = second.row("tenant", "acme").number
    first.release("tenant", "acme")
    assert first.row("tenant", "acme").number == number
    assert second.row("tenant", "acme").sum_elsewhere(FIRST) == 5


def test_the_dead_have_nothing_in_flight_but_used_what_they_used(opened: Open) -> None:
    first, second = opened(0), opened(1)
    show(first, "acme", 3, IN_FLIGHT)
    show(first, "acme", 1000)
    row = first.row("tenant", "acme")
    row.floats[row.here + LOAD] = 2.5
    theirs = second.row("tenant", "acme")
    assert (theirs.sum_elsewhere(IN_FLIGHT), theirs.load_elsewhere()) == (3, 2.5)
    second.bury(0)
    assert (theirs.sum_elsewhere(IN_FLIGHT), theirs.load_elsewhere()) == (0, 0.0)
    assert theirs.sum_elsewhere(FIRST) == 1000


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    Cells.create(tmp_path / "cells", 2).close()
    with pytest.raises(ValueError, match="worker 2"):
        Cells.open(tmp_path / "cells", 2)
    (tmp_path / "cells").write_bytes(bytes(8192))
    with pytest.raises(ValueError):
        Cells.open(tmp_path / "cells", 0)


def test_the_file_grows_with_the_configuration_and_takes_its_room_at_once(tmp_path: Path) -> None:
    cells = Cells.create(tmp_path / "cells", 2, 5000)
    assert cells.rows == 20_000
    taken = os.stat(tmp_path / "cells")
    assert taken.st_blocks * 512 >= taken.st_size
    cells.close()


def test_only_live_workers_count_as_less_busy(opened: Open) -> None:
    ours, other, stuck = (Workers(opened(place)) for place in range(3))
    assert ours.fewest(100.0) == -1, "nobody was ever there"
    other.beat(100.0)
    other.hold(4)
    stuck.beat(98.0)
    stuck.hold(1)
    assert ours.fewest(100.5) == 4
    assert not other.alone


def test_the_first_live_worker_acts_for_all(opened: Open) -> None:
    workers = [Workers(opened(place)) for place in range(3)]
    for each in workers:
        each.beat(100.0)
    assert [each.first(100.2) for each in workers] == [True, False, False]
    workers[1].beat(102.0)
    workers[2].beat(102.0)
    assert [each.first(102.0) for each in workers[1:]] == [True, False]


HOLDER = """
import sys
from pathlib import Path
from gateway.ledger.cells import Cells
cells = Cells.open(Path(sys.argv[1]), 1)
row = cells.row("tenant", "acme")
cells.lock(row.number)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path, opened: Open) -> Iterator[subprocess.Popen[str]]:
    """A worker that stands still with the lock of "acme"."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / CELLS_NAME)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_killed_holder_lets_go(opened: Open, holder: subprocess.Popen[str]) -> None:
    cells = opened(0)
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    number = cells.row("tenant", "acme").number
    cells.lock(number)
    assert cells._unlocked_until == 0.0
    cells.unlock(number)


def test_a_stopped_holder_is_waited_for_once_and_not_for_long(
    opened: Open, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = opened(0)
    number = cells.row("tenant", "acme").number
    naps: list[float] = []
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def nap(seconds: float) -> None:
        naps.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(time, "sleep", nap)
    cells.lock(number)
    assert 0 < sum(naps) <= module.LOCK_S + module.LOCK_TRY_S
    cells.unlock(number)
    naps.clear()
    cells.lock(number)
    assert naps == [], "the next ones do not wait again"
    clock[0] += LOCK_BROKEN_S
    cells.lock(number)
    assert naps
