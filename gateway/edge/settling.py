"""The end of an exchange: its row, and what the worker learns from it.

Synchronous and complete on every way out: the row is queued, the lease and the permit go back, the estimates are fed.
The board slot outlives the row's way to the disk; the log frees it.
"""

from collections.abc import Collection

from gateway.clock import wall
from gateway.edge.case import Case
from gateway.edge.counting import NOTHING, Counts, EventRatio, InputClaim, count_interrupted, count_known, count_whole
from gateway.edge.locate import Destination
from gateway.edge.relay import AnswerAttempt, Attempt, StreamAttempt
from gateway.ledger.opening import Opening
from gateway.ledger.settlement import Ending, settle_row
from gateway.ledger.terms import Terms
from gateway.telemetry import DROPPED_EVENTS, OVERHEAD, TTFT
from gateway.wire.openai_answer import UsageClaims, claims, hidden_reasoning, plausible_answer, plausible_stream
from gateway.wire.openai_usage import CONTRADICTORY, DECREASING, EARLY, INPUT_CONTRADICTORY

# Of claims that disagree with each other, or with when they came, none is believed.
UNBELIEVED = frozenset((CONTRADICTORY, DECREASING, EARLY))
# Bytes of an answer's text per token before any was measured.
BYTES_PER_ANSWER_TOKEN = 4.0


def opening_of(case: Case, destination: Destination) -> tuple[bytes, Opening]:
    """The identity of a request, before it is known where it goes; and its export id as bytes."""
    desk, caller, facts = case.desk, case.caller, case.facts
    export_id, text = desk.ids.next(case.admitted_wall)
    settings = desk.live.settings.gateway
    asked = Terms(
        tenant=caller.client.tenant.name,
        model=facts.model,
        key_id=caller.client.key_id,
        dialect=caller.endpoint.dialect,
        stream=facts.stream,
        destination_country=destination.country,
        destination_method=destination.method,
        currency=settings.currency,
        edge=settings.edge,
    )
    opened_at_us = round(case.admitted_wall * 1e6)
    return export_id, Opening(text, opened_at_us, asked, caller.request_id, case.demand.input_tokens)


def settle(case: Case) -> None:
    """End an exchange: once, without awaiting."""
    desk, course, now = case.desk, case.course, case.desk.now()
    course.lease.release()
    counts = NOTHING
    try:
        counts = _counts(case)
        end = settle_row(course.opening, _ending(case, counts, now))
        desk.log.terminal(end, course.slot.release)
    finally:
        case.permit.settle(counts.usage.input_tokens + counts.billed, now)
    if case.outcome == "completed" and case.attempt is not None:
        _learn(case, case.attempt, counts, now)
    _measure(case, counts)


def _ending(case: Case, counts: Counts, now: float) -> Ending:
    attempt = case.attempt
    return Ending(
        outcome=case.outcome,
        ended_at_us=round(wall() * 1e6),
        status=case.status,
        usage=counts.usage,
        delivered_tokens=counts.delivered,
        billed_output_tokens=counts.billed,
        count_source=counts.source,
        count_flags=counts.flags,
        bytes_from_client=case.body_bytes,
        bytes_to_client=case.delivery.payload_bytes,
        bytes_to_backend=attempt.bytes_sent if attempt is not None else 0,
        bytes_from_backend=attempt.bytes_received if attempt is not None else 0,
        ttft_ms=_ms(case.ttft_s),
        duration_ms=_ms(now - case.admitted_at),
        failed=case.course.failed,
        serving=attempt is not None,
        cause=case.failure,
        attempt_ttft_ms=_ms(attempt.first_at - attempt.started_at) if attempt and attempt.first_at else None,
        attempt_duration_ms=_ms(now - attempt.started_at) if attempt else None,
    )


def _counts(case: Case) -> Counts:
    """How many tokens, by the rules of `counting`."""
    attempt = case.attempt
    if case.counts is not None:
        return case.counts
    if attempt is None or case.ttft_s is None:
        return NOTHING
    # Asked this way round: of the right class `isinstance` is sure at once.
    if case.facts.stream:
        assert isinstance(attempt, StreamAttempt)
        return _count_stream(case, attempt)
    assert isinstance(attempt, AnswerAttempt)
    return count_answer(case, attempt)


def _count_stream(case: Case, attempt: StreamAttempt) -> Counts:
    tap, facts = attempt.tap, case.facts
    flags = tap.usage_flags
    state = case.course.state
    ratio = EventRatio(state.tokens_per_event.value, case.course.opening.terms.tokens_per_event_max)
    if case.outcome == "completed":
        told = claims(tap.usage)
        hidden = hidden_reasoning(told.reasoning, reasoning_seen=tap.reasoning_events > 0)
        plausible = UNBELIEVED.isdisjoint(flags) and plausible_stream(
            told.output,
            content_events=tap.content_events,
            hidden_reasoning=hidden,
            tokens_per_event_max=ratio.most,
            choices=facts.choices,
            max_tokens=facts.max_tokens,
        )
        return count_whole(
            told.output,
            reasoning=told.reasoning,
            plausible=plausible,
            events=tap.content_events,
            ratio=ratio,
            claim=_input(told, flags),
            input_estimate=case.demand.input_tokens,
            flags=(*told.flags, *flags),
        )
    told = claims(tap.usage) if tap.usage is not None else UsageClaims()
    return count_interrupted(
        generated=attempt.generated,
        delivered=case.left_with if case.left_with is not None else case.delivery.handed_over,
        ratio=ratio,
        claim=_input(told, flags),
        input_estimate=case.demand.input_tokens,
        # Before any content zero is no more than true.
        flags=(*told.flags, *flags) if tap.content_events else flags,
    )


