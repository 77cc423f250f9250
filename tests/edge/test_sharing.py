"""What one worker learns of a backend the others know at the next sweep, and what is in flight they know at once."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.edge.sharing import Sharing
from gateway.ledger.cells import CELLS_NAME, Cells
from routing.backend import BackendState, Lease
from routing.decide import Decision
from tests.routing.world import World, backend

NOW = 1000.0
PRICES = {"a": 10.0, "b": 500.0}


class Worker:
    """One of several: live states of its own, the same table and prices. The cheap site is "a"."""

    def __init__(self, cells: Cells, **more: Any) -> None:
        site, alone = more.pop("site", {}), more.pop("alone", False)
        self.world = World([backend("a", **site), *([] if alone else [backend("b")])], PRICES, **more)
        self.sharing = Sharing(cells)
        self.sharing.install(self.world.states, self.world.links)

    def decide(self, now: float = NOW) -> Decision:
        """As a worker does."""
        self.sharing.look(now)
        decision = self.world.decide(now=now)
        return self.world.decide(now=now) if self.sharing.is_stale(decision, now) else decision

    def ask(self, now: float = NOW) -> tuple[str, Lease]:
        decision = self.decide(now)
        assert decision.route is not None
        return decision.route.backend.name, decision.lease(self.world.states, now, self.world.links)

    def state(self, name: str = "a") -> BackendState:
        return self.world.states[name]


Make = Callable[..., list[Worker]]


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as stack:
        supervisor = Cells.create(tmp_path / CELLS_NAME, 3)
        stack.callback(supervisor.close)

        def make(*places: int, **more: Any) -> list[Worker]:
            made = []
            for place in places or (0, 1, 2):
                cells = Cells.open(tmp_path / CELLS_NAME, place)
                stack.callback(cells.close)
                made.append(Worker(cells, **more))
            return made

        yield make


def sweep(workers: list[Worker], now: float, times: int = 2) -> None:
    for _ in range(times):
        for worker in workers:
            worker.sharing.sweep(now)


def test_a_backend_is_filled_once_and_not_once_per_worker(workers: Make) -> None:
    three = workers(site={"slots": 4, "queue_max": 2})
    asked = [three[n % 3].ask() for n in range(12)]
    assert [name for name, _ in asked].count("a") == 6
    first = next(lease for name, lease in asked if name == "a")
    first.release()
    assert three[1].ask(NOW + 0.01)[0] == "a", "room is seen within milliseconds"
    assert three[2].ask(NOW + 0.01)[0] == "b"


def test_nobody_is_refused_for_a_place_that_is_free_again(workers: Make) -> None:
    three = workers(site={"slots": 4, "queue_max": 0}, alone=True)
    leases = [three[n % 3].ask()[1] for n in range(4)]
    assert three[1].decide().refusal == "saturated"
    leases[0].release()
    assert three[1].ask()[0] == "a"


def test_a_power_cap_is_one_over_all_workers(workers: Make) -> None:
    alone = workers(0, site={"power_cap_w": 1e9})[0]
    alone.ask()
    each_w = alone.state().power_w
    assert each_w > 0
    alone.sharing.sweep(NOW)
    two = workers(1, 2, site={"power_cap_w": 4.5 * each_w})
    assert [two[n % 2].ask()[0] for n in range(6)] == ["a", "a", "a", "b", "b", "b"]


def test_a_link_is_filled_once(workers: Make) -> None:
    alone = workers(0, capacity_mbps={"a": 1e9})[0]
    alone.ask()
    each_mbps = alone.world.links["to-a"].mbps
    assert each_mbps > 0
    two = workers(1, 2, capacity_mbps={"a": 4.5 * each_mbps})
    assert [two[n % 2].ask()[0] for n in range(6)] == ["a", "a", "a", "b", "b", "b"]


def test_what_is_ejected_by_one_is_avoided_by_all_after_a_sweep(workers: Make) -> None:
    three = workers()
    three[1].world.eject("a", NOW)
    assert three[0].world.chosen() == "a"
    sweep(three, NOW)
    assert [worker.world.chosen(now=NOW + 1) for worker in three] == ["b"] * 3


def test_a_site_that_refuses_our_credentials_is_no_last_site_for_anybody(workers: Make) -> None:
    three = workers()
    three[0].world.eject("a", NOW, cause="credentials")
    three[0].world.eject("b", NOW, cause="credentials")
    sweep(three, NOW)
    assert three[2].world.chosen(now=NOW + 1) == "unavailable"


def test_one_probe_is_for_all_and_its_verdict_too(workers: Make) -> None:
    three = workers()
    three[2].world.eject("a", NOW)
    sweep(three, NOW)
    assert [worker.sharing.workers.first(NOW) for worker in three] == [True, False, False]
    for good in (NOW + 5, NOW + 10):
        assert three[0].state().health.probe_due(good)
        three[0].state().health.probe_ok(good)
        sweep(three, good)
        assert not any(worker.state().health.probe_due(good + 1) for worker in three)
    assert all(worker.state().health.available(NOW + 10) for worker in three)
    assert three[1].state().health.weight(NOW + 10) < 0.2, "the slow start is everybody's"


def test_one_request_tries_a_half_open_site_and_not_one_of_each_worker(workers: Make) -> None:
    three = workers()
    three[0].world.eject("a", NOW)
    sweep(three, NOW)
    later = NOW + 31
    assert [worker.ask(later)[0] for worker in three] == ["a", "b", "b"]


def test_a_busy_site_is_left_alone_by_all(workers: Make) -> None:
    three = workers()
    three[0].state().health.saturated(NOW, 20.0)
    sweep(three, NOW)
    assert [worker.world.chosen(now=NOW + 19) for worker in three] == ["b"] * 3
    assert [worker.world.chosen(now=NOW + 21) for worker in three] == ["a"] * 3


def test_all_workers_know_how_slow_a_site_is(workers: Make) -> None:
    three = workers()
    for _ in range(8):
        three[0].state().answered(3.0, 0, NOW)
        three[0].state().streamed(0.5 * 19, 20, NOW - 10.0, NOW)
        three[0].state().succeeded(NOW, 12.0)
    sweep(three, NOW)
    for other in three[1:]:
        assert other.state().ttft.predict(0, NOW) == pytest.approx(3.0)
        assert other.state().itl.value == pytest.approx(0.5, rel=0.1)
        assert other.state().service.value == pytest.approx(12.0)


def test_nothing_is_learned_twice(workers: Make) -> None:
    three = workers()
    three[0].state().answered(4.0, 0, NOW)
    sweep(three, NOW, times=10)
    for _ in range(3):
        three[1].state().answered(1.0, 0, NOW)
    sweep(three, NOW, times=10)
    for worker in three:
        assert worker.state().ttft.overhead.count == 4
        assert worker.state().ttft.mean_s == pytest.approx(7 / 4)


def test_a_failure_is_held_against_a_site_by_all(workers: Make) -> None:
    three = workers()
    three[0].state().failed(NOW)
    sweep(three, NOW)
    seen = [worker.state().ttft.predict(0, NOW) for worker in three]
    assert seen == [seen[0]] * 3 and seen[0] >= 5.0


def test_a_successor_finds_the_verdict_and_what_the_others_measured(workers: Make) -> None:
    three = workers()
    three[0].world.eject("a", NOW)
    for _ in range(5):
        three[0].state("b").answered(2.0, 0, NOW)
        three[1].state("b").answered(1.0, 0, NOW)
    three[1].state("b").failed(NOW - 1000)
    sweep(three, NOW)
    [successor] = workers(0)
    assert not successor.state().health.available(NOW + 1)
    now_all = [successor, *three[1:]]
    sweep(now_all, NOW + 1)
    assert successor.state("b").ttft.predict(0, NOW + 1) == pytest.approx(1.0), "the failure is long ago"
    # It counts from nothing again: the others do not take that for news, and learn what it learns from then on.
    assert three[1].state("b").ttft.overhead.count == 10
    successor.state("b").answered(2.0, 0, NOW + 1)
    sweep(now_all, NOW + 1)
    assert three[1].state("b").ttft.overhead.count == 11
