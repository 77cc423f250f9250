import json
from typing import Any, Literal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire import openai_shape, openai_stream
from gateway.wire.errors import EventTooLarge
from gateway.wire.openai_stream import Passed, StreamTap
from gateway.wire.sse import data_of
from tests.wire import reference
from tests.wire.documents import TEXT
from tests.wire.splits import byte_by_byte, in_two, reads
from tests.wire.streams import DONE, STREAMS, WORDS, Stream, event

Show = Literal["none", "final", "all"]
SHOWS: list[Show] = ["none", "final", "all"]


def run(parts: list[bytes], choices: int = 1, show: Show = "none") -> tuple[StreamTap, list[Passed]]:
    tap = StreamTap(choices=choices, show=show)
    passed = [each for part in parts for each in tap.feed(part)]
    return tap, passed + tap.finish()


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
            assert json.loads(data_of(shown) or b"") == chunk
            assert "usage" in json.loads(data_of(original) or b"")
        elif chunk is not None:
            assert json.loads(data_of(shown) or b"") == chunk
    if choices == 1:
        assert [tokens for _, _, tokens in passed] == tally.tokens


@pytest.mark.parametrize("name", STREAMS)
def test_a_backends_stream_is_counted_right(name: str) -> None:
    stream: Stream = STREAMS[name]
    tap, _ = run([stream.raw], stream.choices)
    assert tap.content_events == stream.content_events
    assert tap.reasoning_events == stream.reasoning_events
    assert tap.finish_reasons == stream.finish_reasons
    assert tap.whole is bool(stream.finish_reasons)
    assert tap.done is stream.done
    assert tap.bad_events == 0
    assert (tap.usage or {}).get("completion_tokens") == stream.completion_tokens
    assert tap.usage_flags == ()


@pytest.mark.parametrize("show", SHOWS)
@pytest.mark.parametrize("name", STREAMS)
def test_a_backends_stream_is_read_as_a_parser_reads_it(name: str, show: Show) -> None:
    stream = STREAMS[name]
    agrees_with_a_parse(stream.raw, [stream.raw], stream.choices, show)


@pytest.mark.parametrize("show", SHOWS)
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_the_same_however_it_was_split(name: str, show: Show) -> None:
    stream = STREAMS[name]
    tap, passed = run([stream.raw], stream.choices, show)
    expected = state(tap), passed
    events = [part + b"\n\n" for part in stream.raw.split(b"\n\n")]
    for parts in (byte_by_byte(stream.raw), [b"".join(events[:-1]), events[-1][:-2]], *in_two(stream.raw, 7)):
        tap, passed = run(parts, stream.choices, show)
        assert (state(tap), passed) == expected


@pytest.mark.parametrize("name", [name for name, stream in STREAMS.items() if stream.done])
def test_a_client_that_asked_for_all_gets_every_byte(name: str) -> None:
    stream = STREAMS[name]
    _, passed = run([stream.raw], stream.choices, "all")
    assert b"".join(data for data, _, _ in passed) == stream.raw


@pytest.mark.parametrize("name", STREAMS)
def test_a_client_that_did_not_ask_sees_no_usage(name: str) -> None:
    stream = STREAMS[name]
    _, passed = run([stream.raw], stream.choices, "none")
    shown = b"".join(data for data, _, _ in passed)
    assert b'"usage"' not in shown
    for word in WORDS[:3] if stream.content_events > 3 and name != "tool calls" else []:
        assert json.dumps(word).encode() in shown


def test_usage_is_cut_out_and_every_other_byte_left() -> None:
    with_usage = event({"id": "1", "choices": [{"delta": {"content": "a"}}], "usage": {"completion_tokens": 1}, "x": 2})
    without = b'data: {"id":"1","choices":[{"delta":{"content":"a"}}],"x":2}\n\n'
    assert run([with_usage, with_usage])[1] == [(without, 1, 1), (without, 2, 1)]