def count_answer(case: Case, attempt: AnswerAttempt) -> Counts:
    """A non-streaming answer: the backend's count if it is plausible, else by the bytes of its text."""
    facts, answer = case.facts, case.answer
    told = claims(answer.usage if answer is not None else None)
    content_bytes = answer.content_bytes if answer is not None else attempt.answer_bytes
    flags = list(told.flags)
    if answer is not None and plausible_answer(
        told.output,
        content_bytes=content_bytes,
        hidden_reasoning=hidden_reasoning(told.reasoning, reasoning_seen=answer.reasoning_seen),
        choices=facts.choices,
        max_tokens=facts.max_tokens,
    ):
        output, source, reasoning = told.output or 0, "upstream", told.reasoning
    else:
        if told.output is not None:
            flags.append("usage_implausible")
        per_token = answer_bytes_per_token(case, case.course.opening)
        output, source, reasoning = round(content_bytes / per_token), "estimated", None
    return count_known(output, source, reasoning, _input(told, ()), case.demand.input_tokens, flags)


def answer_bytes_per_token(case: Case, opening: Opening) -> float:
    """Of the backend that an attempt goes to, for answers whose tokens nobody tells."""
    return case.desk.live.answer_bytes.predict(opening.terms.origin_backend, BYTES_PER_ANSWER_TOKEN)


def _input(told: UsageClaims, flags: Collection[str]) -> InputClaim:
    """What is believed of the input: a request without any does not exist, and two that differ are none."""
    if not told.input or INPUT_CONTRADICTORY in flags:
        return InputClaim()
    return InputClaim(told.input, told.cached, told.cache_write)


def _learn(case: Case, attempt: Attempt, counts: Counts, now: float) -> None:
    """A whole answer teaches: pace, length, sizes. Nothing is learned from what was cut short."""
    live, state, facts, usage = case.desk.live, case.course.state, case.facts, counts.usage
    known_s = case.course.known_s
    # Link and queue are known apart; what is left held a slot.
    state.succeeded(now, now - attempt.started_at - known_s)
    if not facts.stream:
        state.served(attempt.started_at, now)
    elif attempt.first_at is not None and attempt.last_at is not None:
        state.streamed(attempt.last_at - attempt.first_at, usage.output_tokens, attempt.started_at, now)
    if counts.source != "upstream":
        return
    # What nobody saw says nothing of what events and bytes stand for.
    if facts.stream:
        assert isinstance(attempt, StreamAttempt)
        shown = usage.output_tokens - hidden_reasoning(
            usage.reasoning_tokens, reasoning_seen=attempt.tap.reasoning_events > 0
        )
        state.tokens_per_event.observe(shown, attempt.tap.content_events)
    elif case.answer is not None and usage.output_tokens:
        backend = case.course.opening.terms.origin_backend
        shown = usage.output_tokens - hidden_reasoning(
            usage.reasoning_tokens, reasoning_seen=case.answer.reasoning_seen
        )
        live.answer_bytes.observe(backend, case.answer.content_bytes, shown)
    if "input_estimated" not in counts.flags:
        live.input_bytes.observe(facts.model, facts.prompt_bytes, usage.input_tokens)
    live.lengths.observe(
        case.caller.client.tenant.name, facts.model, case.demand.input_tokens, usage.output_tokens, facts.choices
    )
    state.bytes_out.observe((case.caller.endpoint.dialect, facts.stream), attempt.bytes_received, usage.output_tokens)


def _measure(case: Case, counts: Counts) -> None:
    desk, terms, attempt = case.desk, case.course.opening.terms, case.attempt
    origin = (terms.origin_backend, terms.origin_country) if attempt is not None else ("", "")
    served = attempt is not None and not case.failure
    kind = (terms.tenant, terms.model, case.outcome, *origin, terms.destination_country, served)
    sums = desk.tally.of(kind)
    sums.requests += 1
    sums.from_client += len(case.body)
    sums.to_client += case.delivery.payload_bytes
    if attempt is None:
        return
    sums.input += counts.usage.input_tokens
    sums.generated += counts.usage.output_tokens
    sums.delivered += counts.delivered
    sums.billed += counts.billed
    sums.to_backend += attempt.bytes_sent
    sums.from_backend += attempt.bytes_received
    if case.facts.stream and isinstance(attempt, StreamAttempt) and attempt.tap.bad_events:
        desk.counters.add(DROPPED_EVENTS, (terms.origin_backend,), attempt.tap.bad_events)
    if case.ttft_s is not None:
        desk.counters.observe(TTFT, (terms.origin_backend,), case.ttft_s)
        if attempt.first_at is not None:
            backend_s = attempt.first_at - attempt.started_at
            desk.counters.observe(OVERHEAD, (), max(0.0, case.ttft_s - backend_s))


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
