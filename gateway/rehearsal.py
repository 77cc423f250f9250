"""Scenario files in, assignments and their costs out, around routing.simulator.

A scenario is a TOML file that names a request list and hourly prices (both CSV, gzip if their name ends so), by paths
relative to it. The replay's decisions are written as assignments, one line per request, and what is reported is
computed from the file that was written: anybody can do the same and must find the same.
"""

import csv
import gzip
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from time import perf_counter
from typing import TextIO

from gateway.control import highs
from routing.simulator.costs import Outcome, settle
from routing.simulator.policies import POLICIES
from routing.simulator.replay import SENT_DECIMALS, replay
from routing.simulator.scenario import world_of
from routing.simulator.world import HOUR_S, Assignment, Request, World, Yardsticks, ZonePrices

ASSIGNMENT_COLUMNS = ("request_id", "site", "link", "sent_s")
SEED = 0  # of the chance that decisions have
BAR_CELLS = 30


class RehearsalError(Exception):
    """A file is missing or wrong; the message is one line that names it."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a policy made of a scenario."""

    scenario: str
    policy: str
    outcome: Outcome
    yardsticks: Yardsticks
    requests: int  # replayed, reported or not
    elapsed_s: float  # of the replay alone
    planned: bool  # a solver was there for hourly plans

    @property
    def regret(self) -> float | None:
        """Total over the published bound, less one."""
        bound_usd = self.yardsticks.bound_usd
        return self.outcome.total_usd / bound_usd - 1 if bound_usd else None

    @property
    def captured_saving(self) -> float | None:
        """The share of what can be saved against nearest-site routing."""
        bound_usd, nearest_usd = self.yardsticks.bound_usd, self.yardsticks.nearest_usd
        if bound_usd is None or nearest_usd is None or nearest_usd == bound_usd:
            return None
        return (nearest_usd - self.outcome.total_usd) / (nearest_usd - bound_usd)


@dataclass(frozen=True, slots=True)
class Inputs:
    world: World
    prices: Mapping[str, ZonePrices]
    requests: Sequence[Request]


def rehearse(
    scenario: Path, assignments: Path, policy_name: str, *, seed: int = SEED, progress: TextIO | None = None
) -> Rehearsal:
    """Replay a scenario, write the assignments, and judge what was written. Progress goes to stderr by default.

    Raises RehearsalError.
    """
    if policy_name not in POLICIES:
        raise RehearsalError(f"--policy {policy_name}: not a policy; choose from {', '.join(POLICIES)}")
    inputs = read_inputs(scenario)
    world, requests = inputs.world, inputs.requests
    solve = highs.solve if highs.available() else None
    decided: dict[int, Assignment] = {}
    started = perf_counter()
    with _naming(scenario):
        decisions = replay(world, inputs.prices, requests, POLICIES[policy_name], rng=Random(seed), solve=solve)
        bar = ProgressBar(len(requests), progress or sys.stderr)
        for decision in decisions:
            decided[decision.request_id] = decision  # the last one stands
            bar.show(len(decided))
        bar.end()
    elapsed_s = perf_counter() - started
    write_assignments(assignments, requests, decided)
    with _naming(scenario):
        outcome = settle(world, inputs.prices, requests, read_assignments(assignments))
    return Rehearsal(
        world.scenario.name, policy_name, outcome, world.yardsticks, len(requests), elapsed_s, solve is not None
    )


def read_inputs(scenario: Path) -> Inputs:
    """A scenario with its request list and prices."""
    with _naming(scenario):
        document = tomllib.loads(scenario.read_text("utf-8"))
        world = world_of(document)
        files = document["scenario"]
        requests, prices = scenario.parent / str(files["requests"]), scenario.parent / str(files["prices"])
    return Inputs(world, read_prices(prices, world.zones), read_requests(requests, world))


def read_requests(path: Path, world: World) -> list[Request]:
    with _naming(path), _open(path) as file:
        requests = [_request(row, world) for row in _rows(file, Request._fields[:-1])]
        order = [(request.arrival_s, request.request_id) for request in requests]
        if order != sorted(order):
            raise ValueError("not in the order of arrival_s and request_id")
        return requests


def read_prices(path: Path, zones: Sequence[str]) -> dict[str, ZonePrices]:
    """Hour by hour; an empty cell (or a missing line) takes the last earlier value."""
    with _naming(path), _open(path) as file:
        table = {_utc_hour(row["utc_hour"]): row for row in _rows(file, ("utc_hour", *zones))}
        return {zone: _filled(zone, {hour: row[zone] for hour, row in table.items()}) for zone in zones}