def test_running_usage_is_cut_and_the_final_one_left_where_only_that_was_asked_for() -> None:
    stream = STREAMS["vllm, running usage"]
    _, passed = run([stream.raw], show="final")
    chunks = [orjson.loads(data_of(data) or b"") for data, _, _ in passed[:-1]]
    assert [chunk.get("usage") is not None for chunk in chunks] == [False] * (len(chunks) - 2) + [True, True]
    assert passed[-1][0] == DONE


def test_each_passed_event_says_where_the_stream_stands_after_it() -> None:
    stream = STREAMS["vllm, running usage"]
    _, passed = run([stream.raw])
    counts = range(len(WORDS) + 1)
    assert [(events, tokens) for _, events, tokens in passed[:-2]] == [(count, count) for count in counts]


def test_running_usage_of_choices_that_count_by_themselves_is_summed() -> None:
    stream = STREAMS["vllm, two choices"]
    tap, _ = run([stream.raw], choices=2)
    assert tap.running_tokens == stream.content_events


def test_running_usage_that_counts_all_choices_is_not_summed() -> None:
    events = [
        event({"choices": [{"index": count % 2, "delta": {"content": "a"}}], "usage": {"completion_tokens": count}})
        for count in range(1, 9)
    ]
    assert run(events, choices=2)[0].running_tokens == 8


def test_an_event_without_tokens_does_not_tell_one_kind_of_count_from_the_other() -> None:
    def chunk(index: int, text: str, tokens: int) -> bytes:
        return event(
            {"choices": [{"index": index, "delta": {"content": text}}], "usage": {"completion_tokens": tokens}}
        )

    totals = [chunk(0, "a", 1), chunk(1, "", 1), chunk(1, "b", 2), chunk(0, "", 2), chunk(0, "c", 3)]
    assert run(totals, choices=2)[0].running_tokens == 3


def test_events_before_the_first_content_do_not_start_the_answer() -> None:
    tap = StreamTap()
    role = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    assert tap.feed(b": ping\n\n" + role) == [(b": ping\n\n", 0, None), (role, 0, None)]
    assert not tap.started
    tap.feed(event({"choices": [{"index": 0, "delta": {"content": " "}}]}))
    assert tap.started


def test_a_bare_finish_reason_is_content_without_tokens() -> None:
    tap, passed = run([event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})])
    assert (tap.started, tap.whole, tap.content_events, len(passed)) == (True, True, 0, 1)


@pytest.mark.parametrize("reason", ["", None, False, 7])
def test_only_a_word_is_a_finish_reason(reason: object) -> None:
    tap, _ = run([event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})])
    assert not tap.whole
    assert not tap.started


