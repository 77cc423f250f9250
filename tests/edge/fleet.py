"""Several workers in one process, as far as the limits of one tenant go: killed at any store, and interrupted anywhere.

Each has cells of its own in one mapped file, the meter of the tenant and the permits that are out. The ledger is a list
of what ended, when and in which log.
"""

from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from gateway.config.settings import BudgetSettings, RateSettings
from gateway.edge.metering import Meter, Permit, Spent
from gateway.errors import Refused
from gateway.ledger.cells import Cells

NOW, WALL = 1000.0, datetime(2026, 5, 6, 12, tzinfo=UTC).timestamp()
DAY_S = 86_400.0


class Killed(Exception):
    """kill -9, at a store."""


class Memory:
    """Cells that kill their worker at its next store but so many, and let other workers run in between."""

    def __init__(self, real: Any, worker: "Worker") -> None:
        self._real = real
        self._worker = worker

    def __getitem__(self, index: Any) -> Any:
        self._worker.interrupted()
        return self._real[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        worker = self._worker
        if worker.stores_left == 0:
            raise Killed
        if worker.stores_left is not None:
            worker.stores_left -= 1
        self._real[index] = value
        worker.interrupted()


class Worker:
    """One of several, in this process: its cells, its meter of the one tenant, and the permits that are out."""

    def __init__(self, path: Path, place: int, fleet: "Fleet") -> None:
        self.place = place
        self.fleet = fleet
        self.stores_left: int | None = None
        self.locked = False
        self.permits: list[tuple[Permit, int]] = []
        self.drawing: set[Meter] = set()
        cells = self.cells = Cells.open(path, place)
        self._real = (cells.ints, cells.floats)
        cells.ints, cells.floats = Memory(cells.ints, self), Memory(cells.floats, self)
        cells.lock, cells.unlock = self._lock, self._unlock  # type: ignore[method-assign]
        self.meter = Meter(cells, "acme", self.drawing)
        self.install()

    def install(self) -> None:
        new = self.meter.install(self.fleet.limits, self.fleet.budget, self.fleet.now)
        if new and self.meter.budget is not None:
            self.meter.budget.begin(self.fleet.wall, *self.fleet.spent().of("acme", self.place))

    def admit(self, tokens: int) -> bool:
        try:
            self.permits.append((self.meter.admit(tokens, self.fleet.now, self.fleet.wall), tokens))
        except Refused:
            return False
        return True

    def settle(self, index: int, used: int) -> None:
        """As an exchange ends: its row first, then its permit."""
        permit, _ = self.permits.pop(index)
        self.fleet.row(self.place, used)
        permit.settle(used, self.fleet.now)

    def sweep(self) -> None:
        for meter in [meter for meter in self.drawing if not meter.rest()]:
            self.drawing.discard(meter)

    def interrupted(self) -> None:
        self.fleet.interrupt(self)

    def close(self) -> None:
        self.cells.ints, self.cells.floats = self._real
        self.cells.close()

    def _lock(self, byte: int) -> None:
        assert self.fleet.locked is None
        self.fleet.locked = self

    def _unlock(self, byte: int) -> None:
        self.fleet.locked = None


class Fleet:
    """Workers 0 to N - 1, their common time, and a ledger."""

    def __init__(self, path: Path, workers: int, limits: RateSettings, budget: BudgetSettings | None = None) -> None:
        self.limits, self.budget = limits, budget
        self.now, self.wall = NOW, WALL
        self.rows: list[tuple[float, int, int]] = []
        self.locked: Worker | None = None
        self.between: Any = None  # what another worker does between two steps of this one
        self._path, self._count = path, workers
        self._supervisor = Cells.create(path, workers)
        self.workers = [Worker(path, place, self) for place in range(workers)]

    def row(self, log: int, tokens: int) -> None:
        self.rows.append((self.wall, log, tokens))

    def spent(self) -> Spent:
        """What the ledger says, by log, of the day it is."""
        tokens: dict[str, int] = {}
        for wall, log, count in self.rows:
            if wall // DAY_S == self.wall // DAY_S:
                tokens[str(log)] = tokens.get(str(log), 0) + count
        return Spent(self.wall, tuple(range(self._count)), {"acme": tokens})

    def used(self) -> int:
        return sum(self.spent().tokens["acme"].values())

    def reserved(self) -> int:
        return sum(tokens for worker in self.workers for _, tokens in worker.permits)

    def streams(self) -> int:
        return sum(len(worker.permits) for worker in self.workers)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    def interrupt(self, worker: Worker) -> None:
        between, self.between = self.between, None
        if between is not None:
            between(worker)
            self.between = between

    def replace(self, place: int, rng: Random) -> None:
        """The worker of this place was killed: bury it, recover what it had open, start another."""
        self.locked = None
        dead = self.workers[place]
        self._supervisor.bury(place)
        for _, tokens in dead.permits:
            self.row(place, rng.randint(0, tokens))
        dead.close()
        self.workers[place] = Worker(self._path, place, self)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self._supervisor.close()
