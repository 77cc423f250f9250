"""Running a tap, and holding it against the slow reading."""

from typing import Any, Literal

from gateway.wire.openai_stream import Passed, StreamTap
from gateway.wire.sse import data_of
from tests.wire import reference

Show = Literal["none", "final", "all"]
SHOWS: list[Show] = ["none", "final", "all"]


Event = tuple[bytes, int, int | None]


def each(passed: list[Passed]) -> list[Event]:
    """Event by event, whether they were passed one by one or in a row."""
    events: list[Event] = []
    for data, count, tokens, sizes in passed:
        if sizes is None:
            events.append((data, count, tokens))
            continue
        assert sum(sizes) == len(data)
        at = 0
        for number, size in enumerate(sizes, count - len(sizes) + 1):
            events.append((data[at : at + size], number, tokens))
            at += size
    return events


def run(parts: list[bytes], choices: int = 1, show: Show = "none") -> tuple[StreamTap, list[Event]]:
    tap = StreamTap(choices=choices, show=show)
    passed = [one for part in parts for one in each(tap.feed(part))]
    return tap, passed + each(tap.finish())


def state(tap: StreamTap) -> tuple[Any, ...]:
    counts = (tap.content_events, tap.reasoning_events, tap.bad_events, tap.usage_events, tap.running_tokens)
    ends = (tap.done, tap.started, tap.finish_reasons, tap.error, tap.tail)
    return (*counts, *ends, tap.usage, tap.usage_flags, tap.model)


def agrees_with_a_parse(raw: bytes, parts: list[bytes], choices: int, show: Show) -> None:
    """Assert that the tap sees and forwards what the slow reading does."""
    tap, passed = run(parts, choices, show)
    tally = reference.read(raw, choices, show)
    assert (tap.content_events, tap.reasoning_events) == (tally.content_events, tally.reasoning_events)
    assert (tap.finish_reasons, tap.started, tap.done) == (tally.finish_reasons, tally.started, tally.done)
    assert (tap.error is not None, tap.bad_events) == (tally.failed, tally.bad_events)
    assert (tap.usage, tap.usage_events) == (tally.usage, tally.usage_events)
    assert len(passed) == len(tally.forwarded)
    for (shown, _, _), (original, chunk) in zip(passed, tally.forwarded, strict=True):
        if shown != original:
            assert reference.parsed(data_of(shown) or b"") == chunk
            assert "usage" in reference.parsed(data_of(original) or b"")
        elif chunk is not None:
            assert reference.parsed(data_of(shown) or b"") == chunk
    if choices == 1:
        assert [tokens for _, _, tokens in passed] == tally.tokens