def test_an_answer_is_whole_when_every_choice_asked_for_has_finished() -> None:
    tap = StreamTap(choices=2)
    for index, whole in ((0, False), (0, False), (2, False), (-1, False), (1, True)):
        tap.feed(event({"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]}))
        assert tap.whole is whole


def test_done_before_the_end_of_the_answer_is_withheld() -> None:
    tap, passed = run([event({"choices": [{"delta": {"content": "a"}}]}), DONE])
    assert (tap.done, tap.whole) == (True, False)
    assert DONE not in [data for data, _, _ in passed]


def test_nothing_follows_done() -> None:
    finish = event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    more = event({"choices": [{"delta": {"content": "more"}}]})
    for before in ([finish + DONE + more], [finish, DONE], [more, more, finish, DONE]):
        tap, passed = run([*before, more, more + more])
        assert passed[-1][0] == DONE
        assert tap.content_events == before.count(more)


ERRORS = {
    "openai": b'data: {"error":{"message":"boom","type":"server_error","code":"x","param":null}}\n\n',
    "vllm, older": b'data: {"object":"error","message":"boom","type":"server_error","param":null,"code":"x"}\n\n',
    "named event": b'event: error\ndata: {"message":"boom","type":"server_error","code":"x"}\n\n',
    "llama.cpp, older": b'error: {"code":"x","message":"boom","type":"server_error"}\n\n',
    "with choices": b'data: {"choices":[],"error":{"message":"boom","type":"server_error","code":"x"}}\n\n',
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_event_is_kept_for_the_relay_and_ends_the_stream(name: str) -> None:
    content = event({"choices": [{"delta": {"content": "a"}}]})
    tap, passed = run([content, ERRORS[name], content])
    assert tap.error == {"message": "boom", "type": "server_error", "code": "x", "param": None}
    assert passed == [(content, 1, None)]
    assert (tap.content_events, tap.done, tap.whole) == (1, False, False)


@pytest.mark.parametrize("error", [None, "", False, {}, []])
def test_an_empty_error_member_is_no_error(error: object) -> None:
    tap, passed = run([event({"choices": [{"delta": {"content": "a"}}], "error": error})])
    assert tap.error is None
    assert len(passed) == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"nonsense",
        b"[]",
        b'"text"',
        b"1",
        b'{"choices":{"a":1}}',
        b'{"choices":[1]}',
        b'{"choices":"ab"}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":NaN}',
        b'{"a":1}{"b":2}',
    ],
)
def test_an_event_that_does_not_parse_is_dropped_and_counted(payload: bytes) -> None:
    content = event({"choices": [{"delta": {"content": "a"}}]})
    tap, passed = run([content, b"data: " + payload + b"\n\n", content])
    assert (tap.bad_events, tap.content_events, len(passed)) == (1, 2, 2)


def test_usage_too_deep_to_cut_drops_the_event() -> None:
    deep = b'data: {"usage":null,"choices":[{"delta":{"content":"a"}}],"x":' + b"[" * 90 + b"]" * 90 + b"}\n\n"
    assert (run([deep])[0].bad_events, run([deep])[0].content_events, run([deep])[1]) == (1, 0, [])
    assert run([deep], show="all")[1] == [(deep, 1, None)]


def test_an_event_in_several_data_lines_is_one_event() -> None:
    lines = b'data: {"choices":[{"delta":{"content":\r\ndata:"a"}}],\r\nid: 5\r\ndata: "usage":null}\r\n\r\n'
    tap, passed = run([lines, lines])
    assert tap.content_events == 2
    assert orjson.loads(data_of(passed[1][0]) or b"") == {"choices": [{"delta": {"content": "a"}}]}
    assert passed[1][0].startswith(b"id: 5\n")
    assert run([lines], show="all")[1] == [(lines, 1, None)]


def test_an_event_beyond_the_bound_is_refused_on_either_path() -> None:
    def content(text: str) -> bytes:
        return event({"choices": [{"delta": {"content": text}}]})

    bound = len(content("abcde"))
    tap = StreamTap(event_bytes_max=bound)
    assert [len(tap.feed(content(text))) for text in ("a", "abc", "abcde")] == [1, 1, 1]
    with pytest.raises(EventTooLarge):
        tap.feed(content("abcdef"))


FINAL = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}}
FINISH = {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("chunks", "flags"),
    [
        ([FINISH, FINAL], ()),
        ([FINISH, FINAL, FINAL], ("usage_doubled",)),
        ([FINISH, FINAL, FINAL | {"usage": {"completion_tokens": 6}}], ("usage_contradictory",)),
        ([FINISH | {"usage": {"completion_tokens": 6}}, FINAL], ("usage_contradictory",)),
        ([FINISH | {"usage": {"completion_tokens": 5}}, FINAL], ()),
        ([FINISH | {"usage": {"completion_tokens": count}} for count in (3, 2)], ("usage_decreasing",)),
    ],
)
def test_usage_that_contradicts_itself_is_flagged(chunks: list[dict[str, Any]], flags: tuple[str, ...]) -> None:
    assert run([event(chunk) for chunk in chunks])[0].usage_flags == flags


@pytest.mark.parametrize("tokens", [None, True, -1, 3.0, "3"])
def test_running_usage_that_is_no_count_moves_nothing(tokens: object) -> None:
    tap, _ = run([event({"choices": [{"delta": {"content": "a"}}], "usage": {"completion_tokens": tokens}})] * 3)
    assert tap.running_tokens is None
    assert tap.usage == {"completion_tokens": tokens}


