"""Predictions: what they learn, what they must never learn, and that reading leaves no trace."""

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.estimate import (
    PENALTY_S,
    TRIAL_S,
    BytesPerToken,
    ItlEstimate,
    LengthEstimate,
    RatioEstimate,
    Recent,
    TtftEstimate,
)
from routing.policy import Objective
from tests.routing.world import NOW, World, backend, demand


def test_a_long_prompt_does_not_make_a_backend_look_slow() -> None:
    ttft = TtftEstimate(10_000.0)
    ttft.observe(10.2, 100_000, now=0.0)
    assert ttft.predict(1_000, now=0.0) == pytest.approx(0.1 + 0.2)


def test_link_and_queue_are_not_learned_as_the_backends_own_slowness() -> None:
    ttft = TtftEstimate(10_000.0)
    ttft.observe(3.4, 1_000, now=0.0, known_s=3.0)
    assert ttft.overhead_s(0.0) == pytest.approx(0.3)


def test_a_peak_is_believed_at_once_and_fades_with_its_half_life() -> None:
    ttft = TtftEstimate(10_000.0)
    for now in range(50):
        ttft.observe(0.2, 0, now=float(now))
    ttft.observe(4.2, 0, now=50.0)
    mean = 0.2 + 4.0 / 16
    assert ttft.overhead_s(50.0) == pytest.approx(4.2)
    assert ttft.overhead_s(60.0) == pytest.approx(mean + (4.2 - mean) / 2)
    assert ttft.overhead_s(1000.0) == pytest.approx(mean)


def test_better_observations_wear_a_peak_down() -> None:
    ttft = TtftEstimate(10_000.0)
    ttft.observe(0.2, 0, now=0.0)
    ttft.penalise(0.0)
    for _ in range(100):
        ttft.observe(0.2, 0, now=0.0)
    assert ttft.overhead_s(0.0) < 0.3


@given(st.lists(st.floats(0, 3), min_size=1, max_size=30), st.floats(0, 60))
@settings(max_examples=40)
def test_a_worse_observation_never_lowers_the_estimate(samples: list[float], worse: float) -> None:
    ttft = TtftEstimate(10_000.0)
    for sample in samples:
        ttft.observe(sample, 0, now=0.0)
    before, slow = ttft.overhead_s(0.0), ttft.standing.slow
    ttft.observe(before + worse, 0, now=0.0)
    # To the microsecond: means and excesses are sums of floats.
    assert ttft.overhead_s(0.0) >= before - 1e-6
    if before + worse > slow:
        assert ttft.overhead_s(0.0) == pytest.approx(before + worse, abs=1e-6)


def test_fast_failures_do_not_look_fast() -> None:
    world = World(
        [backend("failing"), backend("slow")], rtt_s={"failing": 0.01, "slow": 0.3}, objective=Objective("fastest")
    )
    world.states["slow"].answered(1.5, 1000, NOW, known_s=0.3)
    assert world.chosen() == "failing"
    world.states["failing"].failed(NOW, "reset")
    assert world.chosen() == "slow"


def test_penalties_add_up_and_have_a_bound() -> None:
    ttft = TtftEstimate(10_000.0)
    ttft.penalise(0.0)
    ttft.penalise(0.0)
    assert ttft.overhead_s(0.0) == pytest.approx(2 * PENALTY_S)
    for _ in range(100):
        ttft.penalise(0.0)
    assert ttft.overhead_s(0.0) == pytest.approx(60.0)


def test_a_few_failures_in_a_thousand_cost_little() -> None:
    ttft, now = TtftEstimate(10_000.0), 0.0
    for number in range(5000):
        now += 0.01
        if number % 200 == 0:
            ttft.penalise(now)
        else:
            ttft.observe(0.2, 0, now)
    assert ttft.overhead_s(now) < 0.25


def test_reading_never_writes() -> None:
    world = World([backend("a"), backend("b")])
    lengths, ratios = LengthEstimate(), BytesPerToken()
    for name in ("a", "b"):
        state = world.states[name]
        state.answered(0.5, 1000, NOW)
        state.failed(NOW)
        state.bytes_out.observe(("openai", True), 3000, 10)
    lengths.observe("acme", "qwen3", 1000, 100)
    ratios.observe("qwen3", 4000, 1000)
    watched = (world.states, world.links, lengths, ratios)
    before = pickle.dumps(watched)
    for now in (NOW + 500.0, NOW):
        world.decide(now=now)
        lengths.predict("acme", "qwen3", 1000, None)
        lengths.predict("new", "other", 7, 10)
        ratios.predict("new", 4.0)
        ratios.predict("qwen3", 4.0)
    assert pickle.dumps(watched) == before


