"""A place on a backend is taken with the decision and given back exactly once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.backend import BackendState, Lease
from routing.link import Link, LinkState
from tests.routing.world import NOW, World, backend


def test_a_lease_counts_while_it_is_held() -> None:
    state = BackendState(backend("a"))
    with state.lease(NOW) as lease:
        assert state.inflight == 1
        assert lease.taken_at == NOW
    assert state.inflight == 0


def test_a_lease_ends_with_an_exception_too() -> None:
    state = BackendState(backend("a"))
    with pytest.raises(RuntimeError), state.lease(NOW):
        raise RuntimeError
    assert state.inflight == 0


def test_giving_back_twice_is_harmless() -> None:
    state = BackendState(backend("a"))
    kept = state.lease(NOW)
    with state.lease(NOW) as lease:
        lease.release()
        lease.release()
    assert state.inflight == 1
    kept.release()
    kept.release()
    assert state.inflight == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60))
def test_in_flight_is_the_number_of_leases_held(events: list[tuple[int, bool]]) -> None:
    state, link = BackendState(backend("a")), LinkState(Link("l", "r", "edge", 0.1))
    leases: list[Lease] = []
    held: set[int] = set()
    for which, take in events:
        if take:
            held.add(len(leases))
            leases.append(state.lease(NOW, power_w=0.1, link=link, mbps=0.1))
        elif leases:
            leases[which % len(leases)].release()
            held.discard(which % len(leases))
        assert state.inflight == link.inflight == len(held)
        assert state.power_w == pytest.approx(0.1 * len(held)) == pytest.approx(link.mbps)
    for lease in leases:
        lease.release()
    assert (state.inflight, state.power_w, link.inflight, link.mbps) == (0, 0.0, 0, 0.0)


def test_a_decisions_lease_fills_the_chosen_backend() -> None:
    world = World([backend("a", slots=1, queue_max=0), backend("b")], {"a": 1.0, "b": 9.0})
    with world.decide().lease(world.states, NOW, world.links):
        assert world.states["a"].full(world.table.backends["a"])
        assert world.links["to-a"].inflight == 1
        assert world.chosen() == "b"
    assert world.chosen() == "a"