def test_the_model_that_answered_is_known() -> None:
    assert run([STREAMS["llama.cpp"].raw])[0].model == "qwen3-0.6b"


class Counting:
    """orjson that counts."""

    JSONDecodeError = orjson.JSONDecodeError
    dumps = staticmethod(orjson.dumps)

    def __init__(self) -> None:
        self.loads_calls = 0

    def loads(self, raw: bytes) -> Any:
        self.loads_calls += 1
        return orjson.loads(raw)


@pytest.mark.parametrize("text", ["a", 'say "hi"\n', "你好 😀", '\\"},{"finish_reason":"stop"'])
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("place", ["content", "reasoning_content", "text", "arguments"])
def test_an_event_of_a_known_shape_is_not_parsed(
    monkeypatch: pytest.MonkeyPatch, place: str, ascii_only: bool, text: str
) -> None:
    def chunk(value: str) -> dict[str, Any]:
        if place == "text":
            return {"choices": [{"index": 0, "text": value}], "usage": None}
        call = {"tool_calls": [{"index": 0, "function": {"arguments": value}}]}
        return {"choices": [{"index": 0, "delta": call if place == "arguments" else {place: value}}], "usage": None}

    calls = Counting()
    monkeypatch.setattr(openai_stream, "orjson", calls)
    monkeypatch.setattr(openai_shape, "orjson", calls)
    tap = StreamTap()
    tap.feed(event(chunk("first"), ascii_only=ascii_only))
    learned = calls.loads_calls
    surrogates = ascii_only and "😀" in text
    for _ in range(10):
        tap.feed(event(chunk(text), ascii_only=ascii_only) * 2)
        tap.feed(event(chunk(text), ascii_only=ascii_only))
    assert (calls.loads_calls > learned) is surrogates
    assert tap.content_events == 31


def test_four_shapes_at_once_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Counting()
    monkeypatch.setattr(openai_stream, "orjson", calls)
    tap = StreamTap(choices=4)
    for turn in range(40):
        tap.feed(event({"choices": [{"index": turn % 4, "delta": {"content": str(turn)}}]}))
    assert calls.loads_calls == 4
    assert tap.content_events == 40


def test_shapes_that_never_fit_are_learned_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []
    monkeypatch.setattr(openai_stream, "learn", lambda *_: learned.append(1))
    tap = StreamTap()
    for turn in range(1000):
        tap.feed(event({"choices": [{"delta": {"content": "a"}}], "obfuscation": str(turn)}))
    assert tap.content_events == 1000
    assert len(learned) < 40


def test_a_text_that_stands_in_other_places_too_is_found_in_the_right_one() -> None:
    stream = [
        event(
            {"id": "a", "content": "a", "choices": [{"a": "a", "delta": {"role": "a", "content": text}}], "usage": "a"}
        )
        for text in ("a", "b", "", "c")
    ]
    tap, passed = run(stream)
    assert tap.content_events == 3
    assert [orjson.loads(data_of(data) or b"")["choices"][0]["delta"]["content"] for data, _, _ in passed] == [
        "a",
        "b",
        "",
        "c",
    ]


def test_a_read_that_ends_a_held_event_is_not_taken_for_a_whole_one() -> None:
    known = event({"choices": [{"delta": {"content": "a"}}]})
    _, passed = run([known, b": note\n", known, known])
    assert [data for data, _, _ in passed] == [known, b": note\n" + known, known]


def test_a_text_like_the_one_put_in_for_learning_changes_nothing() -> None:
    for own in ("~a~text~of~tokenport~", "a~a~text~of~tokenport~b"):
        stream = [
            event({"id": own, "choices": [{"delta": {"content": text}}], "usage": None, "x": own})
            for text in ("first", own, "third")
        ]
        _, passed = run(stream)
        assert [orjson.loads(data_of(data) or b"")["choices"][0]["delta"]["content"] for data, _, _ in passed] == [
            "first",
            own,
            "third",
        ]


