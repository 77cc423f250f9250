"""RESULTS.md: how to read it, the latest run, and one line for each run before."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from statistics import median

from tests.bench.figures import Figures
from tests.bench.stage import TOKENPORT

PATH = Path(__file__).with_name("RESULTS.md")
HISTORY = "## All runs\n"

HEAD = """# What a request and a token cost

Written by `make bench ARGS=--write`; do not edit it, change `tests/bench/results.py`.

How to read it. Three subjects stand between the same load and the same backend on the loopback: a bare relay on
uvloop that parses nothing (`floor_relay.py`, the floor), a plain aiohttp pass-through (`floor_aiohttp.py`), and
tokenport with everything on: key, limits and budget, destination from the client's address, a choice among 16
candidates, counting, the durable ledger and its index. CPU is user and system time of all processes and threads of the
subject (of tokenport: worker and supervisor), not of the load and the backend. Look at the ratios first: they are
medians of ratios within one round, with the least and the largest round behind them; the microseconds of a shared
machine vary by a third from one hour to the next.

- *small request*: 16 kept-alive connections, the next request when the answer is there, no stream. The fold of the
  rows into the index is waited for and counted.
- *token, 20 ms apart*: 32 streams that never speak at the same moment, requests themselves left out. Nearly all of it
  is the wake-up and two system calls per event, for everybody.
- *request of 400 KB*: the same with a long conversation in it, answered in a few bytes.
- *token, 50 ms apart*: 512 streams. *A token's way* is the time from the backend's write to the client's read: the
  backend writes the moment into the event. The 95th percentile of each run, compared within a round.
- *token, flat out*: 32 streams of thousands of events, one to a write of the backend, as fast as they are taken.
- *added* is the percentile through the subject less the same percentile of the direct connection, one request at a
  time, in turn; on a busy machine the p99 is the machine's. The ledger's sync runs beside the connect and the request
  to the backend: only where that answers at once is it part of what is added. The rest is the gateway's own
  work, which takes several times longer for one request after a pause (cold caches) than in a stream of them.

- *memory* is what a worker's resident set grew by, mapped files included (the board: a slot per stream), in a gateway
  that has served before. An event a second in every stream; the *longest lag* is that of the slowest event of all.
  Stalled readers stop reading for a minute, distant clients with small buffers, of answers longer than all buffers on
  the way; then they read on and must get every byte.
- *the ledger*: a request's way through it alone, 16 in flight, of all threads: id, board slot, open, the wait for its
  commit, row, end. *memory* is the same with a ledger that keeps nothing, *unsynced* with files that keep nothing, the
  *floor* lines that are encoded already, one write and one sync for 16 requests. Exports and rows are per second of
  CPU, and by the clock behind it.
- *a month*: rows of eight tenants, six sites and prices that change every quarter of an hour, in two logs.
- *two workers*: the same loads in turn on a gateway with one worker and one with two, limits shared. The *share* is of
  the requests of 16 connections that ask again when they have their answer.

Every answer was compared byte by byte, and the ledger had one row per request: else there are no figures.
"""


def write_results(figures: Figures, text: str) -> None:
    """Replace the latest run and add a line to the list of all."""
    known = PATH.read_text() if PATH.exists() else ""
    rows = [_cells(line) for line in known.partition(HISTORY)[2].splitlines() if line.startswith("| 2")]
    titles = ["date", "commit", "machine", "versions", *(title for title, _ in _summary(figures))]
    latest = [_date(), _commit(), _machine(), _versions(), *(figure for _, figure in _summary(figures))]
    # What was added later is empty in older lines.
    rows = [[*row, *[""] * (len(titles) - len(row))] for row in [latest, *rows]]
    lines = [f"| {' | '.join(row)} |" for row in (titles, *rows)]
    lines.insert(1, "|" + "---|" * len(titles))
    head = f"## Latest run\n\n{_date()}, {_commit()}, {_machine()}, {_versions()}\n\n{text}"
    PATH.write_text("\n".join([HEAD, head, HISTORY, *lines]) + "\n")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _summary(figures: Figures) -> list[tuple[str, str]]:
    """The figures of a line, with their titles. New ones at the end."""
    found = [(f"{load} : relay", median(figures.ratios(load, TOKENPORT))) for load in ("small", "paced", "flat")]
    found += [("decide us", median(figures.decide_us)), ("ledger us", median(figures.ledger["durable"]))]
    found += [(f"{load} : relay", median(figures.ratios(load, TOKENPORT))) for load in ("wide", "prompt")]
    found += [("KiB a stream", figures.per_stream_kib("plain")), ("a stalled", figures.per_stream_kib("stalled"))]
    return [(title, f"{figure:.2f}") for title, figure in found]


def _date() -> str:
    return datetime.now(UTC).date().isoformat()


def _commit() -> str:
    """The commit at hand; with a plus if the tree differs from it."""
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        told = subprocess.run(command, cwd=PATH.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
    return told.stdout.strip()


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {cpu_count()} cores"


def _versions() -> str:
    return f"Python {platform.python_version()}, uvloop {version('uvloop')}"
