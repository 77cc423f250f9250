"""A limit means the same with one worker and with eight, whatever their order, and whoever is killed in between."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.settings import BudgetSettings, RateSettings
from gateway.edge.metering import Meter, Permit, Spent
from gateway.errors import Refused
from gateway.ledger.cells import CELLS_NAME, Cells

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


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:
        made = iter(range(1000))

        def make(workers: int, limits: RateSettings, budget: BudgetSettings | None = None) -> Fleet:
            fleet = Fleet(tmp_path / f"{CELLS_NAME}-{next(made)}", workers, limits, budget)
            stack.callback(fleet.close)
            return fleet

        yield make


WORKERS = pytest.mark.parametrize("workers", [1, 2, 8])


def flood(fleet: Fleet, asks: int, tokens: int = 1, used: int | None = None) -> int:
    """Ask all workers in turn; what is admitted is over at once. Returns how many were."""
    admitted = 0
    for ask in range(asks):
        worker = fleet.workers[ask % len(fleet.workers)]
        if worker.admit(tokens):
            admitted += 1
            worker.settle(-1, tokens if used is None else used)
    return admitted


@WORKERS
def test_a_rate_of_60_admits_60_and_one_a_second_from_then_on(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(requests_per_minute=60))
    assert flood(fleet, 200) == 60
    for _ in range(30):
        fleet.pass_time(1.0)
        assert flood(fleet, 10 * workers) == 1
    fleet.pass_time(600.0)
    assert flood(fleet, 200) == 60, "a bucket holds a minute's worth"


@WORKERS
def test_a_large_rate_is_passed_by_nothing_and_reached_but_for_one_hundredth(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(requests_per_minute=6000))
    assert 0.99 * 6000 <= flood(fleet, 10_000) <= 6000


@WORKERS
def test_one_busy_worker_gets_what_the_others_leave(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(requests_per_minute=6000))
    flood(fleet, workers)  # everybody holds a block
    for worker in fleet.workers:
        worker.sweep()
        worker.sweep()
    busy = fleet.workers[-1]
    admitted = sum(busy.admit(1) for _ in range(7000))
    assert admitted == 6000 - workers


@WORKERS
def test_tokens_that_were_not_used_are_given_back(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(tokens_per_minute=10_000))
    # Each takes 1,000 for a moment and uses 100: a hundred of them, but for what lies in the last blocks.
    assert 90 <= flood(fleet, 300, tokens=1000, used=100) <= 100


@WORKERS
def test_tokens_that_were_used_beyond_the_reservation_are_taken(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(tokens_per_minute=10_000))
    assert flood(fleet, 50, tokens=100, used=5000) == 2
    fleet.pass_time(1.0)
    assert flood(fleet, 50, tokens=100) == 1


@WORKERS
def test_a_demand_above_the_limit_waits_for_a_full_bucket(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(tokens_per_minute=600))
    assert flood(fleet, 10, tokens=1800) == 1
    fleet.pass_time(120.0)
    assert flood(fleet, 10, tokens=1800) == 0, "it took three minutes' worth"
    fleet.pass_time(60.0)
    assert flood(fleet, 10, tokens=1800) == 1


@WORKERS
def test_a_refusal_says_when_to_come_again(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(requests_per_minute=6))
    flood(fleet, 50)
    with pytest.raises(Refused) as refused:
        fleet.workers[-1].meter.admit(1, fleet.now, fleet.wall)
    assert (refused.value.status, refused.value.reason) == (429, "requests_limit")
    assert refused.value.headers["retry-after"] == "10"


@WORKERS
def test_streams_are_counted_over_all_workers(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(streams=20))
    for ask in range(50):
        fleet.workers[ask % workers].admit(1)
    assert fleet.streams() == 20
    assert fleet.workers[0].meter.streams + fleet.workers[0].meter.streams_elsewhere() == 20
    fleet.workers[-1].settle(0, 1)
    assert [worker.admit(1) for worker in fleet.workers].count(True) == 1


@WORKERS
def test_a_budget_is_one_for_all_workers(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(), BudgetSettings(100_000, "day"))
    assert 990 <= flood(fleet, 2000, tokens=100) <= 1000
    assert fleet.used() <= 100_000
    budget = fleet.workers[0].meter.budget
    assert budget.used == fleet.used()


@WORKERS
def test_concurrent_requests_cannot_pass_a_budget_together(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(), BudgetSettings(1000, "month"))
    for ask in range(100):
        fleet.workers[ask % workers].admit(30)
    assert fleet.streams() == 33
    for worker in fleet.workers:
        while worker.permits:
            worker.settle(0, 10)
    assert flood(fleet, 100, tokens=30) >= 20, "what was reserved and not used is free again"


@WORKERS
def test_a_new_day_begins_with_nothing_used_but_what_is_under_way(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(), BudgetSettings(1000, "day"))
    last = fleet.workers[-1]
    assert last.admit(400)
    assert flood(fleet, 50, tokens=100) == 6
    fleet.pass_time(DAY_S)
    first = fleet.workers[0]
    assert sum(first.admit(100) for _ in range(50)) == 6, "400 are still reserved"
    last.settle(0, 400)
    assert (fleet.used(), last.meter.budget.used) == (400, 400)
    assert not last.admit(100), "they count in the period they ended in"


@WORKERS
def test_a_request_that_ends_first_thing_in_a_new_day_counts_there(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(), BudgetSettings(1000, "day"))
    for worker in fleet.workers:
        assert worker.admit(100)
    fleet.pass_time(DAY_S)
    for worker in fleet.workers:
        worker.settle(0, 60)
    assert fleet.workers[0].meter.budget.used == fleet.used() == 60 * workers
    assert sum(fleet.workers[0].admit(10) for _ in range(200)) == 100 - 6 * workers


@WORKERS
def test_a_reload_changes_limits_and_keeps_what_was_taken(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(requests_per_minute=60, streams=3), BudgetSettings(1000, "day"))
    assert flood(fleet, 100, tokens=10) == 60
    fleet.limits, fleet.budget = RateSettings(requests_per_minute=100), BudgetSettings(800, "day")
    for worker in fleet.workers:
        worker.install()
    assert flood(fleet, 100, tokens=10) == 20, "40 by the rate, 20 by the budget"
    fleet.limits, fleet.budget = RateSettings(requests_per_minute=10), None
    for worker in fleet.workers:
        worker.install()
    assert flood(fleet, 100) == 0
    fleet.pass_time(6.0)
    assert flood(fleet, 100) == 1, "no debt beyond what the new limit holds"


@WORKERS
def test_a_budget_that_a_reload_brings_begins_with_what_the_ledger_says(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings())
    early = fleet.workers[-1]
    assert early.admit(50)
    flood(fleet, 8, tokens=100)
    fleet.row(1000, 30)  # a log that has no worker any more
    fleet.budget = BudgetSettings(1000, "day")
    for worker in fleet.workers:
        worker.install()
    assert fleet.workers[0].meter.budget.used == 830
    early.settle(0, 50)
    assert fleet.workers[0].meter.budget.used == 880
    assert flood(fleet, 50, tokens=20) == 6


@WORKERS
def test_what_a_killed_worker_used_is_what_the_ledger_says(fleets: Any, workers: int) -> None:
    fleet = fleets(workers, RateSettings(streams=4), BudgetSettings(10_000, "day"))
    flood(fleet, 40, tokens=100)
    dead = fleet.workers[0]
    assert dead.admit(3000) and dead.admit(1000)
    fleet.replace(0, Random(1))
    recovered = fleet.used() - 4000
    budget = fleet.workers[-1].meter.budget
    assert (budget.used, recovered > 0) == (fleet.used(), True)
    assert fleet.streams() == 0
    assert sum(fleet.workers[n % workers].admit(1) for n in range(10)) == 4, "its streams are free again"
    for worker in fleet.workers:
        while worker.permits:
            worker.settle(0, 1)
        worker.sweep()
        worker.sweep()
    left = 10_000 - fleet.used()
    assert fleet.workers[-1].admit(left) and not fleet.workers[0].admit(100)


@given(seed=st.integers(0, 2**32), workers=st.sampled_from([2, 3, 8]))
@settings(max_examples=60)
def test_no_order_of_events_and_no_kill_passes_a_limit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, workers: int
) -> None:
    """Requests, ends, sweeps, time, reloads, kills at any store, and others in between any two steps."""
    rng = Random(seed)
    rate = RateSettings(rng.choice((0, 10, 600, 60_000)), rng.choice((0, 5000, 1_000_000)), rng.choice((0, 1, 5, 40)))
    tokens = rng.choice((2000, 100_000, 10_000_000))
    fleet = Fleet(tmp_path_factory.mktemp("cells") / "cells", workers, rate, BudgetSettings(tokens, "day"))
    try:
        Ordeal(fleet, rng).run(rng.randint(50, 300))
    finally:
        fleet.between = None
        fleet.close()


class Ordeal:
    """Random events, and beside them what one worker alone would have to hold."""

    def __init__(self, fleet: Fleet, rng: Random) -> None:
        self.fleet, self.rng = fleet, rng
        self.requests = self.tokens = 0.0  # debts
        self.at = fleet.now

    def run(self, events: int) -> None:
        rng, fleet = self.rng, self.fleet
        for _ in range(events):
            worker = rng.choice(fleet.workers)
            if rng.random() < 0.05:
                worker.stores_left = rng.randint(0, 12)
            fleet.between = self.somebody_else if rng.random() < 0.5 else None
            try:
                self.event(worker)
            except Killed:
                fleet.between = None
                fleet.replace(worker.place, rng)
            else:
                worker.stores_left = None
            self.check()

    def event(self, worker: Worker) -> None:
        rng = self.rng
        kind = rng.random()
        if kind < 0.6:
            for _ in range(rng.choice((1, 1, 5, 50))):
                self.admit(worker)
        elif kind < 0.8:
            self.settle(worker)
        elif kind < 0.9:
            worker.sweep()
        elif kind < 0.97:
            self.pass_time(rng.choice((0.01, 0.3, 7.0, 80.0)))
        else:
            self.pass_time(rng.choice((DAY_S / 3, DAY_S)))

    def somebody_else(self, interrupted: Worker) -> None:
        """Whoever does not need the lock that another holds."""
        rng, fleet = self.rng, self.fleet
        if rng.random() < 0.9:
            return
        worker = rng.choice([each for each in fleet.workers if each is not interrupted])
        needs_lock = fleet.wall >= worker.meter.budget.ends
        if rng.random() < 0.5:
            if fleet.locked is None or not needs_lock:
                self.settle(worker)
        elif fleet.locked is None:
            self.admit(worker)

    def admit(self, worker: Worker) -> None:
        fleet, limits = self.fleet, self.fleet.limits
        tokens = self.rng.choice((1, 20, 300, 900))
        self.drain()
        if worker.admit(tokens):
            self.requests += 1
            self.tokens += tokens
            self.check()
            if limits.requests_per_minute:
                assert self.requests <= limits.requests_per_minute * 1.01 + 1
            if limits.tokens_per_minute:
                assert self.tokens <= limits.tokens_per_minute * 1.01 + 900
        fleet.locked = None if fleet.locked is worker else fleet.locked

    def settle(self, worker: Worker) -> None:
        if worker.permits:
            index = self.rng.randrange(len(worker.permits))
            reserved = worker.permits[index][1]
            used = self.rng.randint(0, reserved)
            self.drain()
            worker.settle(index, used)
            self.tokens = max(0.0, self.tokens + used - reserved)

    def pass_time(self, seconds: float) -> None:
        self.fleet.pass_time(seconds)

    def drain(self) -> None:
        minutes = (self.fleet.now - self.at) / 60
        self.at = self.fleet.now
        limits = self.fleet.limits
        self.requests = max(0.0, self.requests - minutes * limits.requests_per_minute)
        self.tokens = max(0.0, self.tokens - minutes * limits.tokens_per_minute)

    def check(self) -> None:
        """The budget exactly: nothing here uses more than it reserved. Streams exactly."""
        fleet = self.fleet
        assert fleet.budget is not None
        assert fleet.used() + fleet.reserved() <= fleet.budget.tokens
        if fleet.limits.streams:
            assert fleet.streams() <= fleet.limits.streams
