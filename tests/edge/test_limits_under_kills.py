"""No limit is passed by more than 1 % or one request, whatever the order of events and whoever is killed in between."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.settings import BudgetSettings, RateSettings
from tests.edge.fleet import DAY_S, Fleet, Killed, Worker


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
