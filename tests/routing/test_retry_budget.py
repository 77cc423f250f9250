"""Retries: bounded for one request and for all of them."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.retry import RetryBudget, RetryLimits, backoff_s, may_retry


def test_a_small_gateway_may_fail_over_whole() -> None:
    budget = RetryBudget()
    budget.started(0.0)
    assert [budget.try_take(0.0) for _ in range(33)] == [True] * 32 + [False]


def test_the_budget_grows_back_when_the_window_has_passed() -> None:
    budget = RetryBudget()
    for _ in range(32):
        budget.try_take(0.0)
    assert not budget.try_take(9.9)
    assert budget.try_take(10.2)


def test_under_load_a_fifth_of_the_starts_may_be_retried() -> None:
    budget = RetryBudget()
    for number in range(1000):
        budget.started(number / 200)
    assert sum(budget.try_take(5.0) for _ in range(1000)) == 200


@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 40)), min_size=1, max_size=60),
    st.floats(0.05, 0.5),
    st.integers(0, 20),
)
@settings(max_examples=60)
def test_retries_never_amplify_beyond_the_share(bursts: list[tuple[float, int]], share: float, floor: int) -> None:
    """Every start fails and asks for as many retries as it can get."""
    budget = RetryBudget(RetryLimits(share=share, retries_min=floor))
    now, starts, retries = 0.0, [], []
    for pause_s, burst in bursts:
        now += pause_s
        for _ in range(burst):
            budget.started(now)
            starts.append(now)
            retries += [now] * sum(budget.try_take(now) for _ in range(2))
    for end in {*retries}:
        recent = sum(end - 10.0 < t <= end for t in retries)
        # a bucket of 0.1 s more than the window may be looked at, for starts and retries alike
        assert recent <= max(floor, share * sum(end - 10.2 < t <= end for t in starts))


@pytest.mark.parametrize("kind", ["connect", "reset", "bad_head", "status", "saturated", "credentials", "late", "cut"])
def test_what_another_route_may_answer_is_retried(kind: str) -> None:
    assert may_retry(kind, attempts=1, elapsed_s=0.0)


@pytest.mark.parametrize("kind", ["rejected", "client_gone", "deadline", "", "something new"])
def test_what_no_other_route_would_answer_is_not(kind: str) -> None:
    assert not may_retry(kind, attempts=1, elapsed_s=0.0)


def test_three_attempts_in_two_minutes_are_all_there_are() -> None:
    assert may_retry("connect", attempts=2, elapsed_s=119.9)
    assert not may_retry("connect", attempts=3, elapsed_s=1.0)
    assert not may_retry("connect", attempts=1, elapsed_s=120.0)


@given(st.integers(1, 10), st.integers(0, 1000))
def test_a_retry_waits_between_25_and_250_ms(attempt: int, seed: int) -> None:
    assert 0.025 <= backoff_s(attempt, Random(seed)) <= 0.25


def test_requests_that_failed_together_part_ways() -> None:
    rng = Random(1)
    waits = [backoff_s(1, rng) for _ in range(200)]
    assert max(waits) - min(waits) > 0.08
    assert max(backoff_s(2, rng) for _ in range(200)) > max(waits)


def test_a_shorter_configured_backoff_is_kept() -> None:
    limits = RetryLimits(backoff_s_max=0.01)
    assert backoff_s(1, Random(1), limits) <= 0.01