def test_a_copy_is_not_needed_for_reading_in_any_order() -> None:
    ttft = TtftEstimate(10_000.0)
    ttft.observe(1.0, 0, now=0.0)
    ttft.penalise(5.0)
    other = copy.deepcopy(ttft)
    other.predict(0, now=1e6)
    assert other.predict(0, now=6.0) == ttft.predict(0, now=6.0)


def test_a_gap_is_measured_between_tokens() -> None:
    itl = ItlEstimate(0.03)
    assert itl.value == 0.03
    itl.observe_stream(2.0, 101, 0.0, 2.0)
    assert itl.value == pytest.approx(0.02)


def test_a_short_answer_says_nothing_about_gaps() -> None:
    itl = ItlEstimate(0.03)
    itl.observe_stream(5.0, 2, 0.0, 5.0)
    itl.observe_stream(5.0, 0, 0.0, 5.0)
    assert itl.value == 0.03


def test_tokens_per_event_is_a_ratio_within_its_bounds() -> None:
    ratio = RatioEstimate(4)
    assert ratio.value == 1.0
    ratio.observe(tokens=250, events=100)
    ratio.observe(tokens=150, events=100)
    assert ratio.value == pytest.approx(2.0)
    ratio.observe(tokens=10_000, events=100)
    assert ratio.value == 4.0


def test_an_event_is_exactly_one_token_by_configuration_or_much_evidence() -> None:
    assert RatioEstimate(1).exact
    learned, verdicts = RatioEstimate(4), []
    for tokens, events in ((999, 999), (1, 1), (3, 2), (5000, 5000)):
        learned.observe(tokens, events)
        verdicts.append(learned.exact)
    assert verdicts == [False, True, False, False]  # one exception is enough, whatever follows


def test_bytes_per_token_has_a_prior_and_follows_a_change() -> None:
    ratio = BytesPerToken()
    assert ratio.predict("m", 4.0) == 4.0
    for _ in range(100):
        ratio.observe("m", 30_000, 10_000)
    assert ratio.predict("m", 4.0) == pytest.approx(3.0)
    for _ in range(500):
        ratio.observe("m", 60_000, 10_000)
    assert ratio.predict("m", 4.0) == pytest.approx(6.0, rel=0.01)
    ratio.observe("m", 0, 10)
    ratio.observe("m", 10, 0)
    assert ratio.predict("m", 4.0) == pytest.approx(6.0, rel=0.01)


def test_an_answer_nobody_has_seen_the_like_of_has_the_prior_length() -> None:
    lengths = LengthEstimate()
    assert lengths.predict("t", "m", 1000, None) == 256.0
    assert lengths.predict("t", "m", 1000, 50) == 50.0


def test_lengths_are_learned_by_tenant_model_and_size() -> None:
    lengths = LengthEstimate()
    for _ in range(200):
        lengths.observe("chatty", "m", 1000, 800)
        lengths.observe("terse", "m", 1000, 20)
        lengths.observe("terse", "m", 60_000, 300)
    assert lengths.predict("chatty", "m", 900, None) == pytest.approx(800, rel=0.05)
    assert lengths.predict("terse", "m", 900, None) == pytest.approx(20, rel=0.5)
    assert lengths.predict("terse", "m", 50_000, None) == pytest.approx(300, rel=0.05)


def test_a_new_tenant_gets_the_length_of_the_model() -> None:
    lengths = LengthEstimate()
    for _ in range(200):
        lengths.observe("old", "m", 1000, 600)
    assert lengths.predict("new", "m", 1000, None) == pytest.approx(600, rel=0.05)
    assert lengths.predict("new", "m", 9, None) == pytest.approx(600, rel=0.05)


def test_choices_multiply_the_answer_and_not_what_is_learned() -> None:
    lengths = LengthEstimate()
    for _ in range(300):
        lengths.observe("t", "m", 1000, 400, choices=4)
    assert lengths.predict("t", "m", 1000, None) == pytest.approx(100, rel=0.05)
    assert lengths.predict("t", "m", 1000, 50, choices=3) == 150.0


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**5)), max_size=30),
    st.integers(0, 10**6),
    st.integers(1, 10**5),
)
@settings(max_examples=40)
def test_no_expected_length_is_above_max_tokens(seen: list[tuple[int, int]], asked: int, max_tokens: int) -> None:
    lengths = LengthEstimate()
    for input_tokens, output_tokens in seen:
        lengths.observe("t", "m", input_tokens, output_tokens)
    assert 0 <= lengths.predict("t", "m", asked, max_tokens) <= max_tokens


def test_tables_are_bounded_and_forget_what_was_written_longest_ago() -> None:
    table: Recent[int, int] = Recent(3)
    for key in (1, 2, 3, 1, 4):
        table.write(key, key)
    assert list(table.values) == [3, 1, 4]
    assert table.values.get(3) == 3
    table.write(5, 5)
    assert list(table.values) == [1, 4, 5]  # reading 3 did not save it


