"""Killed at any point, a worker loses nothing that a client has seen, and nothing ends twice."""

import subprocess
import sys
from pathlib import Path
from random import Random

from gateway.ledger.reading import Reader
from gateway.ledger.recovery import recover_log
from gateway.ledger.verify import verify

from .exports import NOW_S

ROOT = Path(__file__).resolve().parents[2]
KILLS = 12


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