def read_assignments(path: Path) -> list[Assignment]:
    with _naming(path), _open(path) as file:
        return [
            Assignment(
                _whole(row["request_id"]), row["site"], row["link"], float(row["sent_s"]) if row.get("sent_s") else None
            )
            for row in _rows(file, ASSIGNMENT_COLUMNS[:-1])
        ]


def write_assignments(path: Path, requests: Iterable[Request], decided: Mapping[int, Assignment]) -> None:
    """One line per request in their order; `sent_s` only where a row was not sent when it arrived."""
    with _naming(path), path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(ASSIGNMENT_COLUMNS)
        for request in requests:
            number, site, link, sent_s = decided[request.request_id]
            at_once = not site or sent_s is None or sent_s == request.arrival_s
            writer.writerow((number, site, link, "" if at_once else f"{sent_s:.{SENT_DECIMALS}f}"))


class ProgressBar:
    """One line that is redrawn on a terminal, and ten lines elsewhere."""

    def __init__(self, total: int, out: TextIO) -> None:
        self._total = max(total, 1)
        self._out = out
        self._terminal = out.isatty()
        self._steps = 100 if self._terminal else 10
        self._next = 0  # step to be shown

    def show(self, done: int) -> None:
        step = done * self._steps // self._total
        if step < self._next:
            return
        self._next = step + 1
        share = done / self._total
        if self._terminal:
            filled = round(share * BAR_CELLS)
            self._out.write(f"\r[{'#' * filled}{'.' * (BAR_CELLS - filled)}] {share:4.0%} {done:,} requests")
        elif step:
            self._out.write(f"{share:4.0%} {done:,} requests\n")
        self._out.flush()

    def end(self) -> None:
        if self._terminal:
            self._out.write("\n")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """What goes wrong with a file is told with its name."""
    try:
        yield
    except OSError as error:
        raise RehearsalError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, csv.Error) as error:  # bad TOML and bad UTF-8 are ValueErrors
        detail = f"no {error}" if isinstance(error, KeyError) else error
        raise RehearsalError(f"{path}: {detail}") from None


def _open(path: Path) -> TextIO:
    return gzip.open(path, "rt", encoding="utf-8", newline="") if path.suffix == ".gz" else path.open(newline="")


def _rows(file: TextIO, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(file, restval="")  # empty cells at the end of a line may be left out
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}")
    yield from reader


def _request(row: Mapping[str, str], world: World) -> Request:
    where = f"request {row['request_id']}"
    region, tenant = row["region"], row["tenant"]
    if region not in world.regions:
        raise ValueError(f"{where}: no region is called {region!r}")
    if tenant not in world.tenants:
        raise ValueError(f"{where}: no tenant is called {tenant!r}")
    prompt_tokens, output_tokens = _whole(row["prompt_tokens"]), _whole(row["output_tokens"])
    if prompt_tokens < 1 or output_tokens < 0:
        raise ValueError(f"{where}: {prompt_tokens} prompt and {output_tokens} output tokens are not possible")
    blocks = _blocks(row.get("prefix_blocks", ""))
    return Request(
        _whole(row["request_id"]), float(row["arrival_s"]), region, tenant, prompt_tokens, output_tokens, blocks
    )


def _blocks(text: str) -> tuple[int, ...]:
    """Block ids, space separated; `a-b` is a run with both ends."""
    blocks: list[int] = []
    for run in text.split():
        first, dash, last = run.partition("-")
        blocks.extend(range(_whole(first), _whole(last if dash else first) + 1))
    return tuple(blocks)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def _utc_hour(text: str) -> int:
    """`2024-05-06T00` as hours since the epoch."""
    return int(datetime.strptime(text, "%Y-%m-%dT%H").replace(tzinfo=UTC).timestamp()) // HOUR_S


def _filled(zone: str, cells: Mapping[int, str]) -> ZonePrices:
    hours = sorted(hour for hour, cell in cells.items() if cell)
    if not hours:
        raise ValueError(f"{zone} has no prices")
    per_mwh: list[float] = []
    for hour in range(hours[0], max(cells) + 1):
        cell = cells.get(hour, "")
        per_mwh.append(float(cell) if cell else per_mwh[-1])
    return ZonePrices(hours[0], tuple(per_mwh))