def test_many_tenants_do_not_grow_the_memory() -> None:
    lengths = LengthEstimate(keys_max=100)
    for number in range(1000):
        lengths.observe(f"t{number}", "m", 10, 10)
    lengths.observe("t0", "m", 10, 5000)
    assert len(pickle.dumps(lengths)) < 20_000


def test_a_reload_brings_new_priors_and_keeps_what_was_measured() -> None:
    world = World([backend("a"), backend("b")])
    measured, fresh = world.states["a"], world.states["b"]
    measured.streamed(4.0, 101, NOW - 5.0, NOW)
    measured.answered(0.5, 1000, NOW)
    for state in (measured, fresh):
        state.adopt(backend(state.name, itl_s=0.01, prefill_tokens_per_s=20_000.0, tokens_per_event_max=1))
    assert (measured.itl.value, fresh.itl.value) == (0.04, 0.01)
    assert measured.ttft.predict(20_000, NOW) == pytest.approx(1.4)
    assert measured.tokens_per_event.exact


def test_a_backend_that_turned_slow_loses_its_traffic() -> None:
    world = World([backend("a"), backend("b")], {"a": 40.0, "b": 60.0})
    wanted = demand(value_per_second=1e-4)
    assert world.chosen(wanted) == "a"
    world.states["a"].answered(5.0, 1000, NOW)
    assert world.chosen(wanted) == "b"


def slow_once(times: int = 20) -> TtftEstimate:
    """A site that always took 0.2 s, and then 1 s for a while, until second 100."""
    ttft = TtftEstimate(10_000.0)
    for number in range(80):
        ttft.observe(0.2, 0, now=float(number))
    for number in range(times):
        ttft.observe(1.0, 0, now=100.0 - (times - number) * 0.1)
    return ttft


def test_two_good_trials_in_a_row_forget_a_slow_time() -> None:
    ttft = slow_once()
    ttft.standing.tried(105.0)
    ttft.observe(0.2, 0, now=106.0)
    assert ttft.overhead_s(106.0) > 0.6
    ttft.observe(0.2, 0, now=106.5)
    assert ttft.overhead_s(106.5) == pytest.approx(0.2, abs=0.01)


def test_a_bad_trial_counts_and_the_good_one_before_it_does_not() -> None:
    ttft = slow_once()
    ttft.standing.tried(105.0)
    ttft.observe(0.2, 0, now=106.0)
    ttft.observe(1.0, 0, now=107.5)
    ttft.standing.tried(119.0)
    ttft.observe(0.2, 0, now=120.0)
    assert ttft.overhead_s(120.0) > 0.5


def test_answers_to_what_was_sent_while_a_site_was_slow_are_no_trials() -> None:
    ttft = slow_once()
    ttft.standing.tried(105.0)
    for now in (105.05, 105.1, 105.15):
        ttft.observe(0.2, 0, now=now)
    assert ttft.overhead_s(105.2) > 0.6


def test_rare_requests_that_go_there_anyway_are_no_trials() -> None:
    ttft = slow_once()
    for now in (110.0, 120.0, 130.0):
        ttft.observe(0.2, 0, now=now)
    assert ttft.overhead_s(130.0) > 0.5


def test_one_trial_is_due_at_a_time_and_the_next_at_once_after_a_good_one() -> None:
    standing = slow_once().standing
    assert standing.trial_at == pytest.approx(98.9 + TRIAL_S)
    standing.taken(105.0)
    standing.tried(105.0)
    assert standing.trial_at == 105.0 + TRIAL_S
    standing.observe(0.2, 1.0, 105.0, 105.2)
    assert standing.trial_at == 105.2


def test_a_slow_hour_does_not_become_what_is_normal() -> None:
    ttft = slow_once()
    for hour_s in range(0, 3600, 6):
        ttft.standing.tried(108.0 + hour_s)
        ttft.observe(1.0, 0, now=110.0 + hour_s)
    assert ttft.standing.well == pytest.approx(0.2, abs=0.05)


def test_a_request_that_waits_is_known_to_take_at_least_as_long() -> None:
    ttft = slow_once(0)
    ttft.overdue(3.0, 0, now=90.0)
    assert ttft.overhead_s(90.0) == pytest.approx(3.0)
    ttft.overdue(1.0, 0, now=90.0)
    assert ttft.overhead_s(90.0) == pytest.approx(3.0)


def test_plain_answers_end_the_penalty_of_failures() -> None:
    ttft = slow_once(0)
    ttft.penalise(90.0)
    ttft.standing.tried(96.0)
    ttft.served(96.0, 97.0)
    assert ttft.overhead_s(97.0) > 1.0
    ttft.served(97.0, 98.0)
    assert ttft.overhead_s(98.0) == pytest.approx(0.2)