def test_choices_that_share_an_event_are_read_as_a_parser_reads_them() -> None:
    content, reasoning = {"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"reasoning": "b"}}
    both = {"index": 0, "delta": {"content": "a", "reasoning_content": "b"}}
    for choices in ([content, reasoning], [both], [content, content]):
        raw = event({"choices": choices}) * 3
        agrees_with_a_parse(raw, [raw], 2, "none")
        assert run([raw])[0].content_events == 3


SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")])
ENDS = st.sampled_from(["\n", "\n", "\r\n", "\r"])
PLACES = ["content", "reasoning_content", "reasoning", "text", "arguments", "refusal"]
ABSENT: Any = object()
RUNNING: Any = {"prompt_tokens": 3, "x": '"}]} "usage"'}
NEGATIVE = {"completion_tokens": -1}


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, int]:
    """A backend that keeps to one way of writing, but for what changes from event to event."""
    choices = draw(st.sampled_from([1, 1, 1, 2]))
    order = draw(st.permutations(["id", "created", "model", "choices", "usage", "obfuscation"]))
    inner = draw(st.permutations(["index", "delta", "text", "logprobs", "finish_reason"]))
    separators, ascii_only = draw(SEPARATORS), draw(st.booleans())
    prefix, end = draw(st.sampled_from(["data: ", "data: ", "data:", "id: 1\ndata: "])), draw(ENDS)
    usages: list[Any] = draw(
        st.sampled_from([[ABSENT], [None], [RUNNING], [RUNNING], [ABSENT, None, RUNNING, 3, NEGATIVE]])
    )
    varying = draw(st.sampled_from([(), (), (), ("created",), ("obfuscation",)]))
    places = [draw(st.sampled_from(PLACES))] * 12 + PLACES
    kinds = ["text"] * 24 + ["role", "finish", "usage", "comment", "bad", "error", "done"]

    def write(chunk: dict[str, Any]) -> bytes:
        text = json.dumps(chunk, separators=separators, ensure_ascii=ascii_only)
        return (prefix + text + end + end).encode()

    def chunk(kind: str, count: int) -> dict[str, Any]:
        text = draw(TEXT) or "a" if kind == "text" else ""
        finish = draw(st.sampled_from(["stop", "length"])) if kind == "finish" else None
        choice = {"index": draw(st.integers(0, choices - 1)), "logprobs": None, "finish_reason": finish}
        choice |= _carrying(draw(st.sampled_from(places)), text)
        fields = {
            "id": "c1",
            "created": 1,
            "model": "m",
            "choices": [{key: choice[key] for key in inner if key in choice}],
        }
        usage = draw(st.sampled_from(usages))
        if usage is not ABSENT:
            fields["usage"] = usage | {"completion_tokens": count} if usage is RUNNING else usage
        fields |= dict.fromkeys(varying, count)
        if kind == "usage":
            fields |= {"choices": [], "usage": {"completion_tokens": count}}
        return (
            {"error": {"message": "boom"}} if kind == "error" else {key: fields[key] for key in order if key in fields}
        )

    parts = []
    for count in range(1, draw(st.integers(4, 16))):
        kind = draw(st.sampled_from(kinds))
        whole = write(chunk(kind, count))
        others = {"comment": f": ping{end}{end}", "done": f"data: [DONE]{end}{end}"}
        parts.append(others[kind].encode() if kind in others else whole[:-9] + whole[-2:] if kind == "bad" else whole)
    return b"".join(parts), choices


