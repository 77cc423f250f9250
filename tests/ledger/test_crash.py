"""Killed at any point, a worker loses nothing that a client has seen, and nothing ends twice."""

import ast
import select
import subprocess
import sys
from pathlib import Path
from random import Random

from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.reading import Reader
from gateway.ledger.recovery import recover_log
from gateway.ledger.verify import verify

from .exports import NOW_S, row, write_log

ROOT = Path(__file__).resolve().parents[2]
KILLS = 12
LIVES = 90
# Where a kill could break something: what runs in these has to be hit.
STORES = {
    "board.py",
    "log.py",
    "tail.py",
    "segment.py",
    "resume.py",
    "recovery.py",
    "folding.py",
    "following.py",
    "index.py",
}


def kill_after(directory: Path, seed: int, told_bytes: int) -> list[str]:
    """Run a worker until it has told so much, and kill it. Returns what it told."""
    command = [sys.executable, "-m", "tests.ledger.crashing", str(directory), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        told = child.stdout.read(told_bytes)
        child.kill()
        told += child.stdout.read()
    assert child.returncode == -9
    return told.decode().splitlines()


def test_after_every_kill_each_open_has_one_end_and_no_count_is_below_what_was_sent(tmp_path):
    directory = tmp_path / "ledger" / "0"
    rng = Random(20251124)
    delivered: dict[str, int] = {}
    ended: set[str] = set()
    for kill in range(KILLS):
        # Every other time the next worker recovers, as in a gateway; else the supervisor does.
        for line in kill_after(directory, kill, rng.randrange(1, 120_000)):
            export_id, what = line.split()
            if what == "end":
                ended.add(export_id)
            else:
                delivered[export_id] = int(what)
        if kill % 2 or kill == KILLS - 1:
            assert recover_log(tmp_path / "ledger", 0, NOW_S) > 0
            assert verify(tmp_path) == []
    assert len(delivered) > 100
    with Reader(tmp_path) as reader:
        rows = {row["export_id"]: row for row in reader.rows()}
        (sums,) = reader.sums()
    assert sums["requests"] == len(rows)
    lost = [export_id for export_id in delivered if export_id not in rows]
    assert lost == []
    short = [export_id for export_id, count in delivered.items() if rows[export_id]["delivered_tokens"] < count]
    assert short == []
    assert {rows[export_id]["outcome"] for export_id in ended} == {"completed"}
    assert {row["outcome"] for row in rows.values()} == {"completed", "recovered"}
    # What was never sent may exceed what was told by what the pipe had not taken yet: one event of each stream.
    excess = [row for row in rows.values() if row["delivered_tokens"] > delivered.get(row["export_id"], 0) + 1]
    assert excess == []


def test_killed_at_any_line_of_the_ledger_it_comes_back_with_nothing_lost_and_the_same_index(tmp_path):
    command = [sys.executable, "-m", "tests.ledger.killing", str(tmp_path), "20251125", str(LIVES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    fell = ast.literal_eval(done.stdout)
    assert fell.keys() >= STORES
    assert sum(fell.values()) > LIVES / 2


FOLDING = """
import sys
from pathlib import Path
from gateway.ledger.index import INDEX_NAME, Index
ledger = Path(sys.argv[1]) / "ledger"
index = Index(ledger / INDEX_NAME)
print("folding", flush=True)
index.fold(ledger)
print("folded", flush=True)
"""
ROWS = 4000


def fold_until_killed(data_dir: Path, after_s: float) -> bool:
    """Fold in a process that is killed so long after it began. Whether it was done before."""
    command = [sys.executable, "-c", FOLDING, str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, bufsize=0) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"folding\n"
        select.select([child.stdout], [], [], after_s)
        child.kill()
        return b"folded" in child.stdout.read()


def told(data_dir: Path) -> object:
    """All that a reader can be asked."""
    with Reader(data_dir) as reader:
        sums = [reader.sums(by, period="hour") for by in ((), ("outcome",), ("tenant", "model"))]
        return list(reader.rows()), sums, reader.refusals(), reader.spent(0, 2.0**32)


def test_an_index_whose_fold_is_killed_again_and_again_tells_the_same_as_one_that_was_not(tmp_path):
    write_log(tmp_path / "ledger" / "0", [row(number) for number in range(ROWS)])
    ledger, rng = tmp_path / "ledger", Random(20251126)
    expected = told(tmp_path)  # without any index
    interrupted = 0
    for _ in range(8):
        done = fold_until_killed(tmp_path, rng.uniform(0, 0.15))
        assert verify(tmp_path) == [], "what is folded is right, be it all or not"
        interrupted += not done
        if done:
            (ledger / INDEX_NAME).unlink()
    assert interrupted
    index = Index(ledger / INDEX_NAME)
    index.fold(ledger)
    index.close()
    assert told(tmp_path) == expected
    assert verify(tmp_path) == []
