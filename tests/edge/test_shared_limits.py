"""A limit means the same with one worker and with eight."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway.config.settings import BudgetSettings, RateSettings
from gateway.errors import Refused
from gateway.ledger.cells import CELLS_NAME
from tests.edge.fleet import DAY_S, Fleet


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