def _carrying(place: str, text: str) -> dict[str, Any]:
    if place == "text":
        return {"text": text, "delta": None}
    if place == "arguments":
        return {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": text}}] if text else []}}
    return {"delta": {"role": "assistant", place: text}}


@settings(max_examples=400)
@given(streams(), st.data(), st.sampled_from(SHOWS))
def test_any_stream_is_read_as_a_parser_reads_it(stream: tuple[bytes, int], data: st.DataObject, show: Show) -> None:
    raw, choices = stream
    agrees_with_a_parse(raw, data.draw(reads(raw)), choices, show)


FRAGMENTS = [
    b'"',
    b"\\",
    b'\\"',
    b"\\\\",
    b"\\n",
    b"\\x",
    b"\\u00e9",
    b"\\ud83d\\ude00",
    b"\\ud800",
    b"\\uD7FF",
    b"\\u0000",
]
FRAGMENTS += [
    b"\n",
    b"\r",
    b"\t",
    b"\x00",
    b"\x7f",
    b"\xff",
    b"\xc3\xa9",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"\xc0\x80",
]
FRAGMENTS += [
    b"a",
    b" ",
    b"{",
    b"}",
    b"]",
    b",",
    b":",
    b'","role":"x',
    b'"},"finish_reason":"stop","x":{"y":"',
    b"null",
    b"1",
]
FRAGMENTS += [
    b'"}}],"usage":null}\n\ndata: {"choices":[{"delta":{"content":"',
    b'"}}],"usage":{"completion_tokens":',
    b"}",
    b'{"a":1}',
    b'{"a":\n1}',
    b'{"a":\r1}',
]
JUNK = st.lists(st.sampled_from(FRAGMENTS), max_size=5).map(b"".join)
SHAPES = [
    b'data: {"choices":[{"delta":{"content":"@"}}],"usage":null}\n\n',
    b'data: {"usage":null, "choices":[{"finish_reason":null, "delta":{"role":"a", "content":"@"}}]}\r\n\r\n',
    b'data: {"choices":[{"index":0,"text":"@"}]}\n\n',
    b'data: {"choices":[{"delta":{"reasoning":"@","content":""},"index":0}],"usage":{"completion_tokens":#}}\n\n',
    b'data: {"choices":[{"delta":{"content":"@"}}],"usage":#,"x":{}}\n\n',
]


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_a_line_end_inside_the_usage_breaks_the_event(line_end: bytes) -> None:
    known = SHAPES[3].replace(b"@", b"a").replace(b"#", b"1")
    broken = known.replace(b":1}", b":" + line_end + b"1}")
    tap, passed = run([known, broken, known])
    assert (tap.bad_events, tap.content_events, len(passed)) == (1, 2, 2)
    agrees_with_a_parse(known + broken + known, [known, broken + known], 1, "none")


@settings(max_examples=600)
@given(st.sampled_from(SHAPES), JUNK, JUNK, st.sampled_from(SHOWS))
def test_bytes_that_only_look_like_a_known_shape_are_read_as_a_parser_reads_them(
    shape: bytes, text: bytes, usage: bytes, show: Show
) -> None:
    known = shape.replace(b"@", b"first").replace(b":#}", b":1}").replace(b"#", b'{"completion_tokens":1}')
    event = shape.replace(b"@", text).replace(b"#", usage)
    for parts in ([known, event, known], [known, known + event, event]):
        agrees_with_a_parse(b"".join(parts), parts, 1, show)


@settings(max_examples=400)
@given(streams(), st.data(), st.sampled_from(SHOWS))
def test_a_damaged_stream_is_read_as_a_parser_reads_it(
    stream: tuple[bytes, int], data: st.DataObject, show: Show
) -> None:
    raw, choices = bytearray(stream[0]), stream[1]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from([b"", b'"', b"\\", b"\n", b"\r", b"{", b"}", b",", b"\xff", b"\x00", b"1", b"\xc3\xa9"])
        )
    damaged = bytes(raw)
    agrees_with_a_parse(damaged, data.draw(reads(damaged)), choices, show)


@settings(max_examples=200)
@given(streams(), st.data(), st.sampled_from(SHOWS))
def test_any_split_gives_the_same_events(stream: tuple[bytes, int], data: st.DataObject, show: Show) -> None:
    raw, choices = stream
    whole, split = run([raw], choices, show), run(data.draw(reads(raw)), choices, show)
    assert (state(whole[0]), whole[1]) == (state(split[0]), split[1])
