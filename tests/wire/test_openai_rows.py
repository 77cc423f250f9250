"""Many events in one read: told in a row, and the same as one by one."""

from itertools import pairwise

import orjson
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.openai_stream import StreamTap
from tests.wire.taps import Event, Show, each, run

TEXTS = st.one_of(
    st.sampled_from([" the", "a", "data: x", "}", ",", "]}", "choices", "é", '"', "\\", "\n", "\\n", "usage", " "]),
    st.text(min_size=1, max_size=6),
)


def content(text: str, *, usage: bool = False) -> bytes:
    chunk = {"id": "c-1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + orjson.dumps(chunk | ({"usage": None} if usage else {})) + b"\n\n"


def one_by_one(events: list[bytes], show: Show) -> list[Event]:
    return run(events, show=show)[1]


def test_a_row_of_one_shape_is_passed_in_one_piece_with_its_sizes() -> None:
    events = [content(text) for text in ("one", "two", "three", "four")]
    tap = StreamTap()
    tap.feed(events[0])
    [(data, count, tokens, sizes)] = tap.feed(b"".join(events[1:]))
    assert (data, count, tokens) == (b"".join(events[1:]), 4, None)
    assert sizes == [len(event) for event in events[1:]]


def test_a_row_loses_the_usage_that_nobody_asked_for() -> None:
    tap = StreamTap()
    tap.feed(content("one", usage=True))
    [(data, count, _, sizes)] = tap.feed(content("two", usage=True) + content("three", usage=True))
    assert b"usage" not in data
    assert (count, sum(sizes or [])) == (3, len(data))


def test_a_row_with_an_event_of_another_kind_is_read_one_by_one() -> None:
    finish = b'data: {"id":"c-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    tap = StreamTap()
    tap.feed(content("one"))
    passed = tap.feed(content("two") + content("three") + finish + b"data: [DONE]\n\n")
    assert [events for _, events, _ in each(passed)] == [2, 3, 3, 3]
    assert tap.whole and tap.done


@given(st.lists(TEXTS, min_size=1, max_size=12), st.lists(st.integers(0, 1200), max_size=6), st.booleans())
def test_however_a_stream_is_read_its_events_are_the_same(texts: list[str], cuts: list[int], usage: bool) -> None:
    events = [content(text, usage=usage) for text in texts]
    stream = b"".join(events)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    parts = [stream[start:end] for start, end in pairwise(bounds)]
    # The first event alone, so that a shape is known before the rest is cut anywhere.
    first = content("first", usage=usage)
    shows: tuple[Show, ...] = ("none", "all")
    for show in shows:
        assert run([first, *parts], show=show)[1] == one_by_one([first, *events], show)
